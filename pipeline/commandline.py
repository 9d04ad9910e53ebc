"""Command lines from frozen dataclasses: field docstrings are the help, `__post_init__` is the check."""

import sys
import warnings
from collections.abc import Sequence
from typing import Annotated, Any, TypeVar

import tyro
from tyro.conf import Positional as Positional  # for fields given without their name: `uri: Positional[str]`
from tyro.conf import UseAppendAction as Repeatable  # noqa: F401 - `task: Repeatable[tuple[str, ...]]` is --task a --task b

from .errors import UsageError, did_you_mean

Config = TypeVar("Config")
REQUIRED: Any = tyro.MISSING  # in an instance that is a default: this option has none
shown_as = tyro.conf.arg  # what the help calls a positional: `Annotated[Positional[str], shown_as(metavar="DIR")]`
Flat = Annotated[Config, tyro.conf.arg(name="")]  # a config within a config whose options have no prefix


def parse(
    config: type[Config], argv: list[str], *, prog: str, default: Config | None = None, description: str | None = None
) -> Config:
    """Fill `config` from `argv`. Wrong options print what is wrong and exit with 2 (`SystemExit`); a ValueError
    raised by the dataclass's own check becomes a `UsageError` (also exit 2) with the dataclass's words.
    `description` stands above the options in --help, by default the docstring of the dataclass.
    """
    return _cli(config, argv, prog, default, description=description)


def parse_known(
    config: type[Config], argv: list[str], *, prog: str, default: Config | None = None
) -> tuple[Config, list[str]]:
    """As `parse`, and return the options that `config` does not know (for example overrides of a recipe)."""
    return _cli(config, argv, prog, default, return_unknown_args=True)


def _cli(config: Any, argv: list[str], prog: str, default: Any, **options: Any) -> Any:
    if default is not None:
        options["default"] = default
    try:
        # A choice between two configs is made by the default: its fields are options like all others.
        return tyro.cli(config, args=argv, prog=prog, config=(tyro.conf.AvoidSubcommands,), **options)
    except ValueError as error:
        raise UsageError(str(error)) from None
    except SystemExit as left:
        if left.code and "return_unknown_args" not in options:
            _name_unknown(config, argv, prog, options.get("default"))
        raise


def _name_unknown(config: Any, argv: list[str], prog: str, default: Any) -> None:
    """Say which option there is not. Of a line with a positional word, tyro only says that this word is missing."""
    more = {} if default is None else {"default": default}
    with warnings.catch_warnings(action="ignore"):  # of its end in some later tyro; there is no other way to the names
        parser = tyro.extras.get_parser(config, prog=prog, config=(tyro.conf.AvoidSubcommands,), **more)
    known = {name for action in parser._actions for name in action.option_strings}
    if all(action.option_strings for action in parser._actions):
        return
    for word in (word.split("=")[0] for word in argv if word.startswith("--")):
        if word not in known:
            sys.stderr.write(f"{prog}: there is no option {word}.{did_you_mean(word, sorted(known))}\n")


def aligned(rows: Sequence[Sequence[object]], right: bool = False) -> list[str]:
    """The lines of a table for a terminal, each column as wide as its widest cell. `right`: all but the first column
    end at the right, as numbers do."""
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    form = [f"{{:{'>' if right and i else '<'}{width}}}" for i, width in enumerate(widths)]
    return ["  ".join(one.format(cell) for one, cell in zip(form, row)).rstrip() for row in cells]
