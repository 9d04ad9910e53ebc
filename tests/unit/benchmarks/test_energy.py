"""Costs of 1,000 images: counters of packages only, medians of calls that take turns, the peer first."""

from pathlib import Path

from tests.benchmarks.model.energy import BenchEnergyConfig, cost_of, joules, models
from tests.benchmarks.model.variants import PEER


def test_joules_are_the_sum_of_packages_and_absent_without_counters(tmp_path: Path) -> None:
    assert joules(tmp_path) is None
    for name, microjoules in (("intel-rapl:0", 2_500_000), ("intel-rapl:0:0", 999_000_000), ("intel-rapl:1", 500_000)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "energy_uj").write_text(f"{microjoules}\n")
    assert joules(tmp_path) == 3.0


def test_calls_take_turns_and_the_first_round_is_not_counted() -> None:
    order: list[str] = []
    costs = cost_of({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, rounds=2, images=10)
    assert order == ["a", "b"] * 3
    assert set(costs) == {"a", "b"} and all(seconds >= 0 for seconds, _ in costs.values())


def test_the_plain_vit_comes_first_and_controls_stand_beside() -> None:
    for size in ("tiny", "small"):
        names = list(models(BenchEnergyConfig(size=size)))
        assert names[0] == PEER.replace("-S", f"-{size[0].upper()}")
        assert len(names) == 5 and sum("control" in name for name in names) == 2
