"""Features are computed once and never served for other weights; the test set opens once; the held-out part is fair."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from focusvit.data.batch import Batch
from focusvit.weights.files import weights_hash
from pipeline.errors import DataError
from transfer.features.features import FeatureKey, FeatureStore, model_rows, pixel_features
from transfer.features.hold_out import hold_out

KEY = FeatureKey(source="w1", transform={"image_px": 64}, split_name="val", split_identity="i", split_root_hash="r")


def parts(num=20, width=3, size=6, order=None):
    rows = np.arange(num) if order is None else order
    for start in range(0, num, size):
        ids = rows[start : start + size]
        yield ids, np.stack([np.full(width, i, np.float32) for i in ids])


def test_rows_lie_at_their_sample_whatever_the_order(tmp_path):
    values = FeatureStore(tmp_path).put(KEY, parts(order=np.random.default_rng(0).permutation(20)), 20)
    assert (values[:, 0] == np.arange(20)).all()
    assert (FeatureStore(tmp_path).find(KEY) == values).all()


@pytest.mark.parametrize("name", ["source", "split_identity", "split_root_hash", "transform"])
def test_other_weights_transform_or_data_find_nothing(tmp_path, name):
    store = FeatureStore(tmp_path)
    store.put(KEY, parts(), 20)
    other = {"image_px": 32} if name == "transform" else "other"
    assert store.find(replace(KEY, **{name: other})) is None


def test_a_file_of_other_weights_under_this_name_is_refused(tmp_path):
    store = FeatureStore(tmp_path)
    store.put(KEY, parts(), 20)
    (note,) = tmp_path.glob("*.json")
    said = json.loads(note.read_text())
    note.write_text(json.dumps({**said, "key": "0" * 64}))
    with pytest.raises(DataError, match="other weights"):
        store.find(KEY)
    note.write_text(json.dumps(said))
    (place,) = tmp_path.glob("*.npy")
    place.write_bytes(place.read_bytes()[:-4] + b"\1\2\3\4")
    with pytest.raises(DataError, match="not what was written"):
        store.find(KEY)


def test_a_torn_note_is_named_with_the_fix(tmp_path):
    store = FeatureStore(tmp_path)
    store.put(KEY, parts(), 20)
    (note,) = tmp_path.glob("*.json")
    for text in ("", '{"key": "', "[]"):
        note.write_text(text)
        with pytest.raises(DataError, match=r"cannot be read.*Remove it and its \.json"):
            store.find(KEY)


@pytest.mark.parametrize("rows", [np.arange(19), np.r_[np.arange(20), 3]])
def test_missing_and_double_samples_leave_nothing_behind(tmp_path, rows):
    with pytest.raises(AssertionError, match="exactly once"):
        FeatureStore(tmp_path).put(KEY, ((rows[i : i + 1], np.ones((1, 2), np.float32)) for i in range(len(rows))), 20)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_told_before_a_row_is_written(tmp_path, monkeypatch):
    """A mapped file whose pages find no room ends the process (SIGBUS), so all of it is reserved first."""
    reserved = []

    def watched():
        for part in parts(num=200, width=4096):
            reserved.extend(place.stat().st_blocks * 512 >= place.stat().st_size for place in tmp_path.glob(".*.tmp"))
            yield part

    FeatureStore(tmp_path).put(KEY, watched(), 200)
    assert reserved and all(reserved)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(DataError, match=r"needs 0\.2 MB .*No space left on device.*--features-folder"):
        FeatureStore(tmp_path / "full").put(KEY, parts(width=3000), 20)
    assert list((tmp_path / "full").iterdir()) == []


def test_what_a_killed_writer_left_is_cleared_and_a_living_one_is_not_touched(tmp_path):
    code = f"""
import time, numpy as np
from pathlib import Path
from focusvit.weights.files import weights_hash
from transfer.features.features import FeatureKey, FeatureStore

def parts():
    yield np.arange(1), np.ones((1, 3), np.float32)
    print("half", flush=True)
    time.sleep(60)

FeatureStore(Path({str(tmp_path)!r})).put(FeatureKey(**{vars(KEY)!r}), parts(), 20)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout.readline() == "half\n"
        (half,) = tmp_path.glob(".*.tmp")
        FeatureStore(tmp_path).put(replace(KEY, source="w2"), parts(), 20)
        assert half.exists()
        writer.kill()
    assert half.exists()
    FeatureStore(tmp_path).put(KEY, parts(), 20)
    assert list(tmp_path.glob(".*")) == [] and len(list(tmp_path.glob("*.npy"))) == 2


def test_numbers_that_are_not_finite_are_named(tmp_path):
    with pytest.raises(ValueError, match="sample 4"):
        FeatureStore(tmp_path).put(KEY, [(np.array([4]), np.array([[np.nan]], np.float32))], 20)


def test_weights_hash_sees_every_value():
    model = torch.nn.Linear(3, 2)
    before = weights_hash(model)
    assert before == weights_hash(model)
    with torch.no_grad():
        model.bias[1] += 1e-6
    assert weights_hash(model) != before


def test_features_are_those_of_the_image_and_of_the_model():
    images = torch.randint(0, 255, (4, 3, 32, 32), dtype=torch.uint8)
    ids = torch.arange(4)
    batch = Batch(images=images, class_ids=ids, sample_ids=ids)
    ((pixel_ids, pixels),) = pixel_features([batch])
    assert pixel_ids.tolist() == [0, 1, 2, 3] and pixels.shape == (4, 768)
    np.testing.assert_allclose(pixels.mean(1), 0, atol=1e-6)

    class Model(torch.nn.Module):
        def features(self, images, maps, num_tokens):
            return images.float().mean((2, 3))

    ((model_ids, rows),) = model_rows(Model().features, [batch], "cpu")
    assert model_ids.tolist() == [0, 1, 2, 3] and rows.shape == (4, 3)


def test_hold_out_takes_its_share_of_every_class():
    class_ids = np.repeat([0, 1, 2], [100, 10, 2])
    train, held_out = hold_out(class_ids, 0.1, seed=0)
    assert np.bincount(class_ids[held_out]).tolist() == [10, 1, 1]
    assert sorted([*train, *held_out]) == list(range(112))
    again = hold_out(class_ids, 0.1, seed=0)
    assert (again[1] == held_out).all()
    assert (hold_out(class_ids, 0.1, seed=1)[1] != held_out).any()
    assert hold_out(np.array([0, 0, 1]), 0.1, seed=0)[0].tolist()[-1] == 2
    with pytest.raises(ValueError, match="every class has a single one"):
        hold_out(np.arange(3), 0.1, seed=0)


def test_a_model_with_a_parameter_of_no_dimensions_has_a_hash():
    from focusvit.weights.files import weights_hash

    model = torch.nn.Linear(2, 2)
    model.scale = torch.nn.Parameter(torch.tensor(1.0))
    before = weights_hash(model)
    with torch.no_grad():
        model.scale += 1
    assert weights_hash(model) != before
