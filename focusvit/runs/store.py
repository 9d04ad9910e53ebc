"""The place where MLflow keeps runs: which one, whether it can be used right now, and its first database.

With `tracker` and `pyfunc` this is all that knows MLflow.
"""

import base64
import functools
import http.client
import logging
import os
import shutil
import socket
import sqlite3
import urllib.error
import urllib.request
import uuid
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from pipeline.errors import UsageError
from pipeline.io import storage
from pipeline.secrets import masked

USERNAME, PASSWORD = "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"
_SQLITE = "sqlite:///"
_WEB = ("http://", "https://")
_MIN_FREE_BYTES = 8 * 2**20  # MLflow makes a fresh database of 1 MB and writes it twice on the way; pictures follow
_TIMEOUT_S = 5.0
_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
_OTHER = "name another with --tracking-uri (or MLFLOW_TRACKING_URI)"


def default_tracking_uri(option: str | None = None) -> str:
    """The store to use: `option`, else MLFLOW_TRACKING_URI, else sqlite in `mlflow.db` of the current folder.

    A relative sqlite path is made absolute, since other processes have other current folders; user and password of a
    server leave the address (`signed_in`). Raises `UsageError` for a plain folder: MLflow 3 no longer writes to those.
    """
    uri = option or os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"
    if uri.startswith(_SQLITE):
        return f"{_SQLITE}{Path(uri.removeprefix(_SQLITE)).absolute()}"
    if "://" not in uri or uri.startswith("file:"):
        raise UsageError(
            f"The tracking URI '{uri}' is a folder, and MLflow no longer writes runs to folders. "
            f"Use a database file (sqlite:///{uri.removeprefix('file:').rstrip('/')}/mlflow.db) or a server (http://host:5000)."
        )
    return signed_in(uri) if uri.startswith(_WEB) else uri


def signed_in(uri: str) -> str:
    """The address of a server without its user and password. They go to the variables of which MLflow makes the header
    of its requests, so that no file, message or process list holds them. Raises UsageError for a broken address."""
    try:
        parts = urlsplit(uri)
        named, _ = parts.hostname, parts.port  # both are checked when they are asked for
    except ValueError:
        named, parts = None, None
    if parts is None or not named:
        raise UsageError(
            f"The tracking URI {uri} is no address of a server. Write http://HOST:5000; in a user or password, "
            "characters such as / @ : # are written as %2F %40 %3A %23."
        )
    if parts.username is not None:
        os.environ[USERNAME] = unquote(parts.username)
        os.environ[PASSWORD] = unquote(parts.password or "")
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def check_reachable(uri: str, timeout_s: float = _TIMEOUT_S) -> None:
    """Raise `UsageError` unless the tracking store can be used right now."""
    if uri.startswith(_SQLITE):
        _check_file(uri)
    elif uri.startswith(_WEB):
        _check_server(uri, timeout_s)
    else:
        _check_database(uri, timeout_s)


def _check_server(uri: str, timeout_s: float) -> None:
    request = urllib.request.Request(f"{signed_in(uri).rstrip('/')}/health")
    if USERNAME in os.environ:
        pair = f"{os.environ[USERNAME]}:{os.environ.get(PASSWORD, '')}"
        request.add_header("Authorization", f"Basic {base64.b64encode(pair.encode()).decode()}")
    try:
        urllib.request.urlopen(request, timeout=timeout_s).close()
    except urllib.error.HTTPError as error:
        if error.code >= 500:
            raise UsageError(f"The tracking server {uri} answers with error {error.code}. Look at its log.") from None
    except (OSError, http.client.HTTPException) as error:
        raise UsageError(
            f"The tracking server {uri} does not answer ({getattr(error, 'reason', error)}). Start it, correct "
            "--tracking-uri (or MLFLOW_TRACKING_URI), or leave both out to write to a local database file."
        ) from None


def _check_file(uri: str) -> None:
    path = Path(uri.removeprefix(_SQLITE))
    folder = path.parent
    if not os.access(folder, os.W_OK):
        raise UsageError(f"The tracking store {uri} cannot be written: {folder} is missing or read-only. Make it.")
    if (free := shutil.disk_usage(folder).free) < _MIN_FREE_BYTES:
        raise UsageError(
            f"The tracking store {uri} cannot grow: {free / 1e6:.1f} MB are free on the disk of {folder}. Make "
            f"room there, or {_OTHER}."
        )
    if not path.exists():
        return
    try:
        # By URI: a file that is missing by now is not made.
        connection = sqlite3.connect(f"{path.as_uri()}?mode=rw", timeout=_TIMEOUT_S, uri=True)
        try:
            connection.execute("BEGIN IMMEDIATE")  # takes the write lock and changes nothing
            connection.rollback()
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise refused(uri, error) from None


def _check_database(uri: str, timeout_s: float) -> None:
    """Left to itself, MLflow would try a database that is not there for minutes."""
    import sqlalchemy

    try:
        address = sqlalchemy.make_url(uri)
        port = address.port or _PORTS.get(address.get_backend_name())
        engine = sqlalchemy.create_engine(address)  # imports the driver
        if address.host and port:
            socket.create_connection((address.host, port), timeout=timeout_s).close()
        engine.connect().close()
        engine.dispose()
    except (sqlalchemy.exc.SQLAlchemyError, ImportError, OSError, ValueError) as error:
        raise refused(uri, error) from None


def refused(uri: str, error: Exception, what: str = "cannot be used") -> UsageError:
    """The one paragraph for whatever a store of any kind answers."""
    text = masked(str(getattr(error, "orig", None) or error)).strip() or type(error).__name__
    reason = text.splitlines()[0][:200]
    if isinstance(error, ImportError):
        fix = f"Install the driver that it names (for example pip install {error.name or 'psycopg2-binary'})"
    elif "NoSuchModule" in type(error).__name__ or "Unsupported" in type(error).__name__:
        fix = "Use sqlite:////path/mlflow.db, a server (http://HOST:5000), or a database that SQLAlchemy knows"
    elif "locked" in reason:
        fix = "Another program holds the database: end it, wait for it, or keep the file off a network disk"
    elif "not a database" in reason:
        fix = "The file is of another kind: move it away"
    elif "out-of-date database schema" in reason:
        fix = "It was made by another version of MLflow: make a copy of it, then run `mlflow db upgrade` on it"
    else:
        fix = "Check its address, that it runs, and your access to it"
    return UsageError(f"The tracking store {uri} {what} ({reason}). {fix}, or {_OTHER}.")


@functools.cache
def _client_settings() -> None:
    # A dead server must be given up in seconds, not minutes: the shipper tries again by itself.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    import mlflow  # noqa: F401 - sets its own levels

    logging.getLogger("mlflow").setLevel(logging.WARNING)  # table set-up and the like is no news
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # tracebacks of what `refused` says
    logging.getLogger("alembic").setLevel(logging.WARNING)


def open_client(uri: str) -> Any:
    """MLflow's client of a store, which gets its tables first where it has none. Raises MLflow's own errors."""
    _client_settings()
    if uri.startswith(_SQLITE):
        _make_database(uri)
    import mlflow

    return mlflow.MlflowClient(tracking_uri=uri)


def has_run(uri: str, run_id: str) -> bool:
    """Whether a store has a run of this id. Raises `UsageError` when it does not tell."""
    try:
        open_client(uri).get_run(run_id)
    except Exception as error:  # of MLflow, of its database library, of a driver
        if getattr(error, "error_code", "") == "RESOURCE_DOES_NOT_EXIST":
            return False
        raise refused(uri, error) from error
    return True


def _make_database(uri: str) -> None:
    """A new database comes whole or not at all: several first runs at once, or a kill meanwhile, would leave tables
    without their versions, which MLflow refuses for good."""
    path = Path(uri.removeprefix(_SQLITE))
    with storage.locked(str(path.parent)):
        if path.exists() and path.stat().st_size:
            return
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}{storage.TEMPORARY_SUFFIX}")
        try:
            SqlAlchemyStore(f"{_SQLITE}{temporary}", artifact_root(uri))._dispose_engine()
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def artifact_root(uri: str) -> str | None:
    """Where a local store keeps pictures and models: next to its database, wherever the command was started."""
    return (Path(uri.removeprefix(_SQLITE)).parent / "mlartifacts").as_uri() if uri.startswith(_SQLITE) else None
