"""The options of a fine-tuning: what its defaults follow from."""

import json
from pathlib import Path

import pytest

from cluster.train.launch import finetune_options
from testkit.tiny_checkpoint import make_checkpoint


@pytest.mark.parametrize(
    ("num_samples", "batch", "epochs"), [(100, 8, 16), (500, 25, 10), (1280, 64, 10), (3000, 64, 5), (100_000, 64, 5)]
)
def test_few_images_take_small_batches_and_more_epochs(
    num_samples: int, batch: int, epochs: int, tmp_path: Path
) -> None:
    (tmp_path / "dataset.json").write_text(json.dumps({"splits": {"train": {"num_samples": num_samples}}}))
    argv = ["--checkpoint", make_checkpoint(tmp_path / "c"), "--data", str(tmp_path), "--run-dir", "r"]
    found = finetune_options(argv).training
    assert (found.global_batch, found.epochs, found.optim.warmup_epochs) == (batch, epochs, epochs / 10)
    assert num_samples * epochs / batch >= 199 and finetune_options([*argv, "--epochs", "3"]).training.epochs == 3


def test_a_data_set_that_does_not_tell_its_size_is_no_mistake_of_the_options(tmp_path: Path) -> None:
    argv = ["--checkpoint", make_checkpoint(tmp_path / "c"), "--data", str(tmp_path / "nowhere"), "--run-dir", "r"]
    assert finetune_options(argv).training.epochs == 5
    (tmp_path / "dataset.json").write_text("{")
    assert finetune_options([*argv[:3], str(tmp_path), *argv[4:]]).training.epochs == 5
