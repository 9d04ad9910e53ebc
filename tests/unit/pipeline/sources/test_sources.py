"""Every layout lists the same images with the same ids and classes, and what is off is said in words."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import DataError, UsageError
from pipeline.sources import Source, detect
from testkit.image_sources import (
    annotated_val,
    class_images,
    jpeg,
    tar_bytes,
    write_folder,
    write_parquet,
    write_tar_of_tars,
)

IMAGES = class_images()
EXPECTED = {f"{c}/{name}": (c, data) for c, files in IMAGES.items() for name, data in files.items()}


def _content(source: Source) -> dict[str, tuple[str | None, bytes]]:
    read = source.reader().read
    return {row.source: (row.class_name, read(row.file, row.offset, row.length)) for row in source.images()}


def test_class_folders_directly_and_below_a_split(tmp_path: Path) -> None:
    write_folder(tmp_path / "train", IMAGES)
    write_folder(tmp_path / "val", class_images(per_class=1))
    (tmp_path / "train" / "notes.txt").write_text("not an image")
    for place in (tmp_path / "train", tmp_path):
        assert _content(detect(str(place), "train")) == EXPECTED
    assert len(list(detect(str(tmp_path), "val").images())) == 3
    with pytest.raises(UsageError, match="no split 'test'; it holds train, val"):
        detect(str(tmp_path), "test")


def test_tar_of_tars_equals_its_extraction(tmp_path: Path) -> None:
    file = write_tar_of_tars(tmp_path / "train.tar", IMAGES)
    assert _content(detect(str(file), "train")) == EXPECTED
    assert _content(detect(str(tmp_path), "train")) == EXPECTED


def test_tar_of_class_folders_equals_its_extraction(tmp_path: Path) -> None:
    file = tmp_path / "any.tar"
    file.write_bytes(tar_bytes({f"top/deep/{path}": data for path, (_, data) in EXPECTED.items()}))
    assert _content(detect(str(file), "train")) == EXPECTED


def test_hidden_members_are_left_out_as_hidden_files_are(tmp_path: Path) -> None:
    hidden = {"._n1": b"mac", "n1/._x.jpg": b"mac"}
    flat, nested = tmp_path / "flat.tar", tmp_path / "nested.tar"
    flat.write_bytes(tar_bytes({**hidden, **{path: data for path, (_, data) in EXPECTED.items()}}))
    of_classes = {
        f"{name}.tar": tar_bytes({"._x.JPEG": b"mac", **{p: d for p, (c, d) in EXPECTED.items() if c == name}})
        for name in {c for c, _ in EXPECTED.values()}
    }
    nested.write_bytes(tar_bytes({"._n1.tar": b"mac", **of_classes}))  # type: ignore[dict-item]
    for file in (flat, nested):
        assert _content(detect(str(file), "train")) == EXPECTED


def test_tiny_imagenet_val_as_tar_and_as_folder(tmp_path: Path) -> None:
    files = annotated_val(IMAGES)
    (tmp_path / "val.tar").write_bytes(tar_bytes(files))
    for name, data in files.items():
        path = tmp_path / "folder" / "val" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    from_tar = _content(detect(str(tmp_path / "val.tar"), "val"))
    assert from_tar == _content(detect(str(tmp_path / "folder"), "val"))
    assert sorted(from_tar.values()) == sorted(EXPECTED.values())


def test_wnids_state_the_classes(tmp_path: Path) -> None:
    write_tar_of_tars(tmp_path / "train.tar", IMAGES)
    (tmp_path / "wnids.txt").write_text("n00000003\nn00000001\nn00000002\n")
    source = detect(str(tmp_path), "train")
    assert list(source.images()) and source.classes == ("n00000001", "n00000002", "n00000003")


def test_parquet_by_split_with_labels_of_its_features(tmp_path: Path) -> None:
    write_parquet(tmp_path / "data" / "train-00000-of-00001.parquet", IMAGES)
    write_parquet(tmp_path / "data" / "validation-00000-of-00001.parquet", class_images(per_class=1))
    source = detect(str(tmp_path), "train")
    assert sorted(_content(source).values()) == sorted(EXPECTED.values())
    assert source.classes == tuple(IMAGES)
    assert len({row.group for row in source.images()}) == 5
    assert len(list(detect(str(tmp_path), "val").images())) == 3
    with pytest.raises(UsageError, match="no split 'test'; it holds train, validation"):
        detect(str(tmp_path), "test")


@pytest.mark.parametrize(
    ("labels", "kind"), [([{"id": 1}, {"id": 2}], "struct<.*int64>"), ([[0], [0, 1]], "list<.*int64>")]
)
def test_labels_that_are_no_class_are_refused_not_forgotten(tmp_path: Path, labels: list, kind: str) -> None:
    images = [{"bytes": jpeg(i), "path": f"{i}.jpg"} for i in range(2)]
    file = tmp_path / "train-0.parquet"
    pq.write_table(pa.table({"image": images, "labels": labels}), file)
    with pytest.raises(UsageError, match=rf"train-0\.parquet has the label column 'labels' of type {kind}"):
        detect(str(tmp_path), "train")
    for name, without in (("a", {}), ("b", {"labels": pa.nulls(2)})):
        file = tmp_path / f"{name}.parquet"
        pq.write_table(pa.table({"image": images, **without}), file)
        assert [row.class_name for row in detect(str(file), "train").images()] == [None, None]


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("x.tar.gz", b"x", "is compressed"),
        ("x.zip", b"x", "is compressed"),
        ("x.bin", b"x", "no known kind"),
        ("x.tar", tar_bytes({"a.txt": b"1"}), "neither images nor tars"),
        ("x.tar", tar_bytes({"a.jpg": b"1"}), "do not lie in class folders"),
        ("x.tar", tar_bytes({"a.tar": tar_bytes({"b.txt": b""})}), "hold no image: a.tar"),
        ("x.tar", tar_bytes({"val_annotations.txt": b"b.jpg\tn1", "images/a.jpg": b"1"}), "does not fit its images"),
        ("x.tar", tar_bytes({"a.tar": tar_bytes({"b.jpg": b"1"})})[:1800], "is cut"),
        ("x.parquet", b"PAR1 no", "not a whole parquet"),
    ],
)
def test_what_is_off_with_a_file_is_said(tmp_path: Path, name: str, data: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises((UsageError, DataError), match=words):
        list(detect(str(tmp_path / name), "train").images())


def test_a_missing_source_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nowhere does not exist"):
        detect(str(tmp_path / "nowhere"), "train")
