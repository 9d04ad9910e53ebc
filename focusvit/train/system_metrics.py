"""What each machine of a training does meanwhile: CPU, memory, network, GPU, under the names that MLflow's pages know.

Workers measure, the points of the run directory carry it: only the driver ever talks to a tracking server.
"""

import importlib.util
import logging
import math
import socket
import time

import numpy as np
import torch

from focusvit.data.order import key_of

from . import ranks

try:
    import psutil
except ImportError:
    psutil = None  # type: ignore[assignment]

log = logging.getLogger(__name__)
NAMES = ("cpu_utilization_percentage", "system_memory_usage_megabytes", "network_megabytes_per_s")
GPU_NAMES = ("utilization_percentage", "memory_usage_megabytes")
MAX_NAMES = 30  # so that a run keeps at most 60 metric names; beyond, the mean and the ends are enough


class SystemMetrics:
    """Every rank tells of its own GPU, the first rank of a machine of the machine. Every rank must construct it and
    call `values` at the same steps.
    """

    def __init__(self, device: torch.device) -> None:
        hosts, rank = self._hosts(), ranks.rank()
        nodes = list(dict.fromkeys(hosts))
        self.num_nodes, self._node = len(nodes), nodes.index(hosts[rank])
        self._device, self._gpu = device, hosts[:rank].count(hosts[rank])
        self._num_gpus = [hosts.count(node) if device.type == "cuda" else 0 for node in nodes]
        self._network, self._at = _network_bytes(), time.monotonic()
        _system()  # the first call only starts the measurement
        if device.type == "cuda" and rank == 0 and importlib.util.find_spec("pynvml") is None:
            log.warning("the curves will not show how busy GPUs are: pip install 'focusvit[gpu]' on every node")

    def _hosts(self) -> list[float]:
        """The machine of each rank, as a number."""
        mine = np.zeros(ranks.world())
        mine[ranks.rank()] = key_of("host", socket.gethostname()) % 2**50  # exact in float64
        return ranks.sum_array(mine).tolist()

    def values(self) -> dict[str, float]:
        """'system/node_0/cpu_utilization_percentage' and so on since the last call; a collective."""
        machines = np.zeros((self.num_nodes, len(NAMES)))
        gpus = np.zeros((self.num_nodes, max(self._num_gpus), len(GPU_NAMES)))
        if self._gpu == 0:
            machines[self._node] = self._machine()
        if self._device.type == "cuda":
            free, total = torch.cuda.mem_get_info(self._device)
            gpus[self._node, self._gpu] = _gpu_percent(self._device), (total - free) / 1e6
        both = ranks.sum_array(np.concatenate([machines.ravel(), gpus.ravel()]))
        machines, gpus = both[: machines.size].reshape(machines.shape), both[machines.size :].reshape(gpus.shape)
        num_names = self.num_nodes * len(NAMES) + sum(self._num_gpus) * len(GPU_NAMES)
        values = self._each(machines, gpus) if num_names <= MAX_NAMES else self._summary(machines, gpus)
        return {f"system/{name}": float(value) for name, value in values.items() if not math.isnan(value)}

    def _each(self, machines: np.ndarray, gpus: np.ndarray) -> dict[str, float]:
        values: dict[str, float] = {}
        for node, (machine, own) in enumerate(zip(machines, gpus)):
            values |= {f"node_{node}/{name}": value for name, value in zip(NAMES, machine)}
            for gpu in range(self._num_gpus[node]):
                values |= {f"node_{node}/gpu_{gpu}_{name}": value for name, value in zip(GPU_NAMES, own[gpu])}
        return values

    def _summary(self, machines: np.ndarray, gpus: np.ndarray) -> dict[str, float]:
        there = np.concatenate([own[:count] for own, count in zip(gpus, self._num_gpus)])
        values: dict[str, float] = {}
        for row, of in (("mean", np.mean), ("highest", np.max), ("lowest", np.min)):
            values |= {f"{row}/{name}": value for name, value in zip(NAMES, of(machines, axis=0))}
            if len(there):
                values |= {f"{row}/gpu_{name}": value for name, value in zip(GPU_NAMES, of(there, axis=0))}
        return values

    def _machine(self) -> list[float]:
        network, now = _network_bytes(), time.monotonic()
        rate = (network - self._network) / 1e6 / max(1e-3, now - self._at)
        self._network, self._at = network, now
        return [*_system(), rate]


def _system() -> tuple[float, float]:
    """(CPU %, used MB) of this machine; NaN where psutil is absent, as on a GPU machine that has little but torch."""
    if psutil is None:
        return float("nan"), float("nan")
    return psutil.cpu_percent(), psutil.virtual_memory().used / 1e6


def _network_bytes() -> float:
    counted = psutil.net_io_counters() if psutil is not None else None
    return float(counted.bytes_sent + counted.bytes_recv) if counted else 0.0


def _gpu_percent(device: torch.device) -> float:
    """NaN without nvidia-ml-py, which torch asks, and where it has no answer: a part of a GPU (MIG), WSL."""
    try:
        return float(torch.cuda.utilization(device))
    except Exception:  # NVMLError is an Exception and no more; no training ends for want of a curve
        return float("nan")
