"""Other people's readers on our shards: webdataset, Hugging Face datasets, Ray Data; and the indexes of others."""

import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.shards.dataset import Split, open_dataset
from testkit.image_sources import class_images, write_folder
from testkit.preprocessed import preprocessed


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("readers")
    images = write_folder(root / "images", class_images(per_class=6))
    preprocessed(images, root / "out", samples_per_shard=5)
    return root / "out"


@pytest.fixture(scope="module")
def split(out: Path) -> Split:
    return open_dataset(str(out)).split("train")


def _shards(out: Path) -> list[str]:
    return [str(path) for path in sorted(out.glob("train-*.tar"))]


def _check(split: Split, found: Iterator[tuple[str, np.ndarray, np.ndarray, int, dict]]) -> None:
    count = 0
    for number, (key, rgb, ids, class_id, meta) in enumerate(found):
        sample = split.read(number)
        assert key == sample.key and class_id == sample.class_id and meta == sample.meta
        assert np.array_equal(rgb, np.asarray(Image.open(io.BytesIO(sample.image)).convert("RGB")))
        assert np.array_equal(ids if ids.ndim == 2 else ids[..., 0], sample.superpixels.map)
        count += 1
    assert count == split.num_samples


def test_webdataset(out: Path, split: Split) -> None:
    import webdataset as wds

    samples = wds.WebDataset(_shards(out), shardshuffle=False).decode("rgb8")
    _check(split, ((s["__key__"], s["jpg"], s["spx.png"], s["cls"], s["json"]) for s in samples))


def test_datasets(out: Path, split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import datasets

    samples = datasets.load_dataset(
        "webdataset", data_files={"train": _shards(out)}, split="train", cache_dir=str(tmp_path)
    )
    found = ((s["__key__"], np.asarray(s["jpg"]), np.asarray(s["spx.png"]), s["cls"], s["json"]) for s in samples)
    _check(split, found)


@pytest.mark.soak
@pytest.mark.ray
def test_ray_data(out: Path, split: Split) -> None:
    import ray

    ray.init(
        address="local", num_cpus=1, include_dashboard=False, object_store_memory=100 * 2**20, log_to_driver=False,
        logging_level="ERROR",
    )  # fmt: skip
    try:
        ray.data.DataContext.get_current().enable_progress_bars = False
        rows = {row["__key__"]: row for row in ray.data.read_webdataset(_shards(out)).take_all()}
    finally:
        ray.shutdown()
    ordered = [rows[split.read(number).key] for number in range(split.num_samples)]
    _check(split, ((r["__key__"], r["jpg"], r["spx.png"], int(r["cls"]), r["json"]) for r in ordered))


def test_dali_index_points_at_every_member(out: Path, split: Split) -> None:
    lines = (out / ".focusvit" / "dali" / "train-000000.idx").read_text().splitlines()
    version, count = lines[0].split()
    assert version == "v1.2" and int(count) == len(lines) - 1 == split.shard_sizes[0]
    data = (out / "train-000000.tar").read_bytes()
    for number, line in enumerate(lines[1:]):
        parts, (key, members) = line.split(), split.read_members(number)
        found = {}
        for extension, offset, size, name in zip(*[iter(parts)] * 4):
            assert name == f"{key}.{extension}"
            found[extension] = data[int(offset) : int(offset) + int(size)]
        assert found == members


def test_wids_and_timm_files(out: Path, split: Split) -> None:
    index = json.loads((out / "wids-train.json").read_text())
    assert (index["__kind__"], index["wids_version"]) == ("wids-shard-index-v1", 1)
    assert [shard["nsamples"] for shard in index["shardlist"]] == split.shard_sizes.tolist()
    assert all((out / shard["url"]).stat().st_size == shard["filesize"] for shard in index["shardlist"])
    info = json.loads((out / "_info.json").read_text())["splits"]["train"]
    assert info["num_samples"] == sum(info["shard_lengths"]) == split.num_samples and info["name"] == "train"
    assert all((out / name).exists() for name in info["filenames"])
