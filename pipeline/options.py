"""The options of the verbs of this package. Light on purpose: `--help` and a mistake are answered from here alone."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from pipeline.image.config import ImageConfig
from pipeline.sources.source import NO_CHOICES, Choices
from pipeline.sources.splits import meaning
from pipeline.superpixels.config import SuperpixelConfig

from .commandline import Flat, Positional, shown_as
from .io import storage


@dataclass(frozen=True, kw_only=True)
class PreprocessConfig:
    """Images -> WebDataset shards with superpixel maps."""

    source: str
    """Where the images are: an image folder, a .tar, a folder of Hugging Face parquet; a path or a URI."""
    out: str
    """The data set to make or to add a split to; a path or a URI."""
    split: str = "train"
    """The split to read and to write."""
    val_share: float | None = None
    """Make --split train and --split val from one source without a val split of its own: this share of each class is
    val, for example 0.2. Give both commands the same share."""
    max_samples: int | None = None
    """Take at most this many samples, the same number of each class as far as possible."""
    samples_per_shard: int | None = None
    """Samples in a shard; by default about 32 shards of 64 to 1000."""
    workers: int | None = None
    """Shards made at a time; by default one for each CPU. With --local, 0 runs in this process, for a debugger."""
    dry_run: bool = False
    """Count, time a few images, print what the run would take, and write nothing."""
    on_error: Literal["fail", "skip"] = "fail"
    """A bad image: list all of them and exit with 1, or leave it out and record it."""
    max_errors: int | None = None
    """Stop as soon as more images than this are bad."""
    checksums: str | None = None
    """A file of `sha256  name` lines, as sha256sum prints in the source folder: images with other bytes are bad."""
    ray_address: str | None = None
    """A running Ray cluster to use; by default Ray starts inside this process."""
    local: bool = False
    """Use processes of this machine without Ray. The bytes are the same."""
    json: bool = False
    """Print one JSON object on stdout."""
    choices: Flat[Choices] = NO_CHOICES
    image: ImageConfig = field(default_factory=ImageConfig)
    superpixels: SuperpixelConfig = field(default_factory=SuperpixelConfig)

    def __post_init__(self) -> None:
        for name, least in (("max_samples", 1), ("samples_per_shard", 1), ("workers", 0), ("max_errors", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"--{name.replace('_', '-')} is {value}; it must be at least {least}")
        if not self.split or not self.split.replace("_", "").isalnum() or not self.split.isascii():
            raise ValueError(f"--split is '{self.split}'; use letters, digits and _ (it begins the names of shards)")
        if self.val_share is not None and not (0 < self.val_share < 1 and meaning(self.split) in ("train", "val")):
            raise ValueError(
                f"--val-share is {self.val_share:g} with --split {self.split}; it is a share between 0 and 1 for "
                f"--split train and --split val"
            )
        if self.local and self.ray_address:
            raise ValueError("--local and --ray-address exclude each other: the first means no Ray at all")
        if self.workers == 0 and not self.local:
            raise ValueError("--workers 0 (in this process) needs --local; Ray needs at least 1")


@dataclass(frozen=True, kw_only=True)
class Workers:
    """Where a verb that looks after a data set works."""

    workers: int | None = None
    """Shards handled at a time; by default one for each CPU. 0 runs in this process."""
    ray_address: str | None = None
    """A running Ray cluster to use; by default processes of this machine."""

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 0:
            raise ValueError(f"--workers is {self.workers}; it must be at least 0")
        if self.workers == 0 and self.ray_address:
            raise ValueError("--workers 0 (in this process) and --ray-address exclude each other")

    @property
    def local(self) -> bool:
        return self.ray_address is None


@dataclass(frozen=True, kw_only=True)
class VerifyConfig(Workers):
    """Re-hash, count and decode everything in a data set; exit with 1 and a list when anything is off."""

    uri: Annotated[Positional[str], shown_as(metavar="DIR")]
    """The folder (or URI) that `focusvit preprocess` wrote."""
    repair: bool = False
    """Build the damaged shards again, to the same bytes, from the images they were made of."""
    source: str | None = None
    """Where the images are now, when they moved since; needs --repair."""
    recompute: bool = False
    """Also make every superpixel map again from the stored image and compare."""
    json: bool = False
    """Print one JSON object on stdout."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.source and not self.repair:
            raise ValueError("--source names where damaged shards are built from; add --repair")


@dataclass(frozen=True, kw_only=True)
class RemapConfig(Workers):
    """The same samples with superpixels of other settings, in another folder."""

    uri: Annotated[Positional[str], shown_as(metavar="DIR")]
    """The data set to start from."""
    out: str
    """The data set to make."""
    split: str | None = None
    """One split; by default all of them."""
    json: bool = False
    """Print one JSON object on stdout."""
    superpixels: SuperpixelConfig = field(default_factory=SuperpixelConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        if storage.resolve(self.uri) == storage.resolve(self.out):
            raise ValueError(f"--out is the data set itself ({self.out}); its shards are never changed. Name another.")


@dataclass(frozen=True, kw_only=True)
class ShowConfig:
    """A contact sheet of a data set with superpixel borders."""

    uri: Annotated[Positional[str], shown_as(metavar="DIR")]
    """The data set to show."""
    out: str
    """The picture to write: a .png or .jpg."""
    split: str | None = None
    """The split to show; by default the first one."""
    count: int = 8
    """How many samples, spread evenly over the split."""
    tokens: str = "16,49,100,196"
    """Numbers of superpixels to show side by side, separated by commas."""
    cell_px: int = 320
    """Height of each image in the sheet."""
    json: bool = False
    """Print one JSON object on stdout."""

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"--count is {self.count}; it must be at least 1")
        if not 64 <= self.cell_px <= 2048:
            raise ValueError(f"--cell-px is {self.cell_px}; choose 64 to 2048")
        if not self.out.lower().endswith((".png", ".jpg", ".jpeg")):
            raise ValueError(f"--out is '{self.out}'; its name must end in .png or .jpg")
        parts = self.tokens.split(",")
        if not all(part.strip().isdecimal() and int(part) >= 1 for part in parts):
            raise ValueError(f"--tokens is '{self.tokens}'; write numbers of at least 1 with commas, as 16,49,100")

    @property
    def budgets(self) -> tuple[int, ...]:
        return tuple(int(part) for part in self.tokens.split(","))
