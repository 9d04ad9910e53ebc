"""With checksums every changed image is found, also the changes that still decode."""

import hashlib
from pathlib import Path

import pytest

from pipeline.errors import DataError, UsageError
from pipeline.plan.selection import read_checksums
from pipeline.preprocess import Summary
from testkit.image_sources import class_images, jpeg, write_folder
from testkit.preprocessed import preprocessed


@pytest.fixture
def source(tmp_path: Path) -> Path:
    images = write_folder(tmp_path / "images", class_images())
    lines = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  ./{path.relative_to(images)}"
        for path in sorted(images.rglob("*.JPEG"))
    ]
    (tmp_path / "sums").write_text("# made by sha256sum\n" + "\n".join(lines) + "\n")
    return images


def _run(source: Path, **options: object) -> Summary:
    return preprocessed(source, source.parent / "out", samples_per_shard=5, **options)


def test_a_swapped_image_is_refused_and_the_right_one_taken(source: Path) -> None:
    sums = str(source.parent / "sums")
    changed = source / "n00000002" / "n00000002_1.JPEG"
    good = changed.read_bytes()
    changed.write_bytes(jpeg(12345))  # a sound image, but not this one
    with pytest.raises(DataError, match=r"n00000002_1\.JPEG has other bytes than its checksum says"):
        _run(source, checksums=sums)
    changed.write_bytes(good)
    assert _run(source, checksums=sums).num_samples == 24
    with pytest.raises(UsageError, match="differs in: checksums"):
        _run(source)


def test_lists_that_do_not_fit_are_refused(source: Path) -> None:
    sums = source.parent / "sums"
    sums.write_text("\n".join(sums.read_text().splitlines()[:-2]))
    with pytest.raises(UsageError, match=r"2 of the 24 images .* have no line"):
        _run(source, checksums=str(sums))
    for text, words in (("not a sum", "line 1 .* is 'not a sum'"), ("", "hold no line")):
        sums.write_text(text)
        with pytest.raises(UsageError, match=words):
            read_checksums(str(sums))
    with pytest.raises(UsageError, match="cannot read the checksums"):
        read_checksums(str(source))
