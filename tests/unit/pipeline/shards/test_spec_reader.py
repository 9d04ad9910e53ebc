"""A reader written from the format's description alone: tarfile, json, PIL and numpy, nothing of this project."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.shards.dataset import open_dataset
from pipeline.superpixels.hierarchy import cut
from testkit.image_sources import class_images, write_folder
from testkit.preprocessed import preprocessed


def _samples(shard: Path) -> dict[str, dict[str, bytes]]:
    found: dict[str, dict[str, bytes]] = {}
    with tarfile.open(shard) as archive:
        for member in archive:
            key, suffix = member.name.split(".", 1)
            found.setdefault(key, {})[suffix] = archive.extractfile(member).read()  # type: ignore[union-attr]
    return found


def _regions(members: dict[str, bytes], k: int) -> np.ndarray:
    """Exactly k regions: the first n - k merges, then ids in raster order of first pixel."""
    ids = np.asarray(Image.open(io.BytesIO(members["spx.png"]))).astype(int)
    merges = np.load(io.BytesIO(members["merges.npy"]))
    for a, b in merges[: len(merges) + 1 - k].tolist():
        ids[ids == b] = a
    return ids


def test_the_description_is_enough_to_read_a_data_set(tmp_path: Path) -> None:
    images = write_folder(tmp_path / "images", class_images(per_class=3))
    out = tmp_path / "out"
    preprocessed(images, out, samples_per_shard=5)
    split = open_dataset(str(out)).split("train")
    classes = json.loads((out / "dataset.json").read_text())["classes"]
    read = [pair for shard in sorted(out.glob("train-*.tar")) for pair in _samples(shard).items()]
    assert len(read) == split.num_samples == 9
    for number, (key, members) in enumerate(read):
        ours, meta = split.read(number), json.loads(members["json"])
        assert key == ours.key and (meta["height"], meta["width"]) == (40, 56)
        assert classes[int(members["cls"])] == meta["source"].split("/")[0]
        for k in (2, 16, meta["superpixels"]["regions"]):
            theirs, expected = _regions(members, k), cut(ours.superpixels.map, ours.superpixels.merges, k)
            assert len(np.unique(theirs)) == k
            pairs = np.unique(np.stack([theirs.ravel(), expected.ravel()]), axis=1)
            assert pairs.shape[1] == k, "the same regions, whatever they are called"
