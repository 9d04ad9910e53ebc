"""Remapped shards are what a fresh preprocessing with the new settings would have written."""

import shutil
from pathlib import Path

import pytest

from focusvit.cli import main
from pipeline.care.remap import RemapConfig
from pipeline.care.verify import VerifyConfig
from pipeline.shards.dataset import open_dataset
from pipeline.superpixels.segment import SuperpixelConfig
from testkit.image_sources import class_images, jpeg, write_folder
from testkit.preprocessed import preprocessed

OTHER = SuperpixelConfig(fine_regions=64)


@pytest.fixture
def made(tmp_path: Path) -> Path:
    images = write_folder(tmp_path / "images", class_images(classes=2, per_class=5))
    (images / "n00000001" / "large.jpg").write_bytes(jpeg(0, 500, 400))
    (images / "n00000001" / "bad.jpg").write_bytes(b"no image")
    for name, superpixels in (("out", SuperpixelConfig()), ("fresh", OTHER)):
        preprocessed(images, tmp_path / name, samples_per_shard=5, on_error="skip", superpixels=superpixels)
    shutil.rmtree(images)
    return tmp_path


def _remap(made: Path, *options: str) -> int:
    return main(["remap", str(made / "out"), "--out", str(made / "new"), "--workers", "0", *options])


def test_remap_equals_a_fresh_run(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _remap(made, "--superpixels.fine-regions", "64") == 0
    fresh, new = (open_dataset(str(made / name)).splits["train"] for name in ("fresh", "new"))
    assert (new.root_hash, new.identity, new.num_skipped) == (fresh.root_hash, fresh.identity, 1)
    assert main(["verify", str(made / "new"), "--workers", "0", "--recompute"]) == 0
    (made / "new" / "train-000001.tar").unlink()
    assert _remap(made, "--superpixels.fine-regions", "64") == 0
    assert open_dataset(str(made / "new")).splits["train"].root_hash == fresh.root_hash


def test_remap_names_a_damaged_sidecar_and_a_missing_plan(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sidecar = made / "out" / ".focusvit" / "shards" / "train-000001.json"
    sidecar.write_bytes(sidecar.read_bytes()[:50])
    assert _remap(made, "--superpixels.fine-regions", "64") == 1
    assert "train-000001.tar in" in capsys.readouterr().err
    (made / "out" / ".focusvit" / "plan-train.parquet").unlink()
    assert _remap(made, "--superpixels.fine-regions", "64") == 1
    assert "the plan of split 'train' in" in capsys.readouterr().err


def test_remap_refuses(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _remap(made) == 2
    assert "has superpixels of these settings already" in capsys.readouterr().err
    assert _remap(made, "--superpixels.fine-regions", "64", "--split", "val") == 2
    with pytest.raises(SystemExit, match="2"):  # not a wait without end
        _remap(made, "--superpixels.fine-regions", "64", "--workers", "-1")
    data = bytearray((made / "out" / "train-000000.tar").read_bytes())
    data[3000] ^= 1
    (made / "out" / "train-000000.tar").write_bytes(data)
    assert _remap(made, "--superpixels.fine-regions", "64") == 1
    assert "train-000000.tar in" in capsys.readouterr().err


@pytest.mark.parametrize("config", [RemapConfig, VerifyConfig])
def test_this_process_and_a_cluster_exclude_each_other(config: type) -> None:
    places = {"uri": "a", "out": "b"} if config is RemapConfig else {"uri": "a"}
    assert config(**places, workers=0).workers == 0
    with pytest.raises(ValueError, match="exclude each other"):
        config(**places, workers=0, ray_address="auto")
