"""The two ways a command can refuse. Both carry one paragraph: the value seen, the place, and what to change.

Their text is without secrets from the start: it is printed, logged, kept in files and sent to the tracking store.
"""

import difflib
from collections.abc import Iterable

from pipeline.secrets import masked


class _MaskedError(Exception):
    def __init__(self, text: str = "") -> None:
        super().__init__(masked(text))


class UsageError(_MaskedError):
    """The request itself is wrong (a path, a name, a combination of settings). The command exits with 2."""


class DataError(_MaskedError):
    """The request is fine and the data is not (an unreadable image, a damaged shard). The command exits with 1."""


def first_line(error: BaseException) -> str:
    """What an error of another library says first: one line for a sentence of ours, without its full stop."""
    return _lines(error)[0][:300].rstrip(".")


def last_line(error: BaseException | str) -> str:
    """The same of its last line, where an error that crossed a process says what happened, or a program its end."""
    return _lines(error)[-1].strip()[:300].rstrip(".")


def _lines(error: BaseException | str) -> list[str]:
    return masked(str(error)).strip().splitlines() or [type(error).__name__]  # many errors have no text


def shorten(names: list[str], limit: int = 5) -> str:
    """The first names of a list, for a message."""
    text = ", ".join(names[:limit]) or "none"
    return f"{text}, ... ({len(names)} in all)" if len(names) > limit else text


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """For 'pretrian' the sentence that asks for 'pretrain', after a blank; empty when nothing known is near."""
    names = {name.lower().replace("_", "-"): name for name in known}
    near = difflib.get_close_matches(word.lower().replace("_", "-"), names, n=1, cutoff=0.7)
    return f" Did you mean '{names[near[0]]}'?" if near else ""
