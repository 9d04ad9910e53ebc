"""Lists of checksums: what the bytes of each source image must be."""

import re

from pipeline.errors import UsageError
from pipeline.io.text import read_text

_LINE = re.compile(r"([0-9a-fA-F]{64})[ \t]+\*?(.+)")


def read_checksums(uri: str) -> dict[str, str]:
    """sha256 (lower-case hex) by source id, from the lines of `sha256sum`. Raises UsageError that names the line."""
    try:
        text = read_text(uri)
    except (FileNotFoundError, UsageError) as error:
        raise UsageError(f"cannot read the checksums {uri}: {error} --checksums names a text file.") from None
    found = {}
    for number, line in enumerate(text.splitlines(), 1):
        match = _LINE.fullmatch(line.rstrip())
        if match:
            found[match[2].removeprefix("./")] = match[1].lower()
        elif line.strip() and not line.startswith("#"):
            raise UsageError(
                f"line {number} of the checksums {uri} is '{line[:80]}', not a sha256 and a name. "
                f"Make the file in the source folder with: find . -type f -print0 | xargs -0 sha256sum"
            )
    if not found:
        raise UsageError(f"the checksums {uri} hold no line of a sha256 and a name.")
    return found
