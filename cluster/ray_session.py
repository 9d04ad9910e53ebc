"""Starting Ray inside this process, or joining a running cluster. Ray is imported here only when it is needed."""

import logging
import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from cluster.connection import TOKEN_HELP
from cluster.jobs.package import brought_along
from pipeline.errors import UsageError, first_line
from pipeline.io.machine import usable_cpus

# What every process of ours should know, wherever Ray starts it.
PASSED_ON = ("OMP_WAIT_POLICY", "NO_ALBUMENTATIONS_UPDATE", "NUMBA_CACHE_DIR", "AWS_PROFILE", "AWS_ENDPOINT_URL")
MIN_OBJECT_STORE_BYTES = 100 * 2**20


def node_cpus(nodes: list[dict[str, Any]]) -> list[int]:
    """CPUs of each living node of `ray.nodes()`. A task or worker lies on one node, so their sum alone says little."""
    return [int(node["Resources"].get("CPU", 0)) for node in nodes if node["Alive"]]


def node_gpus(nodes: list[dict[str, Any]]) -> list[float]:
    """GPUs of each living node, in the order of `node_cpus`."""
    return [float(node["Resources"].get("GPU", 0)) for node in nodes if node["Alive"]]


def num_that_fit(cpus: list[int], each: int, most: list[int] | None = None) -> int:
    """How many tasks of `each` CPUs the nodes hold at once; `most`: on a node, as its GPUs allow."""
    return sum(min(count // each, limit) for count, limit in zip(cpus, most or cpus, strict=True))


def cpus_each(cpus: list[int], num: int, most: list[int] | None = None) -> int:
    """The most CPUs that each of `num` tasks can have when all run at once on these nodes; at least 1."""
    return next((each for each in range(max(cpus, default=1), 1, -1) if num_that_fit(cpus, each, most) >= num), 1)


@contextmanager
def ray_session(address: str | None = None, *, quiet: bool = True) -> Iterator[None]:
    """Ray for the time of a `with`. A Ray that is already up in this process is used and left running.

    `address`: a running cluster ("auto", "host:6379", "ray://host:10001"), whose nodes have the packages and get our
    code; None starts Ray here. Raises `UsageError` when nothing answers there.
    """
    # A quick controller poll, so that a worker's death is seen in a fifth of a second; before ray.train is imported.
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")  # under `uv run` Ray would start no task at all
    import ray

    if ray.is_initialized():
        yield
        return
    address = address or os.environ.get("RAY_ADDRESS")  # a submitted job finds its cluster there
    common: dict[str, Any] = {
        "log_to_driver": not quiet,
        "logging_level": logging.ERROR if quiet else logging.INFO,
    }
    if address is None:
        common["runtime_env"] = {
            "env_vars": {name: os.environ[name] for name in PASSED_ON if name in os.environ},
            # Ray starts workers through a shell and does not quote the interpreter: a path with a space needs it.
            "py_executable": shlex.quote(sys.executable),
        }
        memory = MIN_OBJECT_STORE_BYTES
        # "local": never join a cluster that happens to run on this machine.
        cpus = usable_cpus()  # Ray itself counts those of the machine, not of the container
        ray.init(address="local", num_cpus=cpus, include_dashboard=False, object_store_memory=memory, **common)
    else:
        try:
            with brought_along() as runtime_env:
                ray.init(address=address, runtime_env=runtime_env, **common)
        except ray.exceptions.AuthenticationError:
            raise UsageError(f"The Ray cluster at '{address}' takes no one without its token. {TOKEN_HELP}.") from None
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise UsageError(
                f"No Ray cluster answers at '{address}' ({first_line(error)}). Correct --ray-address, "
                "or leave it out to run on this machine."
            ) from None
    try:
        yield
    finally:
        ray.shutdown()
