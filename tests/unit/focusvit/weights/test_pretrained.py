"""Weights of other libraries' ViTs: every tensor arrives, or is named."""

from pathlib import Path

import pytest
import torch
from torch import nn

from focusvit.model.model import FocusViT
from focusvit.weights.files import read_weights
from focusvit.weights.pretrained import load_pretrained
from testkit import model_reference as reference
from testkit.torchvision_like import torchvision_like

SQUARE = {"image_px": 16, "patch_px": 4, "stem": "linear", "position": "pooled"}


def target(**values: object) -> FocusViT:
    torch.manual_seed(3)
    plain = {"tokens": None, "grid_depth": 0, **SQUARE}
    return FocusViT(reference.tiny_config(**{**plain, **values})).eval()


def hugging_face(classes: int = 5, pooler: bool = False) -> nn.Module:
    import transformers

    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=4, num_attention_heads=2, intermediate_size=64, image_size=16, patch_size=4,
        num_labels=classes, layer_norm_eps=1e-6,
    )  # fmt: skip
    kind = transformers.ViTModel if pooler else transformers.ViTForImageClassification
    return reference.shaken(kind(config)).eval()


def test_torchvision_weights_give_torchvision_logits() -> None:
    source, model = torchvision_like(), target()
    report = load_pretrained(model, source.state_dict())
    assert report.new == () and report.left_out == {} and str(report) == "all weights were set"
    images = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(model(images), source(images), rtol=0, atol=1e-5)


def test_hugging_face_weights_give_hugging_face_logits() -> None:
    source, model = hugging_face(), target()
    report = load_pretrained(model, source.state_dict())
    assert report.new == () and report.left_out == {}
    images = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(model(images), source(images).logits, rtol=0, atol=1e-5)


def test_hugging_face_names_before_version_5_load_as_well() -> None:
    source = hugging_face()
    old = {}
    for name, value in source.state_dict().items():
        name = name.replace("vit.layers.", "vit.encoder.layer.")
        for new, before in (
            ("attention.q_proj", "attention.attention.query"), ("attention.k_proj", "attention.attention.key"),
            ("attention.v_proj", "attention.attention.value"), ("attention.o_proj", "attention.output.dense"),
            ("mlp.fc1", "intermediate.dense"), ("mlp.fc2", "output.dense"),
        ):  # fmt: skip
            name = name.replace(new, before)
        old[name] = value
    assert any("attention.attention.query.bias" in name for name in old)
    model, expected = target(), target()
    load_pretrained(expected, source.state_dict())
    assert load_pretrained(model, old).new == ()
    images = torch.randn(1, 3, 16, 16)
    torch.testing.assert_close(model(images), expected(images), rtol=0, atol=0)


def test_a_body_without_head_leaves_the_pooler_out_by_name() -> None:
    report = load_pretrained(target(), hugging_face(pooler=True).state_dict())
    assert set(report.new) == {"head.weight", "head.bias"}
    assert set(report.left_out) == {"pooler.dense.weight", "pooler.dense.bias"}
    assert str(report).startswith("new are head; not used are pooler.dense.weight (")


def test_our_own_names_are_timms_and_load_from_files(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    source = reference.shaken(target())
    torch.save({"model": source.state_dict()}, tmp_path / "vit.pt")
    save_file(source.state_dict(), tmp_path / "vit.safetensors")
    for file in ("vit.pt", "vit.safetensors"):
        model = target()
        assert load_pretrained(model, tmp_path / file) == ((), {})
        assert torch.equal(model.head.weight, source.head.weight)
    torch.save([1, 2], tmp_path / "other.pt")
    with pytest.raises(ValueError, match="does not hold a table of tensors"):
        read_weights(tmp_path / "other.pt")


@pytest.mark.parametrize(
    "values",
    [
        {"trunk": "full", "pooling": "mean_std"}, {"trunk": "hybrid", "num_reads": 1, "token_depth": 1},
        {"trunk": "kv_pool", "position": "both"}, {"trunk": "gather"},
        {"trunk": "window", "window_projection": True, "pooling": "attention"},
    ],
)  # fmt: skip
def test_every_trunk_takes_the_weights_and_keeps_only_its_new_parts(values: dict[str, object]) -> None:
    source = torchvision_like()
    model = target(tokens=7, grid_depth=1, **values)
    report = load_pretrained(model, source.state_dict())
    assert not any(
        name.startswith(("blocks.", "norm", "patch", "cls", "pos_")) for name in report.new if "_proj" not in name
    )
    images, maps = reference.images(1, model.config), reference.maps(1, model.config, 7)
    assert model(images, maps).isfinite().all()


def test_new_parts_start_silent_so_the_pretrained_stream_is_kept() -> None:
    """With one region per patch, a pooled model with pretrained weights gives the original's logits."""
    source = torchvision_like()
    for values in ({"pooling": "mean_std"}, {"pooling": "attention"}, {"position": "both"}, {"overlap": "hard"}):
        model = target(**{"tokens": 16, "grid_depth": 2, "pooling": "mean", "area_bias": True, **values})
        load_pretrained(model, source.state_dict())
        images = torch.randn(2, 3, 16, 16)
        maps = reference.patch_map(model.config).expand(2, -1, -1)
        torch.testing.assert_close(model(images, maps), source(images), rtol=0, atol=1e-5)


def test_every_tensor_without_a_place_is_named_and_the_model_is_unchanged() -> None:
    source = torchvision_like(depth=5, width=24).state_dict()
    source["extra.thing"] = torch.zeros(3)
    model = target()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ValueError) as error:
        load_pretrained(model, source)
    message = str(error.value)
    assert "extra.thing (3,): the model has no such part" in message
    assert "encoder.layers.encoder_layer_4.ln_1.weight (24,): the model has no such part" in message
    assert "encoder.layers.encoder_layer_0.ln_1.weight (24,): the model's blocks.0.norm1.weight is (16,)" in message
    assert "no tensor for: blocks.3.attn.qkv.weight" in message
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_lone_query_without_key_and_value_is_named() -> None:
    weights = hugging_face().state_dict()
    lost = next(name for name in weights if name.endswith("k_proj.bias"))
    del weights[lost]
    with pytest.raises(ValueError, match=r"q_proj\.bias .*no such part.*no tensor for: blocks\.0\.attn\.qkv\.bias"):
        load_pretrained(target(), weights)


def test_a_conv_stem_has_no_tensors_in_a_plain_vit() -> None:
    model = target(stem="conv", tokens=7)
    with pytest.raises(ValueError, match=r"conv_proj\.weight .*no tensor for: patch_embed\.convs"):
        load_pretrained(model, torchvision_like().state_dict())


def test_positions_are_resized_to_another_grid_and_kept_on_the_same() -> None:
    source = torchvision_like().state_dict()
    model = target(image_px=(16, 24))
    assert load_pretrained(model, source).new == ()
    torch.testing.assert_close(model.pos_embed[:, 0], source["encoder.pos_embedding"][:, 0])
    by_mean = target(readout="mean")
    report = load_pretrained(by_mean, source)
    torch.testing.assert_close(by_mean.pos_embed, source["encoder.pos_embedding"][:, 1:])
    assert "class_token" in report.left_out


def test_another_number_of_classes_keeps_a_new_head() -> None:
    report = load_pretrained(target(num_classes=9), torchvision_like().state_dict())
    assert set(report.new) == {"head.weight", "head.bias"}
    assert "a head for 5 classes; the model has 9" in report.left_out.values()
