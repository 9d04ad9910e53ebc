"""Hugging Face's own Trainer trains a patched ViT on real images, and its loss falls."""

import os
import statistics
from pathlib import Path

import pytest

import focusvit
from tests.benchmarks.model.drop_in_trainer import labelled_images, train_with_trainer

pytest.importorskip("accelerate", reason="accelerate is not installed (make soak installs it)")
transformers = pytest.importorskip("transformers", reason="transformers is not installed (make soak installs it)")


@pytest.fixture(scope="module")
def samples():
    folder = Path(os.environ.get("FOCUSVIT_DATA", "")) / "tiny-imagenet-40"
    if not folder.is_dir():
        pytest.skip("FOCUSVIT_DATA holds no tiny-imagenet-40")
    return labelled_images(str(folder), "train", classes=4, per_class=4, tokens=49)[0]


@pytest.mark.soak
@pytest.mark.parametrize("latents", [None, 9])
@pytest.mark.parametrize("with_maps", [True, False], ids=["maps", "slic"])
def test_the_trainer_of_the_library_trains_a_patched_vit(samples, latents, with_maps):
    config = transformers.ViTConfig(
        hidden_size=64, num_hidden_layers=4, num_attention_heads=2, intermediate_size=256, image_size=224, num_labels=4
    )
    transformers.set_seed(0)
    model = focusvit.patch(
        transformers.ViTForImageClassification(config),
        tokens=49,
        depth=1,
        merge="colour",
        latents=latents,
        mean=(0.5,) * 3,
        std=(0.5,) * 3,
    )
    losses, _ = train_with_trainer(model, samples, with_maps=with_maps, batch_size=16, steps=40, lr=1e-3)
    print(f"loss {losses[0]:.3f} -> {losses[-1]:.3f}")
    assert len(losses) == 40
    assert statistics.mean(losses[-5:]) < 0.8 * statistics.mean(losses[:5])
