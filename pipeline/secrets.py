"""The one function that takes secrets out of text: whatever is shown, logged or stored goes through `masked`."""

import re
from typing import Any

HIDDEN = "***"
_ADDRESS = re.compile(r"(?P<scheme>[A-Za-z][\w+.-]*)://(?P<info>[^\s'\"<>|]*)@")
_PORT = re.compile(r"\d{1,5}([/?#]|$)")
_WEB = ("http", "https", "git", "ws", "wss")
_LONG = (
    r"[\w.-]*?(?:token|signature|passw(?:or)?d|passphrase|pwd|secret|api[_-]?key|access[_-]?key(?:[_-]?id)?|"
    r"account[_-]?key|credentials?)"
)
_VALUE = r"(?P<value>[^&;\s'\"<>,)}\]#]+)"
# In a query or a connection string any usual name of a secret; in plain text only those that mean nothing else.
_QUERY = re.compile(rf"(?P<name>(?:[?&;]|%3B|%26)(?:{_LONG}|sig|key|auth|pass|sas)(?:=|%3D)){_VALUE}", re.IGNORECASE)
_WORD = re.compile(rf"(?P<name>(?:^|(?<=[\s,('\"{{]))(?:{_LONG})=['\"]?){_VALUE}", re.IGNORECASE)
_ITEM = re.compile(rf"(?P<name>['\"](?:{_LONG})['\"]\s*:\s*['\"])(?P<value>[^'\"]+)", re.IGNORECASE)
_HEADER = re.compile(
    r"(?P<name>authorization['\"]?\s*[:=]\s*['\"]?(?:basic |bearer |token )?)(?P<value>[^\s'\",]+)", re.I
)
_HINT = re.compile(r"://|token|sig|passw|passp|pwd|secret|key|credential|authoriz", re.IGNORECASE)


def masked(text: str) -> str:
    """`text` with *** for every secret in it: passwords of addresses of any scheme, tokens and signatures of queries,
    passwords of connection strings, authorization headers. An address alone is a text too."""
    if not _HINT.search(text):
        return text
    text = _ADDRESS.sub(_without_password, text)
    for pattern in (_QUERY, _WORD, _ITEM, _HEADER):
        text = pattern.sub(rf"\g<name>{HIDDEN}", text)
    return text


def masked_values(value: Any) -> Any:
    """The same for all texts in a document of dicts and lists."""
    if isinstance(value, dict):
        return {key: masked_values(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [masked_values(item) for item in value]
    return masked(value) if isinstance(value, str) else value


def has_secret(text: str) -> bool:
    return masked(text) != text


def _without_password(match: re.Match[str]) -> str:
    """user:*** of the part between :// and @. That is greedy: a password may hold @ and /, as database addresses do."""
    scheme, info = match["scheme"], match["info"]
    if scheme.lower() == "github":  # owner:repository
        return match[0]
    user, colon, password = info.partition(":")
    is_web = scheme.lower() in _WEB
    if "/" in user or "?" in user or (is_web and _PORT.match(password)):  # the @ stands in a path
        return match[0]
    if not colon:  # a container of a store, the user of ssh; on the web a token stands there
        return f"{scheme}://{HIDDEN}@" if is_web else match[0]
    return f"{scheme}://{user}:{HIDDEN}@"


class MaskedStream:
    """A text stream that writes to another one without secrets, and is that other one in everything else."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        self._stream.write(masked(text))
        return len(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
