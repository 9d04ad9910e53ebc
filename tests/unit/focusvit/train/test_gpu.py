"""What only a user of GPUs meets, shown without one: torch's and Ray's answers are played."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from cluster.ray_session import cpus_each, node_cpus, node_gpus, num_that_fit
from cluster.train import pretrain as training
from cluster.train.launch import LaunchConfig
from cluster.train.transfers import task_needs
from focusvit.choices import pick_device
from focusvit.data.batch import Batch
from focusvit.runs.run_dir import RunDir
from focusvit.train import system_metrics
from focusvit.train.config import TrainConfig
from focusvit.train.flops import data_sheet
from focusvit.train.session import Session
from focusvit.train.system_metrics import _gpu_percent
from focusvit.train.watch import Watch
from pipeline.errors import DataError, UsageError
from testkit import model_reference as reference


@pytest.mark.parametrize(
    ("name", "tera"),
    [
        ("NVIDIA H100 80GB HBM3", 989), ("NVIDIA H100 PCIe", 756), ("NVIDIA H100 NVL", 835), ("NVIDIA H200", 989),
        ("NVIDIA A100-SXM4-80GB", 312), ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", None), ("NVIDIA RTX A1000", None),
        ("NVIDIA A10", 125), ("NVIDIA A10G", 70), ("NVIDIA L4", 121), ("NVIDIA L40", None), ("NVIDIA L40S", 362),
        ("NVIDIA GeForce RTX 4090", None),
    ],
)  # fmt: skip
def test_a_gpu_has_the_rate_of_its_own_data_sheet(name: str, tera: float | None) -> None:
    assert data_sheet(name) == tera


def test_a_gpu_that_cannot_be_measured_ends_no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    class NVMLError(Exception):
        pass

    def refuse(device: torch.device) -> int:
        raise NVMLError("Not Supported")

    monkeypatch.setattr(torch.cuda, "utilization", refuse)
    assert np.isnan(_gpu_percent(torch.device("cuda")))


def _on_ranks(hosts: list[str], monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """What the curves show of a group whose rank r runs on hosts[r] and has a GPU that is r % busy, of 1000 r MB."""
    told: list[dict[str, float]] = []
    for rank in range(len(hosts)):
        answers = iter([lambda host: hosts, lambda mine: told.append(mine) or told])  # of the two collectives
        with monkeypatch.context() as patch:
            patch.setattr(system_metrics.ranks, "rank", lambda rank=rank: rank)
            patch.setattr(system_metrics.ranks, "gather", lambda mine, answers=answers: next(answers)(mine))
            patch.setattr(torch.cuda, "utilization", lambda device, rank=rank: rank)
            patch.setattr(torch.cuda, "mem_get_info", lambda device, rank=rank: (0, 1e9 * rank))
            found = system_metrics.SystemMetrics(torch.device("cuda")).values()
    return found  # of the last rank, which has heard all


def test_the_curves_show_every_gpu_of_a_node(monkeypatch: pytest.MonkeyPatch) -> None:
    found = _on_ranks(["a", "a", "b", "a"], monkeypatch)
    busy = {name: value for name, value in found.items() if name.endswith("utilization_percentage") and "gpu" in name}
    assert busy == {
        "system/node_0/gpu_0_utilization_percentage": 0, "system/node_0/gpu_1_utilization_percentage": 1,
        "system/node_0/gpu_2_utilization_percentage": 3, "system/node_1/gpu_0_utilization_percentage": 2,
    }  # fmt: skip
    assert found["system/node_0/gpu_2_memory_usage_megabytes"] == 3000
    assert found["system/node_1/system_memory_usage_megabytes"] > 0  # of its first rank


def test_many_gpus_are_shown_by_the_mean_and_the_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    found = _on_ranks([f"node {rank // 8}" for rank in range(24)], monkeypatch)
    assert found["system/mean/gpu_utilization_percentage"] == 11.5
    assert found["system/highest/gpu_memory_usage_megabytes"] == 23_000
    assert found["system/lowest/gpu_utilization_percentage"] == 0
    assert len(found) <= 30


def _data() -> Any:
    from focusvit.data.config import DataConfig

    return DataConfig(image_px=32, map_px=16)


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    yield


@pytest.mark.parametrize("name", ["gpu", "tpu", "cuda:", "cuda:x", "cpu:0", "cuda", "cuda:1"])
def test_a_device_that_is_no_device_or_not_here_is_said(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError, match="--device"):
        pick_device(name)


def test_a_gpu_beyond_the_last_is_said(two_gpus: None) -> None:
    assert [pick_device(name) for name in ("auto", "cuda", "cuda:1", "cpu")] == ["cuda", "cuda", "cuda:1", "cpu"]
    with pytest.raises(UsageError, match="torch sees 2 GPUs"):
        pick_device("cuda:2")


def test_a_local_training_never_takes_the_cpu_for_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    launch = LaunchConfig(data="nowhere", run_dir="nowhere", device="gpu", local=True)
    config = TrainConfig(model=reference.tiny_config(image_px=32), data=_data())
    with pytest.raises(UsageError, match="--device gpu"), training._placed_here(config, launch):
        pass


def test_the_gpu_of_a_rank_is_the_current_one(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "set_device", seen.append)
    config = TrainConfig(model=reference.tiny_config(image_px=32), data=_data())
    for name in ("cuda:1", "cuda", "cpu"):
        with pytest.raises((UsageError, DataError)):
            Session(config, str(tmp_path / "none"), str(tmp_path / "run"), torch.device(name), 0, 1)
    assert seen == [torch.device("cuda:1")]


def test_the_verdict_of_a_step_waits_for_that_step_alone(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []

    class Flag:
        """A value on a GPU that is not finite: to read it there is a mistake."""

        device = torch.device("cuda")

        def to(self, device: str, non_blocking: bool = False) -> torch.Tensor:
            assert device == "cpu" and non_blocking
            said.append("sent")
            return torch.tensor(True)

    monkeypatch.setattr(
        torch.cuda, "Event",
        lambda: SimpleNamespace(record=lambda: said.append("marked"), synchronize=lambda: said.append("waited")),
    )  # fmt: skip

    class Finite:
        def __invert__(self) -> Flag:
            return Flag()

    monkeypatch.setattr(torch, "isfinite", lambda norm: Finite())
    batch = Batch(
        images=torch.zeros(1, 3, 4, 4, dtype=torch.uint8), class_ids=torch.zeros(1, dtype=torch.long),
        sample_ids=torch.zeros(1, dtype=torch.long),
    )  # fmt: skip
    watch = Watch(RunDir(str(tmp_path)), 0, {}, lambda: {})
    watch.remember(batch, SimpleNamespace(device=torch.device("cuda")), 8)  # type: ignore[arg-type]
    assert said == ["sent", "marked"]
    watch.check()
    assert said == ["sent", "marked", "waited"] and (tmp_path / "dumps").is_dir()


HEAD_AND_GPUS = [
    {"Alive": True, "Resources": {"CPU": 32.0}},
    {"Alive": True, "Resources": {"CPU": 8.0, "GPU": 4.0}},
    {"Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0}},
]


def test_cpus_of_a_node_without_gpus_are_no_place_for_a_worker_with_one() -> None:
    cpus, most = node_cpus(HEAD_AND_GPUS), [int(count) for count in node_gpus(HEAD_AND_GPUS)]
    assert (cpus, most) == ([32, 8], [0, 4])
    assert [cpus_each(cpus, num, most) for num in (1, 2, 3, 4)] == [8, 4, 2, 2]
    assert num_that_fit(cpus, 2, most) == 4 and num_that_fit(cpus, 32, most) == 0


def test_a_task_with_a_gpu_fits_the_node_that_has_it() -> None:
    for device in ("auto", "cuda"):
        assert task_needs(HEAD_AND_GPUS, 1, device) == ("cuda", {"num_cpus": 8, "num_gpus": 1.0})
        assert task_needs(HEAD_AND_GPUS, 8, device) == ("cuda", {"num_cpus": 1, "num_gpus": 0.5})
    assert task_needs(HEAD_AND_GPUS, 1, "cpu") == ("cpu", {"num_cpus": 32})


def test_the_device_of_a_task_is_settled_by_the_cluster_not_by_the_machine_that_asks(two_gpus: None) -> None:
    assert task_needs(HEAD_AND_GPUS[:1], 1, "auto") == ("cpu", {"num_cpus": 32})
    with pytest.raises(UsageError, match="no node of the Ray cluster has a GPU"):
        task_needs(HEAD_AND_GPUS[:1], 1, "cuda")
