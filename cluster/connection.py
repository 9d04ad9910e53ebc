"""The door of a Ray cluster: its job server (the dashboard's address), with every refusal said in one paragraph."""

import logging
import os
import re
import socket
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pipeline.errors import UsageError, first_line

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

ADDRESS_VARIABLE = "RAY_API_SERVER_ADDRESS"  # Ray's own name for it, so `ray job` and focusvit agree
CONNECT_TIMEOUT_S = 5.0
TOKEN_HELP = (
    "Ray looks for the token in RAY_AUTH_TOKEN, in the file that RAY_AUTH_TOKEN_PATH names, and in ~/.ray/auth_token; "
    "copy the one that the head was started with"
)


def jobs_url(address: str | None) -> str:
    """`http(s)://host:port` of the job server. Raises UsageError for what cannot be one."""
    given = address or os.environ.get(ADDRESS_VARIABLE, "")
    if not given:
        raise UsageError(
            "no cluster named: give --jobs-address http://HEAD:8265 (the dashboard that `ray start --head` prints), "
            f"or set {ADDRESS_VARIABLE}."
        )
    url = given if "://" in given else f"http://{given}"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise UsageError(f"--jobs-address {given}: {error}. Write http://HEAD:8265.") from None
    if parts.scheme == "ray":
        raise UsageError(
            f"--jobs-address {given} is the port of Ray Client. Jobs go to the dashboard: http://{host}:8265 unless "
            "the head was started with another --dashboard-port."
        )
    if parts.scheme not in ("http", "https") or not host:
        raise UsageError(f"--jobs-address {given} is not an http address. Write http://HEAD:8265.")
    if parts.username or parts.password:
        raise UsageError(f"--jobs-address names a user: Ray takes a token instead. {TOKEN_HELP}.")
    default = 443 if parts.scheme == "https" else 8265
    return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}:{port or default}"


def auth_token() -> str:
    """The token that Ray itself would use; empty when there is none. Never print it."""
    if token := os.environ.get("RAY_AUTH_TOKEN", "").strip():
        return token
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    return path.read_text().strip() if path.is_file() else ""


def connect(address: str | None) -> "JobSubmissionClient":
    """A client of the job server at `address`. Raises UsageError when nobody answers, when it is not Ray, when the
    token is missing or wrong, and when the head runs an older Ray than this checkout."""
    url = jobs_url(address)
    _check_listening(url)
    try:
        import ray
        from ray.exceptions import AuthenticationError
        from ray.job_submission import JobSubmissionClient
    except ImportError as error:
        raise _missing_extra(str(error)) from None
    for name in ("dashboard.modules.dashboard_sdk", "dashboard.modules.job.sdk", "_private.runtime_env.packaging"):
        logging.getLogger(f"ray.{name}").setLevel(logging.WARNING)  # they tell about uploads and sockets
    # Said in the header, so that it does not depend on RAY_AUTH_MODE having been set before Ray was imported.
    token = auth_token()
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        client = JobSubmissionClient(url, headers=headers)
        _check_version(str(client._server_ray_version), ray.__version__, url)
        client.list_jobs()  # the version page is open to all: only a real request proves the token
    except AuthenticationError as error:
        seen = "refuses the token of this machine" if "invalid" in str(error).lower() else "asks for a token"
        raise UsageError(f"the Ray head at {url} {seen}. {TOKEN_HELP}.") from None
    except (RuntimeError, ConnectionError, ValueError, KeyError, OSError) as error:
        raise _not_a_job_server(url, error) from None
    return client


def _check_listening(url: str) -> None:
    """A refused or silent address in seconds; the HTTP client alone would wait for minutes."""
    parts = urlsplit(url)
    try:
        socket.create_connection((parts.hostname or "", parts.port or 0), timeout=CONNECT_TIMEOUT_S).close()
    except OSError as error:
        reason = "no such host" if isinstance(error, socket.gaierror) else error.strerror or "no answer"
        raise UsageError(
            f"nothing answers at {url} ({str(reason).lower()}). Is the head running with its dashboard (`ray start "
            "--head --dashboard-host 0.0.0.0`), is the port right (8265 unless --dashboard-port), and is it forwarded "
            "(`kubectl port-forward`, `ssh -L`) where the cluster has no public address?"
        ) from None


def _check_version(head: str, ours: str, url: str) -> None:
    if _release(head) < _release(ours):
        raise UsageError(
            f"the Ray head at {url} runs Ray {head}, this checkout needs {ours}. Install ray[default,train]=={ours} on "
            "every node (constraints.txt has the exact versions) and start the head again."
        )


def _release(version: str) -> tuple[int, ...]:
    """(2, 60) of "2.60.0": releases that differ only in the last number speak the same protocol."""
    return tuple(int(number) for number in re.findall(r"\d+", version)[:2])


def _missing_extra(what: str) -> UsageError:
    return UsageError(f"{what}. Jobs need Ray's default extra: pip install -c constraints.txt 'ray[default,train]'.")


def _not_a_job_server(url: str, error: Exception) -> UsageError:
    if "CLI & SDK require" in str(error):  # Ray's words about this machine, not about the head
        return _missing_extra("this machine has Ray without its default extra")
    if "ray[default]" in str(error):
        return UsageError(
            f"the Ray head at {url} has no job server: it was installed without the default extra. Install "
            "ray[default,train] there and start the head again."
        )
    return UsageError(
        f"{url} answers, but not as a Ray job server ({first_line(error)}). Name the dashboard of the head, "
        "usually port 8265, not the port of the cluster (6379), of Ray Client (10001) or of MLflow (5000)."
    )
