"""The FocusViT that people import: it loads and saves itself, and answers about images of any kind.

`focusvit.model` imports torch alone. What a model needs around its tensors (record, views, the Hugging Face hub) is
here, and is loaded when it is asked for.
"""

import dataclasses
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from focusvit.model import model as plain
from focusvit.model.config import FocusViTConfig

if TYPE_CHECKING:
    from huggingface_hub import ModelCard, PyTorchModelHubMixin

    from focusvit.data.augment import View
    from focusvit.predict.view import ViewConfig
    from focusvit.runs.checkpoint_record import Checkpoint
else:
    try:
        from huggingface_hub import PyTorchModelHubMixin
    except ImportError:
        from .stand_in import PyTorchModelHubMixin

Self = TypeVar("Self", bound="FocusViT")
_BATCH = 16


@dataclass(frozen=True)
class Answer:
    """What a model says of one image, and what it was shown of it."""

    name: str
    """the class with the largest share"""
    share: float
    shares: dict[str, float]
    """every class, the largest share first; together 1"""
    image: np.ndarray
    """uint8 (image_px, image_px, 3), RGB: the centre of the image, as the model saw it"""
    superpixels: np.ndarray | None
    """(map_px, map_px), ids 0..K-1, of that view; None for a model that takes no map"""


def load(place: str | Path, *, device: str | torch.device = "cpu") -> "FocusViT":
    """The model at `place`, ready to answer: a name of `focusvit models`, a run directory (its best checkpoint), a
    checkpoint, a folder of `save_pretrained`, or OWNER/NAME on the Hugging Face hub.

    Raises:
        UsageError: there is none.
        DataError: it is damaged.
    """
    return FocusViT.from_pretrained(place).to(device)


class FocusViT(
    plain.FocusViT,
    PyTorchModelHubMixin,
    library_name="focusvit",
    tags=["superpixels", "vision-transformer"],
    pipeline_tag="image-classification",
):
    """`focusvit.model.model.FocusViT`, and what makes it complete: `record`, `from_pretrained`, `predict`, `embed`,
    `save_pretrained`, `push_to_hub`.

    A new one has random weights, and the numbers of its outputs as names of its classes.
    """

    def __init__(self, config: FocusViTConfig) -> None:
        super().__init__(config)
        self.record: Checkpoint = _new_record(config)
        """what its checkpoint says: classes, how images are seen, scores"""

    @classmethod
    def from_pretrained(cls: type[Self], place: str | Path, **hub: Any) -> Self:  # type: ignore[override]
        """As `load`, on the CPU. `hub`: options of `huggingface_hub.snapshot_download`, such as revision and token."""
        from focusvit.box.names import checkpoint_place
        from focusvit.runs.checkpoint import load_model
        from pipeline.io import storage

        where = checkpoint_place(str(place))
        if not storage.exists(where) and _is_hub_id(str(place)):
            where = _downloaded(str(place), hub)
        model, record = load_model(where, kind=cls)
        assert isinstance(model, cls)
        model.record = record
        return model

    def predict(self, images: Any, *, tokens: int | None = None, batch_size: int = _BATCH) -> list[Answer]:
        """An answer for each image, as `focusvit predict` gives it; superpixels are made here.

        `images`: one or a sequence of PIL images, arrays uint8 (H, W, 3), tensors (3, H, W), encoded bytes, or places
        (a file, a folder, an address); also a batch (B, H, W, 3) or (B, 3, H, W). `tokens`: superpixels an image.

        Raises:
            UsageError: the model knows no classes, or a place holds no image.
            DataError: an image that does not decode.
        """
        from pipeline.errors import UsageError

        classes = self.record.classes
        if not classes:
            raise UsageError(
                "this model was pretrained without labels, so it knows no classes: fine-tune it first (`focusvit "
                "finetune`), or take `embed`, its features."
            )
        answers = []
        for view, logits in self._rows(images, tokens, batch_size, self.head):
            shares = dict(zip(classes, torch.softmax(logits, 0).tolist()))
            ordered = dict(sorted(shares.items(), key=lambda pair: -pair[1]))
            name, share = next(iter(ordered.items()))
            answers.append(Answer(name, share, ordered, view.image, view.map))
        return answers

    def embed(self, images: Any, *, tokens: int | None = None, batch_size: int = _BATCH) -> Tensor:
        """The features of each image, float32 (images, D), on the CPU: for search, clustering, a probe.

        `images` and what is raised: as `predict`, with or without classes.
        """
        rows = [features for _, features in self._rows(images, tokens, batch_size, torch.nn.Identity())]
        return torch.stack(rows) if rows else torch.empty(0, self.config.width)

    def _rows(
        self, images: Any, tokens: int | None, batch_size: int, last: torch.nn.Module
    ) -> "Iterator[tuple[View, Tensor]]":
        """What the model was shown of each image, and what `last` makes of its features: see `Predictor.rows`."""
        from focusvit.predict.photo import given
        from focusvit.predict.predictor import Predictor

        predictor, named = Predictor(self, self.record, tokens=tokens), given(images)
        for start in range(0, len(named), batch_size):
            views = [_view(predictor.view_config, name, image) for name, image in named[start : start + batch_size]]
            yield from zip(views, predictor.rows(views, last))

    def _save_pretrained(self, save_directory: Path) -> None:
        """The checkpoint: what every verb reads. Places and scores of another training than these weights' stay out."""
        from focusvit.runs.checkpoint import save_checkpoint
        from focusvit.runs.checkpoint_record import MODEL, record_at, without_places
        from pipeline.io import storage

        place = storage.resolve(str(save_directory))
        record = without_places(dataclasses.replace(self.record, files={}))
        save_checkpoint(place, dataclasses.replace(record, metrics={}), self.state_dict())
        written = hashlib.sha256((save_directory / MODEL).read_bytes()).hexdigest()
        if written == self.record.files.get(MODEL):  # as they were loaded, so their scores hold
            save_checkpoint(place, record, self.state_dict())
        saved = record_at(place)
        self.record = dataclasses.replace(self.record, metrics=saved.metrics, files=saved.files)

    def generate_model_card(self, *args: Any, **kwargs: Any) -> "ModelCard":
        from huggingface_hub import ModelCard

        from .card import card_text

        return ModelCard(card_text(self.config, self.record, sum(p.numel() for p in self.parameters())))


def _new_record(config: FocusViTConfig) -> "Checkpoint":
    from focusvit.data.config import DataConfig
    from focusvit.runs.checkpoint_record import Checkpoint
    from focusvit.runs.config_json import to_json

    return Checkpoint(
        config={"data": to_json(DataConfig(image_px=config.image_size[0]))},
        model=to_json(config),
        classes=tuple(map(str, range(config.num_classes))),
    )


def _view(looking: "ViewConfig", name: str, image: Any) -> "View":
    """What the model sees of an image. Raises `DataError` when it is none."""
    from focusvit.predict.photo import file_bytes
    from pipeline.errors import DataError
    from pipeline.image.image import BadImage

    try:
        return looking.view(file_bytes(image))
    except BadImage as error:
        raise DataError(f"{name} {error}.") from None
    except ValueError as error:
        raise DataError(f"{name}: {error}.") from None


def _is_hub_id(text: str) -> bool:
    """OWNER/NAME: a bare name is no model of the hub's, but of ours, or mistyped."""
    owner, slash, name = text.partition("/")
    return bool(slash and owner.strip(".~") and name) and "/" not in name and ":" not in text


def _downloaded(repository: str, options: dict[str, Any]) -> str:
    """The folder of a model of the hub. Raises `UsageError` when it cannot be had."""
    from pipeline.errors import UsageError, first_line

    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        from .stand_in import MISSING

        raise UsageError(f"there is no folder {repository}, and for a model of the hub {MISSING}.") from None
    try:
        return snapshot_download(repository, allow_patterns=["*.json", "*.safetensors"], **options)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"'{repository}' is no folder here, and the Hugging Face hub did not give it: {first_line(error)}."
        ) from None
