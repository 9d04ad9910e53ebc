"""The list of recipes: every recipe is in it, and a score in it stands in a recorded table."""

import re

import pytest

from focusvit.recipes.small import RECIPES, recipe
from focusvit.recipes.table import text_of
from pipeline.errors import UsageError
from testkit.checkout import ROOT

RECORD = ROOT / "tests" / "benchmarks" / "results" / "training" / "report.md"


def test_every_score_is_in_the_table_that_it_names() -> None:
    for name, row in RECIPES.items():
        if not row.score.startswith("not measured"):
            place = re.search(r"\S+\.md", row.score)
            assert place, f"{name}: '{row.score}' names no document"
            texts = [(ROOT / place[0]).read_text(), RECORD.read_text()]
            numbers = re.findall(r"([\d.]+) % top", row.score)
            assert numbers and all(number in text for number in numbers for text in texts), name


@pytest.mark.parametrize("name", [name for name in RECIPES if not name.startswith("original_")])
def test_a_recipe_says_what_it_needs_and_its_hours_are_those_of_the_dry_run(name: str) -> None:
    row = RECIPES[name]
    assert row.about and row.hardware and row.time and "measured" in row.score
    hours = re.search(r"([\d.]+) h at (\d+) images a second", row.time)
    if hours:  # samples over the throughput
        samples = {"vit": 1_281_167, "foc": 1_281_167, "dei": 1_281_167, "tin": 100_000, "cif": 50_000, "dis": 23_591}
        config = row.config
        seconds = config.num_steps(samples[name[:3]]) * config.global_batch / float(hours[2])
        assert float(hours[1]) == pytest.approx(seconds / 3600, abs=0.051)


def test_the_list_holds_every_recipe_and_the_original_rows_come_last() -> None:
    before, _, after = text_of(RECIPES).partition("rows of the original repository")
    originals = [name for name in RECIPES if name.startswith("original_")]
    assert len(originals) == 19 and all(f"  {name} " in after for name in originals)
    assert all(f"  {name} " in before for name in RECIPES if name not in originals)


def test_a_mistyped_recipe_shows_the_list() -> None:
    with pytest.raises(UsageError, match="no recipe 'cifar_10'") as refused:
        recipe("cifar_10")
    said = str(refused.value)
    assert said.endswith(text_of(RECIPES, short=True)) and "and 19 rows of the original repository" in said
    assert all(f"  {name} " in said for name in RECIPES if not name.startswith("original_"))
