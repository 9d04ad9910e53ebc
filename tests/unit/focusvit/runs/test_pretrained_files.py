"""Files that other libraries write, loaded from disk: the model gives their logits; damaged files are named."""

import pytest
import torch

from focusvit.model.model import FocusViT
from focusvit.runs.pretrained import load_pretrained, read_weights
from testkit import model_reference as reference

IMAGES = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def _target() -> FocusViT:
    torch.manual_seed(3)
    return FocusViT(
        reference.tiny_config(
            image_px=16, patch_px=4, stem="linear", position="pooled", tokens=None, grid_depth=0, num_classes=5
        )
    ).eval()


def _shape():
    config = _target().config
    return {"width": config.width, "depth": config.depth, "heads": config.heads}


def _hugging_face():
    import transformers

    shape = _shape()
    config = transformers.ViTConfig(
        hidden_size=shape["width"], num_hidden_layers=shape["depth"], num_attention_heads=shape["heads"],
        intermediate_size=4 * shape["width"], image_size=16, patch_size=4, num_labels=5, layer_norm_eps=1e-6,
    )  # fmt: skip
    return reference.shaken(transformers.ViTForImageClassification(config)).eval()


def _timm():
    timm = pytest.importorskip("timm", reason="timm is not installed (tests/benchmarks/peers/vit_libraries.sh)")
    shape = _shape()
    model = timm.models.vision_transformer.VisionTransformer(
        img_size=16, patch_size=4, embed_dim=shape["width"], depth=shape["depth"], num_heads=shape["heads"],
        num_classes=5,
    )  # fmt: skip
    return reference.shaken(model).eval()


def _torchvision():
    models = pytest.importorskip("torchvision.models", reason="torchvision is not installed (.../vit_libraries.sh)")
    shape = _shape()
    model = models.VisionTransformer(
        image_size=16, patch_size=4, num_layers=shape["depth"], num_heads=shape["heads"], hidden_dim=shape["width"],
        mlp_dim=4 * shape["width"], num_classes=5,
    )  # fmt: skip
    return reference.shaken(model).eval()


@pytest.mark.parametrize("make", [_hugging_face, _timm, _torchvision], ids=lambda make: make.__name__.strip("_"))
@pytest.mark.parametrize("ending", ["safetensors", "pth"])
@torch.no_grad()
def test_a_file_of_each_library_gives_its_logits(tmp_path, make, ending):
    from safetensors.torch import save_file

    source, model, place = make(), _target(), tmp_path / f"weights.{ending}"
    weights = {name: value.contiguous() for name, value in source.state_dict().items()}
    if ending == "safetensors":
        save_file(weights, place)
    else:
        torch.save({"state_dict": weights}, place)
    report = load_pretrained(model, place)
    assert report.new == () and report.left_out == {}
    out = source(IMAGES)
    torch.testing.assert_close(model(IMAGES), getattr(out, "logits", out), rtol=0, atol=1e-5)


@torch.no_grad()
def test_a_model_that_hugging_face_saved_in_several_files_loads_by_its_folder(tmp_path):
    source, model = _hugging_face(), _target()
    source.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    assert load_pretrained(model, tmp_path).new == ()
    torch.testing.assert_close(model(IMAGES), source(IMAGES).logits, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["cut.safetensors", "cut.pth"])
def test_a_damaged_file_is_named(tmp_path, name):
    from safetensors.torch import save_file

    save = save_file if name.endswith("safetensors") else torch.save
    save({"a": torch.zeros(1000)}, tmp_path / name)
    whole = (tmp_path / name).read_bytes()
    for damaged in (whole[:100], b"", b"no weights at all"):
        (tmp_path / name).write_bytes(damaged)
        with pytest.raises(ValueError, match=f"{name} cannot be read as weights") as error:
            read_weights(tmp_path / name)
        assert "\n" not in str(error.value)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"holds no \.safetensors"):
        read_weights(tmp_path / "empty")


def test_names_of_a_wrapped_model_are_those_of_the_model(tmp_path):
    model = _target()
    wrapped = {f"module._orig_mod.{name}": value for name, value in model.state_dict().items()}
    torch.save(wrapped, tmp_path / "wrapped.pth")
    assert read_weights(tmp_path / "wrapped.pth").keys() == model.state_dict().keys()
