"""labels.csv: each line means what its writer meant, or is named with its number."""

from pathlib import Path

import pytest

from pipeline.errors import UsageError
from pipeline.plan.plan import make_plan
from pipeline.sources import detect
from pipeline.sources.lists import LabelList
from pipeline.sources.source import Choices
from testkit.image_sources import jpeg, png


def _source(root: Path, text: str | bytes, split: str | None = None, **choices: str) -> LabelList:
    (root / "im").mkdir(exist_ok=True)
    for number in range(4):
        (root / "im" / f"{number}.jpg").write_bytes(b"x")
    (root / "labels.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    return LabelList(root=str(root), split=split, choices=Choices(**choices))


def _classes(source: LabelList) -> dict[str, str | None]:
    return {image.file: image.class_name for image in source.images()}


@pytest.mark.parametrize("blank", ["", " ", "-1", '""'])
def test_a_blank_label_is_no_label_and_the_others_stay_classes(tmp_path: Path, blank: str) -> None:
    source = _source(tmp_path, f"file,labels\nim/0.jpg,dog\nim/1.jpg,{blank}\nim/2.jpg,cat\n")
    assert _classes(source) == {"im/0.jpg": "dog", "im/1.jpg": None, "im/2.jpg": "cat"}
    assert make_plan(source, "train").classes == ("cat", "dog")


def test_several_names_make_a_list_and_a_blank_an_empty_one(tmp_path: Path) -> None:
    source = _source(tmp_path, "file,labels\nim/0.jpg,dog;cat;dog\nim/1.jpg,\nim/2.jpg,fox\n")
    assert [image.labels for image in source.images()] == [(0, 1), (), (2,)]
    source = _source(tmp_path, "file,labels\nim/0.jpg,10;9\nim/1.jpg,0\n")
    assert [image.labels for image in source.images()] == [(1, 2), (0,)] and source.classes == ("0", "9", "10")


@pytest.mark.parametrize("numbers", [["0", "1", "2", "3"], ["9", "10", "100", "2"], ["01", "2.0", "3", "0"]])
def test_numbers_are_classes_in_their_order(tmp_path: Path, numbers: list[str]) -> None:
    lines = "\n".join(f"im/{i}.jpg,{number}" for i, number in enumerate(numbers))
    source = _source(tmp_path, f"file,labels\n{lines}\n")
    expected = sorted({int(float(number)) for number in numbers})
    assert make_plan(source, "train").classes == tuple(map(str, expected))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('im/1.jpg,"dog\nim/2.jpg,cat\n', "line 4 of .*: unexpected end of data"),
        ('im/1.jpg,"dog\nim/2.jpg,cat\nim/3.jpg,"fox"\n', "line 5 of .*: ',' expected after '\"'"),
        ('"im/1.jpg,dog\nim/2.jpg",cat\n', 'line 4 of .*: a quote " is opened and not closed'),
        ("im/1.jpg,2.7\n", r"line 3 of .* has the label 2\.7"),
        ("a,b.jpg,cat\n", "line 3 of .*: 3 cells for 2 columns: a name with a comma needs quotes"),
    ],
)
def test_a_line_that_cannot_be_meant_is_named(tmp_path: Path, line: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        list(_source(tmp_path, f"file,labels\nim/0.jpg,dog\n{line}").images())


@pytest.mark.parametrize(
    "again", ["im/0.jpg", "./im/0.jpg", "im//0.jpg", "im/../im/0.jpg", "im\\0.jpg", "{root}/im/0.jpg"]
)
def test_one_file_under_two_names_is_one_sample(tmp_path: Path, again: str) -> None:
    again = again.format(root=tmp_path)
    assert _classes(_source(tmp_path, f"file,labels\nim/0.jpg,dog\n{again},dog\n")) == {"im/0.jpg": "dog"}
    with pytest.raises(UsageError, match=r"names im/0\.jpg on the lines 2 and 4, as 'dog' and as 'cat'"):
        list(_source(tmp_path, f"file,labels\nim/0.jpg,dog\nim/1.jpg,dog\n{again},cat\n").images())


def test_images_without_a_line_and_lines_without_an_image_are_said(tmp_path: Path) -> None:
    source = _source(tmp_path, "file,labels,note\nim/0.jpg,dog,x\nim/9.jpg,cat,y\n")
    assert len(_classes(source)) == 2
    assert source.notes() == [
        "columns: image from 'file'; label from 'labels'; not read: note",
        "missing: 1 lines name a file that is not there (im/9.jpg)",
        "left out: images that no line names: 3 (im/1.jpg, im/2.jpg, im/3.jpg)",
    ]


def test_a_split_column_is_honoured(tmp_path: Path) -> None:
    text = "file,labels,split\nim/0.jpg,dog,Train\nim/1.jpg,cat,valid\nim/2.jpg,fox,train\nim/3.jpg,fox,Train\n"
    text = text.replace(",train", ",Train")
    assert list(_classes(_source(tmp_path, text, "train"))) == ["im/0.jpg", "im/2.jpg", "im/3.jpg"]
    assert list(_classes(detect(str(tmp_path), "val"))) == ["im/1.jpg"]  # type: ignore[arg-type]
    source = _source(tmp_path, text, "val")
    list(source.images())
    assert "lines of the split Train: 3 (im/0.jpg, im/2.jpg, im/3.jpg)" in source.notes()[-1]
    with pytest.raises(UsageError, match="has no split 'test'; it holds Train, valid"):
        list(_source(tmp_path, text, "test").images())


def test_columns_of_other_names_can_be_chosen(tmp_path: Path) -> None:
    text = "id,path,breed,labels\n7,im/0.jpg,pug,dog\n8,im/1.jpg,lab,dog\n"
    source = _source(tmp_path, text, image_column="path", label_column="breed")
    assert _classes(source) == {"im/0.jpg": "pug", "im/1.jpg": "lab"}
    assert source.notes()[0] == "columns: image from 'path'; label from 'breed'; not read: id, labels"
    for choice in ({}, {"image_column": "paths"}, {"image_column": "path", "label_column": "bred"}):
        with pytest.raises(UsageError, match=r"first line must be: file,labels.*--image-column and --label-column"):
            list(_source(tmp_path, text, **choice).images())
    with pytest.raises(UsageError, match="has the columns"):
        list(_source(tmp_path, "file,labels,labels\nim/0.jpg,a,b\n").images())


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("file,labels\nim/0.jpg,Kätzchen\n".encode("latin-1"), r"labels\.csv is not UTF-8 .* at byte 22\)"),
        ("file,labels\nim/0.jpg,cat\n".encode("utf-16"), "is not UTF-8"),
        (b"file,labels\nim/\xe9.jpg,cat\n", "is not UTF-8"),
        (b"", r"has the columns \[\]"),
    ],
)
def test_lists_in_another_encoding_are_named(tmp_path: Path, content: bytes, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        list(_source(tmp_path, content).images())


def test_a_choice_that_a_source_has_no_use_for_is_refused(tmp_path: Path) -> None:
    _source(tmp_path, "file,labels\nim/0.jpg,cat\n")
    with pytest.raises(UsageError, match=r"--image-member jpg says nothing about this source .images with a l"):
        detect(str(tmp_path), "train", Choices(image_member="jpg"))
    (tmp_path / "labels.csv").unlink()
    with pytest.raises(UsageError, match=r"--label-column breed says nothing about this source .image folder"):
        detect(str(tmp_path), "train", Choices(label_column="breed"))


def test_two_label_values_of_one_name_are_two_classes(tmp_path: Path) -> None:
    for name, data in (("images/a.jpg", jpeg(0)), ("labels/a.png", png(0)), ("classes.txt", b"sky\nroad\nsky\n")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    source = detect(str(tmp_path), "train")
    assert len(list(source.images())) == 1 and source.classes == ("sky (1)", "road", "sky (2)")
