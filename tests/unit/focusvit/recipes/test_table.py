"""The list of recipes: every recipe is in it, and a score in it stands in a recorded table."""

import re

import pytest

from focusvit.recipes.small import RECIPES, listed, recipe
from focusvit.recipes.table import Row, row_of, rows_of
from pipeline.errors import UsageError
from testkit.checkout import ROOT


def test_a_row_is_what_the_docstring_says() -> None:
    def small() -> None:
        """A model of 1.5 M parameters, on CPU.

        focusvit pretrain small --data DIR --run-dir DIR
        Hardware: 2 CPU cores. Time: 1.5 h at 2000 images a second, which
        two cores gave. Score: measured 36.1 % top-1: results/report.md.
        """

    assert row_of("small", small) == Row(
        "small",
        "A model of 1.5 M parameters, on CPU",
        "2 CPU cores",
        "1.5 h at 2000 images a second, which two cores gave",
        "measured 36.1 % top-1: results/report.md",
    )


def test_a_docstring_without_a_score_is_refused() -> None:
    def small() -> None:
        """A model.

        Hardware: any. Time: seconds.
        """

    with pytest.raises(AssertionError, match="small: its docstring must end in"):
        row_of("small", small)


def test_every_score_is_in_the_table_that_it_names() -> None:
    for row in rows_of(RECIPES):
        if not row.score.startswith("not measured"):
            place = re.search(r"tests/benchmarks/results/\S+\.md", row.score)
            assert place, f"{row.name}: '{row.score}' names no recorded table"
            table = (ROOT / place[0]).read_text()
            numbers = re.findall(r"([\d.]+) % top", row.score)
            assert numbers and all(number in table for number in numbers), row.name


def test_the_list_holds_every_recipe_and_the_original_rows_come_last() -> None:
    before, _, after = listed().partition("rows of the original repository")
    originals = [name for name in RECIPES if name.startswith("original_")]
    assert len(originals) == 19 and all(f"  {name} " in after for name in originals)
    assert all(f"  {name} " in before for name in RECIPES if name not in originals)


def test_a_mistyped_recipe_shows_the_list() -> None:
    with pytest.raises(UsageError, match="no recipe 'cifar_10'") as refused:
        recipe("cifar_10")
    said = str(refused.value)
    assert said.endswith(listed(short=True)) and "and 19 rows of the original repository" in said
    assert all(f"  {name} " in said for name in RECIPES if not name.startswith("original_"))
