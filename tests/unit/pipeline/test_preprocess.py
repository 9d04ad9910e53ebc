"""The verb without Ray: what it writes, what it refuses, and what a second run does."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from focusvit.cli import main
from pipeline.errors import DataError, UsageError
from pipeline.io import storage
from pipeline.preprocess import PreprocessConfig, Summary, preprocess
from pipeline.shards.dataset import open_dataset
from testkit.image_sources import (
    annotated_val,
    class_images,
    jpeg,
    tar_bytes,
    write_folder,
    write_parquet,
    write_tar_of_tars,
)
from testkit.layout_trees import MASKS
from testkit.odd_files import write_odd_files
from testkit.preprocessed import preprocessed

IMAGES = class_images()


def _run(source: Path | str, out: Path | str, **options: object) -> Summary:
    return preprocessed(source, out, **{"samples_per_shard": 5, **options})


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "images", IMAGES)


def test_a_folder_becomes_a_data_set(source: Path, tmp_path: Path) -> None:
    summary = _run(source, tmp_path / "out")
    assert (summary.num_samples, summary.num_shards, summary.built_shards, summary.num_classes) == (24, 5, 5, 3)
    dataset = open_dataset(str(tmp_path / "out"))
    split = dataset.split("train")
    assert dataset.classes == ("n00000001", "n00000002", "n00000003") and split.num_samples == 24
    assert split.root_hash.hex() == summary.root_hash and split.identity == summary.identity
    assert split.shard_sizes.tolist() == [4, 5, 5, 5, 5] and split.class_ids.dtype == np.int32
    for number in range(24):
        sample = split.read(number)
        class_name, name = sample.meta["source"].split("/")
        assert sample.image == IMAGES[class_name][name]
        assert sample.class_id == split.class_ids[number] == dataset.classes.index(class_name)
    with pytest.raises(UsageError, match="no split 'val'; it has train"):
        dataset.split("val")


def test_files_that_a_folder_source_passes_over_are_counted(source: Path, tmp_path: Path) -> None:
    config = PreprocessConfig(source=str(source), out=str(tmp_path / "out"), dry_run=True, local=True, workers=0)
    lines: list[str] = []
    preprocess(config, lines.append)
    assert not any(line.startswith("note") for line in lines)
    for name in ("lone.jpg", "lone.png", "notes.txt", "n00000001/raw.heic", "n00000002/raw.avif"):
        (source / name).write_bytes(b"x")
    preprocess(config, lines.append)
    [note] = [line for line in lines if line.startswith("note")]
    assert "files of unknown ending: 3 (n00000001/raw.heic, n00000002/raw.avif, notes.txt)" in note
    assert f"images directly in {source}, in no class folder: 2 (lone.jpg, lone.png)" in note


def test_layouts_of_the_same_images_give_the_same_shards(source: Path, tmp_path: Path) -> None:
    roots = {_run(source, tmp_path / "a").root_hash}
    roots.add(_run(write_tar_of_tars(tmp_path / "train.tar", IMAGES), tmp_path / "b").root_hash)
    roots.add(_run(source, f"memory://{tmp_path.name}/out").root_hash)
    assert len(roots) == 1
    assert open_dataset(f"memory://{tmp_path.name}/out").split("train").read(3).image[:2] == b"\xff\xd8"


def test_a_second_run_keeps_finished_shards_and_builds_only_the_rest(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = _run(source, out)
    assert _run(source, out).built_shards == 0
    state = out / ".focusvit"
    (out / "train-000001.tar").unlink()
    (state / "shards" / "train-000002.json").unlink()
    (state / "shards" / "train-000003.json").write_text('{"torn')
    (out / "train-000004.tar").write_bytes((out / "train-000004.tar").read_bytes()[:-512])
    halves = [
        out / ".train-000000.tar.abc.tmp",
        state / "shards" / ".train-000001.json.abc.tmp",
        out / "._info.json.a.tmp",
    ]
    for half in halves:
        half.write_bytes(b"half")
    again = _run(source, out)
    assert again.built_shards == 4 and again.root_hash == first.root_hash
    assert not list(out.rglob("*.tmp"))


def test_splits_share_one_class_list(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (tmp_path / "val.tar").write_bytes(tar_bytes(annotated_val(class_images(per_class=2, start=500))))
    train = _run(source, out)
    val = _run(tmp_path / "val.tar", out, split="val")
    dataset = open_dataset(str(out))
    assert set(dataset.splits) == {"train", "val"} and val.num_samples == 6
    assert dataset.split("train").root_hash.hex() == train.root_hash
    write_folder(tmp_path / "other", {"n00000001": {"a.jpg": jpeg(0)}, "zebra": {"a.jpg": jpeg(1)}})
    with pytest.raises(UsageError, match=r"only in 'test': zebra; only in 'train': n00000002, n00000003"):
        _run(tmp_path / "other", out, split="test")
    with pytest.raises(UsageError, match=r"other settings: superpixels\.compactness \(there 10\.0, now 20\.0\)"):
        from pipeline.superpixels.segment import SuperpixelConfig

        _run(source, out, split="test", superpixels=SuperpixelConfig(compactness=20.0))
    assert set(open_dataset(str(out)).splits) == {"train", "val"}


def test_another_plan_of_the_same_split_is_refused_with_the_fields(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = _run(source, out)
    with pytest.raises(UsageError, match=r"num_shards \(there 5, now 6\)"):
        _run(source, out, samples_per_shard=4)
    (source / "n00000001" / "new.jpg").write_bytes(jpeg(77))
    with pytest.raises(UsageError, match=r"num_samples \(there 24, now 25\).*only the source now: n00000001/new\.jpg"):
        _run(source, out)
    (source / "n00000001" / "new.jpg").unlink()
    assert _run(source, out).root_hash == first.root_hash
    plan = out / ".focusvit" / "plan-train.parquet"
    whole = plan.read_bytes()
    for damaged in (b"", whole[:-300] + bytes(200) + whole[-100:], None):
        plan.unlink() if damaged is None else plan.write_bytes(damaged)
        again = _run(source, out)
        assert (again.built_shards, again.root_hash, plan.read_bytes()) == (0, first.root_hash, whole)
    plan.unlink()
    with pytest.raises(UsageError, match="missing or damaged, and they are not of"):
        _run(source, out, samples_per_shard=4)


def test_bad_images_are_listed_and_nothing_is_finished(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    clean = _run(source, tmp_path / "clean")
    good = (source / "n00000002" / "n00000002_3.JPEG").read_bytes()
    (source / "n00000002" / "n00000002_3.JPEG").write_bytes(b"")
    (source / "n00000003" / "n00000003_0.JPEG").write_bytes(b"<html>not found</html>")
    with pytest.raises(
        DataError, match=r"2 of the images.*n00000002_3\.JPEG is empty \(0 bytes\); .*_0\.JPEG is not an"
    ):
        _run(source, out)
    with pytest.raises(UsageError, match="was interrupted"):
        open_dataset(str(out))
    listed = json.loads((out / ".focusvit" / "errors-train.json").read_text())
    assert [entry["source"] for entry in listed] == ["n00000002/n00000002_3.JPEG", "n00000003/n00000003_0.JPEG"]
    with pytest.raises(DataError, match="more than --max-errors 1"):
        _run(source, out, on_error="skip", max_errors=1)
    skipped = _run(source, out, on_error="skip")
    assert (skipped.num_samples, skipped.num_skipped) == (22, 2)
    with pytest.raises(DataError, match="2 images are bad, more than --max-errors 1"):  # nothing is left to build
        _run(source, out, on_error="skip", max_errors=1)
    (source / "n00000002" / "n00000002_3.JPEG").write_bytes(good)
    (source / "n00000003" / "n00000003_0.JPEG").write_bytes(IMAGES["n00000003"]["n00000003_0.JPEG"])
    assert _run(source, tmp_path / "out2").root_hash == clean.root_hash


def test_dry_run_writes_nothing(source: Path, tmp_path: Path) -> None:
    estimate = preprocess(
        PreprocessConfig(source=str(source), out=str(tmp_path / "out"), dry_run=True, local=True, samples_per_shard=5)
    )
    assert isinstance(estimate, dict) and not (tmp_path / "out").exists()
    assert (estimate["num_samples"], estimate["num_shards"], estimate["num_classes"]) == (24, 5, 3)
    real = _run(source, tmp_path / "out").num_bytes
    assert 0.9 * real < estimate["estimated_bytes"] < 1.1 * real


def test_dry_run_shows_splits_classes_masks_and_what_is_passed_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cityscapes = next(layout for layout in MASKS if layout.title == "Cityscapes").write(tmp_path / "cities")
    arguments = ["preprocess", "--out", str(tmp_path / "out"), "--local", "--dry-run"]
    assert main([*arguments, "--source", str(cityscapes)]) == 0
    text = capsys.readouterr().out
    for words in (
        "source   images with label maps at",
        ": 1 images of no classes",
        "splits   train, val; read: train",
        "masks    gtFine/train, for the images in leftImg8bit/train",
        "maps that are not labelIds: 1 (aachen/a_1_gtFine_color.png)",
        "files of unknown ending: 1 (gtFine/train/aachen/a_1_gtFine_polygons.json)",
        "Label values in their maps: ",
    ):
        assert words in text, words
    write_folder(tmp_path / "flat" / "Train", {"": {"1.jpg": jpeg(1)}})
    assert main([*arguments, "--source", str(tmp_path / "flat"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["num_classes"] == 0 and found["source"][1] == "splits   Train; read: Train"
    assert "no classes: all 1 images lie directly in" in found["source"][2]


def test_parquet_and_a_limit(tmp_path: Path) -> None:
    write_parquet(tmp_path / "p" / "test-00000-of-00001.parquet", IMAGES)
    assert _run(tmp_path / "p", tmp_path / "out", split="test", max_samples=10).num_samples == 10
    split = open_dataset(str(tmp_path / "out")).split("test")
    assert sorted(np.bincount(split.class_ids).tolist()) == [3, 3, 4]
    assert split.read(0).key.startswith("test-00000-of-00001_")


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--source", "nowhere"], 2, "does not exist"),
        (["--source", "empty"], 2, "holds no image"),
        (["--source", "images", "--split", "a/b"], 2, "--split is 'a/b'"),
        (["--source", "images", "--max-samples", "0"], 2, "--max-samples is 0"),
        (["--source", "images", "--local", "--ray-address", "x"], 2, "exclude each other"),
        (["--source", "images", "--image.target-px", "2"], 2, "image.target_px is 2"),
        (["--source", "bad", "--local", "--workers", "0"], 1, "is empty (0 bytes)"),
        (["--source", "images", "--out", "empty/file"], 2, "is a file"),
        (
            ["--source", "images", "--out", "/proc/nothing", "--local", "--workers", "0"],
            1,
            "cannot write /proc/nothing",
        ),
    ],
)
def test_mistakes_are_one_paragraph(
    source: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    code: int,
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "file").write_text("x")
    write_folder(tmp_path / "bad", {"a": {"x.jpg": b""}})
    try:
        assert main(["preprocess", "--out", "out", *options]) == code
    except SystemExit as stop:  # the parser of options ends the program itself
        assert stop.code == code
    error = " ".join(capsys.readouterr().err.split())
    assert words in error and "Traceback" not in error


def test_json_is_one_object_on_stdout(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["preprocess", "--source", str(source), "--out", str(tmp_path / "out"), "--local", "--workers", "0"]
    assert main([*arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["num_samples"] == 24
    assert main(arguments) == 0
    assert "24 samples of 3 classes in 1 shards" in capsys.readouterr().out
    assert storage.exists(str(tmp_path / "out" / "dataset.json"))


@pytest.mark.timeout(60)
def test_what_is_no_regular_file_is_a_named_bad_image(tmp_path: Path) -> None:
    write_folder(tmp_path / "images", class_images(classes=2, per_class=3))
    odd = write_odd_files(tmp_path / "images" / "n00000002")
    (tmp_path / "images" / "n00000002" / "up").symlink_to(tmp_path / "images")
    summary = _run(tmp_path / "images", tmp_path / "out", on_error="skip")
    assert (summary.num_samples, summary.num_skipped) == (6, len(odd))
    listed = json.loads((tmp_path / "out" / ".focusvit" / "errors-train.json").read_text())
    reasons = {entry["source"].rpartition("/")[2]: entry["reason"] for entry in listed}
    assert reasons.keys() == odd.keys()
    assert all(said in reasons[name] for name, said in odd.items()), reasons
    with pytest.raises(DataError, match="6 of the images cannot be prepared"):
        _run(tmp_path / "images", tmp_path / "failed")


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", ["train.tar", "train.parquet", "labels.csv"])
def test_a_pipe_in_the_place_of_an_archive_or_a_list_is_named(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises((DataError, UsageError), match="pipe"):
        _run(tmp_path, tmp_path / "out")
