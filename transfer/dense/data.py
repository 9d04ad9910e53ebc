"""Dense tasks: each sample as the model sees it, the regions it is scored on, and what they hold.

One cut of the hierarchy gives the regions; it is enlarged without blending to the model's map and to the label map, so
both name the same regions and a token's prediction can be painted at full resolution, with exact borders.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import torch

from focusvit.model.partitions import grid_partition
from pipeline.errors import DataError
from pipeline.image.image import decode_image
from pipeline.shards.dataset import Split
from pipeline.shards.proof import read_proven
from pipeline.shards.sample import Sample
from pipeline.superpixels.hierarchy import cut

from .labels import Pairs, read_labels


@dataclass(frozen=True, kw_only=True)
class DenseConfig:
    """How a label map is read and on how many regions it is scored."""

    num_classes: int
    ignore: tuple[int, ...] = ()
    """Label values that are never counted, beside 255."""
    map_labels: Pairs = ()
    """Values of the files and the values to read for them."""
    num_regions: int
    """Regions of each image: the token budget, or the number of patches of a plain ViT."""
    patch_grid: tuple[int, int] | None = None
    """(rows, columns) for a model without superpixels: the regions are its patches, or cells of its uniform grid."""


@dataclass(frozen=True, kw_only=True)
class DenseSample:
    """rgb uint8 (H, W, 3); label_map uint8 (h, w); region_map integer (h, w), the same regions as small_map's."""

    rgb: np.ndarray
    label_map: np.ndarray
    region_map: np.ndarray
    small_map: np.ndarray


def load_dense(split: Split, number: int, config: DenseConfig) -> DenseSample:
    """Read one sample. Raises DataError that names the sample when its labels or their size are wrong."""
    sample = read_proven(split, number)
    place = f"sample {sample.key} of split '{split.name}' at {split.uri}"
    if sample.label_map is None:
        raise DataError(f"{place} has no label map (.seg.png), so it cannot be part of a dense task.")
    rgb = decode_image(sample.image)
    label_map = read_labels(sample.label_map, config.num_classes, config.ignore, config.map_labels, place)
    height, width = label_map.shape
    if abs(height * rgb.shape[1] - width * rgb.shape[0]) > 2 * max(rgb.shape[:2]) + 2 * max(height, width):
        raise DataError(
            f"{place}: the label map is {height}x{width} and the image {rgb.shape[0]}x{rgb.shape[1]} pixels. "
            "Their sides must have one ratio; give each image the label map of the same picture."
        )
    if config.patch_grid is not None:
        region_map = nearest(grid_partition(config.num_regions, config.patch_grid), (height, width))
        return DenseSample(rgb=rgb, label_map=label_map, region_map=region_map, small_map=region_map)
    small_map = _cut(sample, config.num_regions, place)
    return DenseSample(
        rgb=rgb, label_map=label_map, region_map=nearest(small_map, (height, width)), small_map=small_map
    )


def _cut(sample: Sample, num_regions: int, place: str) -> np.ndarray:
    fine, merges = sample.superpixels
    if num_regions > len(merges) + 1:
        raise DataError(
            f"{place} has {len(merges) + 1} superpixels, fewer than the budget of {num_regions}. "
            "Use a smaller --tokens."
        )
    return cut(fine, merges, num_regions)


def nearest(region_map: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The map at another size, sampled at pixel centres: ids are never blended, and at larger sizes none is lost."""
    y = ((np.arange(size[0]) + 0.5) * region_map.shape[0] / size[0]).astype(int)
    x = ((np.arange(size[1]) + 0.5) * region_map.shape[1] / size[1]).astype(int)
    return region_map[y[:, None], x[None, :]]


def model_inputs(
    samples: list[DenseSample], image_size: tuple[int, int], patch_grid: tuple[int, int], with_maps: bool
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Images uint8 (B, 3, H, W), the whole picture stretched to the model's size, and maps (B, Hm, Wm) or None.

    The maps are the smallest multiple of the patch grid that is not smaller than any cut: so no region is lost.
    """
    height, width = image_size
    images = []
    for sample in samples:
        mode = cv2.INTER_AREA if sample.rgb.shape[0] > height else cv2.INTER_LINEAR
        images.append(cv2.resize(sample.rgb, (width, height), interpolation=mode))
    stacked = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()
    if not with_maps:
        return stacked, None
    largest = np.max([sample.small_map.shape for sample in samples], 0)
    size = tuple(int(-(-side // patches) * patches) for side, patches in zip(largest, patch_grid))
    maps = np.stack([nearest(sample.small_map, size) for sample in samples])  # type: ignore[arg-type]
    return stacked, torch.from_numpy(maps.astype(np.int16))


def colour_features(sample: DenseSample, num_regions: int) -> np.ndarray:
    """float32 (K, 6): mean colour, centre and log area of each region. What a region tells without a network."""
    rgb = cv2.resize(sample.rgb, sample.region_map.shape[::-1], interpolation=cv2.INTER_AREA)
    ids = sample.region_map.ravel().astype(np.int64)
    area = np.bincount(ids, minlength=num_regions)
    height, width = sample.region_map.shape
    y, x = np.divmod(np.arange(len(ids)), width)
    columns = [*(rgb[:, :, channel].ravel() / 255 for channel in range(3)), (y + 0.5) / height, (x + 0.5) / width]
    sums = [np.bincount(ids, weights=column, minlength=num_regions) / np.maximum(area, 1) for column in columns]
    return np.stack([*sums, np.log1p(area)], 1).astype(np.float32)


def batches_of(split: Split, config: DenseConfig, size: int) -> Iterator[tuple[np.ndarray, list[DenseSample]]]:
    """(sample numbers, samples), in order, each sample once."""
    for start in range(0, split.num_samples, size):
        numbers = np.arange(start, min(start + size, split.num_samples))
        yield numbers, [load_dense(split, int(number), config) for number in numbers]
