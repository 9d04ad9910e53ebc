"""Our own shards are a source like any other: ids, class names, labels and label maps stay; outputs are no sources."""

from pathlib import Path

import pytest

from pipeline.errors import DataError, UsageError
from pipeline.shards.dataset import Split, open_dataset
from testkit.image_sources import class_images, jpeg, write_folder
from testkit.layout_trees import MASKS
from testkit.preprocessed import preprocessed


def _run(source: Path, out: Path, split: str = "train", **options: object) -> Split:
    preprocessed(source, out, split, **options)
    return open_dataset(str(out)).split(split)


def _content(split: Split) -> dict[str, tuple[object, ...]]:
    samples = [split.read(number) for number in range(split.num_samples)]
    return {
        s.meta["source"]: (
            s.image,
            s.class_id,
            s.meta.get("labels"),
            None if s.label_map is None else s.label_map.tobytes(),
        )
        for s in samples
    }


def test_classes_keep_names_and_numbers(tmp_path: Path) -> None:
    write_folder(tmp_path / "images" / "train", {"cat": {"1.jpg": jpeg(1)}, "dog": {"2.jpg": jpeg(2)}})
    write_folder(tmp_path / "images" / "val", {"dog": {"3.jpg": jpeg(3)}})
    for split in ("train", "val"):
        before = _run(tmp_path / "images", tmp_path / "first", split)
        again = _run(tmp_path / "first", tmp_path / "second", split)
        assert again.classes == before.classes == ("cat", "dog") and _content(again) == _content(before)
        assert again.root_hash == before.root_hash
    with pytest.raises(UsageError, match="no split 'test'; it holds train, val"):
        _run(tmp_path / "first", tmp_path / "third", "test")


def test_label_maps_and_label_lists_stay(tmp_path: Path) -> None:
    for name, write in (("maps", MASKS[0].write), ("lists", _labels_csv)):
        before = _run(write(tmp_path / name), tmp_path / f"{name}-first")
        again = _run(tmp_path / f"{name}-first", tmp_path / f"{name}-second")
        assert _content(again) == _content(before) and again.classes == before.classes
        assert any(value[2 if name == "lists" else 3] for value in _content(again).values())


def _labels_csv(root: Path) -> Path:
    write_folder(root, {"x": {"1.jpg": jpeg(1), "2.jpg": jpeg(2)}})
    (root / "labels.csv").write_text("file,labels\nx/1.jpg,sun;sea\nx/2.jpg,sea\n")
    return root


def test_a_damaged_sample_is_named(tmp_path: Path) -> None:
    _run(write_folder(tmp_path / "images", class_images(classes=2, per_class=2)), tmp_path / "out")
    file = tmp_path / "out" / "train-000000.tar"
    file.write_bytes(file.read_bytes().replace(b'{"height"', b'{"heig""t'))
    with pytest.raises(DataError, match=r"sample n0.* of .*train-000000\.tar is damaged"):
        _run(tmp_path / "out", tmp_path / "again")


@pytest.mark.parametrize("below", ["shards", "n00000001/shards", "deep/er/shards"])
def test_an_output_below_the_source_is_no_part_of_it(tmp_path: Path, below: str) -> None:
    source = write_folder(tmp_path / "images", class_images(classes=2, per_class=3))
    elsewhere = _run(source, tmp_path / "elsewhere")
    for _ in range(2):
        assert _run(source, source / below).root_hash == elsewhere.root_hash


def test_the_output_of_another_run_is_no_class(tmp_path: Path) -> None:
    source = write_folder(tmp_path / "images", class_images(classes=2, per_class=3))
    first = _run(source, source / "shards")
    assert _run(source, source / "others").root_hash == first.root_hash


def test_the_source_itself_as_output_is_refused(tmp_path: Path) -> None:
    source = write_folder(tmp_path / "images", class_images(classes=2, per_class=3))
    for _ in range(2):
        with pytest.raises(UsageError, match=r"--out .*images is the source itself"):
            _run(source, tmp_path / "images")
    assert sorted(path.name for path in source.iterdir()) == ["n00000001", "n00000002"]
