"""`bench hosts`: superpixels in a real pretrained ViT against every other way to spend fewer tokens, without training
it."""

from dataclasses import dataclass
from pathlib import Path

import torch

from pipeline.errors import UsageError
from tests.benchmarks.hosts.dense import Split, by_drive, dense_table
from tests.benchmarks.hosts.frozen import frozen_table
from tests.benchmarks.hosts.images import Sample, class_folders, frames, load_host
from tests.benchmarks.record import RecordConfig, begin, data_folder

SECTIONS = ("images", "dense", "drives")


@dataclass(frozen=True, kw_only=True)
class BenchHostsConfig(RecordConfig):
    """A frozen ViT as it is, patched in several ways, and with fewer pixels."""

    host: str
    """a Hugging Face folder of a Dinov2Model with patches of 14, with its preprocessor_config.json"""
    sections: tuple[str, ...] = SECTIONS
    """images: kNN and logistic probe on $FOCUSVIT_DATA/flowers17; dense: CamVid's train and val; drives: CamVid's
    train, each drive once as the test"""
    per_class: int = 64
    """images of a class to learn from"""
    frames: int = 1000
    """of CamVid, at most so many of a split, evenly spread"""
    batch: int = 8

    def __post_init__(self) -> None:
        wrong = [section for section in self.sections if section not in SECTIONS]
        if wrong or min(self.per_class, self.frames, self.batch) < 1:
            raise ValueError(f"--sections are {', '.join(SECTIONS)} and numbers at least 1, not {wrong or 'less'}")


def main(argv: list[str]) -> int:
    """Print the tables and save them under tests/benchmarks/results."""
    config, record = begin("hosts", BenchHostsConfig, argv, ("torch", "transformers", "fast-slic", "numpy", "scipy"))
    host = Path(config.host)
    if not (host / "preprocessor_config.json").is_file():
        raise UsageError(f"--host {host} holds no preprocessor_config.json: give a Hugging Face folder.")
    model = load_host(host)
    record.facts |= {"threads": torch.get_num_threads(), "host": type(model).__name__}
    if "images" in config.sections:
        root = Path(data_folder("flowers17"))
        train, test = class_folders(root / "train", config.per_class), class_folders(root / "val", config.per_class)
        record.add(frozen_table(host, model, train, test, config.batch))
    camvid = {split: _spread(frames(Path(data_folder("camvid")) / split), config.frames) for split in ("train", "val")}
    if "drives" in config.sections:
        record.add(dense_table(host, model, list(by_drive(camvid["train"])), config.batch))
    if "dense" in config.sections:
        record.add(dense_table(host, model, [Split("train to val", camvid["train"], camvid["val"])], config.batch))
    return record.end()


def _spread(samples: list[Sample], count: int) -> list[Sample]:
    return samples[:: -(-len(samples) // count)]
