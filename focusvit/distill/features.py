"""Label-free pretraining: the student's head predicts a frozen teacher's features of the image and of each superpixel.

The head is the projection (linear, as in FitNets, Romero et al. 2015): its first half predicts the class token, its
second half the mean of patch features, for the image from what the head reads, for a superpixel from its own token. The
loss is the cosine distance (AM-RADIO, Ranzinger et al. 2024) to features standardised by dimension (PHI-S, Ranzinger et
al. 2024): without that the mean of all images is most of the cosine, and a student may stay at predicting it.
Views may repeat (`data.views`; patient and consistent teaching, Beyer et al. 2022), and then each is shown once.
"""

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from focusvit.data.batch import Batch
from focusvit.model.model import FocusViT
from focusvit.model.regions import overlap_matrix
from focusvit.precision import Precision, computing

from .cache import FeatureCache

if TYPE_CHECKING:
    from .teacher import FeatureTeacher

NUM_STANDARDISED = 512  # images of the eval split whose features give mean and standard deviation


@dataclass(frozen=True)
class Targets:
    """What a batch's outputs should point to, standardised: image (B, 2, D), regions (B, K, D) or None."""

    image: Tensor
    regions: Tensor | None


class Student(nn.Module):
    """A FocusViT with both outputs of its head: image (B, 2, D) and regions (B, K, D), None when not asked for."""

    def __init__(self, model: FocusViT, with_regions: bool) -> None:
        super().__init__()
        self.model, self.with_regions = model, with_regions

    def forward(self, images: Tensor, maps: Tensor | None, num_tokens: int | None) -> tuple[Tensor, Tensor | None]:
        if not self.with_regions:
            return self.model(images, maps, num_tokens).unflatten(1, (2, -1)), None
        read, rows = self.model.token_features(images, maps, num_tokens)
        return self.model.head(read).unflatten(1, (2, -1)), self.model.head(rows).chunk(2, 2)[1]


class FeatureTargets:
    """The teacher's features of a batch, from the cache where its view was seen before."""

    def __init__(
        self,
        teacher: "FeatureTeacher",
        student_grid: tuple[int, int],
        *,
        regions: bool,
        bf16: bool,
        cache: FeatureCache | None = None,
        views: int = 0,
    ) -> None:
        self._teacher, self._student_grid = teacher, student_grid
        self._regions, self._bf16, self._cache, self._views = regions, bf16, cache, views
        self._mean: Tensor | None = None
        self._std: Tensor | None = None

    def standardise(self, batches: Iterable[Batch], add_up: Callable[[np.ndarray], np.ndarray]) -> None:
        """Measure mean and standard deviation of the features on the first samples of a split, over all ranks; the
        class token has its own, mean of patches and patches share theirs."""
        sums = np.zeros((2, 3, self._teacher.width))  # class token, patches: sum, sum of squares, count by dimension
        for batch in batches:
            wanted = batch.sample_ids < NUM_STANDARDISED
            if not bool(wanted.any()):
                break  # ids rise
            rows = self._seen(batch.images)[wanted.to(batch.images.device)].double()
            found = [
                torch.stack([p.sum((0, 1)), p.square().sum((0, 1)), torch.ones_like(p).sum((0, 1))]).cpu().numpy()
                for p in (rows[:, :1], rows[:, 2:])
            ]
            sums += np.stack(found)
        total, squares, counts = add_up(sums.ravel()).reshape(sums.shape).swapaxes(0, 1)
        mean = total / counts
        variance = squares / counts - mean**2
        self._mean = torch.from_numpy(mean).float()
        self._std = torch.from_numpy(np.sqrt(np.maximum(variance, 1e-12))).float()

    def __call__(self, batch: Batch) -> Targets:
        """The targets of a batch, float32 on its device."""
        rows = self._rows(batch)
        assert self._mean is not None and self._std is not None
        mean, std = self._mean.to(rows.device), self._std.to(rows.device)
        image = (rows[:, :2] - mean) / std
        if not self._regions:
            return Targets(image, None)
        patches = (rows[:, 2:] - mean[1]) / std[1]
        if batch.maps is not None and batch.num_tokens is not None:
            shares = overlap_matrix(batch.maps, self._teacher.grid, batch.num_tokens)
            return Targets(image, (shares / shares.sum(2, keepdim=True)) @ patches)
        planes = patches.transpose(1, 2).unflatten(2, self._teacher.grid)  # a plain ViT: its patches are its regions
        return Targets(image, functional.adaptive_avg_pool2d(planes, self._student_grid).flatten(2).transpose(1, 2))

    def _rows(self, batch: Batch) -> Tensor:
        """(B, 2 + N, D) float32, computed or kept."""
        if self._cache is None or batch.view_ids is None or bool((batch.view_ids < 0).any()):
            return self._seen(batch.images)
        numbers = (batch.sample_ids * self._views + batch.view_ids).cpu().numpy()
        kept, known = self._cache.find(numbers)
        if not known.all():
            missing = np.flatnonzero(~known)
            kept[missing] = self._seen(batch.images[torch.from_numpy(missing).to(batch.images.device)]).cpu().numpy()
            self._cache.put(numbers[missing], kept[missing])
        return torch.from_numpy(kept).to(batch.images.device).float()

    def _seen(self, images: Tensor) -> Tensor:
        """What the teacher says, rounded as the cache rounds it."""
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self._bf16):
            return self._teacher(images).half().float().clone()


def feature_losses(image: Tensor, regions: Tensor | None, targets: Targets, share: float) -> Tensor:
    """The loss of each sample, float32 (B,), in [0, 2]: 1 - cosine, averaged over class token and mean of patches, and
    with `share` over the regions."""
    losses = (1 - functional.cosine_similarity(image.float(), targets.image, dim=2)).mean(1)
    if regions is None or targets.regions is None:
        return losses
    of_regions = (1 - functional.cosine_similarity(regions.float(), targets.regions, dim=2)).mean(1)
    return (1 - share) * losses + share * of_regions


@torch.inference_mode()
def feature_scores(
    student: Student,
    batches: Iterable[Batch],
    targets: FeatureTargets,
    *,
    share: float,
    device: torch.device,
    precision: Precision,
    add_up: Callable[[np.ndarray], np.ndarray],
    num_samples: int,
) -> dict[str, float]:
    """`cosine` (of the image's outputs with the teacher's) and `loss` over a split, each sample once over all ranks."""
    was_training, sums = student.training, np.zeros(3)
    student.eval()
    try:
        for batch in batches:
            here = batch.to(device, non_blocking=True)
            with computing(precision, device):
                image, regions = student(here.images, here.maps, here.num_tokens)
            wanted = targets(here)
            cosine = functional.cosine_similarity(image.float(), wanted.image, dim=2).mean(1)
            losses = feature_losses(image, regions, wanted, share)
            sums += [len(here), float(cosine.sum()), float(losses.sum())]
    finally:
        student.train(was_training)
    count, cosine_sum, loss_sum = add_up(sums)
    assert count == num_samples, f"{count:g} of {num_samples} samples were scored"
    return {"cosine": float(cosine_sum / count), "loss": float(loss_sum / count)}


def cache_name(*parts: object) -> str:
    """A name that is another one as soon as teacher, views or data are others."""
    return "teacher-" + hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]
