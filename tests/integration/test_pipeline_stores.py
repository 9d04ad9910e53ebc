"""Source and output in an object store: an S3-speaking server on loopback, with worker processes."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from focusvit.cli import main
from pipeline.io import storage
from pipeline.shards.dataset import open_dataset
from testkit.image_sources import class_images, write_folder
from testkit.preprocessed import preprocessed
from testkit.s3_server import s3_bucket

pytestmark = pytest.mark.server


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with s3_bucket(monkeypatch) as uri:
        yield uri


def test_s3_holds_the_same_data_set_as_a_disk(bucket: str, tmp_path: Path) -> None:
    images = write_folder(tmp_path / "images", class_images(per_class=4))
    local = preprocessed(str(images), str(tmp_path / "out"), samples_per_shard=5)
    for path in images.rglob("*.JPEG"):
        storage.put(f"{bucket}/images/{path.relative_to(images)}", path.read_bytes())
    remote = preprocessed(f"{bucket}/images", f"{bucket}/out", workers=1, samples_per_shard=5)
    assert remote.root_hash == local.root_hash and remote.identity == local.identity
    split = open_dataset(f"{bucket}/out").split("train")
    assert split.read(7).image == open_dataset(str(tmp_path / "out")).split("train").read(7).image
    storage.remove(f"{bucket}/out/train-000001.tar")
    storage.put(f"{bucket}/out/train-000002.tar", b"cut")
    assert preprocessed(f"{bucket}/images", f"{bucket}/out", samples_per_shard=5).built_shards == 2
    storage.put(f"{bucket}/out/train-000001.tar", b"cut")
    assert main(["verify", f"{bucket}/out", "--workers", "0", "--repair"]) == 0


def test_a_store_that_is_not_there_is_said_in_words(bucket: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["preprocess", "--source", f"{bucket}/nothing", "--out", f"{bucket}/out", "--local"]) == 2
    assert "s3://bucket/nothing does not exist" in capsys.readouterr().err
