"""`bench transfer`: what limits feature extraction; solvers beside scikit-learn's; memory by data size."""

import contextlib
import multiprocessing
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from focusvit.choices import pick_device
from focusvit.data.loader import EvalLoader
from focusvit.model.cost import time_calls
from focusvit.model.model import FocusViT
from focusvit.predict.compatible import data_config
from focusvit.runs.checkpoint import Checkpoint, load_model, save_checkpoint
from focusvit.runs.config_json import to_json
from pipeline.errors import UsageError
from pipeline.io import storage
from pipeline.io.peak_memory import peak_bytes
from pipeline.shards.dataset import open_dataset
from tests.benchmarks.record import TimedConfig, begin
from tests.benchmarks.report import Table
from transfer.features.features import FeatureKey, FeatureStore, model_rows
from transfer.protocols.knn import Knn
from transfer.protocols.logistic import FULL_GRID, hard_problem
from transfer.protocols.protocol import Labelled
from transfer.protocols.ridge import solve_ridge
from transfer.protocols.softmax import linear_scores

BARE = "bare forward, batches ready"


@dataclass(frozen=True, kw_only=True)
class BenchTransferConfig(TimedConfig):
    """Speed of the transfer suite's own code."""

    checkpoint: str = ""
    """With --data: feature extraction of this checkpoint. Empty = the demo's model, untrained, on embedded shapes."""
    data: str = ""
    split: str = "val"
    loader_workers: int = 0
    """Processes that decode; 0 = in this process, so that loading and forward alternate."""
    batch_size: int = 64
    batches: int = 12
    repeats: int = 3
    """Timings are medians of so many, in turns, in one run."""
    samples: int = 4000
    """Training rows of the solver comparison."""
    width: int = 192
    classes: int = 20
    device: str = "auto"

    def __post_init__(self) -> None:
        if min(self.batch_size, self.batches, self.repeats, self.samples, self.width, self.classes) < 1:
            raise ValueError("all sizes and counts of the bench must be 1 or more")
        if self.clock == "cpu" and self.loader_workers:
            raise ValueError("--clock cpu counts this process alone; leave out --loader-workers")


def main(argv: list[str]) -> int:
    config, record = begin("transfer", BenchTransferConfig, argv, ("torch", "scikit-learn", "scipy", "numpy"))
    if bool(config.checkpoint) != bool(config.data):
        raise UsageError("give both --checkpoint and --data, or neither: then embedded data is used.")
    for make in (lambda: _extraction(config), lambda: _solvers(config), _memory):
        record.add(make())
    return record.end()


def _extraction(config: BenchTransferConfig) -> Table:
    """Feature extraction of the named checkpoint, or of an untrained model on embedded shapes."""
    if config.checkpoint:
        return _measured_extraction(config, storage.resolve(config.checkpoint), storage.resolve(config.data))
    with tempfile.TemporaryDirectory() as folder:
        return _measured_extraction(config, *_embedded(Path(folder)))


def _embedded(folder: Path) -> tuple[str, str]:
    """(checkpoint, data set): the demo's model with fresh weights, and shards of embedded shapes."""
    from focusvit.recipes.small import recipe
    from pipeline.preprocess import main as preprocess
    from pipeline.sources.embedded import write_shapes

    write_shapes(folder / "images", train_per_class=1, val_per_class=64)
    argv = ["--source", str(folder / "images"), "--out", str(folder / "shards"), "--split", "val", "--local"]
    with contextlib.redirect_stdout(sys.stderr):
        preprocess(argv)
    training, data = recipe("demo"), open_dataset(str(folder / "shards"))
    model = FocusViT(training.model)
    record = Checkpoint(
        config=to_json(training),
        model=to_json(training.model),
        classes=data.classes,
        superpixels=to_json(data.superpixels),
        image=dict(data.image),
    )
    save_checkpoint(str(folder / "checkpoint"), record, model.state_dict())
    return str(folder / "checkpoint"), str(folder / "shards")


def _measured_extraction(config: BenchTransferConfig, checkpoint: str, data: str) -> Table:
    """Images per second of the loader alone, of the bare forward on ready batches, and of extraction into a file."""
    device = pick_device(config.device)
    model, record = load_model(checkpoint, device)
    split = open_dataset(data).split(config.split)
    tokens, with_maps = model.config.tokens, model.config.needs_maps
    loader = EvalLoader(
        split,
        data_config(record, config.loader_workers),
        batch_size=config.batch_size,
        tokens=tokens,
        with_maps=with_maps,
    )

    def batches() -> Any:
        return (batch for batch, _ in zip(loader, range(config.batches)))

    ready = list(batches())
    count = sum(len(batch) for batch in ready)
    key = FeatureKey(source="bench", transform={}, split_name="b", split_identity="i", split_root_hash="r")

    @torch.inference_mode()
    def bare() -> None:
        for batch in ready:
            here = batch.to(device)
            model.features(here.images, here.maps, here.num_tokens).float().cpu()

    def extract(source: Any) -> None:
        with tempfile.TemporaryDirectory() as folder:
            FeatureStore(Path(folder)).put(key, model_rows(model.features, source, device), count)

    kinds: dict[str, Callable[[], Any]] = {
        "loader alone": lambda: [None for _ in batches()],
        BARE: bare,
        "extraction, batches ready": lambda: extract(ready),
        "extraction from shards": lambda: extract(batches()),
    }
    speed = {name: count / seconds for name, seconds in _in_turns(kinds, config.repeats, config.timer).items()}
    alternating = 1 / (1 / speed["loader alone"] + 1 / speed[BARE])
    bound = min(speed["loader alone"], speed[BARE]) if config.loader_workers else alternating
    limit = "the loader" if speed["loader alone"] < speed[BARE] else "the forward pass"
    how = f"{config.loader_workers} loader workers beside it" if config.loader_workers else "the loader in this process"
    rows = [[name, round(value, 1), f"{value / speed[BARE]:.0%}"] for name, value in speed.items()]
    return Table(
        title=f"Feature extraction, {count} images, {device}, batch {config.batch_size}",
        columns=["what", f"images per {config.clock} second", "of bare forward"],
        rows=rows,
        note=(
            f"{limit[0].upper()}{limit[1:]} limits. With {how} at most {bound:.1f} images/s are possible; "
            f"{speed['extraction from shards'] / bound:.0%} of that are reached. 'Batches ready' is what a loader that "
            "keeps up would give; extraction includes checking, writing and hashing the file of features."
        ),
    )


def _solvers(config: BenchTransferConfig) -> Table:
    """Times and agreement on features shaped like a network's: correlated directions of very different spread."""
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.neighbors import KNeighborsClassifier

    warnings.filterwarnings("ignore", category=UserWarning, module="sklearn")  # lbfgs says that it did not converge
    train, test = _features(config, config.samples, 0), _features(config, 2000, 1)
    x, y = train.values.astype(np.float64), 2 * np.eye(config.classes)[train.truth] - 1
    half, other = train.rows(np.arange(0, len(train), 2)), train.rows(np.arange(1, len(train), 2))
    pairs: list[tuple[str, Callable[[], np.ndarray], Callable[[], np.ndarray]]] = [
        (
            "kNN, k = 20, T = 0.07",
            lambda: Knn().fit(half, other)[0].predict(test.values),
            lambda: (
                KNeighborsClassifier(20, metric="cosine", weights=lambda d: np.exp((1 - d) / 0.07))
                .fit(train.values, train.truth)
                .predict_proba(test.values)
            ),
        ),
        (
            "ridge, l2 = 1024",
            lambda: test.values @ solve_ridge(x, y, 1024.0),
            lambda: Ridge(1024.0, fit_intercept=False).fit(x, y).predict(test.values),
        ),
    ]
    for c in (FULL_GRID[16], FULL_GRID[24], FULL_GRID[32]):
        theirs = LogisticRegression(C=c, max_iter=1000, tol=1e-6)
        pairs.append(
            (
                f"logistic, C = {c:.3g}",
                partial(_our_logistic, train, c, test.values),
                partial(_their_logistic, theirs, x, train.truth, test.values),
            )
        )
    rows = []
    for name, mine, theirs in pairs:
        both = _in_turns({"mine": mine, "theirs": theirs}, config.repeats, config.timer)
        right = [float((solve().argmax(1) == test.truth).mean()) for solve in (mine, theirs)]
        ratio = both["theirs"] / both["mine"]
        rows.append(
            [name, f"{both['mine']:.3f}", f"{both['theirs']:.3f}", f"{ratio:.1f}", *(f"{r:.4f}" for r in right)]
        )
    return Table(
        title=f"Solvers, {config.samples} x {config.width} features, {config.classes} classes",
        columns=["problem", "here s", "scikit-learn s", "times faster", "top-1 here", "top-1 scikit-learn"],
        rows=rows,
        note="scikit-learn's lbfgs gets 1000 iterations; where it has not converged by then, its top-1 may differ.",
    )


def _our_logistic(train: Labelled, c: float, values: np.ndarray) -> np.ndarray:
    problem = hard_problem(train, "cpu")
    return linear_scores(problem.solve(c, problem.zeros(), 1000, 1e-6)[0], values)


def _their_logistic(model: Any, x: np.ndarray, class_ids: np.ndarray, values: np.ndarray) -> np.ndarray:
    return model.fit(x, class_ids).decision_function(values)


def _features(config: BenchTransferConfig, num: int, seed: int) -> Labelled:
    rng = np.random.default_rng(7)
    centres, mix = rng.normal(size=(config.classes, config.width)), rng.normal(size=(config.width, config.width))
    spread = np.logspace(0, -2, config.width)
    rng = np.random.default_rng(seed)
    class_ids = rng.integers(0, config.classes, num)
    values = (0.35 * centres[class_ids] + rng.normal(size=(num, config.width))) * spread @ mix / config.width**0.5
    return Labelled(values=values.astype(np.float32), truth=class_ids, num_classes=config.classes)


def _memory() -> Table:
    """Peak memory of a process that writes features of ever more samples."""
    context = multiprocessing.get_context("spawn")
    rows = []
    for num in (10_000, 100_000, 400_000):
        receive, send = context.Pipe(duplex=False)
        child = context.Process(target=_write_features, args=(num, send))
        child.start()
        private_mb = receive.recv()
        child.join()
        rows.append([f"{num:,}", round(num * 192 * 4 / 1e6), round(private_mb)])
    return Table(
        title="Memory of writing features, 192 wide",
        columns=["samples", "file MB", "peak private MB"],
        rows=rows,
        note="Private memory (without pages of the file, which the system may drop at any time) must not grow.",
    )


def _write_features(num: int, send: Any) -> None:
    rng = np.random.default_rng(0)
    key = FeatureKey(source="bench", transform={}, split_name="b", split_identity="i", split_root_hash="r")
    peak = 0.0

    def parts() -> Any:
        nonlocal peak
        for start in range(0, num, 1000):
            peak = max(peak, _private_mb())
            yield np.arange(start, start + 1000), rng.normal(size=(1000, 192)).astype(np.float32)

    with tempfile.TemporaryDirectory() as folder:
        FeatureStore(Path(folder)).put(key, parts(), num)
    send.send(max(peak, _private_mb()))


def _private_mb() -> float:
    """Resident memory that is this process's own; where the system does not tell, the peak of all of it."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("RssAnon"))
        return float(line.split()[1]) / 1000
    return peak_bytes() / 1e6


def _in_turns(
    kinds: dict[str, Callable[[], Any]], repeats: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, float]:
    """Median seconds of each."""
    return {name: statistics.median(times) for name, times in time_calls(kinds, repeats, clock=clock).items()}
