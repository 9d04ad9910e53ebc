"""Samples of WebDataset tars: which member is the image, which label is whose, and what is passed over."""

import json
from pathlib import Path

import pytest

from pipeline.errors import DataError, UsageError
from pipeline.plan.plan import make_plan
from pipeline.sources.source import Choices
from pipeline.sources.wds import WebDatasetTars, read_class_names
from testkit.image_sources import linked_tar, tar_bytes


def _tars(root: Path, *tars: dict[str, bytes], choices: Choices | None = None) -> WebDatasetTars:
    for number, members in enumerate(tars):
        (root / f"{number}.tar").write_bytes(tar_bytes(members))
    files = tuple(f"{number}.tar" for number in range(len(tars)))
    more = {} if choices is None else {"choices": choices}
    return WebDatasetTars(root=str(root), files=files, stated_classes=read_class_names(str(root)), **more)


def _read(source: WebDatasetTars) -> dict[str, tuple[bytes, str | None]]:
    """(image, class) by id without the tar."""
    read = source.reader().read
    return {
        image.source.partition("/")[2]: (read(image.file, image.offset, image.length), image.class_name)
        for image in source.images()
    }


LABELLED = {"s0.cls": b"0", "s0.jpg": b"a", "s1.cls": b"1", "s1.jpg": b"b"}


@pytest.mark.parametrize(
    "members",
    [
        {"s0.cls": b"4", "s0.mask.png": b"mask", "s0.png": b"image"},
        {"s0.cls": b"4", "s0.depth.png": b"mask", "s0.jpg": b"image"},
        {"s0.JPG": b"image", "s0.left.jpg": b"mask", "s0.right.jpg": b"mask", "s0.cls": b"4"},
        {"s0.jpg": b"image", "s0.mask.png": b"mask", "s0.mask.json": b"{}", "s0.json": b'{"label": 4}'},
        {"x/s0.0.jpg": b"mask", "x/s0.webp": b"image", "x/s0.cls": b"4\n"},
    ],
)
def test_a_bare_image_ending_wins_over_compound_ones(tmp_path: Path, members: dict[str, bytes]) -> None:
    source = _tars(tmp_path, members)
    assert list(_read(source).values()) == [(b"image", "4")]
    assert "members ." in source.notes()[-1], "the others are said"


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"s0.cls": b"1", "s0.mask.png": b"m"}, "has no image member but mask.png"),
        ({"s0.cls": b"1", "s0.left.jpg": b"l", "s0.right.jpg": b"r"}, r"left\.jpg, right\.jpg: .*--image-member"),
        ({"s0.cls": b"1", "s0.jpg": b"j", "s0.png": b"p"}, r"has the images jpg, png: .*--image-member png"),
        ({"s0.json": b"{}", "s0.image.png": b"i", "s0.image.json": b"{}"}, r"--image-member image\.png"),
        (
            {f"s{i}.{m}.{e}": b"{}" for i in (0, 1) for m in ("image", "mask") for e in ("png", "json")},
            r"<key>\.image\.\*, <key>\.mask\.\*.*--image-member image",
        ),
    ],
)
def test_where_only_a_guess_is_left_the_option_is_named(tmp_path: Path, members: dict[str, bytes], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        list(_tars(tmp_path, members).images())


def test_the_image_member_can_be_named(tmp_path: Path) -> None:
    members = {"s0.cls": b"1", "s0.left.jpg": b"l", "s0.right.jpg": b"r", "s0.jpg": b"j"}
    for name, image in (("right.jpg", b"r"), (".LEFT.jpg", b"l"), ("jpg", b"j")):
        assert _read(_tars(tmp_path, members, choices=Choices(image_member=name))) == {"s0": (image, "1")}
    with pytest.raises(UsageError, match=r".*0\.tar has an image member top\.png, but: keys .*left\.jpg"):
        list(_tars(tmp_path, members, choices=Choices(image_member="top.png")).images())


def _dotted(stem: str, count: int, label: str = "cls") -> dict[str, bytes]:
    pairs = [(f"{stem}{i:03d}", str(i).encode()) for i in range(count)]
    return {k: v for key, n in pairs for k, v in ((f"{key}.jpg", b"i" + n), (f"{key}.{label}", _label(label, n)))}


def _label(kind: str, number: bytes) -> bytes:
    return number if kind == "cls" else json.dumps({"label": int(number)}).encode()


@pytest.mark.parametrize("label", ["cls", "json"])
@pytest.mark.parametrize("stem", ["photo.", "a.b.c.", "v1.5-", "folder/x.y "])
def test_stems_with_dots_are_samples_of_their_own(tmp_path: Path, stem: str, label: str) -> None:
    expected = {f"{stem}{i:03d}": (f"i{i}".encode(), str(i)) for i in range(12)}
    assert _read(_tars(tmp_path, _dotted(stem, 12, label))) == expected


def test_dotted_stems_beside_masks_bare_stems_and_unlabelled_ones(tmp_path: Path) -> None:
    members = _dotted("photo.", 2) | {"photo.jpg": b"bare", "photo.cls": b"7", "photo.001.mask.png": b"m"}
    bare = {"photo": (b"bare", "7"), "photo.000": (b"i0", "0"), "photo.001": (b"i1", "1")}
    assert _read(_tars(tmp_path, members)) == bare
    members = _dotted("photo.", 2) | {"photo.002.jpg": b"new", "photo.001.mask.png": b"m"}
    source = _tars(tmp_path, members)
    assert _read(source) == {"photo.000": (b"i0", "0"), "photo.001": (b"i1", "1"), "photo.002": (b"new", None)}
    assert source.notes() == [
        "columns: image from jpg; label from cls (2), nothing (1)",
        "left out: members .png: 1 (0.tar/photo)",
    ]


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (["5", "9999", "10000"], ["5", "9999", "10000"]),
        (["0", "1", "2"], ["0", "1", "2"]),
        ([str(i) for i in range(12)], [str(i) for i in range(12)]),
        (["002", "10", "1"], ["1", "2", "10"]),
        (["cat", "10", "9"], ["10", "9", "cat"]),
    ],
)
@pytest.mark.parametrize("kind", ["cls", "json"])
def test_numbers_are_class_names_in_their_order(
    tmp_path: Path, labels: list[str], classes: list[str], kind: str
) -> None:
    values = [text.encode() if kind == "cls" else json.dumps({"label": text}).encode() for text in labels]
    source = _tars(tmp_path, {f"s{i}.{e}": v for i, x in enumerate(values) for e, v in (("jpg", b"j"), (kind, x))})
    plan = make_plan(source, "train")
    assert list(plan.classes) == classes
    expected = {f"s{i}": classes.index(x.lstrip("0") or "0") for i, x in enumerate(labels)}
    ids = zip(plan.table.column("source").to_pylist(), plan.table.column("class_id").to_pylist())
    assert {name.partition("/")[2]: class_id for name, class_id in ids} == expected
    gaps = ["of the numbers 0 to" in line for line in source.notes()]
    assert any(gaps) == (labels in (["5", "9999", "10000"], ["002", "10", "1"])), "said when ids are not the labels"


@pytest.mark.parametrize(
    ("member", "value", "expected"),
    [
        ("cls", b"-1", None),
        ("cls", b"", None),
        ("cls", b" \n", None),
        ("cls", b"-100", None),
        ("json", b'{"label": null}', None),
        ("json", b'{"label": -1}', None),
        ("json", b'{"label": NaN}', None),
        ("json", b'{"caption": "x"}', None),
        ("cls", b"\xef\xbb\xbf7\r\n", "7"),
        ("cls", b"7.0", "7"),
        ("json", b'{"label": 7.0}', "7"),
        ("json", b'{"label": true}', "true"),
        ("json", b'{"target": 7}', "7"),
        ("json", b'{"class_name": " cat "}', "cat"),
    ],
)
def test_what_is_a_label_and_what_is_none(tmp_path: Path, member: str, value: bytes, expected: str | None) -> None:
    source = _tars(tmp_path, LABELLED | {"s2.jpg": b"c", f"s2.{member}": value})
    assert _read(source)["s2"] == (b"c", expected)
    assert sorted(make_plan(source, "train").classes) == sorted({"0", "1", expected} - {None})  # type: ignore[type-var]


@pytest.mark.parametrize(
    ("member", "value", "kind", "words"),
    [
        ("json", b'{"label": 2.7}', UsageError, r"s2 has the label 2\.7; one class"),
        ("cls", b"2.7", UsageError, r"s2 has the label 2\.7"),
        ("json", b'{"label": Infinity}', UsageError, "the label inf"),
        ("json", b'{"label": [1, 2]}', UsageError, r"the label \[1, 2\]"),
        ("json", b'{"label": {"id": 1}}', UsageError, "the label {'id': 1}"),
        ("json", b"7", UsageError, "its json is no object with fields but 7"),
        ("json", b"[1]", UsageError, "is no object with fields"),
        ("json", b"{bad", DataError, "cannot be read"),
        ("json", b"[" * 100_000, DataError, "cannot be read"),
        ("json", b"\xff\xfe{}", DataError, "cannot be read"),
        ("cls", b"K\xe4tzchen", UsageError, r"sample s2, its cls is not UTF-8 .*at byte 1\); save it as UTF-8"),
        ("cls", "7".encode("utf-16"), UsageError, "is not UTF-8"),
    ],
)
def test_labels_that_are_no_class_are_named_with_their_sample(
    tmp_path: Path, member: str, value: bytes, kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind, match=rf"0\.tar, sample s2.*{words}" if "s2" not in words else rf"0\.tar.*{words}"):
        list(_tars(tmp_path, LABELLED | {"s2.jpg": b"c", f"s2.{member}": value}).images())


def test_a_field_of_the_json_can_be_named(tmp_path: Path) -> None:
    members = {"s0.jpg": b"j", "s0.cls": b"0", "s0.json": b'{"label": 1, "breed": "pug"}'}
    for name, expected in (("", "0"), ("cls", "0"), ("label", "1"), ("breed", "pug")):
        assert _read(_tars(tmp_path, members, choices=Choices(label_column=name))) == {"s0": (b"j", expected)}
    with pytest.raises(UsageError, match=r"no sample of .* has a label in the field bred, but"):
        list(_tars(tmp_path, members, choices=Choices(label_column="bred")).images())


def test_a_class_name_that_stands_twice_is_two_classes(tmp_path: Path) -> None:
    (tmp_path / "classnames.txt").write_text("crane\nmaillot\ncrane\nmaillot\n")
    source = _tars(tmp_path, {f"s{i}.{e}": v for i in range(4) for e, v in (("jpg", b"j"), ("cls", b"%d" % i))})
    names = ("crane (1)", "maillot (1)", "crane (2)", "maillot (2)")
    assert [class_name for _, class_name in _read(source).values()] == list(names)
    assert make_plan(source, "train").classes == names


def test_class_lists_that_would_name_other_classes_are_refused(tmp_path: Path) -> None:
    for content, words in ((b"cat\n\ndog\n", "has a blank line 2"), (b"K\xe4tzchen", "is not UTF-8")):
        (tmp_path / "classnames.txt").write_bytes(content)
        with pytest.raises(UsageError, match=rf"classnames\.txt {words}"):
            _tars(tmp_path, LABELLED)
    (tmp_path / "classnames.txt").write_bytes("\ufeffcat\r\ndog\r\n\r\n".encode())
    assert [name for _, name in _read(_tars(tmp_path, LABELLED)).values()] == ["cat", "dog"]
    with pytest.raises(UsageError, match=r"sample s2 has the class 2, but classnames.txt names 2 classes, 0 to 1"):
        list(_tars(tmp_path, LABELLED | {"s2.jpg": b"", "s2.cls": b"2"}).images())


def test_links_stand_for_their_files_and_lost_ones_are_counted(tmp_path: Path) -> None:
    (tmp_path / "secret.jpg").write_bytes(b"outside")
    files = [("s0.jpg", b"a"), ("s0.cls", b"3"), ("s3.cls", b"5"), ("s4.cls", b"5")]
    links = [("s1.jpg", "s0.jpg", "hard"), ("s1.cls", "s0.cls", "soft"), ("s2.jpg", "s1.jpg", "soft")]
    lost = [("s3.jpg", str(tmp_path / "secret.jpg"), "soft"), ("s4.jpg", "../secret.jpg", "hard")]
    (tmp_path / "0.tar").write_bytes(linked_tar(files, links + lost))
    source = WebDatasetTars(root=str(tmp_path), files=("0.tar",))
    assert _read(source) == {"s0": (b"a", "3"), "s1": (b"a", "3"), "s2": (b"a", None)}
    assert source.notes()[-1] == (
        "left out: keys without an image, with cls: 2 (0.tar/s3, 0.tar/s4); "
        "links that lead to no file of their tar: 2 (0.tar/s3.jpg, 0.tar/s4.jpg)"
    )


def test_a_second_listing_knows_nothing_of_the_first(tmp_path: Path) -> None:
    source = _tars(tmp_path, {"s0.cls": b"0", "s0.jpg": b"a", "s1.cls": b"7", "s1.jpg": b"b"})
    _read(source)
    assert source.classes == ("0", "7")
    _tars(tmp_path, {"s0.cls": b"0", "s0.jpg": b"a", "s1.cls": b"1", "s1.jpg": b"b"})
    _read(source)
    assert source.classes == ("0", "1")


def test_an_empty_tar_is_said_and_the_rest_is_read(tmp_path: Path) -> None:
    source = _tars(tmp_path, {}, LABELLED, {})
    assert len(_read(source)) == 2
    assert "tars without a member: 2 (0.tar, 2.tar)" in source.notes()[-1]
