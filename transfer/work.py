"""One task from shards to rows: features once, then every protocol. Pure work on plain values: it can run anywhere.

The caller schedules it (a loop here, Ray tasks from `cluster`) and reports; nothing here knows MLflow or a terminal.
"""

import dataclasses
import logging
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from focusvit.data.loader import DataConfig, EvalLoader
from focusvit.model.model import FocusViT
from focusvit.predict.compatible import check_labelled, check_superpixels, data_config
from focusvit.runs.checkpoint import load_model
from focusvit.runs.config_json import to_json
from pipeline.errors import DataError, UsageError
from pipeline.shards.dataset import Dataset, Split, open_dataset
from transfer.dense.work import DenseTaskRun, is_dense
from transfer.features.features import FeatureKey, FeatureStore, model_features, pixel_features, split_key, weights_hash
from transfer.features.hold_out import draw_parts, hold_out
from transfer.features.sealed import SealedTest
from transfer.protocols.multilabel_protocols import is_multilabel
from transfer.protocols.protocol import Fitted, Labelled, Skipped
from transfer.protocols.scoring import score
from transfer.tasks.result import Result, ResultStore, result_key
from transfer.tasks.spec import Outcome, WorkSpec, limit_note
from transfer.tasks.subset import limited

from .protocols import multilabel_protocols as multilabel
from .suites import protocols_of

log = logging.getLogger(__name__)
HELD_OUT_SHARE = 0.1


def run_task(spec: WorkSpec) -> Outcome:
    """Do one task. Never raises for what the task or its data did: that becomes its list of failures."""
    try:
        return TaskRun(spec).run() if not _is_dense(spec) else _run_dense(spec)
    except (UsageError, DataError, ValueError, OSError) as error:
        return Outcome(task=spec.task, failures=[f"{spec.task.name}: {error}"])
    except Exception as error:  # the other tasks go on; the trace is for whoever repairs this one
        log.exception("task %s failed", spec.task.name)
        return Outcome(task=spec.task, failures=[f"{spec.task.name}: {type(error).__name__}: {error}"])


def _is_dense(spec: WorkSpec) -> bool:
    dataset = open_dataset(spec.task.uri)
    return is_dense(dataset.split(spec.task.with_splits(dataset).test))


def _run_dense(spec: WorkSpec) -> Outcome:
    dataset = open_dataset(spec.task.uri)
    task = dataclasses.replace(spec.task.with_splits(dataset), metric="miou")
    model, record = load_model(spec.checkpoint, spec.device)
    if model.config.needs_maps:
        check_superpixels(record, dataset)
    run = DenseTaskRun(spec, dataset, task, model)
    rows, failures = run.run()
    return Outcome(
        task=task,
        rows=rows,
        failures=failures,
        num_skipped=run.num_skipped,
        features_s=run.features_s,
        data_identity=run.test.identity,
        notes=limit_note(spec, task.name),
    )


class TaskRun:
    """The steps of one task, with what they share."""

    def __init__(self, spec: WorkSpec) -> None:
        self.spec = spec
        self.dataset: Dataset = open_dataset(spec.task.uri)
        self.task = spec.task.with_splits(self.dataset)
        whole = {name: self.dataset.split(name) for name in self._part_names()}
        self.splits = {name: limited(split, spec.max_samples, spec.seed) for name, split in whole.items()}
        self.multilabel = is_multilabel(self.splits[self.task.test])
        if self.multilabel:
            self.task = dataclasses.replace(self.task, metric="map")
        self.truth = {name: self._truth(split) for name, split in self.splits.items()}
        self.model, self.record = load_model(spec.checkpoint, spec.device)
        if self.model.config.needs_maps:
            check_superpixels(self.record, self.dataset)
        self.data: DataConfig = data_config(self.record, spec.loader_workers)
        self.store = FeatureStore(Path(spec.features_folder))
        self.results = ResultStore(spec.out)
        self.outcome = Outcome(task=self.task, notes=self._notes(), data_identity=self.splits[self.task.test].identity)
        self.features_s = 0.0
        self.num_skipped = 0
        self.opened: set[str] = set()

    def run(self) -> Outcome:
        """Every source of features through every protocol that suits it."""
        for features in ("checkpoint", "random", "pixels") if self.spec.baselines else ("checkpoint",):
            for protocol in self._protocols(features):
                try:
                    self.outcome.rows.extend(self._measure(features, protocol))
                except (UsageError, DataError, ValueError) as error:
                    self.outcome.failures.append(f"{self.task.name}, {features} {protocol.name}: {error}")
        listed = [f"{self.task.name}, {row.features} {note}" for row in self.outcome.rows for note in row.notes]
        self.outcome.notes.extend(listed)
        return dataclasses.replace(self.outcome, features_s=self.features_s, num_skipped=self.num_skipped)

    def _protocols(self, features: str) -> list[Any]:
        if self.multilabel:
            return list(multilabel.protocols(features, self.spec.device))
        return list(protocols_of(self.spec.suite, features, self.spec.device, self.spec.seed))

    def _truth(self, split: Split) -> np.ndarray:
        """Class ids int64 (N,), or for multi-label tasks bool (N, C). Raises UsageError, DataError."""
        if self.multilabel:
            return multilabel.read_relevant(split)
        check_labelled(split)
        low, high, most = int(split.class_ids.min()), int(split.class_ids.max()), split.num_classes - 1
        if high > most:
            raise DataError(
                f"class ids {low}..{high} of split '{split.name}' at {split.uri} lie outside 0..{most}, its list of "
                "classes. Preprocess it again, or correct the labels of the source."
            )
        return split.class_ids.astype(np.int64)

    def _measure(self, features: str, protocol: Any) -> list[Result]:
        keys = {name: self._key(features, split) for name, split in self.splits.items()}
        key = result_key(
            {
                "source": features,
                "features": {name: one.digest() for name, one in keys.items()},
                "task": dataclasses.asdict(self.task) | {"uri": ""},
                "protocol": protocol.name,
                "settings": dataclasses.asdict(protocol) | {"device": ""},  # type: ignore[call-overload]
                "held_out_share": HELD_OUT_SHARE,
                "seed": self.spec.seed,
            }
        )
        found = self.results.find(key)
        if found is not None:
            self.num_skipped += 1
            return found
        train, held_out, test = self._parts(features, keys)
        started = time.perf_counter()
        fitted = protocol.fit(train, held_out)
        facts = {"num_train": len(train) + len(held_out), "fit_s": time.perf_counter() - started}
        # The only place where test labels are looked at, and only after everything has been chosen.
        answers = test.open_once(f"{features} {protocol.name}")
        rows = (multilabel.score_relevant if self.multilabel else score)(
            [one for one in fitted if isinstance(one, Fitted)],
            answers,
            self.task,
            features=features,
            protocol=protocol.name,
            classes=self.dataset.classes,
            **facts,
        )
        skipped = [f"{protocol.name} {one.variant} skipped: {one.reason}" for one in fitted if isinstance(one, Skipped)]
        if not rows:
            raise ValueError("; ".join(skipped) or "no variant could be measured")
        rows[0].notes.extend(skipped)
        self.results.put(key, rows)
        return rows

    def _parts(self, features: str, keys: dict[str, FeatureKey]) -> tuple[Any, Any, SealedTest]:
        """Training, held-out and sealed test features."""
        values = {name: np.asarray(self._values(features, keys[name], split)) for name, split in self.splits.items()}
        task = self.task

        def labelled(name: str) -> Labelled | multilabel.Relevant:
            if self.multilabel:
                return multilabel.Relevant(values=values[name], relevant=self.truth[name])
            return Labelled(values=values[name], class_ids=self.truth[name], num_classes=len(self.dataset.classes))

        test = SealedTest(values[task.test], self.truth[task.test], self.opened)
        train = labelled(task.train)
        if task.held_out:
            return train, labelled(task.held_out), test
        rows, chosen = self.drawn()
        return train.rows(rows), train.rows(chosen), test

    def drawn(self) -> tuple[np.ndarray, np.ndarray]:
        """Rows of the training split to fit on and to choose on, for a task without a split to choose on."""
        num, task = len(self.truth[self.task.train]), self.task
        if task.num_rows or self.multilabel:
            count = max(1, round(HELD_OUT_SHARE * num))
            return draw_parts(num, task.num_rows or (num - count, count), self.spec.seed)
        return hold_out(self.truth[task.train], HELD_OUT_SHARE, self.spec.seed)

    def _values(self, features: str, key: FeatureKey, split: Split) -> np.ndarray:
        found = self.store.find(key)
        if found is not None:
            return found
        started = time.perf_counter()
        tokens = self.budget
        with_maps = features != "pixels" and self.model.config.needs_maps
        batches = EvalLoader(
            split, self.data, batch_size=self.spec.batch_size, tokens=tokens if with_maps else None, with_maps=with_maps
        )
        if features == "pixels":
            parts = pixel_features(batches)
        else:
            parts = model_features(self._network(features), _with_tokens(batches, tokens, with_maps), self.spec.device)
        values = self.store.put(key, parts, split.num_samples)
        self.features_s += time.perf_counter() - started
        return values

    def _key(self, features: str, split: Split) -> FeatureKey:
        transform: dict[str, Any] = {"image_px": self.data.image_px, "crop_fraction": self.data.eval_crop_fraction}
        if features == "pixels":
            return split_key("pixels 16", transform, split)
        network = self._network(features)
        transform |= {"map_px": self.data.map_side, "tokens": self.budget, "model": to_json(network.config)}
        return split_key(weights_hash(network), transform, split)

    @property
    def budget(self) -> int | None:
        """Tokens an image; None for a plain ViT."""
        return self.spec.tokens or self.model.config.tokens

    def _network(self, features: str) -> FocusViT:
        """The checkpoint's model, or one of the same shape that has learned nothing."""
        if features == "checkpoint":
            return self.model
        if not hasattr(self, "_untrained"):
            state = torch.random.get_rng_state()
            torch.manual_seed(self.spec.seed)
            self._untrained = FocusViT(self.model.config).to(self.spec.device).eval()
            torch.random.set_rng_state(state)
        return self._untrained

    def _notes(self) -> list[str]:
        """What a reader must know to judge the numbers."""
        drawn = limit_note(self.spec, self.task.name)
        if self.multilabel:
            return drawn
        names = self.dataset.classes
        counts = np.bincount(self.truth[self.task.train], minlength=len(names))
        tested = np.bincount(self.truth[self.task.test], minlength=len(names))
        missing = np.flatnonzero((counts == 0) & (tested > 0))
        if not len(missing):
            return drawn
        return [
            *drawn,
            f"{self.task.name}: {len(missing)} classes have test samples and no training sample "
            f"(the first is '{names[missing[0]]}'); these test samples count as wrong",
        ]

    def _part_names(self) -> list[str]:
        return [name for name in (self.task.train, self.task.held_out, self.task.test) if name]


def _with_tokens(batches: Iterable[Any], tokens: int | None, with_maps: bool) -> Iterable[Any]:
    """Models that pool without maps (grid, merging) still need their budget."""
    return batches if with_maps else (dataclasses.replace(batch, num_tokens=tokens) for batch in batches)
