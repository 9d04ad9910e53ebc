"""Costs of 1,000 images: counters of packages only, medians of calls that take turns, the peer first."""

from pathlib import Path

import pytest

from tests.benchmarks.model import energy
from tests.benchmarks.model.energy import BenchEnergyConfig, joules, models
from tests.benchmarks.model.variants import PEER


def test_joules_are_the_sum_of_packages_and_absent_without_counters(tmp_path: Path) -> None:
    assert joules(tmp_path) is None
    for name, microjoules in (("intel-rapl:0", 2_500_000), ("intel-rapl:0:0", 999_000_000), ("intel-rapl:1", 500_000)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "energy_uj").write_text(f"{microjoules}\n")
    assert joules(tmp_path) == 3.0


def test_calls_take_turns_and_the_first_round_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor on which a call of `a` takes 2 s and 6 J and one of `b` 1 s and 3 J, but for the first ones."""
    order: list[str] = []
    spent = [0.0]

    def call(name: str, seconds: float) -> None:
        order.append(name)
        spent[0] += seconds if len(order) > 2 else 100

    monkeypatch.setattr(energy.time, "process_time", lambda: spent[0])
    monkeypatch.setattr(energy, "joules", lambda: 3 * spent[0])
    costs = energy.cost_of({"a": lambda: call("a", 2.0), "b": lambda: call("b", 1.0)}, rounds=2, images=10)
    assert order == ["a", "b"] * 3 and costs == {"a": (200.0, 600.0), "b": (100.0, 300.0)}
    monkeypatch.setattr(energy, "joules", lambda: None)
    assert energy.cost_of({"a": lambda: call("a", 2.0)}, rounds=1, images=1000) == {"a": (2.0, None)}


def test_the_plain_vit_comes_first_and_controls_stand_beside() -> None:
    for size in ("tiny", "small"):
        names = list(models(BenchEnergyConfig(size=size)))
        assert names[0] == PEER.replace("-S", f"-{size[0].upper()}")
        assert len(names) == 5 and sum("control" in name for name in names) == 2
