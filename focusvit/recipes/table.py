"""The recipes as a list for people: what each is for, on what, how long, and how well. Its docstring is the source."""

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from .original_models import original_models

ORIGINAL = "original_"
"""begins the names of the rows of the original repository"""
_FACT = r"\b{}: (.+?)\.(?= (?:Hardware|Time|Score): |$)"


class Row(NamedTuple):
    """One recipe. `score` is a number of a recorded table, with its place, or begins with 'not measured'."""

    name: str
    about: str
    hardware: str
    time: str
    score: str


def row_of(name: str, recipe: Callable[[], Any]) -> Row:
    """What the docstring of a recipe says. Raises AssertionError when it leaves something out."""
    if name.startswith(ORIGINAL):
        about = original_models()[name.removeprefix(ORIGINAL)].about
        return Row(name, about, "one GPU", "`focusvit cost` says it", "not measured")
    first, _, rest = (recipe.__doc__ or "").partition("\n")
    rest = " ".join(rest.split())
    facts = [re.search(_FACT.format(word), rest) for word in ("Hardware", "Time", "Score")]
    assert all(facts), f"{name}: its docstring must end in Hardware: ... Time: ... Score: ..."
    return Row(name, first.rstrip("."), *(fact[1] for fact in facts if fact))


def rows_of(recipes: Mapping[str, Callable[[], Any]]) -> list[Row]:
    return [row_of(name, recipe) for name, recipe in recipes.items()]


def text_of(rows: list[Row], short: bool = False) -> str:
    """Two lines a recipe, then one line each for the rows of the original repository; `short`: one line a recipe."""
    own = [row for row in rows if not row.name.startswith(ORIGINAL)]
    others = [row for row in rows if row.name.startswith(ORIGINAL)]
    lines = ["recipes:"]
    for row in own:
        lines.append(f"  {row.name:<22} {row.about}")
        lines += [] if short else [f"  {'':<22} {row.hardware}; {row.time}; {row.score}"]
    if short:
        lines.append(f"and {len(others)} rows of the original repository, {ORIGINAL}...: `focusvit recipes` lists them")
        return "\n".join(lines)
    lines += [
        "",
        "rows of the original repository (ViT-B, one GPU, not measured; `focusvit cost NAME` says what one costs):",
    ]
    lines += [f"  {row.name:<47} {row.about}" for row in others]
    return "\n".join(lines)
