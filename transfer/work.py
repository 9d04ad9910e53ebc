"""One task from shards to rows: features once, then every protocol. Pure work on plain values: it can run anywhere.

The caller schedules it (a loop here, Ray tasks from `cluster`) and reports; nothing here knows MLflow or a terminal.
"""

import dataclasses
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from focusvit.data.loader import EvalLoader
from focusvit.predict.compatible import check_labelled, data_config
from focusvit.runs.config_json import to_json
from focusvit.weights.files import weights_hash
from pipeline.errors import DataError, UsageError
from pipeline.shards.dataset import Split, open_dataset
from pipeline.shards.proof import prove_index
from transfer.dense.work import DenseTaskRun, is_dense
from transfer.features.features import (
    FeatureKey,
    model_batches,
    model_rows,
    pixel_features,
)
from transfer.features.hold_out import draw_parts, hold_out
from transfer.protocols.knn import Knn
from transfer.protocols.logistic import OneAgainstRest
from transfer.protocols.multilabel import is_multilabel, read_relevant
from transfer.protocols.protocol import Fitted, Labelled, Protocol, Skipped
from transfer.protocols.scoring import score
from transfer.tasks.measuring import HELD_OUT_SHARE, Measuring, attempted
from transfer.tasks.result import Result, result_key
from transfer.tasks.spec import Outcome, WorkSpec

from .suites import protocols_of


def run_task(spec: WorkSpec) -> Outcome:
    """Do one task. Never raises for what the task or its data did: that becomes its list of failures."""
    name = f"{spec.task.name}, {spec.control}" if spec.control else spec.task.name

    def run() -> Outcome:
        dataset = open_dataset(spec.task.uri)
        dense = is_dense(dataset.split(spec.task.with_splits(dataset).test))
        return (DenseTaskRun if dense else TaskRun)(spec).run()

    return attempted(spec.task, name, run)


class TaskRun(Measuring):
    """A task whose samples have one class each, or a list of classes."""

    def __init__(self, spec: WorkSpec) -> None:
        super().__init__(spec)
        self.data = data_config(self.record, spec.loader_workers)
        self.multilabel = is_multilabel(self.splits[self.task.test])
        if self.multilabel:
            self.task = self.outcome.task = dataclasses.replace(self.task, metric="map")
        self.truth = {name: self._truth(split) for name, split in self.splits.items()}
        self.outcome.notes += self._untrained_classes()

    def run(self) -> Outcome:
        """Every source of features through every protocol that suits it."""
        for features in (self.own, "random", "pixels") if self.spec.baselines else (self.own,):
            keys = {name: self._key(features, split) for name, split in self.splits.items()}
            for protocol in self._protocols(features):
                key = self._result_key(features, keys, protocol)
                self.add(f"{features} {protocol.name}", key, partial(self._measure, features, keys, protocol))
        self.outcome.notes += [
            f"{self.task.name}, {row.features} {note}" for row in self.outcome.rows for note in row.notes
        ]
        return self.outcome

    def _protocols(self, features: str) -> list[Protocol]:
        device = self.spec.device
        if not self.multilabel:
            return protocols_of(self.spec.suite, features, device, self.spec.seed)
        return [Knn(device=device)] + ([] if features == "pixels" else [OneAgainstRest(device=device)])

    def _truth(self, split: Split) -> np.ndarray:
        """Class ids int64 (N,), or for multi-label tasks bool (N, C). Raises UsageError, DataError."""
        if self.multilabel:
            return read_relevant(split)
        check_labelled(split)
        prove_index(split)  # features may come from a file, so that no shard is read
        low, high, most = int(split.class_ids.min()), int(split.class_ids.max()), split.num_classes - 1
        if high > most:
            raise DataError(
                f"class ids {low}..{high} of split '{split.name}' at {split.uri} lie outside 0..{most}, its list of "
                "classes. Preprocess it again, or correct the labels of the source."
            )
        if split.name == self.task.train and low == high:
            raise UsageError(
                f"all {split.num_samples} samples of split '{split.name}' at {split.uri} are of one class "
                f"('{split.classes[low]}'), so there is nothing to tell apart. Use a task of two classes or more."
            )
        return split.class_ids.astype(np.int64)

    def _result_key(self, features: str, keys: dict[str, FeatureKey], protocol: Any) -> str:
        return result_key(
            {
                "source": features,
                "features": {name: one.digest() for name, one in keys.items()},
                "task": dataclasses.asdict(self.task) | {"uri": ""},
                "protocol": protocol.name,
                "settings": dataclasses.asdict(protocol) | {"device": ""},
                "held_out_share": HELD_OUT_SHARE,
                "seed": self.spec.seed,
            }
        )

    def _measure(self, features: str, keys: dict[str, FeatureKey], protocol: Protocol) -> list[Result]:
        train, held_out, test = self._labelled(features, keys)
        started = time.perf_counter()
        fitted = protocol.fit(train, held_out)
        fit_s, num_train = time.perf_counter() - started, len(train) + len(held_out)
        # The only place where test labels are looked at, and only after everything has been chosen.
        self.open_test(f"{features} {protocol.name}")
        rows = score(
            [one for one in fitted if isinstance(one, Fitted)],
            test, self.truth[self.task.test], self.task, features=features, protocol=protocol.name,
            classes=self.dataset.classes, num_train=num_train, fit_s=fit_s,
        )  # fmt: skip
        skipped = [
            f"{protocol.name} {one.variant} skipped: class {self.dataset.classes[one.class_id]} {one.reason}"
            for one in fitted
            if isinstance(one, Skipped)
        ]
        if not rows:
            raise ValueError("; ".join(skipped) or "no variant could be measured")
        rows[0].notes.extend(skipped)
        return rows

    def _labelled(self, features: str, keys: dict[str, FeatureKey]) -> tuple[Labelled, Labelled, np.ndarray]:
        """Training and held-out samples, and the features of the test."""
        task = self.task
        values = {
            name: np.asarray(self.features(keys[name], self._parts(features, split), split.num_samples))
            for name, split in self.splits.items()
        }
        train, *rest = (
            Labelled(values=values[name], truth=self.truth[name], num_classes=len(self.dataset.classes))
            for name in (task.train, task.held_out)
            if name
        )
        if rest:
            return train, rest[0], values[task.test]
        rows, chosen = self.drawn()
        return train.rows(rows), train.rows(chosen), values[task.test]

    def drawn(self) -> tuple[np.ndarray, np.ndarray]:
        """Rows of the training split to fit on and to choose on, for a task without a split to choose on."""
        num, task = len(self.truth[self.task.train]), self.task
        if task.num_rows or self.multilabel:
            count = max(1, round(HELD_OUT_SHARE * num))
            return draw_parts(num, task.num_rows or (num - count, count), self.spec.seed)
        return hold_out(self.truth[task.train], HELD_OUT_SHARE, self.spec.seed)

    def _parts(self, features: str, split: Split) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        size = self.spec.batch_size
        if features == "pixels":
            yield from pixel_features(EvalLoader(split, self.data, batch_size=size, tokens=None, with_maps=False))
        else:
            network = self.network(features)
            device = self.spec.device
            batches = model_batches(network, split, self.data, batch_size=size, tokens=self.budget, device=device)
            yield from model_rows(network.features, batches, device, self.precision)

    def _key(self, features: str, split: Split) -> FeatureKey:
        transform: dict[str, Any] = {"image_px": self.data.image_px, "crop_fraction": self.data.eval_crop_fraction}
        if features == "pixels":
            return FeatureKey.of("pixels 16", transform, split)
        network = self.network(features)
        transform |= {"map_px": self.data.map_side, "tokens": self.budget, "model": to_json(network.config)}
        transform |= self.numbers()
        return FeatureKey.of(weights_hash(network), transform, split)

    @property
    def budget(self) -> int | None:
        """Tokens an image; None for a plain ViT."""
        return self.spec.tokens or self.model.config.tokens

    def _untrained_classes(self) -> list[str]:
        """What a reader must know to judge the numbers."""
        if self.multilabel:
            return []
        names = self.dataset.classes
        counts = np.bincount(self.truth[self.task.train], minlength=len(names))
        tested = np.bincount(self.truth[self.task.test], minlength=len(names))
        missing = np.flatnonzero((counts == 0) & (tested > 0))
        if not len(missing):
            return []
        return [
            f"{self.task.name}: {len(missing)} classes have test samples and no training sample "
            f"(the first is '{names[missing[0]]}'); these test samples count as wrong"
        ]
