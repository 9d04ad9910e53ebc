"""The generated set: same bytes whenever it is made, exact masks, whole objects, resumable."""

import cv2
import numpy as np
import pytest

from pipeline.sources.embedded import SHAPE_CLASSES, draw_shape, write_digits, write_shapes


def _files(root):
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.rglob("*.*g"))}


def test_same_bytes_each_time_and_after_an_interruption(tmp_path):
    write_shapes(tmp_path / "a", train_per_class=2, val_per_class=1, side_px=48)
    write_shapes(tmp_path / "b", train_per_class=1, val_per_class=1, side_px=48)
    write_shapes(tmp_path / "b", train_per_class=2, val_per_class=1, side_px=48)
    assert _files(tmp_path / "a") == _files(tmp_path / "b")
    assert len(_files(tmp_path / "a")) == 2 * len(SHAPE_CLASSES) * 3


@pytest.mark.parametrize("class_id", range(len(SHAPE_CLASSES)))
def test_mask_is_whole_inside_the_frame_and_of_useful_size(class_id):
    for number in range(20):
        image, mask = draw_shape(np.random.default_rng(number), class_id, 96)
        assert image.shape == (96, 96, 3) and image.dtype == np.uint8
        assert not mask[[0, -1]].any() and not mask[:, [0, -1]].any()
        assert 0.02 < mask.mean() < 0.5


def test_masks_carry_the_class_index_plus_one(tmp_path):
    write_shapes(tmp_path, train_per_class=1, val_per_class=0, side_px=48)
    for class_id, name in enumerate(SHAPE_CLASSES):
        mask = cv2.imread(str(tmp_path / "masks" / "train" / name / f"{name}_0000.png"), cv2.IMREAD_UNCHANGED)
        assert set(np.unique(mask)) == {0, class_id + 1}


def test_digits_are_all_there_split_once(tmp_path):
    write_digits(tmp_path)
    counts = {split: len(list((tmp_path / split).rglob("*.png"))) for split in ("train", "val")}
    assert counts == {"train": 1442, "val": 355}
    assert sorted(path.name for path in (tmp_path / "train").iterdir()) == [str(digit) for digit in range(10)]
