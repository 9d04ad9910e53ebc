"""Folders of Hugging Face and timm: the host's own features come out, patched or not, or one sentence says why not."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from focusvit.runs.checkpoint import load_checkpoint, load_model
from focusvit.runs.checkpoint_record import is_host_folder
from focusvit.weights.host_folder import read_host
from pipeline.errors import UsageError
from testkit.hosts import GRID, HUGGING_FACE, MEAN, PATCH, SIDE, STD, TIMM, save_host
from testkit.tiny_checkpoint import make_checkpoint

IMAGES = torch.randint(0, 256, (2, 3, SIDE, SIDE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
ONE_EACH = torch.arange(GRID * GRID).view(1, GRID, GRID).expand(2, -1, -1)
QUARTERS = (torch.arange(8)[:, None] // 4 * 2 + torch.arange(8) // 4).expand(2, -1, -1)


def own_features(model: torch.nn.Module, name: str, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(features of the image, last features of every patch (B, N, D)), asked of the library itself."""
    if name in TIMM:
        pixels = (images / 255 - torch.tensor(model.pretrained_cfg["mean"]).view(3, 1, 1)) / torch.tensor(
            model.pretrained_cfg["std"]
        ).view(3, 1, 1)
        sequence = model.forward_features(pixels)
        return model.forward_head(sequence, pre_logits=True), sequence[:, -GRID * GRID :]
    pixels = (images / 255 - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    if not name.endswith("Model"):
        model = getattr(model, "vision_model", model.base_model)
    out = model(pixels)
    patches = out.last_hidden_state[:, -GRID * GRID :]
    if "CLIP" in name or "Siglip" in name:
        return out.pooler_output, patches
    return (patches.mean(1) if "IJepa" in name else out.last_hidden_state[:, 0]), patches


@pytest.fixture(params=[*HUGGING_FACE, *TIMM])
def saved(request, tmp_path):
    model = save_host(tmp_path / "host", request.param)
    with torch.no_grad():
        return str(tmp_path / "host"), *own_features(model, request.param, IMAGES)


@torch.no_grad()
def test_a_folder_gives_the_hosts_own_features_also_patched(saved):
    folder, features, patches = saved
    model, record = load_model(folder)
    torch.testing.assert_close(model.features(IMAGES), features, atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(model.dense_features(IMAGES), patches, atol=2e-5, rtol=1e-5)
    assert torch.equal(model(IMAGES), model.features(IMAGES))  # no head yet
    assert record.classes == () and record.config["data"]["image_px"] == SIDE

    whole, _ = load_model(folder, patch=("tokens=16", "depth=1", "merge=colour"))
    torch.testing.assert_close(whole.features(IMAGES, ONE_EACH), features, atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(whole.dense_features(IMAGES, ONE_EACH), patches, atol=2e-5, rtol=1e-5)

    few, record = load_model(folder, patch=("tokens=4", "depth=2", "merge=colour"))
    found = few.features(IMAGES, QUARTERS)
    assert found.shape == features.shape and not torch.allclose(found, features, atol=1e-6)
    assert few.dense_features(IMAGES, QUARTERS).shape == (2, 4, patches.shape[2])
    torch.testing.assert_close(
        few.features(IMAGES, ONE_EACH, 16),
        load_model(folder, patch=("tokens=16", "depth=2", "merge=colour"))[0].features(IMAGES, ONE_EACH),
    )  # K is free at every call
    assert record.model["tokens"] == 4 and record.config["model"] == record.model


@torch.no_grad()
@pytest.mark.parametrize("name", ["Dinov2Model", "timm dinov3"])
def test_other_ways_and_another_size(tmp_path, name):
    save_host(tmp_path / "host", name)
    plain, _ = load_model(str(tmp_path / "host"))
    patches = plain.dense_features(IMAGES)
    readout, _ = load_model(str(tmp_path / "host"), patch=("tokens=4", "merge=readout"))
    torch.testing.assert_close(readout.features(IMAGES, QUARTERS), plain.features(IMAGES))
    by_hand = patches.view(2, 2, 2, 2, 2, -1).mean((2, 4)).flatten(1, 2)
    torch.testing.assert_close(readout.dense_features(IMAGES, QUARTERS), by_hand, atol=1e-5, rtol=1e-5)
    for patch in (("tokens=4", "merge=keys"), ("tokens=1:8,2:4", "merge=grid"), ("tokens=8", "merge=tome")):
        model, _ = load_model(str(tmp_path / "host"), patch=patch)
        found = model.dense_features(IMAGES)
        assert found.shape == patches.shape and not torch.allclose(found, patches, atol=1e-6)
    nested, _ = load_model(str(tmp_path / "host"), patch=("tokens=1:4,2:2", "merge=colour"))
    found = nested.dense_features(IMAGES, QUARTERS.to(torch.int16))
    assert all(len(torch.unique(image, dim=0)) == 2 for image in found) and found.shape[1] == 4  # unions are one token
    larger, record = load_model(str(tmp_path / "host"), patch=(f"image_px={SIDE + PATCH}",))
    assert record.config["data"]["image_px"] == SIDE + PATCH
    assert larger.dense_features(torch.zeros(1, 3, SIDE + PATCH, SIDE + PATCH)).shape[1] == (GRID + 1) ** 2


def test_the_view_of_the_image_processor_is_read(tmp_path):
    save_host(tmp_path / "host", "ViTModel")
    place = tmp_path / "host" / "preprocessor_config.json"
    look = {
        "image_mean": MEAN,
        "image_std": STD,
        "do_center_crop": True,
        "crop_size": 32,
        "size": {"shortest_edge": 40},
    }
    place.write_text(json.dumps(look))
    config, crop, _ = read_host(str(tmp_path / "host"))
    assert (config.image_px, crop, config.mean) == (32, 0.8, tuple(MEAN))


def test_what_cannot_be_measured_is_said_in_one_sentence(tmp_path):
    folder = tmp_path / "host"
    save_host(folder, "ViTForImageClassification")
    weights = load_file(folder / "model.safetensors")
    look = (folder / "preprocessor_config.json").read_text()

    def refused(words: str) -> None:
        with pytest.raises(UsageError, match=words) as error:
            load_model(str(folder))
        assert "\n" not in str(error.value)

    (folder / "preprocessor_config.json").unlink()
    refused("does not say how its pixels are normalised")
    (folder / "preprocessor_config.json").write_text(look)
    save_file({key: value for key, value in weights.items() if ".2." not in key}, folder / "model.safetensors")
    refused(r"weights of .* are missing")
    (folder / "model.safetensors").unlink()
    refused("cannot be taken as a host")
    (folder / "config.json").write_text('{"model_type": "bert"}')
    refused("cannot be taken as a host")
    (folder / "config.json").write_text('{"model_type": "no such thing"}')
    refused("cannot be taken as a host")
    with pytest.raises(UsageError, match="copy s3://bucket/host to this machine"):
        read_host("s3://bucket/host")


def test_what_a_patch_cannot_be_is_said_before_any_work(tmp_path):
    save_host(tmp_path / "host", "Dinov2Model")
    for patch, words in (
        (("token=4",), "Did you mean 'tokens'|write name=value"),
        (("depth=2",), "say how many tokens are left"),
        (("tokens=4", "depth=4"), "this model has 4 blocks"),
        (("tokens=1:4,2:9",), "must fall"),
        (("tokens=17", "merge=keys"), "starts from 16 patches"),
        (("tokens=4", "merge=size"), "must be one of colour, keys"),
        (("image_px=33",), "multiple of the host's patches"),
        (("tokens=many",), "invalid literal"),
    ):
        with pytest.raises(UsageError, match=words):
            load_checkpoint(str(tmp_path / "host"), patch)
    with pytest.raises(UsageError, match="is a FocusViT, which has superpixels of its own"):
        load_checkpoint(make_checkpoint(tmp_path / "ckpt"), ("tokens=4",))


def test_our_own_folders_are_no_hosts(tmp_path):
    assert not is_host_folder(make_checkpoint(tmp_path / "ckpt"))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text('{"config": {}, "facts": {}}')
    assert not is_host_folder(str(tmp_path / "run"))
