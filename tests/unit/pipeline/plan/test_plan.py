"""A plan depends on the set of samples alone; keys are unique; shards are equal; a stored plan is the plan."""

import itertools
import random
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import DataError, UsageError
from pipeline.plan.plan import load_plan, make_plan, read_shard_rows, save_plan
from pipeline.sources import SourceImage
from testkit.checkout import ROOT


@dataclass
class Listing:
    listed: list[SourceImage]
    classes: tuple[str, ...] | None = None
    kind: str = "list"
    root: str = "/list"

    def images(self) -> Iterator[SourceImage]:
        yield from self.listed

    def read(self, file: str, offset: int, length: int) -> bytes:
        return b""


def _rows(count: int = 100, classes: int = 7) -> list[SourceImage]:
    return [
        SourceImage(f"c{i % classes}/img {i}.JPEG", f"c{i % classes}/img {i}.JPEG", class_name=f"c{i % classes}")
        for i in range(count)
    ]


def test_the_order_of_listing_does_not_matter() -> None:
    rows = _rows()
    first = make_plan(Listing(rows), "train", samples_per_shard=16)
    random.Random(0).shuffle(rows)
    second = make_plan(Listing(rows), "train", samples_per_shard=16)
    assert first.table.equals(second.table) and first.digest == second.digest
    assert first.table.column("source").to_pylist() != sorted(row.source for row in rows)


@given(count=st.integers(1, 300), per_shard=st.integers(1, 50))
@settings(max_examples=30, deadline=None)
def test_shards_are_equal_and_hold_every_sample_once(count: int, per_shard: int) -> None:
    plan = make_plan(Listing(_rows(count)), "train", samples_per_shard=per_shard)
    sizes = np.diff(plan.bounds)
    assert sizes.sum() == count and sizes.max() - sizes.min() <= 1 and sizes.max() <= per_shard
    assert sorted(plan.table.column("source").to_pylist()) == sorted(row.source for row in _rows(count))


@given(st.lists(st.text(min_size=1, max_size=60), unique=True, min_size=1, max_size=40))
@settings(max_examples=60, deadline=None)
def test_names_never_collide_in_a_key(names: list[str]) -> None:
    try:
        plan = make_plan(Listing([SourceImage(n, n, class_name="a") for n in names]), "t")
    except UsageError:
        assert any(not name.isprintable() for name in names)
        return
    keys = plan.table.column("key").to_pylist()
    assert len(set(keys)) == len(names)
    assert all(re.fullmatch("[A-Za-z0-9_-]+", key) and len(key) <= 60 for key in keys)


def test_equal_stems_and_splits_get_other_keys() -> None:
    rows = [
        SourceImage(name, name, class_name="a") for name in ("a/x.jpg", "b/x.jpg", "a/x.png", "a.b/x.jpg", "a_b/x.jpg")
    ]
    keys = set()
    for split in ("train", "val"):
        keys |= set(make_plan(Listing(rows), split).table.column("key").to_pylist())
    assert len(keys) == 10 and all(key.startswith("x-") for key in keys)


def test_the_same_image_listed_twice_is_refused() -> None:
    with pytest.raises(DataError, match=r"occur twice.*c0/img 0\.JPEG and c0/img 0\.JPEG"):
        make_plan(Listing([*_rows(), _rows()[0]]), "train")


def test_a_limit_is_balanced_nested_and_stable() -> None:
    rows = _rows(100, 7) + [SourceImage(f"rare/{i}", f"rare/{i}", class_name="rare") for i in range(2)]
    plan = make_plan(Listing(rows), "train", max_samples=40)
    counts = Counter(plan.table.column("class_id").to_pylist())
    assert plan.num_samples == 40 and counts[7] == 2 and set(counts.values()) <= {2, 5, 6}
    assert len(plan.classes) == 8
    fewer = make_plan(Listing(rows[::-1]), "train", max_samples=20)
    assert set(fewer.table.column("source").to_pylist()) < set(plan.table.column("source").to_pylist())
    assert make_plan(Listing(rows), "train", max_samples=10**6).digest == make_plan(Listing(rows), "train").digest


def test_rows_of_a_group_stay_together() -> None:
    rows = [SourceImage(f"r{i}", "f", offset=i, class_name="a", group=f"g{i // 10}") for i in range(100)]
    groups = [i // 10 for i in make_plan(Listing(rows), "train").table.column("offset").to_pylist()]
    assert sum(a != b for a, b in itertools.pairwise(groups)) == 9


def test_class_lists() -> None:
    assert make_plan(Listing(_rows()), "t").classes == tuple(f"c{i}" for i in range(7))
    assert make_plan(Listing(_rows(), tuple(f"c{i}" for i in range(6, -1, -1))), "t").classes[0] == "c6"
    assert make_plan(Listing([SourceImage("a", "a")]), "t").table.column("class_id").to_pylist() == [-1]
    stated = (*(f"c{i}" for i in range(7)), "extra")
    assert make_plan(Listing(_rows(), stated), "t").classes == stated, "a split may lack a class of its list"
    with pytest.raises(UsageError, match="does not name: c6"):
        make_plan(Listing(_rows(), tuple(f"c{i}" for i in range(6))), "t")
    with pytest.raises(UsageError, match="holds no image"):
        make_plan(Listing([]), "t")
    with pytest.raises(UsageError, match="not valid UTF-8"):
        make_plan(Listing([SourceImage("a\udcff.jpg", "x", class_name="a")]), "t")
    with pytest.raises(UsageError, match="not valid UTF-8"):
        make_plan(Listing([SourceImage("a.jpg", "a.jpg", label_file="a\udcff.png")]), "t")


def test_a_split_takes_the_class_list_of_the_data_set() -> None:
    known = ("c", "a", "b")
    plan = make_plan(Listing([SourceImage("x", "x", class_name="a")], ("a", "b")), "val", known_classes=known)
    assert plan.classes == known and plan.table.column("class_id").to_pylist() == [1]
    several = Listing([SourceImage("x", "x", labels=(0, 1))], ("a", "b"))
    plan = make_plan(several, "val", known_classes=known)
    assert plan.classes == known and plan.table.column("labels").to_pylist() == [[1, 2]]
    assert make_plan(Listing([SourceImage("x", "x", class_name="new")]), "val", known_classes=known).classes == ("new",)
    assert make_plan(Listing([SourceImage("x", "x")]), "test", known_classes=known).classes == ()


@pytest.mark.parametrize("share", [0.1, 0.2, 0.5, 0.9])
def test_a_share_is_disjoint_complete_balanced_and_stable(share: float) -> None:
    rows = _rows(700, 7) + [SourceImage(f"rare/{i}", f"rare/{i}", class_name="rare") for i in range(2)]
    train, val = (make_plan(Listing(rows), split, val_share=share) for split in ("train", "val"))
    sources = [set(plan.table.column("source").to_pylist()) for plan in (train, val)]
    assert not sources[0] & sources[1] and len(sources[0] | sources[1]) == 702
    assert [val.class_counts()[f"c{i}"] for i in range(7)] == [round(100 * share)] * 7
    assert train.class_counts()["rare"] >= 1 and train.classes == val.classes
    more = [*rows[::-1], SourceImage("c0/new", "c0/new", class_name="c0")]
    again = set(make_plan(Listing(more), "validation", val_share=share).table.column("source").to_pylist())
    assert len(again ^ sources[1]) <= 2 and all(name.startswith("c0/") for name in again ^ sources[1])


def test_small_classes_add_up_to_the_share() -> None:
    rows = [SourceImage(f"c{i}/{j}", "x", class_name=f"c{i}") for i in range(400) for j in range(2)]
    assert 130 < make_plan(Listing(rows), "val", val_share=0.2).num_samples < 190
    with pytest.raises(UsageError, match=r"--val-share 0\.1 cannot divide 1 images in 1 classes"):
        make_plan(Listing(rows[:1]), "val", val_share=0.1)
    assert make_plan(Listing(rows[:2]), "val", val_share=0.01).num_samples == 1


def test_a_stored_plan_comes_back_and_damage_is_found(tmp_path: Path) -> None:
    plan = make_plan(Listing(_rows()), "train", samples_per_shard=16)
    uri = str(tmp_path / "plan.parquet")
    save_plan(uri, plan, {"a": 1})
    back, description = load_plan(uri)
    assert back.table.equals(plan.table) and back.digest == plan.digest and description == {"a": 1}
    assert np.array_equal(back.bounds, plan.bounds) and back.classes == plan.classes
    rows = [row for shard in range(len(plan.bounds) - 1) for row in read_shard_rows(uri, shard)]
    assert rows == plan.table.to_pylist()
    data = (tmp_path / "plan.parquet").read_bytes()
    (tmp_path / "plan.parquet").write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match="is damaged"):
        load_plan(uri)


def test_a_stored_plan_is_read_without_threads_of_arrow(tmp_path: Path) -> None:
    """One that has just started aborts a process that ends, a few times in a hundred. /proc lists Arrow's as well."""
    plan = make_plan(Listing(_rows(12, 3)), "train")
    save_plan(str(tmp_path / "plan.parquet"), plan, {})
    code = (
        "import os, sys\nfrom pipeline.plan import plan\n"
        "def count(): return len(os.listdir('/proc/self/task'))\n"
        "before = count()\n"
        "for read in (plan.load_plan, plan.read_head, plan.read_places, lambda uri: plan.read_shard_rows(uri, 0)):\n"
        "    read(sys.argv[1])\n"
        "sys.exit(count() - before)\n"
    )
    found = subprocess.run([sys.executable, "-c", code, str(tmp_path / "plan.parquet")], cwd=ROOT, timeout=60)
    assert found.returncode == 0
