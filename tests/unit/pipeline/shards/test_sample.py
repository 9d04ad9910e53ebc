"""A sample survives its members, and equal samples give equal bytes."""

import numpy as np
import pytest

from pipeline.errors import DataError
from pipeline.shards.sample import Sample, decode, encode
from pipeline.superpixels.segment import SuperpixelConfig, segment_image


def _sample(**changes: object) -> Sample:
    rgb = np.random.default_rng(0).integers(0, 256, (40, 60, 3)).astype(np.uint8)
    fields = {
        "key": "a-0123",
        "image": b"jpeg bytes",
        "image_ext": "jpg",
        "superpixels": segment_image(rgb, SuperpixelConfig()),
        "class_id": 3,
        "meta": {"source": "a/ü.jpg", "labels": [1, 2]},
        "label_map": np.arange(12, dtype=np.uint8).reshape(3, 4),
    }
    return Sample(**{**fields, **changes})  # type: ignore[arg-type]


def test_round_trip_and_order_of_members() -> None:
    sample = _sample()
    members = encode(sample)
    assert list(members) == ["cls", "jpg", "json", "merges.npy", "seg.png", "spx.png"]
    assert members == encode(_sample())
    back = decode("a-0123", members)
    assert (back.key, back.image, back.class_id, back.meta) == (sample.key, sample.image, 3, sample.meta)
    assert np.array_equal(back.superpixels.map, sample.superpixels.map)
    assert np.array_equal(back.superpixels.merges, sample.superpixels.merges)
    assert np.array_equal(back.label_map, sample.label_map)


def test_class_and_label_map_are_absent_when_there_are_none() -> None:
    members = encode(_sample(class_id=None, label_map=None, image_ext="png"))
    assert list(members) == ["json", "merges.npy", "png", "spx.png"]
    back = decode("a", members)
    assert back.class_id is None and back.label_map is None and back.image_ext == "png"


@pytest.mark.parametrize("name", ["json", "merges.npy", "spx.png", "jpg", "cls"])
def test_a_missing_or_damaged_member_is_named(name: str) -> None:
    members = encode(_sample())
    if name != "cls":
        with pytest.raises(DataError, match="a-0123"):
            decode("a-0123", {key: value for key, value in members.items() if key != name})
    if name != "jpg":
        with pytest.raises(DataError, match=f"member {name}"):
            decode("a-0123", {**members, name: b"\x93garbage"})
