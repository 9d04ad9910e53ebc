"""A few epochs of fine-tuning for each way alike: does training bring back what pooling lost?

The blocks below the first pooling stay frozen for every way (also for all patches and for fewer pixels), so that their
states are computed once; the blocks behind, the last norm and a linear head learn, from the linear probe on.
"""

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from focusvit.drop_in.hosts import find_host
from focusvit.score.intervals import wilson
from tests.benchmarks.hosts.dense import COLUMNS, SCORE_NOTE, Scores, Split, confusion, head_of, truth_of
from tests.benchmarks.hosts.frozen import class_tokens
from tests.benchmarks.hosts.images import Sample, square, whole
from tests.benchmarks.hosts.readings import read, read_all
from tests.benchmarks.hosts.speed import SPEED_NOTE, speeds
from tests.benchmarks.hosts.states import Views, outputs, views_of
from tests.benchmarks.hosts.ways import Reads, Way, pooled, prepared, some
from tests.benchmarks.report import Table
from transfer.protocols.softmax import SoftmaxRegression


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """AdamW with a cosine; the same for every way."""

    epochs: int = 3
    lr: float = 5e-5
    warmup: float = 0.1
    """share of the steps"""
    decay: float = 0.05
    batch: int = 8
    seed: int = 0

    def rate(self, done: float) -> float:
        """The learning rate when so much of the steps is done, in (0, 1)."""
        if done < self.warmup:
            return self.lr * done / self.warmup
        return self.lr * (1 + math.cos(math.pi * (done - self.warmup) / (1 - self.warmup))) / 2

    @property
    def told(self) -> str:
        """In titles: tables of other seeds are others."""
        return f", seed {self.seed}" if self.seed else ""

    @property
    def note(self) -> str:
        return (
            f"{self.epochs} epochs, AdamW, learning rate {self.lr:g} warmed up over {self.warmup:.0%}, with a cosine "
            f"to 0, batches of {self.batch}, bfloat16, no augmentation, seed {self.seed}; trained: blocks from the "
            "pooling on, last norm, linear head (from the frozen probe on); frozen: the blocks below. "
        )


def scene_ways(depth: int) -> list[Way]:
    """What is trained; each is also asked in another way at the end."""
    half = depth // 2
    found = [Way(), pooled("superpixels", {half: 196}, "tokens"), Way(size=(168, 224)), pooled("keys", {half: 196})]
    found += [pooled("grid", {half: 196}), Way(size=(210, 280))]
    return [*found, pooled("superpixels", {half: 132}, "tokens")]


def image_ways(depth: int) -> list[Way]:
    half = depth // 2
    return [Way(), Way(size=(168, 168)), *(pooled(kind, {half: 128}) for kind in ("superpixels", "keys", "grid"))]


def tuned(
    model: nn.Module, way: Way, head: np.ndarray, loss: Callable[[nn.Module, nn.Linear, Sequence[int]], Tensor],
    rows: Sequence[int], tuning: Tuning,
) -> tuple[nn.Module, nn.Linear]:  # fmt: skip
    """A copy of the host trained behind its middle, and its head. `loss(model, head, rows)` of a batch."""
    model = prepared(copy.deepcopy(prepared(model, Way())), way)
    weights = torch.from_numpy(head).float()
    linear = nn.Linear(weights.shape[0] - 1, weights.shape[1])
    linear.load_state_dict({"weight": weights[:-1].T.contiguous(), "bias": weights[-1].clone()})
    blocks = find_host(model).blocks
    parts = [*blocks[len(blocks) // 2 :], model.layernorm, linear]
    model.requires_grad_(False)
    trained = [parameter.requires_grad_(True) for part in parts for parameter in part.parameters()]
    optimizer = torch.optim.AdamW(trained, tuning.lr, weight_decay=tuning.decay)
    order = np.random.default_rng(tuning.seed)
    steps = tuning.epochs * -(-len(rows) // tuning.batch)
    done = 0
    for _ in range(tuning.epochs):
        shuffled = order.permutation(rows).tolist()
        for start in range(0, len(rows), tuning.batch):
            for group in optimizer.param_groups:
                group["lr"] = tuning.rate((done + 1) / (steps + 1))
            optimizer.zero_grad()
            loss(model, linear, shuffled[start : start + tuning.batch]).backward()
            optimizer.step()
            done += 1
    return model, linear


def tuned_scenes(
    host: Path, model: nn.Module, size: tuple[int, int], samples: Sequence[Sample], splits: Sequence[Split],
    tuning: Tuning, rounds: int, only: Sequence[int] = (),
) -> Iterator[Table]:  # fmt: skip
    """CamVid: a table with two rows for most ways, again after each way; `only` some of `scene_ways`, by number."""
    every = scene_ways(len(find_host(model).blocks))
    chosen = some(every, only)
    rows, scores, told = [], dict[Way, Scores](), dict[Way, list[Way]]()
    for way in chosen:
        last: Reads = "patches" if way.kind in ("superpixels", "grid") else "superpixels"
        told[way] = [way] if way.kind == "grid" else [way, Way(way.kind, way.levels, way.size, last)]
    shown = samples[: tuning.batch // 2 or 1]
    looks = {one: [whole(sample, one.size or size) for sample in shown] for way in chosen for one in told[way]}
    costs = speeds(host, model, looks, rounds)
    known: dict[tuple[int, int], Views] = {}
    where = ", ".join(split.name for split in splits)
    for way in chosen:
        own = way.size or size
        if own not in known:
            known[own] = views_of(host, model, [whole(sample, own) for sample in samples], [_middle(model)], 8)
        views = known[own]
        found = _tuned_scene(host, model, way, [one.reads for one in told[way]], views, samples, splits, tuning)
        for one in told[way]:
            scores[one] = found[one.reads]
            cost = costs[one]
            cells = scores[one].cells(scores[chosen[0]])
            rows.append([one.name, one.tokens, *cells, f"{cost[0]:.0f}", f"{cost[1]:.2f}x"])
        yield Table(
            title=f"CamVid, {where}: {size[0]}x{size[1]} px, after fine-tuning{tuning.told}",
            columns=["way", "tokens", *COLUMNS, "CPU ms a frame", "speed"],
            rows=list(rows),
            note=tuning.note + SCORE_NOTE + SPEED_NOTE,
        )


def _tuned_scene(
    host: Path, model: nn.Module, way: Way, reads: Sequence[Reads], views: Views, samples: Sequence[Sample],
    splits: Sequence[Split], tuning: Tuning,
) -> dict[Reads, Scores]:  # fmt: skip
    frozen = read_all(host, model, way, [way.reads], views, 8)[way.reads]
    targets = [reading.shares(truth_of(sample), 11) for reading, sample in zip(frozen, samples)]

    def loss(trained: nn.Module, head: nn.Linear, rows: Sequence[int]) -> Tensor:
        total = torch.zeros(())
        for row, one in zip(rows, read(host, trained, way, [way.reads], views, rows)):
            log_shares = torch.log_softmax(head(one[way.reads].values), 1)
            pixels = torch.from_numpy(targets[row]).float()
            total = total - (pixels * log_shares).sum() / pixels.sum()
        return total / len(rows)

    found: dict[Reads, list[tuple[np.ndarray, float]]] = {name: [] for name in reads}
    for split in splits:
        start = head_of([frozen[at] for at in split.train], [samples[at] for at in split.train])
        trained, head = tuned(model, way, start, loss, split.train, tuning)
        with torch.inference_mode():
            for at in split.test:
                (one,) = read(host, trained, way, reads, views, [at])
                for name in reads:
                    found[name].append(confusion(one[name], head(one[name].values.float()), truth_of(samples[at])))
    return {
        name: Scores(np.stack([table for table, _ in pairs]), np.array([border for _, border in pairs]))
        for name, pairs in found.items()
    }


def tuned_images(
    host: Path, model: nn.Module, name: str, train: Sequence[Sample], test: Sequence[Sample], tuning: Tuning,
    rounds: int,
) -> Iterator[Table]:  # fmt: skip
    """Classes of whole images: a row for each way, the table again after each."""
    chosen = image_ways(len(find_host(model).blocks))
    sides = {way: (way.size or (224, 224))[0] for way in chosen}
    costs = speeds(
        host, model, {way: [square(one, sides[way]) for one in train[: tuning.batch]] for way in chosen}, rounds
    )
    rows = []
    known: dict[int, Views] = {}
    for way in chosen:
        if sides[way] not in known:
            images = [square(sample, sides[way]) for sample in (*train, *test)]
            known[sides[way]] = views_of(host, model, images, [_middle(model)], 8)
        views = known[sides[way]]
        count, before = _tuned_classes(host, model, way, views, train, test, tuning)
        low, high = wilson(count, len(test))
        told = f"{count / len(test):.1%} ({low:.1%} - {high:.1%})"
        rows.append([way.name, way.tokens, f"{before:.1%}", told, f"{costs[way][0]:.0f}", f"{costs[way][1]:.2f}x"])
        yield Table(
            title=f"{name}, {len(train)} images to learn from, {len(test)} to test: 224 px, after fine-tuning"
            + tuning.told,
            columns=["way", "tokens", "frozen, linear head", "fine-tuned", "CPU ms an image", "speed"],
            rows=list(rows),
            note=tuning.note + "Top-1 with its 95 % interval (Wilson). " + SPEED_NOTE,
        )


def _tuned_classes(
    host: Path, model: nn.Module, way: Way, views: Views, train: Sequence[Sample], test: Sequence[Sample],
    tuning: Tuning,
) -> tuple[int, float]:  # fmt: skip
    """(images right after fine-tuning, share right before)."""
    ids = torch.tensor([sample.class_id for sample in (*train, *test)])
    learned, asked = range(len(train)), range(len(train), len(ids))

    prepared(model, way)
    bank = class_tokens(host, model, way, views, learned, 8)
    problem = SoftmaxRegression(bank, np.eye(int(ids.max()) + 1)[ids[: len(train)].numpy()])
    start = problem.solve(1.0, problem.zeros(), 200, 1e-4)[0]
    matrix = torch.from_numpy(start).float()
    values = torch.from_numpy(class_tokens(host, model, way, views, asked, 8))
    before = (values @ matrix[:-1] + matrix[-1]).argmax(1) == ids[len(train) :]

    def loss(trained: nn.Module, head: nn.Linear, rows: Sequence[int]) -> Tensor:
        return nn.functional.cross_entropy(head(outputs(host, trained, way, views, rows)[:, 0]), ids[list(rows)])

    trained, head = tuned(model, way, start, loss, learned, tuning)
    with torch.inference_mode():
        values = torch.from_numpy(class_tokens(host, trained, way, views, asked, 8))
        right = int((head(values).argmax(1) == ids[len(train) :]).sum())
    return right, float(before.float().mean())


def _middle(model: nn.Module) -> int:
    return len(find_host(model).blocks) // 2
