"""What this machine can reach: the MLflow store, the Ray head, and paths that other nodes would read differently."""

import os
import sqlite3
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cluster.connection import connect, jobs_url
from focusvit.runs.store import check_reachable
from pipeline.errors import UsageError
from pipeline.io import storage
from pipeline.secrets import masked

from .finding import Finding, broken, ok, warning

TIMEOUT_S = 5.0
STORE_EXTRAS = {"s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "hf": "huggingface_hub"}


def check_tracking(uri: str, num_nodes: int = 1) -> list[Finding]:
    """The MLflow store at `uri`: of a kind that works, reachable, writable, and right for `num_nodes` nodes."""
    scheme = urlsplit(uri).scheme
    if scheme in ("http", "https"):
        return check_tracking_server(uri)
    if scheme == "sqlite":
        return check_sqlite(uri, num_nodes)
    if scheme in ("", "file"):
        fix = (
            "use sqlite:////absolute/path/mlflow.db or a server; old runs move with "
            "`mlflow migrate-filestore --source mlruns --target sqlite:////absolute/path/mlflow.db`"
        )
        return [broken("tracking", f"{uri} is a file store, which MLflow 3 refuses", fix)]
    return [_refused(uri) or ok("tracking", f"{masked(uri)} answers")]


def check_sqlite(uri: str, num_nodes: int = 1) -> list[Finding]:
    path = Path(uri.removeprefix("sqlite:///"))
    if not path.is_absolute():
        fix = f"write sqlite:///{path.absolute()} (four slashes in all)"
        said = f"{uri} is relative: another folder means another store, and workers run elsewhere"
        return [broken("tracking", said, fix)]
    if num_nodes > 1:
        fix = "start `mlflow server` on one node and set MLFLOW_TRACKING_URI=http://NODE:5000 (cluster/README.md)"
        return [broken("tracking", f"{uri} is one file on one node, and the cluster has {num_nodes} nodes", fix)]
    if refused := _refused(uri):
        return [refused]
    if not path.exists():
        return [ok("tracking", f"{uri} will be made by the first run")]
    with sqlite3.connect(path, timeout=TIMEOUT_S) as connection:
        found = connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'experiments'").fetchone()
    if found == (0,) and path.stat().st_size > 0:
        return [broken("tracking", f"{path} is a database, but not MLflow's", "name another file")]
    return [ok("tracking", f"{uri} is writable")]


def _refused(uri: str) -> Finding | None:
    """What a run would be told about the store at its start."""
    try:
        check_reachable(uri)
    except UsageError as error:
        what, _, fix = str(error).partition(". ")
        return broken("tracking", what, fix)
    return None


def check_tracking_server(uri: str) -> list[Finding]:
    """Ask an MLflow server what a run would: read an experiment, then write a tag."""
    import requests

    shown, base = masked(uri), uri.rstrip("/")
    host = urlsplit(uri).netloc.rsplit("@", 1)[-1]
    options: dict[str, Any] = {"timeout": TIMEOUT_S}
    if "MLFLOW_TRACKING_USERNAME" in os.environ:
        options["auth"] = os.environ["MLFLOW_TRACKING_USERNAME"], os.environ.get("MLFLOW_TRACKING_PASSWORD", "")
    try:
        healthy = requests.get(f"{base}/health", **options)
        # Read and write share their refusals: the security layer and the users' rights.
        read = requests.get(f"{base}/api/2.0/mlflow/experiments/search", params={"max_results": 1}, **options)
    except requests.exceptions.RequestException as error:
        reason = "no answer in time" if isinstance(error, requests.exceptions.Timeout) else "nothing answers"
        fix = "start it (`mlflow server`), or correct MLFLOW_TRACKING_URI; a job asks from inside the cluster"
        return [broken("tracking", f"{shown}: {reason}", fix)]
    if healthy.status_code == 404:
        fix = "name MLflow's address, usually port 5000"
        return [broken("tracking", f"{shown} answers, but is no MLflow server", fix)]
    if read.status_code == 403 and "Host header" in read.text:
        name = urlsplit(uri).hostname
        fix = f'start it with --allowed-hosts "{name},{name}:*" (MLflow compares host and port)'
        return [broken("tracking", f"{shown} refuses the host name {host}: {read.text.strip()[:80]}", fix)]
    if read.status_code in (401, 403):
        fix = "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD of a user of that server"
        return [broken("tracking", f"{shown} asks for a user and password (HTTP {read.status_code})", fix)]
    if read.status_code != 200:
        fix = "look into the server's own log; its database may be older than its MLflow (`mlflow db upgrade URI`)"
        return [broken("tracking", f"{shown} answers HTTP {read.status_code}: {read.text.strip()[:120]}", fix)]
    body = {"experiment_id": "0", "key": "mlflow.focusvit.doctor", "value": "was here"}
    wrote = requests.post(f"{base}/api/2.0/mlflow/experiments/set-experiment-tag", json=body, **options)
    if wrote.status_code == 403:  # a fresh user may read the default experiment and write only to its own
        return [ok("tracking", f"{shown} is reachable; this user may not write to the Default experiment")]
    if wrote.status_code not in (200, 404):  # 404: somebody deleted the default experiment
        fix = "look into the server's own log: its disk may be full, or its database read-only"
        return [broken("tracking", f"{shown} cannot be written: {wrote.text.strip()[:120]}", fix)]
    return [ok("tracking", f"{shown} is reachable and writable")]


def check_path(name: str, place: str) -> Finding:
    """One path or URI that a run would use: does it mean the same on another node?"""
    check = f"path {name}" if name else "path"
    if place.startswith("~"):
        return broken(check, f"{place}: only a shell expands ~", f"write {Path(place).expanduser()}")
    if place.startswith("file:"):
        fix = "write the absolute path without file://, on a disk that every node mounts"
        return warning(check, f"{place} is a file of each node's own disk", fix)
    if storage.is_local(place):
        if not Path(place).is_absolute():
            found = f"{place} is relative: Ray runs workers and jobs in folders of their own"
            return broken(check, found, f"write {Path(place).absolute()}")
        if not Path(place).exists():
            fix = "mount the same folder at the same path on every node, or use an s3:// or gs:// URI"
            return warning(check, f"{place} does not exist on this machine", fix)
        return ok(check, f"{place} exists here; other nodes must mount it at the same path")
    package = STORE_EXTRAS.get(place.split("://", 1)[0])
    if package and find_spec(package) is None:
        found = f"{place} needs {package}, which is not installed"
        return broken(check, found, f"pip install {package}, on every node")
    try:
        is_there = storage.exists(place)
    except Exception as error:  # every store has its own classes of refusal
        fix = "check address, credentials and region of the store"
        return broken(check, f"{place}: {type(error).__name__}: {error}", fix)
    return ok(check, f"{place} is reachable and {'exists' if is_there else 'does not exist yet'}")


def check_head(address: str) -> list[Finding]:
    """The job server of a Ray head: reachable, the right token, a Ray that fits, how many jobs it knows."""
    try:
        client = connect(address)
    except UsageError as error:
        what, _, fix = str(error).partition(". ")
        return [broken("ray head", what, fix or "see cluster/TROUBLESHOOTING.md")]
    found = f"{jobs_url(address)} runs Ray {client._server_ray_version}, {len(client.list_jobs())} jobs"
    return [ok("ray head", found)]
