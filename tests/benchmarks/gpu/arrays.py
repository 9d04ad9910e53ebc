"""Data sets of arrays for the product's own training loop, without what shards need."""

import io
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from focusvit.model.cost import example_inputs
from focusvit.train.config import TrainConfig
from focusvit.train.loaders import Loaders
from focusvit.train.loop import train
from tests.benchmarks.study.arrays import ArrayData, ArrayEvalLoader, ArrayTrainLoader


@dataclass(frozen=True)
class ArraySplit:
    """What the loop asks a split."""

    name: str
    classes: tuple[str, ...]
    num_samples: int
    identity: str
    class_ids: np.ndarray

    root_hash: bytes = b""

    @property
    def num_classes(self) -> int:
        return len(self.classes)


@dataclass(frozen=True)
class Drawn:
    """The superpixel settings of a data set that has none of its own."""


@dataclass(frozen=True)
class ArraySet:
    """What the loop asks a data set."""

    arrays: dict[str, ArrayData]
    classes: tuple[str, ...]
    uri: str = "arrays"
    superpixels: Drawn = field(default_factory=Drawn)
    image: dict[str, Any] = field(default_factory=dict)

    def split(self, name: str) -> ArraySplit:
        data = self.arrays[name]
        return ArraySplit(name, self.classes, len(data), data.identity, data.class_ids.cpu().numpy())


def trained(
    config: TrainConfig,
    data: ArraySet,
    run_dir: Path,
    device: str,
    epochs: float,
    points: int = 1,
    shifts: bool = False,
) -> dict[str, float]:
    """The scores of a training by `focusvit.train.loop`, its batches taken from arrays on the device. It is scored
    `points` times on its way."""
    learned, scored = data.arrays[config.data.train_split], data.arrays[config.data.eval_split]
    total = max(1, round(epochs * len(learned)) // config.global_batch) * config.global_batch
    told = replace(
        config, epochs=total / len(learned), eval_every_epochs=total / len(learned) / points,
        checkpoint_every_epochs=total / len(learned), log_every_steps=50,
    )  # fmt: skip
    loaders: Any = Loaders(
        data=data,  # type: ignore[arg-type]
        train=ArrayTrainLoader(
            learned, seed=config.seed, global_batch=config.global_batch, total_samples=total, shifts=shifts
        ),
        eval=ArrayEvalLoader(scored, batch_size=500, num_classes=len(data.classes)),
    )
    return train(told, run_dir=str(run_dir), loaders=loaders, device=device)


def drawn(config: TrainConfig, count: int, device: str) -> ArraySet:
    """Random images and maps: what a step costs, not what it learns."""
    images, maps = example_inputs(config.model, count, device=device)
    ids = torch.arange(count, device=device) % config.model.num_classes
    one = ArrayData(images=images, maps=maps, num_tokens=config.model.tokens, class_ids=ids, identity="drawn")
    classes = tuple(str(number) for number in range(config.model.num_classes))
    return ArraySet({config.data.train_split: one, config.data.eval_split: one}, classes)


def read(file: Path, tokens: int | None, px: int, device: str, names: tuple[str, str]) -> ArraySet:
    """NAME.npz of `bench gpu-inputs`: images reduced to `px`, maps and class ids of two splits."""
    held = np.load(file)
    found = {}
    for split, name in zip(("train", "test"), names):
        maps = torch.from_numpy(held[f"{split}_maps_{tokens}"]).to(device) if tokens else None
        found[name] = ArrayData(
            images=_reduced(_decoded(held[f"{split}_files"], held[f"{split}_ends"]).to(device), px), maps=maps,
            num_tokens=tokens,
            class_ids=torch.from_numpy(held[f"{split}_ids"].astype(np.int64)).to(device),
            identity=f"{file.stem} {split}",
        )  # fmt: skip
    return ArraySet(found, tuple(str(name) for name in held["classes"]))


def _decoded(files: np.ndarray, ends: np.ndarray) -> torch.Tensor:
    """uint8 (N, 3, H, W) of N image files, one after another in `files` (uint8); `ends`: where each one ends."""
    from PIL import Image  # comes with the libraries that are there

    starts = [0, *ends[:-1].tolist()]
    pixels = [
        np.asarray(Image.open(io.BytesIO(files[start:end].tobytes())).convert("RGB"))
        for start, end in zip(starts, ends.tolist())
    ]
    return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).contiguous()


def _reduced(images: torch.Tensor, px: int) -> torch.Tensor:
    """uint8 (N, 3, H, W) averaged over whole squares to a side of `px`."""
    factor = images.shape[-1] // px
    if factor == 1:
        return images
    parts = [torch.nn.functional.avg_pool2d(part.float(), factor).round() for part in images.split(4096)]
    return torch.cat(parts).to(torch.uint8)
