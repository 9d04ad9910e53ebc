"""Which columns of parquet files are read, and that classes go by name whatever a file numbers them."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.care.verify import main
from pipeline.errors import DataError, UsageError
from pipeline.plan.plan import make_plan
from pipeline.shards.dataset import open_dataset
from pipeline.sources.parquet import HuggingFaceParquet, open_parquet
from pipeline.sources.source import Choices
from testkit.image_sources import jpeg, png
from testkit.preprocessed import preprocessed

IMAGES = [jpeg(i, 8, 8) for i in range(4)]
MASKS = [png(i, 8, 8) for i in range(4)]
IMAGE, AUDIO = {"_type": "Image"}, {"_type": "Audio"}
SOUND, HASHES = [b"RIFF0000WAVEfmt "] * 4, [bytes([i]) * 8 for i in range(4)]


def _labels(*names: str) -> dict[str, Any]:
    return {"_type": "ClassLabel", "names": list(names)}


def _write(place: Path, columns: dict[str, list | pa.Array], features: dict[str, Any] | None = None) -> None:
    table = pa.table(columns)
    if features:
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    place.parent.mkdir(exist_ok=True)
    pq.write_table(table, place, row_group_size=3)


def _structs(data: list[bytes]) -> list[dict[str, Any]]:
    return [{"bytes": content, "path": None} for content in data]


def _open(root: Path, split: str | None = None, **choices: str) -> HuggingFaceParquet:
    return open_parquet(str(root), [path.name for path in root.glob("*.parquet")], split, Choices(**choices))


def _read(source: HuggingFaceParquet) -> list[tuple[bytes, str | None]]:
    read = source.reader().read
    return [(read(image.file, image.offset, image.length), image.class_name) for image in source.images()]


@pytest.mark.parametrize(
    ("columns", "features"),
    [
        ({"mask": _structs(MASKS), "image": _structs(IMAGES)}, None),
        ({"mask": _structs(MASKS), "picture": IMAGES}, None),
        ({"phash": HASHES, "image": _structs(IMAGES)}, None),
        ({"phash": HASHES, "scan": _structs(IMAGES)}, None),
        ({"audio": _structs(SOUND), "frame": IMAGES}, None),
        ({"image": _structs(SOUND), "scan": _structs(IMAGES)}, {"image": AUDIO, "scan": IMAGE}),
        ({"thumbnail": MASKS, "scan": _structs(IMAGES)}, {"scan": IMAGE}),
        ({"mask": _structs(MASKS), "image": _structs(IMAGES)}, {"mask": IMAGE, "image": IMAGE}),
    ],
)
def test_the_image_is_told_by_its_feature_its_name_or_its_bytes(
    tmp_path: Path, columns: dict[str, list], features: dict[str, Any] | None
) -> None:
    _write(tmp_path / "0.parquet", columns, features)
    source = _open(tmp_path)
    assert [data for data, _ in _read(source)] == IMAGES
    first, image = columns
    assert source.notes()[0] == f"columns: image from '{image}'; label from nothing; not read: {first}"


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"left": IMAGES, "right": MASKS}, "has 2 columns with images, left, right: .*--image-column"),
        ({"phash": HASHES}, "no column with encoded images .* its columns are: phash.*--image-column"),
        ({"url": ["a", "b", "c", "d"]}, "no column with encoded images"),
    ],
)
def test_an_image_column_that_cannot_be_told_is_asked_for(tmp_path: Path, columns: dict[str, list], words: str) -> None:
    _write(tmp_path / "0.parquet", columns)
    with pytest.raises(UsageError, match=words):
        _open(tmp_path)


def test_columns_can_be_chosen(tmp_path: Path) -> None:
    columns = {"left": IMAGES, "right": MASKS, "label": [0] * 4, "breed": ["a", "b", "a", "b"], "n": [[1]] * 4}
    _write(tmp_path / "0.parquet", columns)
    source = _open(tmp_path, image_column="right", label_column="breed")
    assert _read(source) == list(zip(MASKS, "abab"))
    assert source.notes()[0] == "columns: image from 'right'; label from 'breed'; not read: left, label, n"
    for choice, words in (
        ({"image_column": "top"}, r"--image-column top: .* is not there\. .*: left, right"),
        ({"image_column": "label"}, "is not of that kind"),
        ({"image_column": "left", "label_column": "n"}, r"--label-column n: .* is not of that kind.*: label, breed"),
    ):
        with pytest.raises(UsageError, match=words):
            _open(tmp_path, **choice)


@pytest.mark.parametrize("name", ["target", "class", "label_idx", "cls", "fine_label", "class_id"])
def test_labels_by_their_usual_names(tmp_path: Path, name: str) -> None:
    _write(tmp_path / "0.parquet", {"image": IMAGES, "id": [7, 8, 9, 10], name: [2, 0, 1, 10]})
    source = _open(tmp_path)
    assert [class_name for _, class_name in _read(source)] == ["2", "0", "1", "10"]
    assert make_plan(source, "train").classes == ("0", "1", "2", "10")
    assert f"label from '{name}'; not read: id" in source.notes()[0]


def test_one_of_two_labels_is_read_and_both_are_said(tmp_path: Path) -> None:
    columns = {"image": IMAGES, "coarse_label": [0, 0, 1, 1], "fine_label": [0, 1, 2, 0]}
    features = {"coarse_label": _labels("pet", "car"), "fine_label": _labels("cat", "dog", "van")}
    _write(tmp_path / "0.parquet", columns, features)
    source = _open(tmp_path)
    assert [name for _, name in _read(source)] == ["cat", "dog", "van", "cat"]
    assert source.notes()[0] == "columns: image from 'image'; label from 'fine_label'; not read: coarse_label"
    assert [name for _, name in _read(_open(tmp_path, label_column="coarse_label"))] == ["pet", "pet", "car", "car"]


def test_a_class_label_wins_over_numbers_and_two_of_no_usual_name_are_asked_for(tmp_path: Path) -> None:
    columns = {"image": IMAGES, "label": [9, 9, 9, 9], "breed": [0, 1, 0, 1], "coat": [1, 1, 0, 0]}
    _write(tmp_path / "0.parquet", columns, {"breed": _labels("pug", "lab")})
    assert [name for _, name in _read(_open(tmp_path))] == ["pug", "lab", "pug", "lab"]
    _write(tmp_path / "two" / "0.parquet", columns, {"breed": _labels("pug", "lab"), "coat": _labels("a", "b")})
    with pytest.raises(UsageError, match=r"has 2 label columns, breed, coat: .*--label-column"):
        _open(tmp_path / "two")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["dog", " cat ", None, ""], ["dog", "cat", None, None]),
        ([1.0, 0.0, float("nan"), 10.0], ["1", "0", None, "10"]),
        ([-1, 3, None, -100], [None, "3", None, None]),
        ([True, False, True, None], ["true", "false", "true", None]),
        (pa.array(["x", "y", "x", None]).dictionary_encode(), ["x", "y", "x", None]),
    ],
)
def test_names_numbers_and_nothing(tmp_path: Path, values: Any, expected: list[str | None]) -> None:
    _write(tmp_path / "0.parquet", {"image": IMAGES, "label": values})
    assert [name for _, name in _read(_open(tmp_path))] == expected


def test_a_fraction_is_no_class(tmp_path: Path) -> None:
    _write(tmp_path / "0.parquet", {"image": IMAGES, "label": [1.0, 2.5, 0.0, 0.0]})
    with pytest.raises(UsageError, match=r"row 1 of .*0\.parquet has the label 2\.5"):
        _read(_open(tmp_path))


def test_class_names_in_another_order_are_matched_by_name(tmp_path: Path) -> None:
    for number, names in enumerate((("cat", "dog", "fox"), ("fox", "cat", "dog"), ("dog", "emu"))):
        columns = {"image": IMAGES, "label": [number % 2, 1, 0, 1]}
        _write(tmp_path / f"{number}.parquet", columns, {"label": _labels(*names)})
    source = _open(tmp_path)
    assert [name for _, name in _read(source)] == [
        "cat", "dog", "cat", "dog", "cat", "cat", "fox", "cat", "dog", "emu", "dog", "emu",
    ]  # fmt: skip
    assert source.classes == ("cat", "dog", "fox", "emu")
    assert "2 files list them otherwise, read by name (1.parquet, 2.parquet)" in source.notes()[1]


def test_a_class_that_is_listed_twice_stays_two(tmp_path: Path) -> None:
    features = {"label": _labels("crane", "dog", "crane")}
    _write(tmp_path / "0.parquet", {"image": IMAGES, "label": [0, 1, 2, 2]}, features)
    assert [name for _, name in _read(_open(tmp_path))] == ["crane (1)", "dog", "crane (2)", "crane (2)"]
    _write(tmp_path / "1.parquet", {"image": IMAGES, "label": [0] * 4}, {"label": _labels("crane", "crane", "dog")})
    with pytest.raises(UsageError, match=r"1\.parquet lists its classes otherwise .* twice .*crane \(1\)"):
        _read(_open(tmp_path))


@pytest.mark.parametrize(
    ("columns", "features", "words"),
    [
        (
            {"picture": IMAGES, "label": [0] * 4},
            None,
            r"'image' is binary in 0\.parquet and absent in .*1\.",
        ),
        ({"image": _structs(IMAGES), "label": [0] * 4}, None, "'image' is binary in 0.parquet and struct"),
        ({"image": IMAGES}, None, "'label' is int64 in 0.parquet and absent"),
        ({"image": IMAGES, "label": ["a"] * 4}, None, "'label' is int64 in 0.parquet and string"),
        ({"image": IMAGES, "label": [0] * 4}, {"label": _labels("cat")}, "do not both name their classes"),
    ],
)
def test_other_columns_in_another_file_are_named(
    tmp_path: Path, columns: dict[str, list], features: dict[str, Any] | None, words: str
) -> None:
    _write(tmp_path / "0.parquet", {"image": IMAGES, "label": [0, 1, 2, 3]})
    _write(tmp_path / "1.parquet", columns, features)
    with pytest.raises(UsageError, match=words):
        _read(_open(tmp_path))


def test_a_number_beyond_the_named_classes_is_refused(tmp_path: Path) -> None:
    _write(tmp_path / "0.parquet", {"image": IMAGES, "label": [0, 1, 0, 5]}, {"label": _labels("cat", "dog")})
    with pytest.raises(UsageError, match=r"row 3 of .* the class 5, but the class list of 0\.parquet names 2 classes"):
        _read(_open(tmp_path))


def test_a_split_column_is_honoured(tmp_path: Path) -> None:
    columns = {"image": IMAGES, "label": [0, 1, 0, 1], "split": ["train", "Validation", "train", None]}
    _write(tmp_path / "0.parquet", columns)
    _write(tmp_path / "1.parquet", {**columns, "split": ["test"] * 4})
    source = _open(tmp_path, "train")
    assert [image.source for image in source.images()] == ["0_0000000", "0_0000002"]
    assert source.notes()[1] == (
        "left out: rows of the split None: 1 (row 3 of 0.parquet); rows of the split Validation: 1 (row 1 of "
        "0.parquet); rows of the split test: 4 (row 0 of 1.parquet, row 1 of 1.parquet, row 2 of 1.parquet, ...)"
    )
    assert [image.source for image in _open(tmp_path, "val").images()] == ["0_0000001"]
    assert len(list(_open(tmp_path, "test").images())) == 4
    with pytest.raises(UsageError, match="no split 'extra'; it holds Validation, test, train"):
        list(_open(tmp_path, "extra").images())


def test_a_file_that_is_no_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "0.parquet").mkdir()
    os.mkfifo(tmp_path / "1.parquet")
    (tmp_path / "2.parquet").symlink_to("2.parquet")
    for name, words in (("0", "cannot be read"), ("1", "is a pipe"), ("2", "is a loop of links")):
        with pytest.raises((UsageError, DataError), match=rf"{name}\.parquet {words}"):
            open_parquet(str(tmp_path), [f"{name}.parquet"])


def test_a_repair_reads_the_columns_of_before(tmp_path: Path) -> None:
    columns = {"left": IMAGES, "right": MASKS, "label": [0, 1, 0, 1]}
    _write(tmp_path / "set" / "0.parquet", columns)
    out = tmp_path / "out"
    lines: list[str] = []
    preprocessed(tmp_path / "set", out, say=lines.append, choices=Choices(image_column="right"))
    assert any("columns  image from 'right'; label from 'label'; not read: left" in line for line in lines)
    sha256s = {hashlib.sha256(data).hexdigest() for data in MASKS}
    split = open_dataset(str(out)).split("train")
    assert {split.read(i).meta["sha256"] for i in range(4)} == sha256s
    (out / "train-000000.tar").unlink()
    assert main([str(out), "--repair", "--workers", "0"]) == 0
    assert {split.read(i).meta["sha256"] for i in range(4)} == sha256s
