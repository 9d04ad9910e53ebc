"""No image is trained on and tested on unseen: the same place, the same bytes, a share of one source."""

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from focusvit.cli import main
from pipeline.errors import UsageError
from pipeline.preprocess import PreprocessConfig
from pipeline.shards import overlap
from pipeline.shards.dataset import open_dataset
from pipeline.shards.overlap import shared_images
from testkit.image_sources import class_images, jpeg, photo, tar_bytes, write_folder, write_parquet
from testkit.layout_trees import MASKS
from testkit.preprocessed import preprocessed

IMAGES = class_images(classes=2, per_class=5)


def _sources(out: Path, split: str) -> set[str]:
    found = open_dataset(str(out)).split(split)
    return {found.read(number).meta["source"] for number in range(found.num_samples)}


def _folder(root: Path) -> Path:
    return write_folder(root / "images", IMAGES)


def _tar(root: Path) -> Path:
    root.mkdir(exist_ok=True)
    (root / "all.tar").write_bytes(
        tar_bytes({f"{c}/{n}": data for c, files in IMAGES.items() for n, data in files.items()})
    )
    return root / "all.tar"


def _parquet(root: Path) -> Path:
    return write_parquet(root / "all.parquet", IMAGES)


def _dense(root: Path) -> Path:
    return next(layout for layout in MASKS if "no splits" in layout.title).write(root / "dense")


@pytest.mark.parametrize("write", [_folder, _tar, _parquet, _dense])
def test_one_source_without_splits_is_not_both_splits(tmp_path: Path, write: Callable[[Path], Path]) -> None:
    source, out = write(tmp_path), tmp_path / "out"
    num = preprocessed(source, out, "train").num_samples
    with pytest.raises(
        UsageError, match=rf"{num} of the {num} images of split 'val' are in split 'train'.*--val-share"
    ):
        preprocessed(source, out, "val")
    assert set(open_dataset(str(out)).splits) == {"train"}


@pytest.mark.parametrize("write", [_folder, _tar, _parquet, _dense])
def test_a_share_makes_both_of_one_source(tmp_path: Path, write: Callable[[Path], Path]) -> None:
    source, out = write(tmp_path), tmp_path / "out"
    train, val = (preprocessed(source, out, split, val_share=0.4).num_samples for split in ("train", "val"))
    assert (train, val) == ((6, 4) if write is not _dense else (1, 1))
    assert not _sources(out, "train") & _sources(out, "val")
    assert not shared_images(str(out), ["train", "val"])
    if write is not _dense:  # whose val is one image for any share
        with pytest.raises(UsageError, match="already holds another plan of split 'val'"):
            preprocessed(source, out, "val", val_share=0.8)


def test_a_share_divides_the_training_split_where_there_is_no_val(tmp_path: Path) -> None:
    source, out = tmp_path / "images", tmp_path / "out"
    write_folder(source / "Training", IMAGES)
    write_folder(source / "Testing", class_images(classes=2, per_class=1, start=500))
    assert [preprocessed(source, out, split, val_share=0.2).num_samples for split in ("train", "val")] == [8, 2]
    assert preprocessed(source, out, "test").num_samples == 2
    shard = out / "val-000000.tar"
    before = shard.read_bytes()
    shard.write_bytes(b"")
    assert main(["verify", str(out), "--repair", "--workers", "0"]) == 0 and shard.read_bytes() == before
    write_folder(source / "dev", class_images(classes=2, per_class=1, start=700))
    with pytest.raises(UsageError, match="has the validation split 'dev' of its own"):
        preprocessed(source, tmp_path / "other", "train", val_share=0.2)


@pytest.mark.parametrize(("share", "split"), [(0.0, "val"), (1.0, "train"), (0.2, "test")])
def test_a_share_that_says_nothing_is_refused(share: float, split: str) -> None:
    with pytest.raises(ValueError, match="a share between 0 and 1 for --split train and --split val"):
        PreprocessConfig(source="a", out="b", split=split, val_share=share)


def test_a_copy_of_the_training_images_is_refused_by_its_bytes(tmp_path: Path) -> None:
    preprocessed(_folder(tmp_path / "a"), tmp_path / "out", "train")
    copy = write_folder(tmp_path / "b", {c: {f"copy {n}": d for n, d in files.items()} for c, files in IMAGES.items()})
    with pytest.raises(
        UsageError, match="10 of the first 10 images of split 'val' have the bytes of images in split 'train'"
    ):
        preprocessed(copy, tmp_path / "out", "val")


def test_few_copies_are_said_at_the_end_by_verify_and_by_pretrain(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, lines = tmp_path / "out", list[str]()
    preprocessed(_folder(tmp_path / "a"), out, "train")
    mostly = {
        "n00000001": {f"{i}.jpg": jpeg(900 + i) for i in range(4)}
        | {"copy.jpg": IMAGES["n00000001"]["n00000001_0.JPEG"]}
    }
    preprocessed(write_folder(tmp_path / "b", mostly), out, "val", lines.append)
    sentence = (
        "1 of the 5 images of split 'val' have the bytes of images in split 'train', for example n00000001/copy.jpg"
    )
    assert any(line.startswith(f"warning  {sentence}") for line in lines)
    assert main(["verify", str(out), "--workers", "0"]) == 0
    assert sentence in capsys.readouterr().out


def test_one_image_under_two_classes_is_said(tmp_path: Path) -> None:
    lines = list[str]()
    images = {name: dict(files) for name, files in IMAGES.items()}
    images["n00000002"]["copy.jpg"] = IMAGES["n00000001"]["n00000001_0.JPEG"]
    images["n00000001"]["again.jpg"] = IMAGES["n00000001"][
        "n00000001_1.JPEG"
    ]  # a copy of one class is no contradiction
    preprocessed(write_folder(tmp_path / "a", images), tmp_path / "out", "train", lines.append)
    (said,) = [line for line in lines if line.startswith("warning")]
    assert "2 images of split 'train' have the bytes of others of another class" in said
    assert "n00000002/copy.jpg" in said and "n00000001/n00000001_0.JPEG" in said


def test_a_rotation_that_is_not_applied_is_said(tmp_path: Path) -> None:
    lines, exif = list[str](), Image.Exif()
    exif[0x0112] = 6
    rotated = io.BytesIO()
    Image.fromarray(photo(7)).save(rotated, "JPEG", exif=exif)
    images = {**IMAGES, "n00000001": {**IMAGES["n00000001"], "phone.jpg": rotated.getvalue()}}
    preprocessed(write_folder(tmp_path / "a", images), tmp_path / "out", "train", lines.append)
    (said,) = [line for line in lines if "state a rotation" in line]
    assert said.startswith("note     1 of the 11 images looked at state a rotation") and "phone.jpg" in said


def test_a_file_that_was_replaced_since_its_shard_was_built_is_said(tmp_path: Path) -> None:
    images = {**IMAGES, "n00000001": {**IMAGES["n00000001"], "torn.jpg": b"no image"}}
    source, out, lines = write_folder(tmp_path / "a", images), tmp_path / "out", list[str]()
    for _ in range(2):
        preprocessed(source, out, "train", lines.append, on_error="skip")
    assert not [line for line in lines if "other bytes" in line]
    (source / "n00000002" / "n00000002_0.JPEG").write_bytes(jpeg(77))
    preprocessed(source, out, "train", lines.append, on_error="skip")
    (said,) = [line for line in lines if "other bytes" in line]
    assert said.startswith("warning  1 of the 11 images looked at") and "n00000002/n00000002_0.JPEG" in said


def test_data_sets_of_before_say_nothing(tmp_path: Path) -> None:
    import json

    out = tmp_path / "out"
    preprocessed(_folder(tmp_path / "a"), out, "train")
    for path in (out / ".focusvit" / "shards").iterdir():
        sidecar = json.loads(path.read_text())
        assert len(sidecar.pop("content_ids")) == 10
        path.write_text(json.dumps(sidecar))
    copy = write_folder(tmp_path / "b", IMAGES)
    preprocessed(copy, out, "val")
    assert shared_images(str(out), ["train", "val"]) == []


@pytest.mark.parametrize("ids", ["[1e999]", "1e999", '[{"a": 1}]', "[99999999999999999999]", "null"])
def test_a_damaged_sidecar_has_no_ids_to_share(tmp_path, ids):
    place = tmp_path / ".focusvit" / "shards"
    place.mkdir(parents=True)
    (place / "train-000000.json").write_text(f'{{"content_ids": {ids}, "skipped": []}}')
    assert len(overlap._stored(str(tmp_path), "train").ids) == 0
