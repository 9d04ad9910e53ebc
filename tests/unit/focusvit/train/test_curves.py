"""When points are taken, what they hold, and that ranks measure each machine once."""

import math
import socket
from pathlib import Path

import psutil
import pytest
import torch

from focusvit.runs.metrics_log import parse_metrics
from focusvit.train import ranks
from focusvit.train.loop import step_of_next_point, train
from focusvit.train.system_metrics import SystemMetrics
from testkit.gloo_ranks import run_ranks
from testkit.tiny_shards import make_dataset
from testkit.tiny_training import small


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_dataset(tmp_path_factory.mktemp("data"))


def test_points_go_by_time_and_are_a_hundred_at_least() -> None:
    config = small(log_every_steps=None)
    assert step_of_next_point(config, 0, 10_000) == 1  # nothing is measured yet
    assert step_of_next_point(config, 500, 112_590, step_ms=50.0) == 700  # 10 s of 50 ms
    assert step_of_next_point(config, 500, 112_590, step_ms=60_000.0) == 501  # a step that compiled
    assert step_of_next_point(config, 500, 1_000, step_ms=50.0) == 510
    assert step_of_next_point(config, 5, 9, step_ms=1e-9) == 6
    assert [step_of_next_point(small(log_every_steps=4), step, 9, 1.0) for step in (0, 1, 4, 6)] == [4, 4, 8, 8]


def test_the_metric_set(uri: str, tmp_path: Path) -> None:
    """training.md's set in named sections, at most 60 names, each a finite number where it must be."""
    train(small(ema_decay=0.9), data_uri=uri, run_dir=str(tmp_path))
    names: dict[str, float] = {}
    for point in parse_metrics((tmp_path / "metrics.jsonl").read_bytes()):
        names.update(point["values"])
    wanted = (
        "train/loss train/top1 train/lr train/grad_norm train/ema_decay train/skipped_spikes train/replaced_samples "
        "perf/img_per_s perf/img_per_s_per_worker perf/tokens_per_s perf/tokens_per_image perf/step_ms "
        "perf/data_wait_share perf/mfu perf/memory_gb perf/checkpoint_blocked_ms perf/workers val/top1 val/loss "
        "system/node_0/cpu_utilization_percentage system/node_0/system_memory_usage_megabytes"
    ).split()
    assert not set(wanted) - set(names)
    assert {name.split("/")[0] for name in names} == {"train", "perf", "val", "system"}
    # A GPU adds two names to a node, five more nodes may join.
    assert len(names) + 2 + 5 * 5 <= 60
    assert all(math.isfinite(names[name]) for name in wanted)
    assert names["perf/mfu"] > 0 and 0 <= names["perf/data_wait_share"] <= 1
    assert names["perf/tokens_per_image"] == 8 and names["perf/workers"] == 1


def on_a_rank(rank: int, world_size: int) -> tuple[str, dict[str, float], dict[str, float]]:
    """What a rank says to weights that differ in the last bit, and measures on one machine and on two."""
    said, seen = "", []
    try:
        ranks.check_same(1.0 + (rank == 1) * 2.0**-52, "the weights")
    except RuntimeError as error:
        said = str(error)
    for hosts in ("aa", "ab"):
        socket.gethostname = lambda: hosts[rank]  # noqa: B023 - called within this turn
        seen.append(SystemMetrics(torch.device("cpu")).values())
    return said, seen[0], seen[1]


def test_ranks_notice_a_difference_and_measure_each_machine_once(tmp_path: Path) -> None:
    first, second = run_ranks(on_a_rank, 2, tmp_path)
    assert first == second
    said, one_machine, two_machines = first
    assert "ranks disagree about the weights: [1.0, 1.0000000000000002]" in said
    assert {name.split("/")[1] for name in one_machine} == {"node_0"}
    assert {name.split("/")[1] for name in two_machines} == {"node_0", "node_1"}
    total = psutil.virtual_memory().total / 1e6
    used = [value for name, value in (one_machine | two_machines).items() if "memory_usage" in name]
    assert len(used) == 2 and all(0 < value < total for value in used)  # not the sum over the ranks of a machine
