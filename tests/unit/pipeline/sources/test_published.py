"""The layouts in which ImageNet and others are published: the same images give the same ids, classes and shards."""

import gzip
import io
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.io import savemat

from pipeline.errors import DataError, UsageError
from pipeline.io import tar
from pipeline.shards.dataset import open_dataset
from pipeline.sources import Source, detect
from pipeline.sources.ilsvrc import diagnosis
from testkit.image_sources import class_images, jpeg, tar_bytes, write_folder
from testkit.preprocessed import preprocessed

VAL = {f"ILSVRC2012_val_{i + 1:08d}.JPEG": jpeg(i) for i in range(6)}
WNIDS = ["n00000002", "n00000001", "n00000002", "n00000003", "n00000001", "n00000003"]
EXPECTED = {f"{wnid}/{name}": (wnid, data) for wnid, (name, data) in zip(WNIDS, VAL.items())}


def _content(source: Source) -> dict[str, tuple[str | None, bytes]]:
    read = source.reader().read
    return {row.source: (row.class_name, read(row.file, row.offset, row.length)) for row in source.images()}


def _devkit() -> dict[str, bytes]:
    """Ids in an order that is not that of the wnids, and an inner node with children, as in the real one."""
    ids = {"n00000003": 1, "n00000001": 2, "n00000002": 3}
    fields = [("ILSVRC2012_ID", float), ("WNID", object), ("num_children", float)]
    synsets = np.array([*((i, wnid, 0) for wnid, i in ids.items()), (1001, "n00000009", 3)], dtype=fields)
    meta = io.BytesIO()
    savemat(meta, {"synsets": synsets})
    truth = "".join(f"{ids[wnid]}\n" for wnid in WNIDS).encode()
    return {"data/ILSVRC2012_validation_ground_truth.txt": truth, "data/meta.mat": meta.getvalue()}


def _write(root: Path, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)


def test_val_tar_and_flat_val_with_the_devkit(tmp_path: Path) -> None:
    packed = gzip.compress(tar_bytes({f"ILSVRC2012_devkit_t12/{name}": data for name, data in _devkit().items()}))
    _write(tmp_path, {"ILSVRC2012_devkit_t12.tar.gz": packed, "ILSVRC2012_img_val.tar": tar_bytes(VAL)})
    assert _content(detect(str(tmp_path / "ILSVRC2012_img_val.tar"), "val")) == EXPECTED
    assert _content(detect(str(tmp_path), "val")) == EXPECTED
    _write(tmp_path / "extracted" / "val", VAL)
    assert _content(detect(str(tmp_path / "extracted"), "val")) == EXPECTED
    _write(tmp_path / "extracted", {f"ILSVRC2012_devkit_t12/{name}": data for name, data in _devkit().items()})
    assert _content(detect(str(tmp_path / "extracted" / "val"), "val")) == EXPECTED


def test_val_without_its_classes_is_refused(tmp_path: Path) -> None:
    deep = tmp_path / "a" / "b" / "c" / "d" / "e" / "val"
    _write(deep, VAL)
    with pytest.raises(UsageError, match="Put the devkit"):
        list(detect(str(deep), "val").images())


def test_kaggle(tmp_path: Path) -> None:
    rows = [f"{name[:-5]},{wnid} 1 2 3 4 " for name, wnid in zip(VAL, WNIDS)]
    data = tmp_path / "ILSVRC" / "Data" / "CLS-LOC"
    _write(tmp_path, {"LOC_val_solution.csv": "\n".join(["ImageId,PredictionString", *rows]).encode()})
    _write(data / "val", VAL)
    write_folder(data / "train", class_images())
    assert _content(detect(str(tmp_path), "val")) == EXPECTED
    assert len(_content(detect(str(tmp_path), "train"))) == 24


_KIT, _LIST = "ILSVRC2012_devkit_t12", "LOC_val_solution.csv"


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("cut archive", rf"{_KIT}\.tar\.gz \(EOFError"),
        ("no archive", rf"{_KIT}\.tar\.gz \(ReadError"),
        ("archive without meta", rf"{_KIT}\.tar\.gz does not hold both"),
        ("cut meta", rf"{_KIT} \("),
        ("folder without meta", rf"{_KIT} \(FileNotFoundError"),
        ("unknown id", rf"{_KIT} \(KeyError: 77"),
        ("other columns", rf"{_LIST} has the columns \['image', 'wnid'\]"),
        ("empty list", rf"{_LIST} has the columns None"),
        ("no class", rf"{_LIST} names no class for b, c\."),
    ],
)
def test_class_lists_that_cannot_be_read_are_named(tmp_path: Path, case: str, words: str) -> None:
    kit = {f"{_KIT}/{name}": data for name, data in _devkit().items()}
    (truth, labels), (meta, matrix) = kit.items()
    packed = gzip.compress(tar_bytes(kit))
    files = {
        "cut archive": {f"{_KIT}.tar.gz": packed[: len(packed) // 2]},
        "no archive": {f"{_KIT}.tar.gz": b"<html>not found</html>"},
        "archive without meta": {f"{_KIT}.tar.gz": gzip.compress(tar_bytes({truth: labels}))},
        "cut meta": {truth: labels, meta: matrix[: len(matrix) // 2]},
        "folder without meta": {truth: labels},
        "unknown id": {truth: b"77\n" + labels, meta: matrix},
        "other columns": {_LIST: b"image,wnid\na,n00000001\n"},
        "empty list": {_LIST: b""},
        "no class": {_LIST: b"ImageId,PredictionString\na,n00000001 1 2 3 4\nb, \nc\n"},
    }
    _write(tmp_path, {**files[case], **{f"val/{name}": data for name, data in VAL.items()}})
    with pytest.raises(DataError, match=words):
        list(detect(str(tmp_path / "val"), "val").images())


def test_torchvision_root(tmp_path: Path) -> None:
    _write(tmp_path, {"meta.bin": b"a pickle that nobody needs"})
    _write(tmp_path / "val", {source: data for source, (_, data) in EXPECTED.items()})
    write_folder(tmp_path / "train", class_images())
    assert _content(detect(str(tmp_path), "val")) == EXPECTED


def test_counts_of_ilsvrc_are_known() -> None:
    counts = {f"n{i:08d}": 1281 for i in range(1000)}
    assert "ILSVRC2012 train has 1281167 images, this source 1281000" in (diagnosis("train", counts) or "")
    assert diagnosis("train", {**counts, "n00000000": 1281 + 167}) is None
    fewer = dict.fromkeys(list(counts)[2:], 1281)
    assert "has 1000 classes, this source 998. Was the download" in (diagnosis("train", fewer) or "")
    assert "1000 and 1 that are no wnid (lost+found)" in (diagnosis("val", {**counts, "lost+found": 1}) or "")
    assert diagnosis("train", {"cat": 5}) is None and diagnosis("train", dict(list(counts.items())[:40])) is None


def _wds_tar(start: int, form: str) -> bytes:
    files = {}
    for i in range(start, start + 4):
        files[f"s{i:04d}.jpg"] = jpeg(i)
        files[f"s{i:04d}.cls" if form == "cls" else f"s{i:04d}.json"] = (
            str(i % 3).encode() if form == "cls" else json.dumps({"label": i % 3}).encode()
        )
    return tar_bytes(files)


def test_webdataset_tars_in_two_forms(tmp_path: Path) -> None:
    clip, timm = tmp_path / "clip", tmp_path / "timm"
    _write(
        clip, {"test/0.tar": _wds_tar(0, "cls"), "test/1.tar": _wds_tar(4, "cls"), "classnames.txt": b"cat\ndog\nfox"}
    )
    names = ("train-0000", "train-0001", "validation-00")
    _write(timm, {f"imagenet1k-{name}.tar": _wds_tar(4 * i, "json") for i, name in enumerate(names)})
    source = detect(str(clip), "test")
    assert _content(source)["0/s0001"] == ("dog", jpeg(1)) and source.classes == ("cat", "dog", "fox")
    assert len(_content(source)) == 8
    source = detect(str(timm), "train")
    assert _content(source)["imagenet1k-train-0001/s0005"] == ("2", jpeg(5)) and len(_content(source)) == 8
    assert len(_content(detect(str(timm), "val"))) == 4
    with pytest.raises(UsageError, match="of the splits train, validation, not of 'test'"):
        detect(str(timm), "test")


def _label_png(seed: int, height: int, width: int, palette: bool) -> bytes:
    from PIL import Image

    labels = np.random.default_rng(seed).integers(0, 12, (height, width)).astype(np.uint8)
    image = Image.fromarray(labels)
    if palette:
        image = image.convert("P")
        image.putdata(labels.ravel().tolist())
        image.putpalette([i * 20 % 256 for i in range(768)])
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize("palette", [False, True])
def test_images_with_label_maps(tmp_path: Path, palette: bool) -> None:
    for i in range(4):
        height = 40 if i else 600
        files = {
            f"images/{i}.jpg": jpeg(i, height, 56 * height // 40),
            f"labels/{i}.png": _label_png(i, height, 56 * height // 40, palette),
        }
        _write(tmp_path / "train", files)
    (tmp_path / "classes.txt").write_text("".join(f"c{i}\r\n" for i in range(12)))
    assert preprocessed(tmp_path, tmp_path / "out", "train").num_samples == 4
    split = open_dataset(str(tmp_path / "out")).split("train")
    assert split.num_classes == 12 and set(split.class_ids.tolist()) == {-1}
    for number in range(4):
        sample = split.read(number)
        i = int(sample.meta["source"].split("/")[1][0])
        original = np.random.default_rng(i).integers(0, 12, (40, 56) if i else (600, 840))
        stored = cv2.imdecode(np.frombuffer(sample.image, np.uint8), cv2.IMREAD_COLOR).shape[:2]
        assert sample.label_map is not None and sample.label_map.shape == stored
        if i:
            assert np.array_equal(sample.label_map, original)
        else:
            rows, columns = ((np.arange(n) + 0.5) * m // n for n, m in zip(stored, original.shape))
            assert np.mean(sample.label_map == original[np.ix_(rows.astype(int), columns.astype(int))]) > 0.98


def test_two_images_of_one_name_are_not_silently_one(tmp_path: Path) -> None:
    _write(tmp_path, {"images/a.jpg": jpeg(0), "images/a.png": jpeg(1), "labels/a.png": b""})
    with pytest.raises(
        UsageError, match=r"1 files in .*images have the name of another one but for the ending: a\.jpg"
    ):
        list(detect(str(tmp_path), "train").images())


def test_a_key_that_a_tar_holds_twice_is_refused(tmp_path: Path) -> None:
    first, second = (_wds_tar(start, "cls") for start in (0, 2))  # both hold s0002 and s0003
    (tmp_path / "0.tar").write_bytes(_joined(first, second))
    with pytest.raises(DataError, match=r"0\.tar holds s0002\.jpg twice"):
        list(detect(str(tmp_path), "train").images())


def _joined(first: bytes, second: bytes) -> bytes:
    """One archive of the members of both: without the zero blocks that end the first."""
    last = list(tar.members(lambda at, length: first[at : at + length], 0, len(first), "first"))[-1]
    return first[: last.offset + tar.padded(last.size)] + second


def test_label_lists(tmp_path: Path) -> None:
    _write(tmp_path / "train", {f"x/{i}.jpg": jpeg(i) for i in range(3)})
    listing = tmp_path / "train" / "labels.csv"
    listing.write_text("file,labels\nx/0.jpg,dog;cat\nx/1.jpg,fox\nx/2.jpg,\n")
    assert preprocessed(tmp_path, tmp_path / "out", "train").num_classes == 3
    split = open_dataset(str(tmp_path / "out")).split("train")
    found = {sample.meta["source"]: sample.meta.get("labels") for sample in map(split.read, range(3))}
    assert found == {"x/0.jpg": [0, 1], "x/1.jpg": [2], "x/2.jpg": None}
    listing.write_text("file,labels\nx/0.jpg,dog\nx/1.jpg,cat\n")
    assert {row.class_name for row in detect(str(tmp_path), "train").images()} == {"dog", "cat"}
    as_spreadsheets_do = "file , labels\r\nx/0.jpg, dog\r\n\r\nx/1.jpg ,cat \r\n"
    listing.write_bytes(as_spreadsheets_do.encode("utf-8-sig"))
    assert [(row.file, row.class_name) for row in detect(str(tmp_path), "train").images()] == [
        ("x/0.jpg", "dog"), ("x/1.jpg", "cat")
    ]  # fmt: skip
