"""The loader bench: each contestant answers for itself, what is missing is named, sizes are honest."""

import sys
from pathlib import Path

import pytest

from focusvit.data.order import Order
from pipeline.errors import UsageError
from pipeline.shards.dataset import open_dataset
from testkit.tiny_shards import make_dataset
from tests.benchmarks.train.loader import FLOOR, OURS, BenchConfig, contestants, main, measure, speed_table
from tests.benchmarks.train.loader_sizes import grown, imagenet_sized


@pytest.mark.soak  # a process for each pass; `make bench` runs them too
def test_floor_and_loader_take_turns_over_every_sample(tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "data", splits={"train": 70})
    passes = measure(BenchConfig(rounds=1), data, str(tmp_path))
    assert [one.name for one in passes] == [FLOOR, OURS, OURS, OURS]
    assert all(len(found) == 2 for found in passes.values())
    floor, ours, *recipe = passes.values()
    assert {found["samples"] for own in recipe for found in own} == {128}
    assert {found["samples"] for found in floor} == {70}
    assert {found["samples"] for found in ours} == {128}  # whole batches of 64, counted as what they are
    assert all(found["cpu_s"] >= found["first_cpu_s"] > 0 for found in ours)
    table = speed_table(passes, "cpu")
    assert table.rows[0][4] == table.rows[1][5] == table.rows[2][5] == "1.00"


def test_absent_peers_and_wrong_options_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = tmp_path / "webdataset" / "bin" / "python"
    place.parent.mkdir(parents=True)
    place.symlink_to(sys.executable)
    found = contestants(BenchConfig(peers=str(tmp_path)))
    assert [one.kind for one in found] == ["floor", "ours", "recipe", "finished", "same", "default", "recipe"]
    assert "litdata is left out" in capsys.readouterr().err
    with pytest.raises(UsageError, match="holds no environment"):
        contestants(BenchConfig(peers=str(tmp_path / "nothing")))
    with pytest.raises(SystemExit) as stopped:
        main(["--only", "dali"])
    assert stopped.value.code == 2 and "--only names 'dali'" in capsys.readouterr().err


def test_grown_data_sets_hold_the_same_samples_again(tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "data", splits={"train": 20})
    small, large = open_dataset(data).split("train"), open_dataset(grown(data, str(tmp_path), 3)).split("train")
    assert large.num_samples == 60 and large.read(47).image == small.read(7).image
    huge = open_dataset(imagenet_sized(data, str(tmp_path))).split("train")
    ids = Order(huge.shard_sizes, 0, huge.identity).sample_ids(10**9, 10**9 + 500)
    assert huge.num_samples == 1_281_167 and len(set(ids.tolist())) == 500
