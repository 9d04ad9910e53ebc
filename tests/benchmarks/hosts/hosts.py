"""`bench hosts`: superpixels in a real pretrained ViT against every other way to spend fewer tokens, frozen and after a
short fine-tuning."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import torch
from torch import nn

from pipeline.errors import UsageError
from tests.benchmarks.hosts import dense, tuning
from tests.benchmarks.hosts.borders import border_table
from tests.benchmarks.hosts.frozen import frozen_table
from tests.benchmarks.hosts.images import Sample, class_folders, frames, load_host, whole
from tests.benchmarks.hosts.pictures import painted_frames
from tests.benchmarks.hosts.speed import SPEED_NOTE, speeds
from tests.benchmarks.hosts.ways import some
from tests.benchmarks.pipeline.superpixels import load_photos
from tests.benchmarks.record import Record, RecordConfig, begin, data_folder
from tests.benchmarks.report import Table

Section = Literal["scenes", "scenes-high", "scenes-tuned", "images", "images-tuned", "borders", "frames", "speed"]
_CHOOSES = ("images", "scenes-tuned", "speed")


@dataclass(frozen=True, kw_only=True)
class BenchHostsConfig(RecordConfig):
    """A pretrained ViT as it is, patched in several ways, and with fewer pixels."""

    host: str
    """a Hugging Face folder of a Dinov2Model with patches of 14, with its preprocessor_config.json"""
    section: Section = "scenes"
    """scenes: CamVid, a linear head on frozen features, each drive of train once as the test, and train to val;
    scenes-high: drives at 364x490 px; scenes-tuned: drives after a short fine-tuning; images: kNN and logistic probe of
    `data`; images-tuned: its classes after a short fine-tuning; borders: BSDS500, clusters of features against
    borders that people drew; frames: painted frames of CamVid as a picture; speed: times of the ways of scenes-tuned"""
    data: str = "flowers17"
    """class folders below $FOCUSVIT_DATA, for images"""
    per_class: int = 1000
    """images of a class to learn from, at most"""
    per_class_test: int = 1000
    """images of a class to be scored on, at most"""
    frames: int = 1000
    """of each split of CamVid, at most, evenly spread"""
    epochs: int = 3
    """of fine-tuning"""
    seed: int = 0
    """of the order of fine-tuning's batches"""
    only: tuple[int, ...] = ()
    """the numbers of the ways of images (`frozen.ways`), or of scenes-tuned and speed (`tuning.scene_ways`); () = all.
    Speeds are relative to the first that is named"""
    rounds: int = 3
    """of timing"""
    batch: int = 8

    def __post_init__(self) -> None:
        counts = (self.per_class, self.per_class_test, self.frames, self.epochs, self.rounds, self.batch)
        if min(counts) < 1:
            raise ValueError(f"the numbers are {counts}; each must be at least 1")
        if self.seed and "tuned" not in self.section:
            raise ValueError(f"--seed orders the batches of fine-tuning; section {self.section} trains nothing")
        if self.only and self.section not in _CHOOSES:
            raise ValueError(
                f"--only chooses ways of {', '.join(_CHOOSES)}; section {self.section} runs all of its own"
            )


def main(argv: list[str]) -> int:
    """Print the tables and save them under tests/benchmarks/results, a record for each section."""
    config, record = begin("hosts", BenchHostsConfig, argv, ("torch", "transformers", "fast-slic", "numpy", "scipy"))
    host = Path(config.host)
    if not (host / "preprocessor_config.json").is_file():
        raise UsageError(f"--host {host} holds no preprocessor_config.json: give a Hugging Face folder.")
    model = load_host(host)
    record.facts |= {"threads": torch.get_num_threads(), "host": type(model).__name__}
    record.name = config.name or "-".join(
        ["hosts", config.section, *([config.data] if "images" in config.section else [])]
    )
    sections: dict[str, Callable[[BenchHostsConfig, Path, nn.Module, Record], None]] = {
        "scenes": _scenes, "scenes-high": _scenes_high, "scenes-tuned": _scenes_tuned, "images": _images,
        "images-tuned": _images, "borders": _borders, "frames": _frames, "speed": _speed,
    }  # fmt: skip
    sections[config.section](config, host, model, record)
    return record.end()


def _scenes(config: BenchHostsConfig, host: Path, model: nn.Module, record: Record) -> None:
    train, val = _camvid(config, "train"), _camvid(config, "val")
    whole = dense.Split("train to val", range(len(train)), range(len(train), len(train) + len(val)))
    questions = {"each drive of train once as the test": dense.by_drive(train), whole.name: [whole]}
    samples = [*train, *val]
    chosen = dense.ways(len(model.encoder.layer))  # type: ignore[union-attr, arg-type]
    work = dense.scenes(host, model, chosen, dense.SIZE, samples, questions, config.batch, config.rounds)
    drives = next(iter(questions))
    for tables, scores in work:
        _keep(record, tables)
        in_bfloat16 = scores[chosen[0]][drives].miou
    exact = dense.exact_row(host, model, dense.SIZE, train, dense.by_drive(train), config.batch)
    record.facts["all patches, drives, mIoU in float32"] = f"{exact.miou:.2f} % (bfloat16 {in_bfloat16:.2f} %)"
    record.save()


def _scenes_high(config: BenchHostsConfig, host: Path, model: nn.Module, record: Record) -> None:
    train = _camvid(config, "train")
    chosen = dense.high_ways(len(model.encoder.layer))  # type: ignore[union-attr, arg-type]
    questions = {"each drive of train once as the test": dense.by_drive(train)}
    for tables, _ in dense.scenes(host, model, chosen, dense.HIGH, train, questions, config.batch, config.rounds):
        _keep(record, tables)


def _scenes_tuned(config: BenchHostsConfig, host: Path, model: nn.Module, record: Record) -> None:
    train = _camvid(config, "train")
    settings = tuning.Tuning(epochs=config.epochs, batch=config.batch, seed=config.seed)
    splits = dense.by_drive(train)
    for table in tuning.tuned_scenes(host, model, dense.SIZE, train, splits, settings, config.rounds, config.only):
        _keep(record, [table])


def _images(config: BenchHostsConfig, host: Path, model: nn.Module, record: Record) -> None:
    root = Path(data_folder(config.data))
    train = class_folders(root / "train", config.per_class)
    test = class_folders(root / "val", config.per_class_test)
    if config.section == "images":
        tables = frozen_table(host, model, config.data, train, test, config.batch, config.rounds, config.only)
    else:
        settings = tuning.Tuning(epochs=config.epochs, batch=config.batch, seed=config.seed)
        tables = tuning.tuned_images(host, model, config.data, train, test, settings, config.rounds)
    for table in tables:
        _keep(record, [table])


def _speed(config: BenchHostsConfig, host: Path, model: nn.Module, record: Record) -> None:
    every = tuning.scene_ways(len(model.encoder.layer))  # type: ignore[union-attr, arg-type]
    chosen = some(every, config.only)
    shown = _camvid(config, "train")[: config.batch]
    views = {way: [whole(sample, way.size or dense.SIZE) for sample in shown] for way in chosen}
    costs = speeds(host, model, views, config.rounds)
    rows = [[way.name, way.tokens, f"{costs[way][0]:.0f}", f"{costs[way][1]:.2f}x"] for way in chosen]
    title = f"CamVid, {dense.SIZE[0]}x{dense.SIZE[1]} px, {len(shown)} frames at a time, {config.rounds} rounds"
    record.add(Table(title=title, columns=["way", "tokens", "CPU ms a frame", "speed"], rows=rows, note=SPEED_NOTE))


def _keep(record: Record, tables: list[Table]) -> None:
    """Tables that grow by a row take the place of themselves: a run that is stopped keeps what it has."""
    record.tables = tables
    record.say(f"{tables[0].rows[-1][0]}: " + ", ".join(str(cell) for cell in tables[0].rows[-1][1:]))
    record.save()


def _camvid(config: BenchHostsConfig, split: str) -> list[Sample]:
    found = frames(Path(data_folder("camvid")) / split)
    return found[:: -(-len(found) // config.frames)]


def _borders(config: BenchHostsConfig, host: Path, model: nn.Module, record: Record) -> None:
    photos = list(load_photos(Path(data_folder("bsds500/val")), config.frames))
    record.add(border_table(host, model, photos, config.batch))


def _frames(config: BenchHostsConfig, host: Path, model: nn.Module, record: Record) -> None:
    sheet = painted_frames(host, model, dense.SIZE, _camvid(config, "train"), config.batch)
    cv2.imwrite(str(record.path(".jpg")), sheet[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 80])
    record.save()
