"""The options of `focusvit train`. Light on purpose: `--help` and a mistake are answered from here alone."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pipeline.commandline import Positional, shown_as


@dataclass(frozen=True, kw_only=True)
class TrainFolderConfig:
    """A folder of photos to a trained classifier: split, shards, starting weights, length and batch are chosen by the
    images and the machine, and said. The same command goes on where it stopped."""

    folder: Annotated[Positional[Path], shown_as(metavar="FOLDER")]
    """One folder of images for each class, or anything else that `focusvit preprocess` reads."""
    out: Path | None = None
    """Folder for shards, run and page; default: ./NAME-focusvit."""
    checkpoint: str = "focusvit-tiny"
    """What to start from: a name of `focusvit models`, a checkpoint or run, or none."""
    minutes: float = 5.0
    """How long the training may take here; the number of epochs follows from it."""
    epochs: float | None = None
    """Epochs, instead of --minutes."""
    val_share: float = 0.2
    """Share of each class to score on, where the folder has no validation split of its own."""
    on_error: Literal["fail", "skip"] = "fail"
    """An image that cannot be read: stop and name it, or leave it out and say how many."""

    def __post_init__(self) -> None:
        if not 0 < self.val_share < 1:
            raise ValueError(f"--val-share is {self.val_share:g}; it must lie between 0 and 1.")
        if self.minutes <= 0 or (self.epochs is not None and self.epochs <= 0):
            raise ValueError("--minutes and --epochs must be positive.")
