"""Images for a host: read, reduced and normalised as its own record says."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn


@dataclass(frozen=True)
class Sample:
    """An image and what is known of it."""

    path: Path
    class_id: int = 0
    labels: Path | None = None


def class_folders(root: Path, per_class: int) -> list[Sample]:
    """At most `per_class` images of each class folder, in the order of their names."""
    found = []
    for class_id, folder in enumerate(sorted(path for path in root.iterdir() if path.is_dir())):
        found += [Sample(path, class_id) for path in sorted(folder.iterdir())[:per_class]]
    return found


def frames(root: Path) -> list[Sample]:
    """Images and label maps with the same stem."""
    return [Sample(path, labels=root / "labels" / f"{path.stem}.png") for path in sorted((root / "images").iterdir())]


def square(sample: Sample, side: int) -> np.ndarray:
    """uint8 RGB: the short side reduced to 8/7 of `side`, the middle square cut out (the usual evaluation view)."""
    with Image.open(sample.path) as opened:
        image = opened.convert("RGB")
    short = round(side * 8 / 7)
    scale = short / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return np.asarray(image.crop((left, top, left + side, top + side)))


def whole(sample: Sample, size: tuple[int, int]) -> np.ndarray:
    """uint8 RGB at `size` (height, width)."""
    with Image.open(sample.path) as opened:
        return np.asarray(opened.convert("RGB").resize(size[::-1], Image.Resampling.BICUBIC))


def normalised(images: Sequence[np.ndarray], host: Path) -> Tensor:
    """(B, 3, H, W) by the mean and std of the host's preprocessor_config.json."""
    told = json.loads((host / "preprocessor_config.json").read_text())
    mean, std = (torch.tensor(told[name])[:, None, None] for name in ("image_mean", "image_std"))
    stacked = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255
    return (stacked - mean) / std


def load_host(folder: Path) -> nn.Module:
    """A Hugging Face folder, in evaluation."""
    import transformers

    transformers.logging.set_verbosity_error()
    return transformers.AutoModel.from_pretrained(str(folder)).eval()


def batches(samples: Sequence[Sample], size: int) -> Iterator[Sequence[Sample]]:
    for start in range(0, len(samples), size):
        yield samples[start : start + size]
