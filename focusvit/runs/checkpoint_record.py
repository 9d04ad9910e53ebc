"""`checkpoint.json`: what a checkpoint is, with the sha256 of its files and of itself."""

import dataclasses
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from focusvit.box.names import checkpoint_place, names
from pipeline.errors import DataError, UsageError, did_you_mean
from pipeline.io import storage

from .run_dir import RunDir
from .sealed_json import open_sealed, put_sealed

log = logging.getLogger(__name__)
Found = TypeVar("Found")
FORMAT_VERSION = 2
UNPROVEN_VERSION = 1
"""without hashes: still read, and said so once"""
MODEL, STATE, RECORD, CONFUSION = "model.safetensors", "state.safetensors", "checkpoint.json", "confusion.npy"


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What `checkpoint.json` holds. `uri` is where it was found."""

    uri: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    """the whole TrainConfig, as JSON values"""
    model: dict[str, Any] = field(default_factory=dict)
    """the FocusViTConfig or HostConfig, as JSON values"""
    classes: tuple[str, ...] = ()
    samples_seen: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    """the last validation scores, such as val/top1"""
    data_uri: str = ""
    data_identity: str = ""
    data_root_hash: str = ""
    superpixels: dict[str, Any] = field(default_factory=dict)
    """the SuperpixelConfig of the data set: `predict` segments new images the same way"""
    image: dict[str, Any] = field(default_factory=dict)
    """the ImageConfig of the data set: new images are reduced to the same stored size"""
    run_id: str | None = None
    """the MLflow run"""
    has_ema: bool = False
    counters: dict[str, int] = field(default_factory=dict)
    """replaced_samples so far (skipped steps are in the state, as guard)"""
    versions: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    """sha256 of each file beside the record; empty in checkpoints of earlier versions"""
    format_version: int = FORMAT_VERSION

    @property
    def num_classes(self) -> int:
        return int(self.model["num_classes"])


def put_record(record: Checkpoint) -> None:
    values = dataclasses.asdict(record)
    put_sealed(storage.join(values.pop("uri"), RECORD), values)


def record_at(uri: str) -> Checkpoint:
    """The record of one checkpoint folder. Raises `DataError`: damaged; `UsageError`: of a later version."""
    place = storage.join(uri, RECORD)
    values, sealed = open_sealed(place)
    version = values.get("format_version")
    if sealed and version != FORMAT_VERSION:
        raise UsageError(
            f"{uri} has checkpoint format {version}, this version reads {FORMAT_VERSION}. "
            "Use the version of focusvit that wrote it."
        )
    if not sealed and version != UNPROVEN_VERSION:
        raise DataError(f"{place} is damaged: its format version is {version!r} and it carries no sha256 of itself.")
    if not sealed:
        _say_unproven(uri)
    blank = Checkpoint()
    strange = sorted(set(values) - set(vars(blank)) | {"uri"} & set(values))
    if strange:
        raise DataError(f"{place} is damaged: it has the unknown key '{strange[0]}'.")
    if isinstance(values.get("classes"), list):
        values["classes"] = tuple(values["classes"])
    for key, value in values.items():
        wanted = (str, type(None)) if key == "run_id" else type(getattr(blank, key))
        if not isinstance(value, wanted):
            raise DataError(f"{place} is damaged: '{key}' is {str(value)[:80]!r}.")
    missing = sorted({"model", "classes", "samples_seen"} - set(values))
    if missing or "num_classes" not in values["model"]:
        raise DataError(f"{place} is damaged: the key '{(missing or ['model.num_classes'])[0]}' is missing.")
    if not all(isinstance(value, (int, float, type(None))) for value in values.get("metrics", {}).values()):
        raise DataError(f"{place} is damaged: a score is no number.")
    values["metrics"] = {k: math.nan if v is None else v for k, v in values.get("metrics", {}).items()}
    folder = storage.name_of(uri)
    if len(folder) == 12 and folder.isdigit() and int(folder) != values["samples_seen"]:
        raise DataError(f"{place} is damaged: it says {values['samples_seen']} samples in the folder of {folder}.")
    return Checkpoint(**{**values, "uri": uri})


_said_unproven = False


def _say_unproven(uri: str) -> None:
    global _said_unproven
    if not _said_unproven:
        log.warning("%s is of an earlier version and holds no hashes: damage inside it may go unseen", uri)
    _said_unproven = True


def is_host_folder(uri: str) -> bool:
    """Whether a place holds the config.json of another library, and no checkpoint of ours."""
    if storage.exists(storage.join(uri, RECORD)) or not storage.exists(storage.join(uri, "config.json")):
        return False
    said = storage.read_json(storage.join(uri, "config.json"))
    return isinstance(said, dict) and bool({"model_type", "architecture"} & set(said))  # else of a run directory


def first_sound(uri: str, load: Callable[[str], Found]) -> Found:
    """What `load` makes of the checkpoint that `uri` means: itself, or the best (else the latest) of a run directory.
    A run's next best is taken where one is damaged, and that is said.

    Raises `UsageError` when there is none, `DataError` when none is sound.
    """
    uri = checkpoint_place(uri)
    places = [uri]
    if not storage.exists(storage.join(uri, RECORD)) and not is_host_folder(uri):
        run = RunDir(uri)
        places = [run.checkpoint_uri(samples) for samples in run.best_first()]
    problems: list[str] = []
    for place in places:
        try:
            found = load(place)
        except DataError as error:
            problems.append(str(error))
            continue
        for problem in problems:
            log.warning("%s Taken instead: %s", problem, place)
        return found
    if problems:
        raise DataError(f"{' '.join(problems)} Take another checkpoint.")
    near = did_you_mean(storage.name_of(uri), names())
    raise UsageError(
        f"No checkpoint at {uri}: it is neither a checkpoint folder (with checkpoint.json) nor a run directory "
        "with a finished checkpoint under checkpoints/, nor a folder of Hugging Face or timm (with config.json)."
        f"{near} Pass the --run-dir of a `focusvit pretrain`, or a name "
        "that `focusvit models` lists."
    )


_PLACES: dict[str, Any] = {
    "init_from": None, "data": {"cache_dir": None}, "distill": {"teacher": None, "cache_dir": None}
}  # fmt: skip
"""keys of a training's config that name places"""


def without_places(record: Checkpoint) -> Checkpoint:
    """The record as others may have it: without what only the machine of the training knows, and nothing to resume."""
    config = _replaced(record.config, _PLACES)
    return dataclasses.replace(record, config=config, data_uri="", run_id=None, has_ema=False)


def _replaced(config: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    changed = {
        key: _replaced(config[key], value) if isinstance(value, dict) else value
        for key, value in values.items()
        if key in config
    }
    return {**config, **changed}
