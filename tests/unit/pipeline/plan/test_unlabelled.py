"""Images without a label beside labelled ones are never mixed in without a word."""

from pathlib import Path

import pytest

from pipeline.errors import UsageError
from pipeline.preprocess import Summary
from pipeline.shards.dataset import open_dataset
from pipeline.sources.source import Choices
from testkit.image_sources import jpeg, tar_bytes
from testkit.preprocessed import preprocessed


def _tar(labels: list[bytes | None]) -> dict[str, bytes]:
    members = {f"s{i}.jpg": jpeg(i) for i in range(len(labels))}
    members |= {f"s{i}.cls": label for i, label in enumerate(labels) if label is not None}
    return {"x.tar": tar_bytes(members)}


def _list(*lines: str) -> dict[str, bytes]:
    names = {line.split(",")[0]: jpeg(number) for number, line in enumerate(lines)}
    return names | {"labels.csv": "\n".join(["file,labels", *lines]).encode()}


MIXED = {
    "wds": _tar([b"0", b"-1", b"1", None]),
    "list": _list("0.jpg,cat", "1.jpg,", "2.jpg,dog", "3.jpg,-1"),
}


def _run(root: Path, files: dict[str, bytes], unlabelled: str = "fail") -> tuple[Summary, list[str]]:
    for name, data in files.items():
        (root / name).parent.mkdir(exist_ok=True, parents=True)
        (root / name).write_bytes(data)
    lines: list[str] = []
    choices = Choices(unlabelled=unlabelled)  # type: ignore[arg-type]
    return preprocessed(root, root.parent / f"out-{unlabelled}", say=lines.append, choices=choices), lines


@pytest.mark.parametrize("kind", MIXED)
def test_labelled_and_unlabelled_images_are_kept_apart(tmp_path: Path, kind: str) -> None:
    with pytest.raises(UsageError, match=r"with a label, and images without a label: 2 .*--unlabelled skip"):
        _run(tmp_path / "set", MIXED[kind])
    summary, lines = _run(tmp_path / "set", MIXED[kind], "skip")
    assert (summary.num_samples, summary.num_classes) == (2, 2)
    assert any("left out" in line and "images without a label: 2" in line for line in lines)
    summary, _ = _run(tmp_path / "set", MIXED[kind], "keep")
    assert (summary.num_samples, summary.num_classes) == (4, 2)
    assert sorted(open_dataset(str(tmp_path / "out-keep")).split("train").class_ids.tolist()) == [-1, -1, 0, 1]


def test_sets_without_any_label_and_lists_of_several_are_no_mixture(tmp_path: Path) -> None:
    assert _run(tmp_path / "a" / "set", _tar([b"-1", b""]))[0].num_samples == 2
    assert _run(tmp_path / "b" / "set", _list("0.jpg,cat;dog", "1.jpg,"))[0].num_classes == 2
    with pytest.raises(UsageError, match=r"no image of .* has a label"):
        _run(tmp_path / "c" / "set", _tar([b"-1", b""]), "skip")
