"""The options of the verbs of this package. Light on purpose: `--help` and a mistake are answered from here alone."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pipeline.commandline import Positional, shown_as
from pipeline.io import storage
from pipeline.io.dataset_folder import DATASET_FILE, no_dataset

from .box.names import checkpoint_place
from .choices import token_budgets
from .precision import Precision

SEGMENTERS = ("shards", "fast-slic", "torch")
EXPORT_FORMATS = (".onnx", ".pt2")
BUDGETS = (16, 36, 64, 100, 196)


@dataclass(frozen=True, kw_only=True)
class InfoConfig:
    """What a data set folder, a checkpoint or a run directory holds."""

    place: Annotated[Positional[str], shown_as(metavar="DIR")]
    """A folder of `focusvit preprocess`, `focusvit pretrain` or one checkpoint, or a name of `focusvit models`."""
    json: bool = False
    """Print one JSON object."""


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Top-1, top-5 and loss of a checkpoint on a split of a data set."""

    checkpoint: str
    """A checkpoint folder, a run directory (its best checkpoint, else the latest), or a name of `focusvit models`."""
    data: str
    """A folder that `focusvit preprocess` wrote."""
    split: str = "val"
    tokens: str = ""
    """Token budgets, such as 16,25,36; empty = the checkpoint's own."""
    segmenter: str = "shards"
    """Where superpixels come from: shards (the stored maps), fast-slic (made now, as `focusvit predict` makes them) or
    torch (made now on the device). Several, such as shards,fast-slic,torch, are compared with the first."""
    onnx: tuple[str, ...] = ()
    """Files that `focusvit export` made of this checkpoint: scored too, from the images alone."""
    batch_size: int = 64
    loader_workers: int = 0
    """Processes that decode images; 0 = in this one."""
    device: str = "auto"
    """auto, cpu or cuda."""
    precision: Precision = "auto"
    """fp32, tf32 or bf16; auto = the setting of the checkpoint's training, so that its own score comes out."""
    confusion: str = ""
    """Write the confusion matrix of the first budget as PNG to this place."""
    json: bool = False
    """Print one JSON object instead of the table."""

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"--batch-size is {self.batch_size}: use 1 or more.")
        token_budgets(self.tokens, None)
        wrong = [name for name in self.segmenters if name not in SEGMENTERS]
        if wrong or not self.segmenters:
            raise ValueError(f"--segmenter is '{self.segmenter}': choose from {', '.join(SEGMENTERS)}.")

    @property
    def segmenters(self) -> list[str]:
        return [name.strip() for name in self.segmenter.split(",") if name.strip()]


@dataclass(frozen=True, kw_only=True)
class PredictConfig:
    """Top classes of images. Files, folders (all images below) and addresses such as s3://... may be mixed."""

    images: Annotated[Positional[tuple[str, ...]], shown_as(metavar="IMAGE ...")]
    """Image files, folders with images, addresses."""
    checkpoint: str = ""
    """A checkpoint folder, a run directory (its best checkpoint, else the latest), or a name of `focusvit models`."""
    onnx: str = ""
    """A file that `focusvit export` wrote, instead of a checkpoint: runs without torch."""
    out: str = ""
    """Folder for one overlay picture per image; empty = none."""
    top: int = 5
    """Classes shown per image."""
    tokens: int = 0
    """Superpixels an image; 0 = the checkpoint's own. An ONNX file has its own."""
    batch_size: int = 0
    """Images a call; 0 = 16. An ONNX file has its own."""
    device: str = "auto"
    """auto, cpu or cuda; an ONNX file runs on the CPU."""
    precision: Precision = "auto"
    """fp32, tf32 or bf16; auto = the setting of the checkpoint's training. An ONNX file has its own."""
    json: bool = False
    """Print one JSON line per image."""

    def __post_init__(self) -> None:
        if self.top < 1 or self.batch_size < 0 or self.tokens < 0:
            raise ValueError(
                f"--top is {self.top}, --batch-size {self.batch_size}, --tokens {self.tokens}: top must be 1 or more, "
                "the others 0 or more."
            )
        if bool(self.checkpoint) == bool(self.onnx):
            raise ValueError("give either --checkpoint or --onnx: one model predicts.")
        own = (self.tokens, self.batch_size, self.device not in ("auto", "cpu"), self.precision != "auto")
        if self.onnx and any(own):
            raise ValueError(
                f"--onnx {self.onnx} fixes tokens, batch size and precision and runs on the CPU: leave out --tokens, "
                "--batch-size, --precision and --device, or use --checkpoint."
            )


@dataclass(frozen=True, kw_only=True)
class LookConfig:
    """Pictures of what a checkpoint sees and where it looks: token budgets, attention of every layer, latents."""

    images: Annotated[Positional[tuple[str, ...]], shown_as(metavar="IMAGE ...")]
    """Image files, folders with images, addresses."""
    checkpoint: str
    """A checkpoint folder, a run directory (its best checkpoint, else the latest), or a name of `focusvit models`."""
    out: str
    """Folder for the pictures: up to four per image."""
    tokens: str = ""
    """Token budget of the attention pictures; empty = the checkpoint's own."""
    budgets: str = ",".join(map(str, BUDGETS))
    """Token budgets shown side by side."""
    device: str = "auto"
    """auto, cpu or cuda."""

    def __post_init__(self) -> None:
        if len(token_budgets(self.tokens, None)) != 1:
            raise ValueError(f"--tokens is '{self.tokens}': give one budget.")
        parts = self.budgets.split(",")
        if not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
            raise ValueError(f"--budgets is '{self.budgets}': write positive numbers, such as 16,36,64,100,196.")

    @property
    def token_budgets(self) -> tuple[int, ...]:
        return tuple(int(part) for part in self.budgets.split(","))


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """A checkpoint as an ONNX file (.onnx) or a torch.export archive (.pt2)."""

    checkpoint: str
    """A checkpoint folder, a run directory (its best checkpoint, else the latest), or a name of `focusvit models`."""
    out: str
    """The file to write; its ending says the format: .onnx or .pt2."""
    tokens: int = 0
    """Superpixels an image, fixed in the file; 0 = the checkpoint's own."""
    batch_size: int = 1
    """Images a call, fixed in the file. `focusvit predict` fills the last batch up."""
    int8: bool = False
    """Weights and matrix products in 8 bits (.onnx only): a quarter of the size."""
    images: tuple[str, ...] = ()
    """Files or folders to compare file and checkpoint on; empty = 16 drawn scenes."""
    num_images: int = 64
    """Compare on at most so many of them."""

    def __post_init__(self) -> None:
        if Path(self.out).suffix not in EXPORT_FORMATS:
            raise ValueError(f"--out is '{self.out}': end the name with {' or '.join(EXPORT_FORMATS)}.")
        if self.int8 and not self.out.endswith(".onnx"):
            raise ValueError(f"--int8 writes ONNX and --out is '{self.out}': end the name with .onnx.")
        if self.tokens < 0 or self.batch_size < 1 or self.num_images < 1:
            raise ValueError(
                f"--tokens is {self.tokens}, --batch-size {self.batch_size}, --num-images {self.num_images}: "
                "tokens may be 0 or more, the others 1 or more."
            )


@dataclass(frozen=True, kw_only=True)
class CostConfig:
    """Parameters, multiply-adds, speed and memory, with random weights on random images. Half a minute for FocusViT-S
    on one core; less for what is smaller."""

    model: Annotated[Positional[str], shown_as(metavar="RECIPE|CHECKPOINT")]
    """the name of a recipe, or a run, checkpoint or model of `focusvit models`"""
    batch: int = 8
    """images of a forward and of a training step"""
    rounds: int = 3
    """forwards that are timed, models in turns; the median is told"""
    device: str = "auto"
    """auto, cpu, cuda or cuda:1; superpixels are made by fast-slic on the CPU everywhere"""
    json: bool = False
    """print one JSON object"""

    def __post_init__(self) -> None:
        if min(self.batch, self.rounds) < 1:
            raise ValueError(f"--batch is {self.batch} and --rounds {self.rounds}; both must be at least 1")


@dataclass(frozen=True, kw_only=True)
class ReplayConfig:
    """Run the forward and backward of a kept step again and name the first values that are not finite."""

    dump: Annotated[Positional[str], shown_as(metavar="DUMP")]
    """folder RUN/dumps/SAMPLES that a training wrote"""
    rank: int = 0
    """whose batch to run"""
    device: str = "cpu"
    """auto, cpu or cuda"""
    json: bool = False
    """print the findings as one JSON object"""


def check_places(config: object) -> None:
    """Look for the checkpoint and the data set that options name on this machine, before anything heavy loads.

    Raises `UsageError` in the words of whoever would have read them.
    """
    checkpoint, data = (getattr(config, name, None) for name in ("checkpoint", "data"))
    if isinstance(checkpoint, str) and _is_missing(checkpoint and checkpoint_place(checkpoint)):
        from .runs.model_record import quick_record

        quick_record(checkpoint)
    if isinstance(data, str) and _is_missing(data and storage.join(data, DATASET_FILE)):
        raise no_dataset(storage.resolve(data))


def _is_missing(place: str) -> bool:
    return bool(place) and storage.is_local(place) and not storage.exists(storage.resolve(place))
