"""Exponents of known curves, a plan of generated rows, and the calculator's arithmetic."""

import pytest

from pipeline.plan.plan import make_plan
from tests.benchmarks.pipeline.growth import Growth, ManyImages, PerImage, calculator, cpu_seconds, exponent


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0, 2.0])
def test_the_exponent_of_a_power_is_the_power(power: float) -> None:
    sizes = (3, 10, 50, 400)
    assert exponent(sizes, [7 * size**power for size in sizes]) == pytest.approx(power)


def test_a_row_shows_both_exponents() -> None:
    growth = Growth(what="w", sizes=(1, 10), seconds=(0.001, 0.1), expected=(1, 10), why="y")
    assert growth.row() == ["w", "1 .. 10", "1.00 .. 100.00 ms", "2.00", "1.00", "y"]


def test_calls_take_turns() -> None:
    order: list[int] = []
    assert len(cpu_seconds([lambda: order.append(1), lambda: order.append(2)], 2)) == 2
    assert order == [1, 2] * 3


def test_the_generated_list_is_a_source() -> None:
    plan = make_plan(ManyImages(count=2500), "train")
    assert plan.num_samples == 2500 and len(plan.classes) == 1000


def test_the_calculator_multiplies() -> None:
    each = PerImage(cpu_s=0.0036, bytes_read=1e5, bytes_stored=5e4, plan_cpu_s=6e-6, plan_bytes=200)
    row = calculator(each).rows[1]
    # 1e9 photos: 3.6e6 s = 1,000 h; 100 TB read, 50 TB stored; 1e14 / 1.25e9 / 3600 h; 6,000 s; 200 GB
    assert row == ["a billion images", "1,000.0", "1.00", "100.00", "50.00", "22.2", "100.0", "200.0"]
