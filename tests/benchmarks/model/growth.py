"""`bench growth`: how cost grows with image size, tokens, batch, images and workers, beside what is expected;
and what that makes of ImageNet-1k and of a billion images.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import cv2
import torch

from focusvit.model import presets
from focusvit.model.cost import count_multiply_adds, example_inputs
from focusvit.model.model import FocusViT, FocusViTConfig
from tests.benchmarks.pipeline.growth import (
    Growth,
    calculator,
    cpu_seconds,
    fitting,
    per_image,
    planning,
    preparing,
    working,
)
from tests.benchmarks.record import RecordConfig, begin, data_folder
from tests.benchmarks.report import Table


@dataclass(frozen=True, kw_only=True)
class BenchGrowthConfig(RecordConfig):
    """Costs in CPU seconds of all threads; models have random weights."""

    rounds: int = 3
    size: str = "tiny"
    """model size: exponents hardly depend on it"""

    def __post_init__(self) -> None:
        if self.rounds < 1 or self.size not in presets.SIZES:
            raise ValueError(f"--rounds is {self.rounds}, --size '{self.size}'; sizes: {', '.join(presets.SIZES)}")


def forwarding(config: BenchGrowthConfig) -> list[Growth]:
    """One forward of FocusViT and of the plain ViT against K, image side and batch; expected: counted multiply-adds."""
    found = []
    for title, make in (("FocusViT", presets.focusvit), ("plain ViT", presets.vit)):
        sides, batches = (112, 224, 448), (4, 8, 16, 32)
        by_side = [make(config.size, image_px=side) for side in sides]
        found.append(_forward(f"{title}, forward of 4 images; side", sides, by_side, [4] * 3, config.rounds))
        same = [make(config.size)] * len(batches)
        found.append(_forward(f"{title}, forward; batch", batches, same, batches, config.rounds))
    tokens = (16, 64, 144, 196)
    by_tokens = [presets.focusvit(config.size, tokens=k) for k in tokens]
    found.append(_forward("FocusViT, forward of 4 images; K", tokens, by_tokens, [4] * 4, config.rounds))
    return found


def _forward(
    what: str, sizes: Sequence[int], configs: Sequence[FocusViTConfig], batches: Sequence[int], rounds: int
) -> Growth:
    calls, expected = [], []
    for config, batch in zip(configs, batches):
        model, inputs = FocusViT(config).eval(), example_inputs(config, batch)
        one = tuple(None if part is None else part[:1] for part in inputs)
        expected.append(float(count_multiply_adds(model, *one) * batch))
        calls.append(partial(_infer, model, inputs))
    seconds = cpu_seconds(calls, rounds)
    return Growth(what=what, sizes=sizes, seconds=seconds, expected=expected, why="multiply-adds, counted")


def _infer(model: FocusViT, inputs: tuple) -> None:
    with torch.inference_mode():
        model(*inputs)


def main(argv: list[str]) -> int:
    """Print the tables and save them under tests/benchmarks/results."""
    config, record = begin("growth", BenchGrowthConfig, argv, ("torch", "numpy", "fast-slic", "pyarrow"))
    folder = data_folder("imagenet-sample")
    cv2.setNumThreads(1)
    record.say(f"{config.rounds} rounds, models of size {config.size}")
    plans = planning()
    growths = [*preparing(config.rounds), fitting(config.rounds), *forwarding(config), working(config.rounds), *plans]
    columns = ("cost; grows with", "from .. to", "CPU time or memory", "exponent", "expected", "because")
    note = (
        "Exponent p of cost ~ size^p, least squares through the logarithms; expected: of the cost named at the right."
    )
    record.add(
        Table(title="Exponents", columns=columns, rows=[growth.row() for growth in growths], note=note),
        calculator(per_image(folder, plans)),
    )
    return record.end()
