"""Stores by their address, through fsspec: which one an address means, and asking it again when it fails.

An address of s3, gs, az, hf, memory or http is the place alone; one of ftp, sftp, hdfs, webhdfs, smb or github begins
with a host, a user or a repository.
"""

import random
import sys
import threading
import time
import traceback
from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeVar

from pipeline.errors import DataError, UsageError, first_line
from pipeline.secrets import masked

Result = TypeVar("Result")

_ATTEMPTS = 5
# These say something about the place, not about the moment: asking again cannot help.
_PERMANENT = (FileNotFoundError, FileExistsError, PermissionError, IsADirectoryError, NotADirectoryError)
_ARCHIVES = ("zip", "tar", "libarchive")


class StoreError(DataError, OSError):
    """A disk or a store that does not do what it should; trying again later may help."""


def open_store(uri: str) -> tuple[Any, str]:
    """(fsspec file system, path in it) of a URI. Raises UsageError for an address that no store has, StoreError when
    its store does not answer.
    """
    scheme = uri.partition("://")[0]
    if scheme in _ARCHIVES or "::" in uri:
        raise UsageError(
            f"{masked(uri)} is a place inside another one, which is not read in place. Unpack it, and name the folder; "
            f"a plain .tar is named as it is."
        )
    kind = _kind(scheme)
    try:
        options = kind._get_kwargs_from_urls(uri)
        path = kind._strip_protocol(uri)
        # An asynchronous one serves all threads; of others each thread has its own, as most hold one connection.
        thread = 0 if kind.async_impl else threading.get_ident()
        return _store(scheme, tuple(sorted(options.items())), thread), path
    except (ImportError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(
            f"cannot open {masked(uri)}: {masked(str(error))}. The address must hold what its store needs, such as the "
            f"host in ftp://HOST/FOLDER and hdfs://HOST:PORT/FOLDER."
        ) from None
    except Exception as error:  # each store has its own kinds: no host, no library of Java, a refused login
        raise StoreError(
            f"cannot open {masked(uri)}: {masked(first_line(error))[:300]}. Check the address, the credentials and the "
            f"network, or copy the files to a disk."
        ) from None


@lru_cache(maxsize=64)
def _kind(scheme: str) -> Any:
    import fsspec  # a local run never needs it, and it takes its time to load

    try:
        return fsspec.get_filesystem_class(scheme)
    except (ImportError, ValueError) as error:
        raise UsageError(
            f"cannot open {scheme}:// places: {error}. Install what fsspec names for this scheme "
            f"(for s3: pip install 'focusvit[s3]'), or use a local path."
        ) from None


@lru_cache(maxsize=256)
def _store(scheme: str, options: tuple[tuple[str, Any], ...], thread: int) -> Any:
    # That of ftp prints a traceback when it goes without ever having been connected.
    hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
    try:
        # A listing that was right a minute ago must not decide whether a shard is finished.
        return _kind(scheme)(use_listings_cache=False, **dict(options))
    except Exception as error:
        traceback.clear_frames(error.__traceback__)  # lets go of what is half made
        raise
    finally:
        sys.unraisablehook = hook


def ask(uri: str, action: Callable[[Any, str], Result]) -> Result:
    """What `action` makes of the store and the path of a URI, asked again after an error that may pass. Raises as
    `open_store`, StoreError with the place in its text, UsageError when a store of this kind cannot do it at all.
    """
    store, path = open_store(uri)
    for attempt in range(_ATTEMPTS):
        try:
            return action(store, path)
        except NotImplementedError:
            raise UsageError(
                f"{masked(uri)} is in a store that cannot be written or listed so. Name a folder of another one."
            ) from None
        except (*_PERMANENT, TypeError, ValueError, AttributeError):
            raise
        except Exception as error:  # each store has its own kinds for lost connections and busy servers
            if attempt == _ATTEMPTS - 1:
                raise StoreError(
                    f"{uri}: {error} (tried {_ATTEMPTS} times). Check the address, the credentials and the network."
                ) from error
            time.sleep(0.2 * 2**attempt * (0.5 + random.random()))
    raise AssertionError("unreachable")
