"""Repair makes nothing worse: what it cannot mend keeps its files and its entry, whatever else is damaged."""

import io
import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from focusvit.cli import main
from pipeline.errors import DataError
from pipeline.shards.dataset import open_dataset
from pipeline.shards.sidecar import sidecar_bytes
from testkit.image_sources import class_images, jpeg, write_folder
from testkit.odd_files import write_odd_files
from testkit.preprocessed import preprocessed

pytestmark = pytest.mark.timeout(120)


def _preprocess(source: Path, out: Path, split: str) -> None:
    preprocessed(source, out, split, samples_per_shard=3, on_error="skip")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`train/` with a bad file, `val/`, and `out/` with both splits, two shards each."""
    root = tmp_path_factory.mktemp("made")
    write_folder(root / "train", class_images(classes=2, per_class=3))
    (root / "train" / "n00000001" / "bad.jpg").write_bytes(b"no image")
    write_folder(root / "val", class_images(classes=2, per_class=2, start=50))
    for split in ("train", "val"):
        _preprocess(root / split, root / "out", split)
    return root


@pytest.fixture
def out(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made / "out", tmp_path / "out"))


@pytest.fixture
def away(made: Path) -> Any:
    """The sources are gone while a test runs."""
    for split in ("train", "val"):
        (made / split).rename(made / f"{split}-away")
    yield
    for split in ("train", "val"):
        (made / f"{split}-away").rename(made / split)


def _verify(capsys: pytest.CaptureFixture[str], out: Path, *options: str) -> tuple[int, dict[str, str], str]:
    """Exit code, problems by file (of --json), and what was said on stderr."""
    capsys.readouterr()
    code = main(["verify", str(out), "--workers", "0", "--json", *options])
    said = capsys.readouterr()
    problems = json.loads(said.out)["problems"] if said.out else []
    return code, {problem["file"]: problem["text"] for problem in problems}, said.err


def _bytes(root: Path) -> dict[str, bytes]:
    """All files; timings in sidecars are of the moment."""
    found = {}
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        name, data = str(path.relative_to(root)), path.read_bytes()
        if "/shards/" in name:
            data = json.dumps({k: v for k, v in json.loads(data).items() if k not in ("timing", "sidecar_sha256")})
            data = data.encode()
        found[name] = data
    return found


def _flip(path: Path, seed: int) -> None:
    data, rng = bytearray(path.read_bytes()), random.Random(seed)
    data[rng.randrange(len(data))] ^= 1 + rng.randrange(255)
    path.write_bytes(data)


PLAN = ".focusvit/plan-val.parquet"


@pytest.mark.parametrize("seed", range(4))
def test_a_damaged_plan_is_written_anew_from_the_recorded_source(out: Path, capsys: Any, seed: int) -> None:
    whole = _bytes(out)
    if seed:
        _flip(out / PLAN, seed)
    else:
        (out / PLAN).unlink()
    code, problems, _ = _verify(capsys, out)
    assert code == 1 and list(problems) == [PLAN]
    assert _verify(capsys, out, "--repair")[:2] == (0, {})
    assert _bytes(out) == whole


@pytest.mark.parametrize("damage", ["flip", "missing", "of another data set", "of another split"])
def test_without_its_source_a_split_with_a_lost_plan_stays_as_it_is(
    out: Path, tmp_path: Path, away: Any, capsys: Any, damage: str
) -> None:
    if damage == "flip":
        _flip(out / PLAN, 1)
    elif damage == "missing":
        (out / PLAN).unlink()
    elif damage == "of another split":
        shutil.copy(out / ".focusvit" / "plan-train.parquet", out / PLAN)
    else:
        write_folder(tmp_path / "other", class_images(classes=2, per_class=3, start=70))
        _preprocess(tmp_path / "other", tmp_path / "set", "val")
        shutil.copy(tmp_path / "set" / PLAN, out / PLAN)
    (out / "wids-train.json").unlink()
    before = _bytes(out)
    code, problems, _ = _verify(capsys, out)
    assert code == 1 and problems.keys() == {PLAN, "wids-train.json"}
    code, _, said = _verify(capsys, out, "--repair")
    assert code == 2 and "plan of split 'val' cannot be written anew" in said and "move it away" not in said
    after = _bytes(out)
    assert after.keys() == before.keys() | {"wids-train.json"}
    assert {name: after[name] for name in before} == before, "dataset.json and all of the split are as before"
    assert open_dataset(str(out)).split("val").read(3).key


def test_a_lost_plan_beside_a_damaged_dataset_json_drops_nothing(out: Path, away: Any, capsys: Any) -> None:
    _flip(out / PLAN, 2)
    place = out / "dataset.json"
    place.write_bytes(b"{" + place.read_bytes())
    before = _bytes(out)
    code, _, said = _verify(capsys, out, "--repair")
    assert code == 1 and "dataset.json" in said
    assert _bytes(out) == before


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("damage", ["missing", "flip", "cut", "pipe"])
def test_the_index_of_any_split_is_written_again(out: Path, away: Any, capsys: Any, split: str, damage: str) -> None:
    whole = _bytes(out)
    place = out / ".focusvit" / f"index-{split}.npy"
    if damage == "flip":
        _flip(place, 3)
    elif damage == "cut":
        place.write_bytes(place.read_bytes()[:40])
    else:
        place.unlink()
        if damage == "pipe":
            os.mkfifo(place)
    (out / "train-000077.tar").write_bytes(b"x")
    assert _verify(capsys, out)[0] == 1
    code, problems, _ = _verify(capsys, out, "--repair")
    assert (code, problems) == (1, {"train-000077.tar": "does not belong to the data set; move it away"})
    (out / "train-000077.tar").unlink()
    assert _bytes(out) == whole and _verify(capsys, out)[0] == 0


def test_what_follows_from_shards_needs_no_images(out: Path, away: Any, capsys: Any) -> None:
    whole = _bytes(out)
    for name in ("dataset.json", "_info.json", "wids-val.json", ".focusvit/dali/train-000001.idx"):
        (out / name).unlink()
    _flip(out / ".focusvit" / "dali" / "val-000000.idx", 1)
    (out / ".focusvit" / "errors-train.json").write_bytes(b"[]")
    assert _verify(capsys, out, "--repair")[:2] == (0, {})
    assert _bytes(out) == whole


def _seal(place: Path, change: Callable[[dict[str, Any]], None]) -> None:
    content = json.loads(place.read_bytes())
    del content["sidecar_sha256"]
    change(content)
    place.write_bytes(sidecar_bytes(content))


SEALED: dict[str, Callable[[dict[str, Any]], None]] = {
    "class_ids": lambda c: c["class_ids"].__setitem__(0, 1 - c["class_ids"][0]),
    "lengths": lambda c: c["lengths"].__setitem__(0, c["lengths"][0] + 512),
    "offsets": lambda c: c["offsets"].__setitem__(1, c["offsets"][1] + 512),
    "num_regions": lambda c: c["num_regions"].__setitem__(1, 7),
    "shard": lambda c: c.update(shard=1),
    "format_version": lambda c: c.update(format_version=2),
    "num_samples": lambda c: c.update(num_samples=c["num_samples"] - 1),
    "skipped": lambda c: c["skipped"].append({"source": "x.jpg", "key": "x", "reason": "is empty"}),
    "a column that is no list": lambda c: c.update(offsets=3),
    "no columns": lambda c: c.pop("lengths"),
    "sha256": lambda c: c.update(sha256="00" * 32),
}


@pytest.mark.parametrize("change", SEALED.values(), ids=SEALED)
def test_a_sidecar_sealed_again_with_other_values_is_found(
    out: Path, capsys: Any, change: Callable[[dict[str, Any]], None]
) -> None:
    whole = _bytes(out)
    _seal(out / ".focusvit" / "shards" / "val-000000.json", change)
    code, problems, _ = _verify(capsys, out)
    assert code == 1 and list(problems) == ["val-000000.tar"]
    assert _verify(capsys, out, "--repair")[:2] == (0, {})
    assert _bytes(out) == whole


def test_other_images_replace_nothing(made: Path, out: Path, tmp_path: Path, capsys: Any) -> None:
    """One damaged shard keeps its sound samples when the images of now are others."""
    shutil.copytree(made / "val", tmp_path / "val")
    (tmp_path / "val" / "n00000001" / "n00000001_0.JPEG").write_bytes(jpeg(99))
    for shard in ("val-000000", "val-000001"):
        data = bytearray((out / f"{shard}.tar").read_bytes())
        data[1600] ^= 1
        (out / f"{shard}.tar").write_bytes(data)
    before = _bytes(out)
    code, _, said = _verify(capsys, out, "--repair", "--source", str(tmp_path / "val"))
    assert code == 1 and "the images are not those of before" in said and "untouched" in said
    assert _bytes(out) == before


def test_files_that_are_no_files_are_named_and_replaced(out: Path, tmp_path: Path, capsys: Any) -> None:
    whole = _bytes(out)
    write_odd_files(tmp_path / "odd")
    for name, odd in (
        ("val-000000.tar", "pipe.jpg"),
        (".focusvit/shards/val-000001.json", "device.jpg"),
        ("dataset.json", "loop.jpg"),
        ("wids-train.json", "socket.jpg"),
    ):
        (out / name).unlink()
        (tmp_path / "odd" / odd).rename(out / name)
    code, problems, _ = _verify(capsys, out)
    assert code == 1 and "is a pipe" in problems["val-000000.tar"] and "is a socket" in problems["wids-train.json"]
    assert _verify(capsys, out, "--repair")[:2] == (0, {})
    assert _bytes(out) == whole


def test_another_split_beside_a_damaged_index_is_refused_in_words(tmp_path: Path, out: Path, capsys: Any) -> None:
    (out / ".focusvit" / "index-val.npy").unlink()
    source = write_folder(tmp_path / "test", class_images(classes=2, per_class=2, start=90))
    command = ["preprocess", "--source", str(source), "--out", str(out), "--split", "test", "--local"]
    assert main([*command, "--workers", "0"]) == 1
    assert "index-val.npy is missing or damaged. `focusvit verify" in capsys.readouterr().err
    assert main(["verify", str(out), "--workers", "0", "--repair"]) == 0
    assert open_dataset(str(out)).split("test").num_samples == 4


def test_an_index_of_places_that_do_not_follow_each_other_is_refused(out: Path) -> None:
    place = out / ".focusvit" / "index-train.npy"
    index = np.load(io.BytesIO(place.read_bytes()))
    for field, value in (("shard", 1), ("offset", 512), ("length", 512), ("shard", -1), ("length", -5)):
        wrong = index.copy()
        wrong[field][0] = value
        np.save(place, wrong)
        with pytest.raises(DataError, match="do not follow each other"):
            open_dataset(str(out)).split("train")
