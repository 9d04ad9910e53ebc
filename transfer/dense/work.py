"""One dense task from shards to rows: token features and region tables once, then linear head, k-means and oracles."""

import dataclasses
import math
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import torch

from focusvit.drop_in.host_model import Model
from focusvit.precision import computing
from focusvit.runs.config_json import to_json
from focusvit.score.intervals import bootstrap, over_draws
from focusvit.weights.files import weights_hash
from pipeline.errors import UsageError
from pipeline.shards.dataset import Split
from transfer.features.features import FeatureKey
from transfer.protocols.multilabel import mean_of_known
from transfer.protocols.protocol import Labelled
from transfer.tasks.measuring import HELD_OUT_SHARE, Measuring
from transfer.tasks.result import Result
from transfer.tasks.spec import Outcome, WorkSpec

from . import segmentation
from .boundary import boundary_f1
from .data import DenseConfig, batches_of, colour_features, model_inputs
from .labels import check_scored, label_counts, numbered_classes
from .painting import paint_examples
from .protocols import DenseKMeans, DenseLinear

_BATCH = 16
DENSE_VERSION = 2  # raised when the same settings would give other numbers of a dense task


@dataclasses.dataclass(frozen=True, kw_only=True)
class DenseSplit:
    """One split: features (N * K, D) and histograms (N * K, C), the regions of an image one after another."""

    values: np.ndarray
    histograms: np.ndarray
    num_regions: int

    def images(self, numbers: np.ndarray) -> Labelled:
        """The regions of these images."""
        rows = (numbers[:, None] * self.num_regions + np.arange(self.num_regions)).ravel()
        histograms = np.asarray(self.histograms[rows])
        return Labelled(values=np.asarray(self.values[rows]), truth=histograms, num_classes=histograms.shape[1])


class DenseTaskRun(Measuring):
    """A task whose samples have a label map each."""

    def __init__(self, spec: WorkSpec) -> None:
        super().__init__(spec)
        self.task = self.outcome.task = dataclasses.replace(self.task, metric="miou")
        self.train, self.test = self.splits[self.task.train], self.splits[self.task.test]
        ignore, pairs = self.task.ignore, self.task.map_labels
        self.classes = self.task.classes or self.dataset.classes
        if not self.classes:
            self.classes = numbered_classes(label_counts(self.train, pairs), ignore)
        note = check_scored(label_counts(self.test, pairs), len(self.classes), ignore)
        self.outcome.notes += [f"{self.task.name}: {note}"] if note else []
        self.config = self._dense_config(self.model)

    def run(self) -> Outcome:
        """Protocols on the checkpoint's tokens and on baselines, and the bounds of the regions."""
        protocols = (DenseLinear(device=self.spec.device, seed=self.spec.seed), DenseKMeans(seed=self.spec.seed))
        for features in (self.own, "random", "colour") if self.spec.baselines else (self.own,):
            for protocol in protocols:
                key = self._result_key(features, protocol.name, dataclasses.asdict(protocol) | {"device": ""})
                name = f"{features} {protocol.name}"
                self.add(name, key, partial(self._measure, features, protocol))
        if not self.spec.control:
            self.add("oracles", self._result_key("oracle", "bounds", {}), self._bounds)
        return self.outcome

    def _dense_config(self, model: Model) -> DenseConfig:
        config = model.config
        if config.tokens is not None and config.partition not in ("superpixel", "grid", "patch"):
            raise UsageError(
                f"the checkpoint pools by '{config.partition}'; dense tasks need superpixels, a grid or a plain ViT."
            )
        plain = config.tokens is None or config.partition == "patch"
        budget = config.num_patches if plain else (self.spec.tokens or config.tokens)
        assert budget is not None
        return DenseConfig(
            num_classes=len(self.classes),
            ignore=self.task.ignore,
            map_labels=self.task.map_labels,
            num_regions=budget,
            patch_grid=None if config.needs_maps else config.grid,
        )

    # Measurements.

    def _measure(self, features: str, protocol: DenseLinear | DenseKMeans) -> list[Result]:
        train, test = self._split(features, self.train), self._split(features, self.test)
        order = np.random.default_rng(self.spec.seed).permutation(self.train.num_samples)
        count = max(1, round(HELD_OUT_SHARE * len(order)))
        started = time.perf_counter()
        fitted = protocol.fit(train.images(np.sort(order[count:])), train.images(np.sort(order[:count])))
        fit_s = time.perf_counter() - started
        predicted = [one.predict(test.values).argmax(1).reshape(-1, self.config.num_regions) for one in fitted]
        self.open_test(f"{features} {protocol.name}")
        # From here on nothing is chosen: test labels are only counted.
        row = self._scored(predicted, test.histograms, features=features, protocol=protocol.name)
        pictures = []
        if features == "checkpoint":
            name = f"{self.task.name}-{protocol.name}-{self.config.num_regions}"
            pictures = paint_examples(self.test, self.config, predicted[0], self.spec.out, name, tuple(self.classes))
        return [dataclasses.replace(row, chosen=dict(fitted[0].chosen), fit_s=fit_s, pictures=pictures)]

    def _scored(
        self, all_predicted: list[np.ndarray], histograms: np.ndarray, *, features: str, protocol: str
    ) -> Result:
        """The row of one or several labellings (N, K); of several their mean, with Student's t."""
        tables = histograms.reshape(-1, self.config.num_regions, histograms.shape[1])
        counts = [np.stack([segmentation.confusion_of(t, p) for t, p in zip(tables, one)]) for one in all_predicted]
        borders = self._boundaries(all_predicted)
        result = self._row(counts[0], features=features, protocol=protocol, boundary=borders[0])
        if len(all_predicted) > 1:
            repeats = [self._scores(one.sum(0), border) for one, border in zip(counts, borders)]
            scores = {name: mean_of_known([one.get(name, math.nan) for one in repeats]) for name in result.scores}
            draws = [one["miou"] for one in repeats]
            low, high = over_draws(draws)
            result = dataclasses.replace(
                result, value=scores["miou"], low=low, high=high, interval=f"t over {len(draws)} draws", draws=draws,
                scores=scores, confusion=np.sum(counts, 0).sum(0).tolist(),
            )  # fmt: skip
        return result

    def _bounds(self) -> list[Result]:
        """The best that any labelling of the superpixels, and of a uniform grid of as many cells, could reach."""
        rows = []
        C, K = self.config.num_classes, self.config.num_regions
        for name in ("superpixels", "grid") if self.config.patch_grid is None else ("grid",):
            counts, borders, sizes = [], [], set()
            for _, samples in batches_of(self.test, self.config, _BATCH):
                for sample in samples:
                    height, width = sample.label_map.shape
                    grid = segmentation.grid_map(height, width, K)
                    regions = grid if name == "grid" else sample.region_map
                    sizes.add((height, width))
                    table = segmentation.region_histograms(regions, sample.label_map, max(K, int(regions.max()) + 1), C)
                    best = segmentation.best_labels(table)
                    counts.append(segmentation.confusion_of(table, best))
                    borders.append(boundary_f1(best[regions], sample.label_map, C))
            row = self._row(np.stack(counts), features="oracle", protocol=name, boundary=mean_of_known(borders))
            variant, cells = (f"K={K}", K) if name == "superpixels" else segmentation.grid_label(sizes, K)
            rows.append(dataclasses.replace(row, variant=variant, chosen={"regions": cells}))
        return rows

    def _row(self, counts: np.ndarray, *, features: str, protocol: str, boundary: float) -> Result:
        """One row from the confusions (N, C, C) of the test images; the interval is over images."""
        total = counts.sum(0)
        low, high = bootstrap(lambda rows: segmentation.mean_iou(counts[rows].sum(0)), len(counts), seed=self.spec.seed)
        return Result(
            task=self.task.name,
            features=features,
            protocol=protocol,
            metric="miou",
            value=segmentation.mean_iou(total),
            low=low,
            high=high,
            interval="bootstrap over images",
            chance=segmentation.constant_mean_iou(total),
            num_classes=len(self.classes),
            num_train=self.train.num_samples,
            num_test=self.test.num_samples,
            scores=self._scores(total, boundary),
            per_class=[None if math.isnan(v) else float(v) for v in segmentation.intersection_over_union(total)],
            confusion=total.tolist(),
            classes=list(self.classes),
        )

    @staticmethod
    def _scores(total: np.ndarray, boundary: float) -> dict[str, float]:
        """Of one confusion (C, C); without boundary F1 when no image has a border: the table then leaves it out."""
        scores = {"miou": segmentation.mean_iou(total), "pixel_accuracy": segmentation.pixel_accuracy(total)}
        return scores if math.isnan(boundary) else {**scores, "boundary_f1": boundary}

    def _boundaries(self, all_predicted: list[np.ndarray]) -> list[float]:
        """Mean boundary F1 of each labelling (N, K) over the test images that have a border, in one pass over them."""
        scores: list[list[float]] = [[] for _ in all_predicted]
        for numbers, samples in batches_of(self.test, self.config, _BATCH):
            for number, sample in zip(numbers, samples):
                for found, predicted in zip(scores, all_predicted):
                    painted = predicted[number][sample.region_map]
                    found.append(boundary_f1(painted, sample.label_map, self.config.num_classes))
        return [mean_of_known(found) for found in scores]

    # Features and tables.

    def _split(self, features: str, split: Split) -> DenseSplit:
        """Features and histograms of one split, from the cache or computed in one pass."""
        source = features if features == "colour" else weights_hash(self.network(features))
        key = FeatureKey.of(f"dense {source}", self._transform(features), split)
        found = self.features(key, self._parts(features, split), split.num_samples * self.config.num_regions)
        width = found.shape[1] - self.config.num_classes
        return DenseSplit(values=found[:, :width], histograms=found[:, width:], num_regions=self.config.num_regions)

    def _parts(self, features: str, split: Split) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Rows of features with the histogram of the region behind them: one file, one pass, flat memory."""
        config, K = self.config, self.config.num_regions
        network = self.network(features)
        for numbers, samples in batches_of(split, config, _BATCH):
            rows = (numbers[:, None] * K + np.arange(K)).ravel()
            found = [
                segmentation.region_histograms(one.region_map, one.label_map, K, config.num_classes) for one in samples
            ]
            if features == "colour":
                values = np.concatenate([colour_features(one, K) for one in samples])
            else:
                size, with_maps = network.config.image_size, network.config.needs_maps
                images, maps = model_inputs(samples, size, network.config.grid, with_maps)
                device = self.spec.device
                with computing(self.precision, device), torch.inference_mode():
                    tokens = network.dense_features(
                        images.to(device), None if maps is None else maps.to(device), K if with_maps else None
                    )
                values = tokens.float().flatten(0, 1).cpu().numpy()
            yield rows, np.concatenate([values, np.concatenate(found)], 1, dtype=np.float32)

    def _transform(self, features: str) -> dict[str, Any]:
        model = to_json(self.model.config) if features != "colour" else ""
        numbers = self.numbers() if features != "colour" else {}
        return {"dense": dataclasses.asdict(self.config), "classes": list(self.classes), "model": model, **numbers}

    def _result_key(self, features: str, protocol: str, settings: dict[str, Any]) -> str:
        source = weights_hash(self.network(features)) if features in ("checkpoint", "random") else features
        splits = {split.name: [split.identity, split.info.root_hash] for split in (self.train, self.test)}
        return self.key(
            source=source, features=features, protocol=protocol, settings=settings, splits=splits,
            transform=self._transform(features), dense_version=DENSE_VERSION,
        )  # fmt: skip


def is_dense(split: Split) -> bool:
    """Whether the samples carry label maps; the first one tells."""
    return split.num_samples > 0 and split.read(0).label_map is not None
