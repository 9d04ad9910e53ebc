"""What the loader hands to the model: one batch, with everything that the training step and the scores need."""

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from focusvit.model.inputs import check_maps

from .pixels import PixelWork, finish, map_tensors


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One slice of a global batch. B is the number of images here; maps may have their own resolution.

    images      uint8 (B, 3, H, W), RGB; the model normalises on the device
    maps        uint8 or int16 (B, Hm, Wm), region ids 0..num_tokens-1, every id present; None for a plain ViT
    num_tokens  regions per image in this batch, a Python int; None without maps
    class_ids   int64 (B,), -1 = the sample has no class
    sample_ids  int64 (B,), the index in the split
    view_ids    int64 (B,) or None: which random view of the sample this is (its epoch, or epoch % data.views), -1 = the
                fixed one of evaluation
    mix_ids     int64 (B,) or None: the second class of a mixed image (mixup, CutMix)
    mix_share   float32 (B,) or None: the share of `class_ids` in the target; the rest belongs to `mix_ids`
    work        what is still to be done to the images, on the device: see `finished`; None = nothing
    num_replaced  samples of this batch that did not decode and were replaced by others
    """

    images: Tensor
    maps: Tensor | None = None
    num_tokens: int | None = None
    class_ids: Tensor
    sample_ids: Tensor
    view_ids: Tensor | None = None
    mix_ids: Tensor | None = None
    mix_share: Tensor | None = None
    work: PixelWork | None = None
    num_replaced: int = 0

    def __len__(self) -> int:
        return self.images.shape[0]

    def _map_tensors(self, change) -> "Batch":  # type: ignore[no-untyped-def]
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        work = None if self.work is None else map_tensors(self.work, change)
        return replace(self, work=work, **{name: change(v) for name, v in values.items() if isinstance(v, Tensor)})

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "Batch":
        """The same batch on `device`."""
        return self._map_tensors(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def finished(self) -> "Batch":
        """The batch that a model may see: colours, erasing and mixing done where the images lie. Itself if they are."""
        if self.work is not None:
            return replace(self, images=finish(self.images, self.work), work=None)
        return self if self.images.is_contiguous() else replace(self, images=self.images.contiguous())

    def pin_memory(self, device: object = None) -> "Batch":
        """Page-locked copies, so that `to(..., non_blocking=True)` overlaps with work (the DataLoader calls this)."""
        return self._map_tensors(lambda tensor: tensor.pin_memory())

    def split(self, size: int | None) -> list["Batch"]:
        """Micro-batches of at most `size` images, in order; the whole batch for None. Of a finished batch only."""
        if self.work is not None:
            raise ValueError("the images of this batch are not finished: call finished() first, on the device")
        if size is None or size >= len(self):
            return [self]
        starts = range(0, len(self), size)
        return [self._map_tensors(lambda tensor, s=start: tensor[s : s + size]) for start in starts]

    def check(self, num_classes: int | None = None) -> "Batch":
        """Check shapes, types and value ranges; return the batch itself.

        Raises ValueError with the value seen. This is the boundary: the model's forward trusts what passed here.
        """
        size = len(self)
        if self.images.ndim != 4 or self.images.shape[1] != 3 or self.images.dtype != torch.uint8:
            raise ValueError(f"images must be uint8 (B, 3, H, W), not {self.images.dtype} {tuple(self.images.shape)}")
        for name in ("class_ids", "sample_ids", "view_ids", "mix_ids", "mix_share"):
            value = getattr(self, name)
            if value is not None and tuple(value.shape) != (size,):
                raise ValueError(f"{name} has shape {tuple(value.shape)}, but the batch holds {size} images")
        if num_classes is not None and size:
            for name in ("class_ids", "mix_ids"):
                value = getattr(self, name)
                if value is not None and int(value.max()) >= num_classes:
                    raise ValueError(f"{name} holds {int(value.max())}, but the model has {num_classes} classes")
        if self.maps is not None:
            if self.num_tokens is None or len(self.maps) != size:
                raise ValueError(
                    f"maps have shape {tuple(self.maps.shape)} and num_tokens is {self.num_tokens}; a batch of {size} "
                    "images with maps has one map for each and says how many regions they hold"
                )
            check_maps(self.maps, self.num_tokens)
        return self
