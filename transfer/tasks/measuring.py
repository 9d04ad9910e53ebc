"""What the measurements of one task share, whatever its labels are: model, caches, and the outcome that they add to."""

import dataclasses
import logging
import time
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from focusvit.choices import pick_device
from focusvit.drop_in.host_model import Model, build_model
from focusvit.precision import as_trained, settled
from focusvit.predict.compatible import check_superpixels
from focusvit.runs.checkpoint import load_model
from pipeline.errors import DataError, UsageError
from pipeline.shards.dataset import open_dataset
from transfer.features.features import FeatureKey, FeatureStore

from .result import Result, ResultStore, result_key
from .spec import Outcome, WorkSpec
from .subset import limited
from .task import Task

log = logging.getLogger(__name__)
HELD_OUT_SHARE = 0.1


class SecondLookError(Exception):
    """A protocol asked for the test labels again: its first number could have steered a choice."""


class Measuring:
    """One task under way. Raises UsageError, DataError when task and checkpoint do not belong together."""

    def __init__(self, spec: WorkSpec) -> None:
        spec = dataclasses.replace(spec, device=pick_device(spec.device))
        self.spec, self.dataset = spec, open_dataset(spec.task.uri)
        self.task = task = spec.task.with_splits(self.dataset)
        names = [name for name in (task.train, task.held_out, task.test) if name]
        self.splits = {name: limited(self.dataset.split(name), spec.max_samples, spec.seed) for name in names}
        self.model, self.record = load_model(spec.checkpoint, spec.device, spec.patch)
        self.precision = as_trained(spec.precision, self.record.config)
        if self.model.config.needs_maps:
            check_superpixels(self.record, self.dataset)
        self.store, self.results = FeatureStore(Path(spec.features_folder)), ResultStore(spec.out)
        self._opened: set[str] = set()
        self.own = spec.control or "checkpoint"
        """what rows of the model itself are called"""
        identity = self.splits[task.test].identity
        self.outcome = Outcome(task=task, data_identity=identity)
        if spec.max_samples is not None:  # for tables of numbers that do not come from whole splits
            self.outcome.notes.append(f"{task.name}: at most {spec.max_samples:,} samples of each split, drawn by seed")

    def add(self, name: str, key: str, measure: Callable[[], list[Result]]) -> None:
        """Add the rows that lie finished under `key`, else what `measure` gives; what it refuses is a failure."""
        try:
            rows = self.results.find(key)
            if rows is None:
                rows = measure()
                self.results.put(key, rows)
            else:
                self.outcome.num_skipped += 1
            self.outcome.rows += rows
        except (UsageError, DataError, ValueError) as error:
            self.outcome.failures.append(f"{self.task.name}, {name}: {error}")

    def open_test(self, name: str) -> None:
        """To be called before the test labels are looked at, for the one scoring of `name`, which has finished fitting.
        Raises SecondLookError the second time: 'test touched once' is a property of the code.
        """
        if name in self._opened:
            raise SecondLookError(
                f"protocol '{name}' asked for the test labels a second time. Choose on held-out training samples, "
                "and score every fitted classifier in one call."
            )
        self._opened.add(name)

    def features(self, key: FeatureKey, parts: Iterator[tuple[np.ndarray, np.ndarray]], num_rows: int) -> np.ndarray:
        """Features from the cache, or computed in one pass over `parts` (as of `FeatureStore.put`)."""
        found = self.store.find(key)
        if found is None:
            started = time.perf_counter()
            found = self.store.put(key, parts, num_rows)
            self.outcome.features_s += time.perf_counter() - started
        return found

    def key(self, **decisive: Any) -> str:
        """The name of a result of this task: of what all results depend on, and of `decisive`."""
        task = dataclasses.asdict(self.task) | {"uri": ""}
        return result_key({"task": task, "held_out_share": HELD_OUT_SHARE, "seed": self.spec.seed, **decisive})

    def numbers(self) -> dict[str, str]:
        """What a key of features says of the numbers they were computed in: nothing of float32."""
        found = settled(self.precision, self.spec.device)
        return {} if found == "fp32" else {"precision": found}

    def network(self, features: str) -> Model:
        """The checkpoint's model; for 'random' one of the same shape that has learned nothing."""
        return self._untrained if features == "random" else self.model

    @cached_property
    def _untrained(self) -> Model:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.spec.seed)
            return build_model(self.model.config).to(self.spec.device).eval()


def attempted(task: Task, name: str, work: Callable[[], Outcome]) -> Outcome:
    """What `work` returns. Never raises for what the task or its data did: that becomes the outcome's failure."""
    try:
        return work()
    except (UsageError, DataError, ValueError, OSError) as error:
        return Outcome(task=task, failures=[f"{name}: {error}"])
    except Exception as error:  # the other tasks go on; the trace is for whoever repairs this one
        log.exception("%s failed", name)
        return Outcome(task=task, failures=[f"{name}: {type(error).__name__}: {error}"])
