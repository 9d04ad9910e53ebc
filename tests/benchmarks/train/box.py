"""`python -m tests.benchmarks box RUN NAME`: a run's checkpoint as a model of the package, in half precision.

What only the training machine knows (places, its MLflow run, the teacher's folder) is left out of the record.
"""

import dataclasses
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from focusvit.box.names import ABOUT, BOX, About
from focusvit.recipes.models import describe, lines_of
from focusvit.runs.checkpoint import check_finite, read_checkpoint, save_checkpoint
from focusvit.runs.checkpoint_record import without_places
from pipeline.commandline import Positional, Repeatable, parse, shown_as
from pipeline.errors import UsageError
from pipeline.io import storage


@dataclass(frozen=True, kw_only=True)
class BoxConfig:
    """Pack the best checkpoint of a run into the package, as a model that every verb knows by name."""

    run: Annotated[Positional[str], shown_as(metavar="RUN")]
    """run directory or checkpoint folder"""
    name: Annotated[Positional[str], shown_as(metavar="NAME")]
    """name of the model, such as focusvit-tiny; what has that name is replaced"""
    made: str
    """what was trained on what, in a sentence or two"""
    data: Repeatable[tuple[str, ...]]
    """a data set that it was trained on (repeat the option for more)"""
    command: Repeatable[tuple[str, ...]]
    """a command that made the weights or a score (repeat the option for more)"""
    score: Repeatable[tuple[str, ...]] = ()
    """WHAT=VALUE, such as 'flowers17, kNN top-1=55 % (untrained 37 %)' (repeat the option for more)"""
    licence: str = "Apache-2.0"
    """of the weights"""

    def __post_init__(self) -> None:
        if not self.name.replace("-", "").replace("_", "").isalnum() or not self.name.isascii():
            raise ValueError(f"the name is '{self.name}'; use letters, digits, - and _")
        if wrong := [text for text in self.score if "=" not in text]:
            raise ValueError(f"--score is '{wrong[0]}'; write WHAT=VALUE")

    def about(self) -> About:
        scores = dict(text.split("=", 1) for text in self.score)
        return About(made=self.made, data=self.data, licence=self.licence, commands=self.command, scores=scores)


def pack(run: str, name: str, about: About) -> Path:
    """The folder that now holds the model. Raises `UsageError` for weights that half precision cannot hold."""
    record, weights = read_checkpoint(storage.resolve(run))
    halves = {key: value.half() if value.is_floating_point() else value for key, value in weights.items()}
    try:
        check_finite(halves, record.uri)
    except Exception as error:
        raise UsageError(f"{error} In float16 only values up to 65504 are finite.") from None
    config = {**record.config, "precision": "auto"}  # the CPU it was trained on may have had bf16, others do not
    save_checkpoint(str(BOX / name), without_places(dataclasses.replace(record, config=config)), halves)
    storage.put_json(str(BOX / name / ABOUT), dataclasses.asdict(about))
    return BOX / name


def main(argv: list[str]) -> int:
    config = parse(BoxConfig, argv, prog="python -m tests.benchmarks box")
    place = pack(config.run, config.name, config.about())
    sys.stdout.write("\n".join(lines_of(describe(config.name))) + f"\nwritten to {place}\n")
    return 0
