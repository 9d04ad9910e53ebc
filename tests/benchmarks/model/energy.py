"""`python -m tests.benchmarks energy`: what 1,000 images cost in CPU seconds, and in joules where the machine tells.

Preprocessing, one training step and inference, FocusViT beside a plain ViT and the controls, paired in one run.
"""

import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from focusvit.model.cost import training_loss
from pipeline.image.image import ImageConfig, prepare_image
from pipeline.io import storage
from pipeline.plan.plan import make_plan
from pipeline.shards.build import make_sample
from pipeline.sources.detect import detect
from pipeline.superpixels.segment import SuperpixelConfig
from tests.benchmarks.model.throughput import SEGMENTER, segmentation_seconds
from tests.benchmarks.model.variants import DEFAULT, PEER, Variant, main_variants
from tests.benchmarks.record import RecordConfig, begin, data_folder
from tests.benchmarks.report import Table

POWERCAP = Path("/sys/class/powercap")
Calls = Mapping[str, Callable[[], object]]
Cost = tuple[float, float | None]
"""CPU seconds of all threads and joules, where they are known"""


@dataclass(frozen=True, kw_only=True)
class BenchEnergyConfig(RecordConfig):
    """CPU seconds and joules of a CPU; random weights."""

    size: str = "small"
    """tiny, small or base"""
    batch: int = 32
    rounds: int = 3
    photos: str = ""
    """folder of class folders with photos; by default $FOCUSVIT_DATA/imagenet-sample"""
    max_photos: int = 96

    def __post_init__(self) -> None:
        if self.size not in ("tiny", "small", "base"):
            raise ValueError(f"--size is '{self.size}'; choose tiny, small or base")
        if min(self.batch, self.rounds, self.max_photos) < 1:
            raise ValueError("--batch, --rounds and --max-photos must be at least 1")


def joules(root: Path = POWERCAP) -> float | None:
    """Joules that the CPU packages have used so far (Linux powercap); None where the machine does not tell.

    The counters wrap after some 10^5 joules: take differences of readings minutes apart, not hours.
    """
    counters = sorted(root.glob("intel-rapl:[0-9]*/energy_uj"))
    packages = [path for path in counters if path.parent.name.count(":") == 1]
    try:
        return sum(int(path.read_text()) for path in packages) / 1e6 if packages else None
    except OSError:
        return None


def cost_of(calls: Calls, rounds: int, images: int) -> dict[str, Cost]:
    """The cost of 1,000 images; a call handles `images`. Medians over rounds in
    which the calls take turns; one more round comes first and is not counted.
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    energy: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(rounds + 1):
        for name, call in calls.items():
            start, charge = time.process_time(), joules()
            call()
            spent, used = time.process_time() - start, joules()
            if turn:
                seconds[name].append(spent * 1000 / images)
                if charge is not None and used is not None and used >= charge:
                    energy[name].append((used - charge) * 1000 / images)
    return {
        name: (statistics.median(seconds[name]), statistics.median(energy[name]) if energy[name] else None)
        for name in calls
    }


def preprocessing(config: BenchEnergyConfig, folder: str) -> Table:
    """Photos to samples with superpixels, and the same without: what a data set for a plain ViT costs."""
    source = detect(storage.resolve(folder), "train")
    rows = make_plan(source, "train", samples_per_shard=32, max_samples=config.max_photos).table.to_pylist()
    reader, image, superpixels = source.reader(), ImageConfig(), SuperpixelConfig()

    def with_superpixels() -> None:
        for row in rows:
            make_sample(row, reader, image, superpixels)

    def images_only() -> None:
        for row in rows:
            prepare_image(reader.read(row["file"], row["offset"], row["length"]), image)

    costs = cost_of({"images only": images_only, "with superpixels": with_superpixels}, config.rounds, len(rows))
    return _table("Preprocessing, once for each image", costs, "images only", f"{len(rows)} photos.")


def models(config: BenchEnergyConfig) -> dict[str, Variant]:
    wanted = (
        PEER,
        DEFAULT,
        f"{DEFAULT}, LLA hybrid, K = 100",
        "control: uniform grid, K = 64",
        "control: 128 px image",
    )
    variants = main_variants(config.size)
    return {name: variants[name] for name in (row.replace("-S", f"-{config.size[0].upper()}") for row in wanted)}


def model_tables(config: BenchEnergyConfig, segment_s: float) -> list[Table]:
    """Inference and training; superpixels made when the image comes are part of inference, not of training."""
    inference: dict[str, Callable[[], object]] = {}
    training: dict[str, Callable[[], object]] = {}
    needs: dict[str, bool] = {}
    torch.manual_seed(0)
    for name, variant in models(config).items():
        try:
            served, taught = (variant.build(config.size, 224) for _ in range(2))
        except ImportError as error:
            sys.stderr.write(f"bench energy: {name} is left out ({error})\n")
            continue
        inputs = variant.inputs(config.batch, 224)
        optimizer = torch.optim.AdamW(taught.parameters(), lr=1e-5, fused=True)
        inference[name] = partial(_infer, served.eval(), inputs)
        training[name] = partial(_train, taught.train(), inputs, optimizer)
        needs[name] = variant.needs_superpixels
    first = next(iter(inference))
    served_costs = cost_of(inference, config.rounds, config.batch)
    note = f"fp32, batch {config.batch}, 224 px."
    included = f"Superpixels add {segment_s * 1000:.1f} CPU s, joules not measured: {SEGMENTER}."
    extra = {name: 1000 * segment_s if needs[name] else 0.0 for name in needs}
    whole: dict[str, Cost] = {name: (cost + extra[name], None) for name, (cost, _) in served_costs.items()}
    return [
        _table("Inference, maps given", served_costs, first, note),
        _table("Inference, superpixels included", whole, first, included),
        _table("Training, maps from shards", cost_of(training, config.rounds, config.batch), first, note),
    ]


def _infer(model: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
    with torch.inference_mode():
        model(*inputs)


def _train(model: torch.nn.Module, inputs: tuple[torch.Tensor, ...], optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad(set_to_none=True)
    training_loss(model, *inputs).backward()
    optimizer.step()


def _table(title: str, costs: dict[str, Cost], first: str, note: str) -> Table:
    base = costs[first][0]
    told = "-"
    rows = [
        [name, f"{seconds:.1f}", f"{seconds / base:.0%}", told if energy is None else f"{energy:.0f}"]
        for name, (seconds, energy) in costs.items()
    ]
    return Table(title=title, columns=("", "CPU s", "of the first", "joules"), rows=rows, note=note)


def main(argv: list[str]) -> int:
    """Print the tables and save them under tests/benchmarks/results."""
    packages = ("torch", "transformers", "numpy", "fast-slic")
    config, record = begin("energy", BenchEnergyConfig, argv, packages)
    folder = data_folder("imagenet-sample", config.photos, "--photos")
    record.say(f"size {config.size}, batch {config.batch}, {config.rounds} rounds, per 1,000 images")
    told = "powercap counters of the CPU packages" if joules() is not None else "this machine does not tell them"
    record.facts |= {"threads": torch.get_num_threads(), "joules": told}
    record.add(preprocessing(config, folder))
    segment_s, _ = segmentation_seconds(folder, time.process_time)
    record.add(*model_tables(config, segment_s))
    return record.end()
