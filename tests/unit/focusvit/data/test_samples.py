"""A split as a torch data set: the samples of evaluation, and the random views of a training."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import focusvit
from focusvit.data.config import DataConfig
from focusvit.data.loader import EvalLoader
from pipeline.shards.dataset import open_dataset
from testkit.tiny_shards import make_dataset

CONFIG = DataConfig(image_px=32, map_px=16)


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_dataset(tmp_path_factory.mktemp("data"))


def test_samples_are_those_of_evaluation(uri: str) -> None:
    samples = focusvit.ShardDataset(uri, "val", tokens=5, config=CONFIG)
    split = open_dataset(uri).split("val")
    batches = DataLoader(samples, batch_size=4)
    for batch, want in zip(batches, EvalLoader(split, CONFIG, batch_size=4, tokens=5), strict=True):
        assert torch.equal(batch["image"], want.images) and torch.equal(batch["label"], want.class_ids)
        assert torch.equal(batch["map"], want.maps)
    assert samples.classes == open_dataset(uri).classes


def test_without_tokens_there_is_no_map_and_numbers_are_those_of_a_list(uri: str) -> None:
    samples = focusvit.ShardDataset(uri, "val", config=CONFIG)
    assert samples[0].keys() == {"image", "label"}
    assert torch.equal(samples[-1]["image"], samples[len(samples) - 1]["image"])
    with pytest.raises(IndexError):
        samples[len(samples)]


def test_random_views_belong_to_seed_and_epoch(uri: str) -> None:
    def image(seed: int, epoch: int) -> np.ndarray:
        samples = focusvit.ShardDataset(uri, "val", config=CONFIG, random_views=True, seed=seed)
        samples.epoch = epoch
        return samples[1]["image"].numpy()

    assert np.array_equal(image(0, 0), image(0, 0))
    assert not np.array_equal(image(0, 0), image(0, 1)) and not np.array_equal(image(0, 0), image(1, 0))


def test_a_loop_of_ones_own_learns_from_it(uri: str, tmp_path: Path) -> None:
    model = focusvit.FocusViT(
        focusvit.FocusViTConfig(image_px=32, patch_px=8, width=16, depth=1, heads=2, tokens=5, num_classes=4)
    )
    batch = next(iter(DataLoader(focusvit.ShardDataset(uri, "train", tokens=5, config=CONFIG), batch_size=8)))
    loss = torch.nn.functional.cross_entropy(model(batch["image"], batch["map"]), batch["label"])
    loss.backward()
    assert model.head.weight.grad is not None and model.head.weight.grad.abs().sum() > 0
