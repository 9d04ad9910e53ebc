"""From the bytes of an image file to class probabilities, by a checkpoint, on the path that the validation took.

Needs no shards and no Ray, so it is also what a registered MLflow model runs. Its twin without torch is
`onnx_predictor`.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from focusvit.data.augment import View
from focusvit.model.inputs import check_values
from focusvit.runs.checkpoint import Checkpoint, load_model
from pipeline.image.image import BadImage, ImageConfig
from pipeline.io import storage
from pipeline.superpixels.segment import SuperpixelConfig

from .compatible import data_config
from .onnx_predictor import model_inputs
from .view import Prediction, ViewConfig

if TYPE_CHECKING:
    import pandas


class Predictor:
    """A checkpoint that takes images. `tokens` is the budget; None = the checkpoint's own. `batch_size` is what callers
    should hand to `predict` at a time.
    """

    def __init__(
        self, checkpoint: str, *, device: str = "cpu", tokens: int | None = None, batch_size: int = 16
    ) -> None:
        self.model, self.record = load_model(checkpoint, device)
        self.name, self.classes, self.device = self.record.uri, self.record.classes, device
        self.batch_size = batch_size
        self.tokens = tokens if tokens is not None else self.model.config.tokens
        self.view_config = view_config(self.record, self.tokens if self.model.config.needs_maps else None)

    def view(self, data: bytes) -> View:
        """What the model sees of an encoded image. Raises BadImage."""
        return self.view_config.view(data)

    @torch.inference_mode()
    def predict(self, views: Sequence[View]) -> list[Prediction]:
        """One batch of views through the model."""
        images, maps = model_tensors(views, self.device)
        budget = self.tokens if self.model.config.tokens is not None else None
        check_values(self.model.config, images, maps, budget)
        logits = self.model(images, maps, budget)
        shares = torch.softmax(logits.float(), 1).cpu().numpy()
        return [Prediction(shares=share, view=view) for share, view in zip(shares, views)]

    def table(self, images: Any, batch_size: int = 32) -> "pandas.DataFrame":
        """For MLflow: one row per image with the best class, its share and the five best as text.

        `images` is a list, an array or the first column of a frame; each entry is a file's path, address or bytes. An
        image that cannot be read gives a row with its reason in `error`, so that one bad file does not lose a batch.
        """
        import pandas

        entries = list(images.iloc[:, 0]) if hasattr(images, "iloc") else list(np.asarray(images, object).ravel())
        rows: list[dict[str, Any]] = [{"class": None, "share": None, "top5": None, "error": ""} for _ in entries]
        waiting: list[tuple[int, View]] = []
        for number, entry in enumerate(entries):
            try:
                data = bytes(entry) if isinstance(entry, (bytes, bytearray)) else storage.read_bytes(str(entry))
                waiting.append((number, self.view(data)))
            except (BadImage, OSError) as error:
                rows[number]["error"] = str(error)
        for part in _chunks(waiting, batch_size):
            for (number, _), found in zip(part, self.predict([view for _, view in part])):
                best = found.top(5)
                rows[number] |= {
                    "class": self.classes[best[0]],
                    "share": float(found.shares[best[0]]),
                    "top5": ", ".join(f"{self.classes[i]} {found.shares[i]:.1%}" for i in best),
                }
        return pandas.DataFrame(rows)


def model_tensors(views: Sequence[View], device: torch.device | str) -> tuple[Tensor, Tensor | None]:
    """Views as what the model takes: images (n, 3, H, W), and maps (n, Hm, Wm) where the views have one."""
    images, *maps = (torch.from_numpy(x).to(device) for x in model_inputs(views))
    return images, maps[0] if maps else None


def view_config(record: Checkpoint, tokens: int | None) -> ViewConfig:
    """How the model of a checkpoint looks at an image; `tokens` None where it takes no map."""
    data = data_config(record, loader_workers=0)
    return ViewConfig(
        image_px=data.image_px,
        map_px=data.map_side,
        crop_fraction=data.eval_crop_fraction,
        tokens=tokens,
        # A checkpoint that does not say how its images were stored was trained on the default.
        image=ImageConfig(**record.image),
        superpixels=SuperpixelConfig(**record.superpixels),
    )


def _chunks(items: list[Any], size: int) -> Iterator[list[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
