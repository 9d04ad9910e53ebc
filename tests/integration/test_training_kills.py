"""Twenty random SIGKILLs of gloo ranks in one run: all weights and points are the uninterrupted run's, bit for bit.

The group is restarted as Ray Train does it: one dead rank ends all, all start again from the last checkpoint. Without
Ray a restart takes a second, so that twenty fit into minutes; `test_training_ray.py` kills workers of Ray Train.
"""

import multiprocessing
import os
import random
import signal
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import torch

from focusvit.train.config import TrainConfig
from focusvit.train.optim import OptimConfig
from testkit.gloo_ranks import start_group, stop_group
from testkit.tiny_shards import make_dataset
from testkit.tiny_training import final_tensors, small, values_of

RANKS, KILLS = 2, 20
CONFIG = small(
    epochs=60, eval_every_epochs=15, checkpoint_every_epochs=1, optim=OptimConfig(lr=1e-3, warmup_epochs=1),
    ema_decay=0.99,
)  # fmt: skip


def one_rank(rank: int, store: str, config: TrainConfig, uri: str, folder: str) -> None:
    from focusvit.train.loop import train

    torch.set_num_threads(1)
    start_group(rank, RANKS, store)
    train(config, data_uri=uri, run_dir=folder, rank=rank, world_size=RANKS)
    stop_group()


class Group:
    """The ranks of one start."""

    def __init__(self, folder: Path, number: int, uri: str) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["focusvit.train.loop"])
        run, store = str(folder / "run"), str(folder / f"store-{number}")
        self.ranks: list[BaseProcess] = [
            context.Process(target=one_rank, args=(rank, store, CONFIG, uri, run)) for rank in range(RANKS)
        ]
        for rank in self.ranks:
            rank.start()

    def end(self) -> None:
        for rank in self.ranks:
            rank.kill()
            rank.join()


def num_points(folder: Path) -> int:
    metrics = folder / "run" / "metrics.jsonl"
    return metrics.read_bytes().count(b"\n") if metrics.exists() else 0


@pytest.mark.soak
@pytest.mark.timeout(2400)
def test_twenty_random_kills_change_no_bit(tmp_path: Path) -> None:
    uri, choose, starts = make_dataset(tmp_path / "data"), random.Random(8), 0
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir()
    parts.mkdir()
    group = Group(whole, starts, uri)
    for rank in group.ranks:
        rank.join(300)
        assert rank.exitcode == 0

    killed = 0
    while True:
        starts += 1
        group, begun = Group(parts, starts, uri), num_points(parts)
        due = begun + choose.randint(1, 6)
        while killed < KILLS and num_points(parts) < due and all(rank.is_alive() for rank in group.ranks):
            time.sleep(0.01)
        if killed == KILLS:
            break
        time.sleep(choose.uniform(0, 0.2))  # anywhere in a step, a checkpoint or a scoring
        victim = choose.choice(group.ranks)
        assert victim.is_alive(), "the run ended before all kills: make it longer"
        os.kill(victim.pid or 0, signal.SIGKILL)
        victim.join()
        killed += victim.exitcode == -signal.SIGKILL
        for rank in group.ranks:  # the others learn it from gloo; nobody tells them
            rank.join(60)
            assert rank.exitcode not in (None, 0)
        group.end()
    for rank in group.ranks:
        rank.join(300)
        assert rank.exitcode == 0

    assert values_of(parts / "run") == values_of(whole / "run")
    left, right = final_tensors(whole / "run"), final_tensors(parts / "run")
    assert left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)
