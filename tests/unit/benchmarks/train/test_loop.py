"""The profile of the loop in `bench train`: its parts are functions that a training of today calls."""

import pytest

from tests.benchmarks.train.config import BenchTrainConfig
from tests.benchmarks.train.loop import loop_tables


@pytest.mark.soak
def test_the_parts_of_a_step_are_found_and_add_up():
    (table,) = loop_tables(BenchTrainConfig(size="tiny", batch=2, steps=2, clock="cpu"))
    ms = {row[0]: float(row[1]) for row in table.rows}
    whole = ms.pop("whole step")
    overhead, points = ms.pop("loop overhead (goal: under 3 %)"), ms.pop("tracking (goal: under 0.5 %)")
    assert abs(sum(ms.values()) - whole) < 0.1
    assert all(value > 0 for value in ms.values()) and points == ms["points of the curves"]
    outside = sum(ms[name] for name in ("forward and loss", "backward", "optimizer", "waiting for data"))
    assert abs(overhead - (whole - outside - ms["colours and mixing"])) < 0.1
