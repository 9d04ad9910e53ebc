"""`bench study`: accuracy of FocusViT beside a plain ViT and the controls, from scratch, on real images.

Two stages train: `rates` trains every row a few epochs at each learning rate of a fixed grid on nine tenths of train
and scores the tenth that was held out; `core` trains it to the end at the rate that was best there, and scores the test
split, which chose nothing. One record per (config hash, seed) lies in the ledger; a run fills what is missing and goes
on with what was stopped, so several sittings add up, and the same command prints the tables of what is there. Two more
stages measure: `speed` what rows cost, `lighter` what trained models answer with superpixels that take less time.
"""

import hashlib
import json
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from tqdm import tqdm

from focusvit.data.config import DataConfig
from focusvit.data.loader import EvalLoader
from focusvit.data.order import key_of
from focusvit.model.config import FocusViTConfig
from focusvit.model.cost import count_multiply_adds, example_inputs
from focusvit.model.model import FocusViT
from focusvit.precision import Precision
from focusvit.runs.checkpoint import load_checkpoint, load_weights, save_checkpoint
from focusvit.runs.config_json import from_json, to_json
from focusvit.runs.metrics_log import read_points
from focusvit.runs.run_dir import RunDir
from focusvit.train.config import TrainConfig
from pipeline.errors import UsageError
from pipeline.shards.dataset import open_dataset
from tests.benchmarks.record import Record, RecordConfig, begin
from tests.benchmarks.report import RESULTS
from tests.benchmarks.study.arrays import ArrayData, collect
from tests.benchmarks.study.ledger import best_rate, kept_at, read_ledger
from tests.benchmarks.study.matrix import SETS, core_rows
from tests.benchmarks.study.recipe import RATES, train_config
from tests.benchmarks.study.training import train_on_arrays, whole_steps

LEDGER = RESULTS / "study"
RATE_EPOCHS = 2.0
POINTS_OF_A_CURVE = 25
_IGNORED = {
    "rates": ("seeds", "epochs"), "speed": ("rows", "seeds", "epochs", "device"), "lighter": ("epochs", "device"),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class StudyConfig(RecordConfig):
    """One sitting of the study."""

    data: str = ""
    """folder that holds the shards of the sets, as DATA/cifar10, DATA/imagenette; "" prints the ledger only"""
    sets: tuple[str, ...] = ("cifar10", "tiny-imagenet-40")
    """cifar10, tiny-imagenet-40, imagenette"""
    rows: tuple[str, ...] = ()
    """only these rows of the matrix, by their names in the table; all by default"""
    stage: Literal["rates", "core", "speed", "lighter"] = "core"
    """rates: each learning rate on a held-out tenth of train; core: to the end at the best of them, scored on the test
    split; speed: throughput and memory of the matrix; lighter: the models in `checkpoints` with other superpixels"""
    seeds: int = 1
    epochs: float = 0.0
    """passes over train in stage core; 0 = as many as the set has"""
    precision: Precision = "bf16"
    minutes: float = 60.0
    """begin no further run after so many minutes"""
    device: str = "cpu"
    ledger: str = str(LEDGER)
    """folder of the records"""
    runs: str = "build/study-runs"
    """folder of unfinished trainings, which go on in the next sitting"""
    checkpoints: str = ""
    """folder that keeps the trained models, each as a checkpoint that `focusvit transfer` takes; "" keeps none"""

    def __post_init__(self) -> None:
        unknown = [name for name in self.sets if name not in SETS]
        if unknown:
            raise ValueError(f"sets holds '{unknown[0]}'; there are {', '.join(SETS)}")
        if self.seeds < 1 or self.epochs < 0:
            raise ValueError("seeds must be at least 1, epochs must not be negative")
        told = {"rows": self.rows, "seeds": self.seeds - 1, "epochs": self.epochs, "device": self.device != "cpu"}
        if ignored := [f"--{name}" for name in _IGNORED.get(self.stage, ()) if told[name]]:
            raise ValueError(f"stage {self.stage} does not use {', '.join(ignored)}: leave it out")
        if self.stage == "lighter" and not self.checkpoints:
            raise ValueError("stage lighter asks trained models: name their folder by --checkpoints")


@dataclass(frozen=True, kw_only=True)
class Run:
    """One training of the study: what it is called, on which set, with which model and seed."""

    set_name: str
    row: str
    stage: str
    config: TrainConfig
    epochs: float
    data_identity: str

    def key(self) -> str:
        """Changes with everything that decides the score, the seed excepted."""
        values = to_json(replace(self.config, seed=0)) | {
            "stage": self.stage, "epochs": self.epochs, "data": self.data_identity, "augmentation": "mirror, shift"
        }  # fmt: skip
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]

    def record_path(self, ledger: Path) -> Path:
        return ledger / f"{self.key()}-{self.config.seed}.json"


def planned(config: StudyConfig) -> Iterator[Run]:
    """Every run of the stage, all rows of a seed before the next seed.

    Raises `UsageError` for an unknown row, and for a row of stage core whose rates were not all tried.
    """
    for set_name in config.sets:
        of, models = SETS[set_name], core_rows(SETS[set_name])
        unknown = set(config.rows) - models.keys()
        if unknown:
            raise UsageError(f"--rows names '{min(unknown)}'; the rows of {set_name} are {', '.join(models)}")
        data = open_dataset(f"{config.data}/{of.folder}")
        told = {"set_name": set_name, "stage": config.stage, "data_identity": data.split("train").identity}
        for seed in range(config.seeds if config.stage == "core" else 1):
            for row, model in models.items():
                if config.rows and row not in config.rows:
                    continue
                sized = replace(model, num_classes=len(data.classes))
                if config.stage == "rates":
                    for lr in RATES:
                        trained = train_config(sized, of, seed, lr, config.precision)
                        yield Run(row=row, config=trained, epochs=RATE_EPOCHS, **told)
                    continue
                lr = best_rate(read_ledger(Path(config.ledger)), set_name, row, RATES)
                trained = train_config(sized, of, seed, lr, config.precision)
                yield Run(row=row, config=trained, epochs=config.epochs or of.epochs, **told)


@lru_cache(maxsize=4)
def arrays(uri: str, split: str, image_px: int, map_px: int, tokens: int | None) -> ArrayData:
    """A split decoded once: centre crop of the whole image, maps with exactly `tokens` regions."""
    source = open_dataset(uri).split(split)
    data = DataConfig(image_px=image_px, map_px=map_px, eval_crop_fraction=1.0)
    loader = EvalLoader(source, data, batch_size=500, tokens=tokens, with_maps=tokens is not None)
    return collect(tqdm(loader, desc=f"decode {split}", leave=False), source.identity)


def hold_out(data: ArrayData, share: float = 0.1) -> tuple[ArrayData, ArrayData]:
    """(the rest, the held-out share): decided by a hash of the sample number, the same for every seed and model."""
    held = np.array([key_of("held out", data.identity, i) / 2**63 < share for i in range(len(data))])
    return _pick(data, ~held, "rest"), _pick(data, held, "held out")


def _pick(data: ArrayData, chosen: np.ndarray, what: str) -> ArrayData:
    at = torch.from_numpy(np.flatnonzero(chosen)).to(data.images.device)
    maps = None if data.maps is None else data.maps[at]
    return replace(
        data, images=data.images[at], maps=maps, class_ids=data.class_ids[at], identity=f"{data.identity} {what}"
    )


def fill(run: Run, config: StudyConfig, facts: dict[str, Any]) -> dict[str, Any]:
    """Train to the end and put the record of this run into the ledger. `facts`: what makes it."""
    model, of = run.config.model, open_dataset(f"{config.data}/{SETS[run.set_name].folder}")
    assert isinstance(model, FocusViTConfig)
    tokens = model.tokens if model.needs_maps else None
    px, map_px = run.config.data.image_px, run.config.data.map_px
    train = arrays(of.uri, "train", px, map_px, tokens)
    if run.stage == "rates":
        train, test = hold_out(train)
    else:
        test = arrays(of.uri, SETS[run.set_name].test_split, px, map_px, tokens)
    samples = whole_steps(round(run.epochs * len(train)), run.config)
    folder = f"{config.runs}/{run.key()}-{run.config.seed}"
    scores, checkpoint = train_on_arrays(
        run.config, train, test, samples, of=of, run_dir=folder, device=config.device, shifts=True,
        score_every_epochs=run.epochs / POINTS_OF_A_CURVE if run.stage == "core" else None,
    )  # fmt: skip
    if config.checkpoints and run.stage == "core":
        kept = kept_at(config.checkpoints, run.set_name, run.row, run.config.seed)
        save_checkpoint(kept, load_checkpoint(checkpoint), load_weights(checkpoint))
    multiply_adds = count_multiply_adds(FocusViT(model).eval(), *example_inputs(model, 1))
    record = {
        "set": run.set_name, "row": run.row, "stage": run.stage, "key": run.key(), "seed": run.config.seed,
        "epochs": run.epochs, "lr": run.config.optim.lr,
        "scores": {**scores, "num_samples": len(test), "samples": samples},
        "multiply_adds": multiply_adds, "curve": curve(folder),
        "train_samples": len(train), "test_samples": len(test), "data": run.data_identity,
        "device": config.device, "config": to_json(run.config), **facts,
    }  # fmt: skip
    place = run.record_path(Path(config.ledger))
    place.parent.mkdir(parents=True, exist_ok=True)
    part = place.with_suffix(".part")
    part.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    part.replace(place)
    shutil.rmtree(folder)
    return record


def curve(run_dir: str) -> list[dict[str, float]]:
    """The scored points of a training: samples seen, top-1 and loss of the scored split, loss of its own batches."""
    points, loss = [], float("nan")
    for point in read_points(RunDir(run_dir)):
        values = point["values"]
        loss = values.get("train/loss", loss)
        if "val/top1" in values:
            points.append(
                {"samples": point["samples"], "top1": values["val/top1"], "loss": values["val/loss"], "learned": loss}
            )
    return points


def lacks_checkpoint(run: Run, config: StudyConfig) -> bool:
    """A record of the ledger has no weights: with --checkpoints such a run is made again."""
    wanted = bool(config.checkpoints) and run.stage == "core"
    place = kept_at(config.checkpoints, run.set_name, run.row, run.config.seed)
    return wanted and not Path(place, "checkpoint.json").exists()


def recorded(ledger: Path) -> set[tuple[str, int]]:
    """(key, seed) of every record of a training. Keys are those of today: a setting that a record is too old to know
    has its default there, so a new setting makes no record stale.
    """
    found = set()
    for record in read_ledger(ledger):
        if record["stage"] not in ("rates", "core"):
            continue
        with suppress(UsageError, ValueError):  # trained with a setting that is gone: no run of today
            run = Run(
                set_name=record["set"], row=record["row"], stage=record["stage"], epochs=record["epochs"],
                config=from_json(TrainConfig, record["config"]), data_identity=record["data"],
            )  # fmt: skip
            found.add((run.key(), record["seed"]))
    return found


def main(argv: list[str]) -> int:
    """Fill what the ledger lacks within the time given, then print and save the tables."""
    from tests.benchmarks.study.report import report

    config, record = begin("study", StudyConfig, argv, ("torch", "numpy", "fast-slic"))
    ledger = Path(config.ledger)
    for set_name in config.sets if config.data else ():
        open_dataset(f"{config.data}/{SETS[set_name].folder}")  # a set that is missing is told before hours of work
    if config.data and config.stage == "speed":
        from tests.benchmarks.study.speed import measure_speed

        for set_name in config.sets:
            measure_speed(config.data, set_name, ledger, arrays, record.facts)
    elif config.data and config.stage == "lighter":
        from tests.benchmarks.study.lighter import lighter_records

        asked = (config.data, config.sets, config.rows, config.seeds, config.checkpoints)
        for found in lighter_records(*asked, arrays, ledger, record.facts):
            told = ", ".join(f"{name} {value:.2%}" for name, value in found["scores"].items())
            record.say(f"{found['set']}, {found['row']}, seed {found['seed']}: {told}")
    elif config.data:
        fill_missing(config, record)
    elif not any(ledger.glob("*.json")):
        raise UsageError(f"the ledger {ledger} is empty. Give --data with the folder that holds the shards.")
    report(ledger, record)
    return record.end()


def fill_missing(config: StudyConfig, record: Record) -> None:
    """The runs of the stage that the ledger lacks, as many as begin within the time given."""
    start, ledger = time.monotonic(), Path(config.ledger)
    runs, done = list(planned(config)), recorded(ledger)
    missing = [run for run in runs if (run.key(), run.config.seed) not in done or lacks_checkpoint(run, config)]
    record.say(
        f"stage {config.stage}: {len(runs)} runs, {len(runs) - len(missing)} in {ledger}, {len(missing)} to do; no run "
        f"begins after {config.minutes:g} minutes"
    )
    for run in missing:
        if time.monotonic() - start > config.minutes * 60:
            break
        scores = fill(run, config, record.facts)["scores"]
        record.say(
            f"{run.set_name}, {run.row}, lr {run.config.optim.lr:g}, seed {run.config.seed}: top-1 {scores['top1']:.2%}"
        )
