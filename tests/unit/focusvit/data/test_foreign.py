"""Foreign tars without an index: the same global batches on any number of ranks, every sample once an epoch."""

import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from focusvit.data.batch import Batch
from focusvit.data.foreign import ForeignLoader
from focusvit.data.loader import DataConfig
from focusvit.data.mixing import MixConfig
from pipeline.errors import DataError, UsageError
from pipeline.superpixels.segment import SuperpixelConfig
from testkit.image_sources import jpeg
from testkit.tiny_shards import make_dataset

MAPS = SuperpixelConfig(fine_regions=32, seed_regions=40)
DATA = DataConfig(image_px=32, map_px=16)


@pytest.fixture(scope="module")
def tars(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """23 photos in three tars of another tool: .jpeg and .cls members, no maps."""
    folder = tmp_path_factory.mktemp("foreign")
    for tar, numbers in enumerate(np.array_split(np.arange(23), 3)):
        with tarfile.open(folder / f"{tar}.tar", "w") as archive:
            for number in numbers.tolist():
                for suffix, data in (("cls", str(number).encode()), ("jpeg", jpeg(number))):
                    _add(archive, f"s{number:03d}.{suffix}", data)
    return sorted(map(str, folder.glob("*.tar")))


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    archive.addfile(info, io.BytesIO(data))


def _loader(tars: list[str], data: DataConfig = DATA, **more: Any) -> ForeignLoader:
    options = {"identity": "x", "seed": 1, "global_batch": 7, "total_samples": 49, "tokens": 5, "superpixels": MAPS}
    return ForeignLoader(tars, data, **{**options, **more})


def _same(parts: list[Batch], whole: Batch) -> None:
    for name in ("images", "maps", "class_ids", "sample_ids", "mix_ids", "mix_share"):
        if (expected := getattr(whole, name)) is not None:
            assert torch.equal(torch.cat([getattr(part, name) for part in parts]), expected), name


@pytest.mark.parametrize("mix", [MixConfig(), MixConfig(mixup=0.8, cutmix=1.0)])
def test_ranks_and_starts_see_the_same_global_batches(tars: list[str], mix: MixConfig) -> None:
    data = DataConfig(image_px=32, map_px=16, mix=mix)
    whole = list(_loader(tars, data))
    assert len(whole) == 7
    for world_size in (2, 5):
        ranks = [list(_loader(tars, data, rank=rank, world_size=world_size)) for rank in range(world_size)]
        for step, batch in enumerate(whole):
            _same([rank[step] for rank in ranks], batch.check())
    again = _loader(tars, data)
    again.load_state_dict({"samples_seen": 28, "seed": 1, "identity": "x"})
    for found, batch in zip(again, whole[4:], strict=True):
        _same([found], batch)


def test_every_sample_once_an_epoch_in_another_order(tars: list[str]) -> None:
    seen = torch.cat([batch.class_ids for batch in _loader(tars)]).tolist()
    assert sorted(seen[:23]) == list(range(23)) == sorted(seen[23:46]) and seen[:23] != seen[23:46]


def test_loader_workers_change_nothing(tars: list[str]) -> None:
    with_worker = _loader(tars, DataConfig(image_px=32, map_px=16, loader_workers=1), total_samples=21)
    for found, batch in zip(with_worker, _loader(tars, total_samples=21), strict=True):
        _same([found], batch)


def test_maps_of_our_own_shards_are_used_as_they_are(tmp_path: Path) -> None:
    folder = make_dataset(tmp_path)
    ours = sorted(map(str, Path(folder).glob("train-*.tar")))
    batch = next(iter(_loader(ours, tokens=6, superpixels=SuperpixelConfig())))
    assert batch.check(num_classes=4).maps is not None
    assert next(iter(_loader(ours, tokens=None, superpixels=None))).maps is None


def test_what_is_wrong_is_counted_or_named(tmp_path: Path, tars: list[str]) -> None:
    def tar(name: str, *members: tuple[str, bytes]) -> list[str]:
        with tarfile.open(tmp_path / name, "w") as archive:
            for member, data in members:
                _add(archive, member, data)
        return [str(tmp_path / name)]

    half = tar("half.tar", ("a.jpg", jpeg(1)), ("b.jpg", b"no image"), ("c.jpg", jpeg(2)))
    batches = list(_loader(half, global_batch=3, total_samples=3))
    assert batches[0].num_replaced == 1 and batches[0].check().class_ids.tolist() == [-1, -1, -1]
    for broken, words in (
        (tar("text.tar", ("a.txt", b"x")), "none is an image"),
        (tar("cls.tar", ("a.jpg", jpeg(1)), ("a.cls", b"cat")), "not a class number"),
        (tar("bad.tar", ("a.jpg", b"no image")), "none of 1 samples"),
        (tar("empty.tar"), "no sample in 1 tars"),
    ):
        with pytest.raises(DataError, match=words):
            next(iter(_loader(broken, global_batch=1)))
    with pytest.raises(UsageError, match="superpixels is None"):
        _loader(tars, superpixels=None)
    with pytest.raises(UsageError, match="other data or another seed"):
        _loader(tars).load_state_dict({"samples_seen": 0, "seed": 2, "identity": "x"})
