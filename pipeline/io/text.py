"""Small text files that people write: lists of classes, labels and checksums."""

from pipeline.errors import DataError, UsageError

from . import storage


def read_text(uri: str) -> str:
    """As `decode_text`. Raises UsageError as well when the file cannot be read; FileNotFoundError when it is absent."""
    try:
        return decode_text(storage.read_bytes(uri), uri)
    except (FileNotFoundError, DataError):
        raise
    except OSError as error:
        raise UsageError(f"{uri} may not be read by this user ({error.strerror or error}). Allow it.") from None


def decode_text(data: bytes, place: str) -> str:
    """UTF-8 with or without the mark that spreadsheets put first. Raises UsageError with the byte that is not."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{place} is not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8.") from None
