"""Models of the study, trained by the product's own loop on arrays in memory."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from focusvit.runs.run_dir import RunDir
from focusvit.train.config import TrainConfig
from focusvit.train.loop import Loaders, train
from pipeline.shards.dataset import INDEX_DTYPE, Dataset, Split, SplitInfo
from pipeline.shards.sample import FORMAT_VERSION
from pipeline.superpixels.segment import SuperpixelConfig
from tests.benchmarks.study.arrays import ArrayData, ArrayEvalLoader, ArrayTrainLoader

WARMUP_SHARE = 0.05
"""of the training"""


@dataclass(frozen=True, kw_only=True)
class ArrayDataset(Dataset):
    """What `train()` asks a data set, answered for arrays."""

    arrays: dict[str, ArrayData]
    """by the name of their split"""

    def split(self, name: str) -> Split:
        data = self.arrays[name]
        index = np.zeros(len(data), INDEX_DTYPE)
        index["class_id"] = data.class_ids.cpu().numpy()
        info = SplitInfo(
            num_samples=len(data), num_shards=1, num_skipped=0, num_bytes=0, identity=data.identity, fingerprint="",
            root_hash="", source=self.uri,
        )  # fmt: skip
        return Split(uri=self.uri, name=name, info=info, classes=self.classes, index=index)


def in_memory(classes: tuple[str, ...]) -> Dataset:
    """A data set of images that were drawn or cut here and lie in no shards."""
    return Dataset(
        uri="", format_version=FORMAT_VERSION, classes=classes, superpixels=SuperpixelConfig(), image={}, splits={}
    )


def whole_steps(samples: int, config: TrainConfig) -> int:
    """The samples of a whole number of steps, at least one."""
    return max(1, samples // config.global_batch) * config.global_batch


def train_on_arrays(
    config: TrainConfig,
    learned: ArrayData,
    scored: ArrayData,
    samples: int,
    *,
    of: Dataset,
    run_dir: str,
    device: str,
    shifts: bool = False,
    score_every_epochs: float | None = None,
) -> tuple[dict[str, float], str]:
    """Train on about `samples` images, or go on with `run_dir`. Returns the scores of the final weights and their
    checkpoint's folder.

    `of` is the data set that the arrays were made of: the checkpoint names it. Warm-up takes a twentieth. A training
    that is scored on its way makes a checkpoint in every epoch; else there is one at the end.
    """
    total = whole_steps(samples, config)
    epochs = total / len(learned)
    config = replace(
        config, epochs=epochs, eval_every_epochs=score_every_epochs or epochs,
        checkpoint_every_epochs=1.0 if score_every_epochs else epochs, log_every_steps=100, compile=False,
        optim=replace(config.optim, warmup_epochs=WARMUP_SHARE * epochs),
    )  # fmt: skip
    arrays = {config.data.train_split: learned.to(device), config.data.eval_split: scored.to(device)}
    told: dict[str, Any] = {name: getattr(of, name) for name in Dataset.__dataclass_fields__}
    loaders = Loaders(
        data=ArrayDataset(**told, arrays=arrays),
        train=ArrayTrainLoader(
            arrays[config.data.train_split],
            seed=config.seed,
            global_batch=config.global_batch,
            total_samples=total,
            shifts=shifts,
        ),
        eval=ArrayEvalLoader(arrays[config.data.eval_split], batch_size=250, num_classes=len(of.classes)),
    )
    found = train(config, run_dir=run_dir, loaders=loaders, device=device)
    place = RunDir(run_dir).checkpoint_uri(int(found["samples_seen"]))
    return {name.removeprefix("val/"): value for name, value in found.items() if name.startswith("val/")}, place
