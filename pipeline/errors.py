"""The two ways a command can refuse. Both carry one paragraph: the value seen, the place, and what to change."""


class UsageError(Exception):
    """The request itself is wrong (a path, a name, a combination of settings). The command exits with 2."""


class DataError(Exception):
    """The request is fine and the data is not (an unreadable image, a damaged shard). The command exits with 1."""


def first_line(error: BaseException) -> str:
    """What an error of another library says first: one line for a sentence of ours, without its full stop."""
    return _lines(error)[0][:300].rstrip(".")


def last_line(error: BaseException) -> str:
    """The same of its last line, where an error that crossed a process says what happened."""
    return _lines(error)[-1].strip()[:300].rstrip(".")


def _lines(error: BaseException) -> list[str]:
    return str(error).strip().splitlines() or [type(error).__name__]  # many errors have no text
