"""What a recipe is: a whole config with all that a reader must know to choose it. And the list of them for people."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from focusvit.train.config import TrainConfig

ORIGINAL = "original_"
"""begins the names of the rows of the original repository"""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """`focusvit pretrain NAME --data DIR --run-dir DIR` trains `config`; any key of it may be changed on that line."""

    about: str
    hardware: str
    time: str
    """of the whole training; samples over a throughput, which is said"""
    score: str
    """a number of a recorded table, with its place, or what begins with 'not measured'"""
    config: TrainConfig

    def but(self, about: str, time: str, score: str, **changes: Any) -> "Recipe":
        """Another recipe on the same hardware whose config differs in a few keys."""
        return replace(self, about=about, time=time, score=score, config=replace(self.config, **changes))


def text_of(recipes: Mapping[str, Recipe], short: bool = False) -> str:
    """Two lines a recipe, then one line each for the rows of the original repository; `short`: one line a recipe."""
    others = [name for name in recipes if name.startswith(ORIGINAL)]
    lines = ["recipes:"]
    for name, one in recipes.items():
        if name not in others:
            lines.append(f"  {name:<22} {one.about}")
            lines += [] if short else [f"  {'':<22} {one.hardware}; {one.time}; {one.score}"]
    if short:
        lines.append(f"and {len(others)} rows of the original repository, {ORIGINAL}...: `focusvit recipes` lists them")
        return "\n".join(lines)
    lines += [
        "",
        "rows of the original repository (ViT-B, one GPU, not measured; `focusvit cost NAME` says what one costs):",
    ]
    return "\n".join([*lines, *(f"  {name:<47} {recipes[name].about}" for name in others)])
