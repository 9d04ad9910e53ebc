"""From the bytes of an image file to class probabilities, by a checkpoint, on the path that the validation took.

Needs no shards and no Ray, so it is also what a registered MLflow model runs. Its twin without torch is
`onnx_predictor`.
"""

import base64
import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from focusvit.data.augment import View
from focusvit.model.inputs import check_values
from focusvit.precision import Precision, as_trained, computing
from focusvit.runs.checkpoint import Checkpoint, load_model
from pipeline.errors import UsageError
from pipeline.image.image import BadImage, ImageConfig
from pipeline.superpixels.segment import SuperpixelConfig

from .compatible import check_tokens, data_config
from .onnx_predictor import model_inputs
from .view import Prediction, ViewConfig

if TYPE_CHECKING:
    import pandas

    from focusvit.drop_in.host_model import Model

MAX_BYTES = 64 * 2**20  # of one entry of a request


class Predictor:
    """A model that takes images, as its record says. `tokens` is the budget; None = the model's own. `batch_size` is
    what callers should hand over at a time.
    """

    def __init__(
        self,
        model: "Model",
        record: Checkpoint,
        *,
        tokens: int | None = None,
        batch_size: int = 16,
        precision: Precision = "auto",
    ) -> None:
        self.model, self.record, self.batch_size = model, record, batch_size
        self.name, self.classes = record.uri, record.classes
        self.precision = as_trained(precision, record.config)
        self.tokens = tokens or model.config.tokens
        self.view_config = view_config(record, self.tokens if model.config.needs_maps else None)

    @classmethod
    def of(cls, checkpoint: str, *, device: str = "cpu", **options: Any) -> "Predictor":
        """Of a checkpoint. Raises `UsageError` for one that knows no classes."""
        model, record = load_model(checkpoint, device)
        if not record.classes:
            raise UsageError(
                f"{record.uri} knows no classes: it was pretrained without labels, or by another library. "
                "Fine-tune it (`focusvit finetune`), or measure its features (`focusvit transfer`)."
            )
        return cls(model, record, **options)

    def view(self, data: bytes) -> View:
        """What the model sees of an encoded image. Raises BadImage."""
        return self.view_config.view(data)

    @torch.inference_mode()
    def rows(self, views: Sequence[View], last: Callable[[Tensor], Tensor]) -> Tensor:
        """What `last` makes of the features of one batch of views: float32, on the CPU; the model in eval mode."""
        device, config, was_training = next(self.model.parameters()).device, self.model.config, self.model.training
        budget = self.tokens if config.tokens is not None else None
        images, maps = model_tensors(views, device)
        check_values(config, images, maps, budget)
        self.model.eval()
        try:
            with computing(self.precision, device):
                return last(self.model.features(images, maps, budget)).float().cpu()
        finally:
            self.model.train(was_training)

    def predict(self, views: Sequence[View]) -> list[Prediction]:
        """One batch of views through the model."""
        shares = torch.softmax(self.rows(views, self.model.head), 1).numpy()
        return [Prediction(shares=share, view=view) for share, view in zip(shares, views)]

    def _view_of(self, data: bytes) -> View:
        """As `view`, for bytes that anyone may have sent: whatever they do to a decoder is a BadImage, whose words say
        nothing of what is in them (they may be those of a file)."""
        try:
            return self.view(data)
        except BadImage as error:
            raise BadImage(str(error).partition(":")[0]) from None
        except Exception as error:
            raise BadImage(f"cannot be read as an image ({type(error).__name__})") from None

    def table(self, images: Any, folder: str = "", batch_size: int = 32) -> "pandas.DataFrame":
        """For MLflow: one row per image with the best class, its share and the five best as text.

        `images` is a list, an array or the first column of a frame; `image_bytes` says what an entry may be
        and what `folder` is. One that is no image gives a row with its reason in `error`, and no batch is lost.
        """
        import pandas

        entries = list(images.iloc[:, 0]) if hasattr(images, "iloc") else list(np.asarray(images, object).ravel())
        rows: list[dict[str, Any]] = [{"class": None, "share": None, "top5": None, "error": ""} for _ in entries]
        waiting: list[tuple[int, View]] = []
        for number, entry in enumerate(entries):
            try:
                waiting.append((number, self._view_of(image_bytes(entry, folder))))
            except BadImage as error:
                rows[number]["error"] = str(error)
        for start in range(0, len(waiting), batch_size):
            part = waiting[start : start + batch_size]
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
    tensors = (torch.from_numpy(x) for x in model_inputs(views))
    if torch.device(device).type == "cuda":  # from pinned memory, so that nobody waits for the copy
        tensors = (tensor.pin_memory() for tensor in tensors)
    images, *maps = (tensor.to(device, non_blocking=True) for tensor in tensors)
    return images, maps[0] if maps else None


def image_bytes(entry: Any, folder: str = "") -> bytes:
    """The encoded image that an entry of a request to a served model stands for: bytes, base64 text, or the name of a
    file below `folder`, the only one that may be read ("" = none).

    A request may come from anyone: no address is opened, and the words of the BadImage that is raised tell neither
    whether a file exists nor what stands in it.
    """
    if isinstance(entry, str):
        data = _of_text(entry, folder)
    elif isinstance(entry, (bytes, bytearray, memoryview)):
        data = bytes(entry)
    else:
        raise BadImage(f"is of type {type(entry).__name__}: send the bytes of an image file, or base64 text of them")
    if len(data) > MAX_BYTES:
        raise BadImage(f"has {len(data)} bytes, more than {MAX_BYTES}")
    return data


def _of_text(text: str, folder: str) -> bytes:
    if len(text) > 2 * MAX_BYTES:
        raise BadImage(f"is text of {len(text)} characters, more than {2 * MAX_BYTES}")
    if folder and (data := _file_below(folder, text)) is not None:
        return data
    try:  # also as a browser makes it: data:image/png;base64,...
        return base64.b64decode("".join(text.rpartition(";base64,")[2].split()), validate=True)
    except ValueError:
        also = "no file in the folder that this model may read" if folder else "this model opens no files and addresses"
        raise BadImage(f"is text, but not base64 of an image file; {also}") from None


def _file_below(folder: str, name: str) -> bytes | None:
    """The content of a regular file that really lies in `folder`, whatever `..` and links say; else None."""
    try:
        root = Path(folder).resolve(strict=True)
        path = (root / name).resolve(strict=True)
        if not path.is_relative_to(root):
            return None
        # The path is resolved: a link now is one that was put there meanwhile. A pipe would wait for its writer.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
            state = os.fstat(file.fileno())
            return file.read(MAX_BYTES + 1) if stat.S_ISREG(state.st_mode) else None
    except (OSError, ValueError, RuntimeError):  # missing, forbidden, a name that no disk takes, a loop of links
        return None


def view_config(record: Checkpoint, tokens: int | None) -> ViewConfig:
    """How the model of a checkpoint looks at an image; `tokens` None where it takes no map. Raises UsageError."""
    check_tokens(record, tokens)
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
