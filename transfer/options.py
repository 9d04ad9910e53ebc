"""The options of the verbs of this package. Light on purpose: `--help` and a mistake are answered from here alone."""

from dataclasses import dataclass
from typing import Annotated

from focusvit.choices import token_budgets
from focusvit.precision import Precision
from pipeline.commandline import Positional, Repeatable, shown_as
from pipeline.errors import did_you_mean

SUITES = ("quick", "kornblith", "vtab1k", "dense", "all")


@dataclass(frozen=True, kw_only=True)
class TransferConfig:
    """Measure the features of a checkpoint on labelled data sets that it was not trained for."""

    checkpoint: str
    """A checkpoint folder, a run directory (its best checkpoint, else the latest), a name of `focusvit models`, or a
    vision transformer as Hugging Face and timm save it (a folder with config.json and model.safetensors)."""
    patch: tuple[str, ...] = ()
    """Superpixels inside a vision transformer of another library, such as --patch tokens=196 depth=6: tokens (a number,
    a share of the patches, or levels such as 2:196,5:100), depth (the block before which patches are pooled), merge
    (keys, by default: neighbours alike in the host's own keys; colour: the superpixels of the shards; readout, grid,
    tome), latents, image_px (side of its input)."""
    controls: bool = False
    """Also measure the same host without and with other ways to spend as few tokens: all patches, a uniform grid, token
    merging, fewer pixels."""
    task: Repeatable[tuple[str, ...]] = ()
    """A task as name=DIR (repeat the option for more). DIR was written by `focusvit preprocess`, or holds images in
    train/ and val/ or test/: then its shards are made first, in --out."""
    suite: str = "quick"
    """quick (minutes), kornblith, vtab1k, dense or all: which protocols, and with --tasks-root which tasks."""
    tasks_root: str = ""
    """A folder whose sub-folders are prepared data sets with the names of known tasks (see transfer/README.md)."""
    out: str = ""
    """Folder for the table (Markdown, CSV, JSON) and for finished results, which are not computed again; default: a
    folder in transfer-results/ for each checkpoint, suite and choice of tasks, so that no table replaces another."""
    features_folder: str = ""
    """Local folder of cached features; default: features/ in --out."""
    tokens: str = ""
    """Token budget; empty = the checkpoint's own."""
    finetune: bool = False
    """Also fine-tune over the published grid (transfer/README.md): hours where the rest takes minutes."""
    finetune_steps: int = 0
    """Steps of each training of the grid; 0 = 5000, in suite vtab1k 2500, in suite quick 200."""
    register: str = ""
    """Register the model under this name; it gets the alias 'best' when its mean score is the highest so far."""
    baselines: bool = True
    """Also measure an untrained network of the same shape, and raw pixels."""
    max_samples: int | None = None
    """Use at most so many samples of each split, drawn by seed: a quick look. The table says so."""
    batch_size: int = 64
    loader_workers: int = 0
    device: str = "auto"
    """auto, cpu or cuda; auto is settled where the tasks run."""
    precision: Precision = "auto"
    """fp32, tf32 or bf16; auto = the setting of the checkpoint's training, which by default follows the device."""
    ignore_labels: str = ""
    """Label values of dense tasks that mean 'no class', such as 0,255."""
    map_labels: str = ""
    """Label values of dense tasks to read as others, such as 255:1 for masks of 0 and 255."""
    seed: int = 0
    """Of the held-out part, the draws of few-shot and the untrained network."""
    tracking_uri: str = ""
    """MLflow store; default: $MLFLOW_TRACKING_URI, else sqlite in the current folder."""
    experiment: str = "transfer"
    json: bool = False
    """Print one JSON object instead of the table."""

    def __post_init__(self) -> None:
        if self.suite not in SUITES:
            near = did_you_mean(self.suite, SUITES)
            raise ValueError(f"--suite is '{self.suite}'.{near} Choose one of {', '.join(SUITES)}.")
        if self.batch_size < 1:
            raise ValueError(f"--batch-size is {self.batch_size}: use 1 or more.")
        if self.max_samples is not None and self.max_samples < 2:
            raise ValueError(f"--max-samples is {self.max_samples}: use 2 or more.")
        if self.finetune_steps < 0 or (self.finetune_steps and not self.finetune):
            raise ValueError(f"--finetune-steps is {self.finetune_steps}: give 1 or more, together with --finetune.")
        if self.controls and not self.patch:
            raise ValueError("--controls compares with what --patch does: give --patch, such as --patch tokens=0.5.")
        if len(token_budgets(self.tokens, None)) != 1:
            raise ValueError(f"--tokens is '{self.tokens}': give one budget; run again for another.")


@dataclass(frozen=True, kw_only=True)
class ReportConfig:
    """Compare finished runs: trainings by their curves and settings, transfer suites by their table."""

    runs: Annotated[Positional[tuple[str, ...]], shown_as(metavar="RUN ...")]
    """Run directories, folders of `focusvit transfer`, or folders above them."""
    out: str = "report"
    """Folder for report.md, the CSV files and the pictures."""
    json: bool = False
    """Print one JSON object instead of the tables."""
