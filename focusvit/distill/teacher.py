"""A frozen vision transformer as a teacher of features: one row an image, one row a patch."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from focusvit.drop_in.host_model import HostModel
from focusvit.runs.checkpoint import load_model
from focusvit.runs.checkpoint_record import is_host_folder
from focusvit.runs.model_record import quick_record
from focusvit.weights.files import weights_hash
from pipeline.errors import UsageError

if TYPE_CHECKING:
    from focusvit.drop_in.host_model import Model


def teacher_width(place: str) -> int:
    """D of the teacher at `place`. Raises what `FeatureTeacher` raises for a place without one."""
    return int(quick_record(place).model["width"])


class FeatureTeacher:
    """What a pretrained transformer says of images: what it is classified by, and the features of each patch."""

    def __init__(self, place: str, image_px: int, device: torch.device) -> None:
        """`place`: a folder of Hugging Face or timm, or a checkpoint of one of these or of a plain ViT of ours.

        Raises `UsageError`: nothing of that kind is there; weights or the normalisation of pixels are missing; its
        patches do not divide `image_px`; it needs superpixels. `DataError`: a damaged checkpoint.
        """
        self._model: Model
        sized = (f"image_px={image_px}",) if is_host_folder(place) else ()
        self._model, record = load_model(place, device, sized)
        config = self._model.config
        if config.tokens is not None:
            raise UsageError(
                f"the teacher {record.uri} pools patches, and a teacher shows each. Take one that does not."
            )
        if config.image_size != (image_px, image_px):
            size = config.image_size[0]
            raise UsageError(f"the teacher {record.uri} takes {size} px images, the student {image_px} px.")
        self._model.requires_grad_(False)
        self.grid, self.width = config.grid, config.width
        self.sha256 = weights_hash(self._model)

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        """uint8 (B, 3, H, W) -> (B, 2 + N, D) float32: the image, mean of patches, N patches in raster order."""
        model = self._model
        found = model.image_and_patches(images) if isinstance(model, HostModel) else model.token_features(images)
        image, patches = (part.float() for part in found)
        return torch.cat([image[:, None], patches.mean(1, keepdim=True), patches], 1)
