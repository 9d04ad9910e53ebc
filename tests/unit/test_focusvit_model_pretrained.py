"""Weights of other libraries' ViTs: every tensor arrives, or is named."""

from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from testkit import model_reference as reference
from torch import Tensor, nn

from focusvit.groups import freeze, scaled_groups
from focusvit.model import FocusViT
from focusvit.original import original_rows
from focusvit.presets import focusvit_tiny
from focusvit.pretrained import load_pretrained, read_weights

SQUARE = {"image_px": 16, "patch_px": 4, "stem": "linear", "position": "pooled"}


def target(**values: object) -> FocusViT:
    torch.manual_seed(3)
    plain = {"tokens": None, "grid_depth": 0, **SQUARE}
    return FocusViT(reference.tiny_config(**{**plain, **values})).eval()


class TorchvisionLike(nn.Module):
    """The layout and names of torchvision's VisionTransformer, 16 px images, patches of 4."""

    def __init__(self, depth: int = 4, width: int = 16, heads: int = 2, classes: int = 5) -> None:
        super().__init__()
        self.conv_proj = nn.Conv2d(3, width, 4, 4)
        self.class_token = nn.Parameter(torch.randn(1, 1, width))
        self.encoder = nn.Module()
        self.encoder.pos_embedding = nn.Parameter(torch.randn(1, 17, width))
        self.encoder.layers = nn.ModuleDict()
        for i in range(depth):
            layer = nn.Module()
            layer.ln_1, layer.ln_2 = nn.LayerNorm(width, 1e-6), nn.LayerNorm(width, 1e-6)
            layer.self_attention = nn.MultiheadAttention(width, heads, batch_first=True)
            layer.mlp = nn.Sequential(
                nn.Linear(width, 4 * width), nn.GELU(), nn.Dropout(0), nn.Linear(4 * width, width), nn.Dropout(0)
            )
            self.encoder.layers[f"encoder_layer_{i}"] = layer
        self.encoder.ln = nn.LayerNorm(width, 1e-6)
        self.heads = nn.Sequential(OrderedDict(head=nn.Linear(width, classes)))

    def forward(self, images: Tensor) -> Tensor:
        x = self.conv_proj(images).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_token.expand(len(x), -1, -1), x], 1) + self.encoder.pos_embedding
        for layer in self.encoder.layers.values():
            h = layer.ln_1(x)
            x = x + layer.self_attention(h, h, h, need_weights=False)[0]
            x = x + layer.mlp(layer.ln_2(x))
        return self.heads(self.encoder.ln(x)[:, 0])


def torchvision_like(**values: int) -> nn.Module:
    torch.manual_seed(0)
    return reference.shaken(TorchvisionLike(**values)).eval()


def hugging_face(classes: int = 5, pooler: bool = False) -> nn.Module:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed (make soak installs it)")
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
    assert report.new == () and report.left_out == {} and report.resized == ()
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


def test_our_own_names_are_timms_and_load_from_files(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    source = reference.shaken(target())
    torch.save({"model": source.state_dict()}, tmp_path / "vit.pt")
    save_file(source.state_dict(), tmp_path / "vit.safetensors")
    for file in ("vit.pt", "vit.safetensors"):
        model = target()
        assert len(load_pretrained(model, tmp_path / file).loaded) == len(source.state_dict())
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


def test_a_conv_stem_is_new_only_when_asked() -> None:
    model = target(stem="conv", tokens=7)
    with pytest.raises(ValueError, match=r"conv_proj\.weight .*no tensor for: patch_embed\.convs"):
        load_pretrained(model, torchvision_like().state_dict())
    report = load_pretrained(model, torchvision_like().state_dict(), leave_out=["patch_embed."])
    assert set(report.left_out.values()) == {"asked for"}
    assert {name.split(".")[0] for name in report.new} == {"patch_embed", "pool"}


def test_positions_are_resized_to_another_grid_and_kept_on_the_same() -> None:
    source = torchvision_like().state_dict()
    model = target(image_px=(16, 24))
    report = load_pretrained(model, source)
    assert report.resized == ("pos_embed",)
    torch.testing.assert_close(model.pos_embed[:, 0], source["encoder.pos_embedding"][:, 0])
    by_mean = target(readout="mean")
    report = load_pretrained(by_mean, source)
    torch.testing.assert_close(by_mean.pos_embed, source["encoder.pos_embedding"][:, 1:])
    assert "class_token" in report.left_out


def test_another_number_of_classes_keeps_a_new_head() -> None:
    report = load_pretrained(target(num_classes=9), torchvision_like().state_dict())
    assert set(report.new) == {"head.weight", "head.bias"}
    assert "a head for 5 classes; the model has 9" in report.left_out.values()


@pytest.mark.parametrize("name", original_rows())
def test_every_row_of_the_original_builds_trains_and_loads(name: str) -> None:
    small = {"image_px": 16, "patch_px": 4, "width": 24, "depth": 4, "num_classes": 5, "stem": "linear", "tokens": 6}
    if original_rows()[name].model.tokens is None:
        small["tokens"] = None
    row = original_rows(**small)[name]
    torch.manual_seed(0)
    model = FocusViT(row.model)
    if row.pretrained:
        load_pretrained(model, torchvision_like(width=24, heads=row.model.heads).state_dict())
    frozen = freeze(model, row.freeze)
    groups = scaled_groups(model, weight_decay=row.weight_decay, lr_scales=row.lr_scales)
    optimizer = torch.optim.AdamW([{**group, "lr": row.lr * group["lr_scale"]} for group in groups])
    images = reference.images(8, row.model)
    maps = reference.maps(8, row.model, 6) if row.model.needs_maps else None
    losses = []
    for _ in range(3):
        loss = nn.functional.cross_entropy(model(images, maps), torch.arange(8) % 5)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert all(torch.isfinite(torch.tensor(losses)))
    assert all(model.get_parameter(weight).grad is None for weight in frozen)
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters())) - len(frozen)


def test_groups_scale_by_the_last_pattern_and_spare_vectors() -> None:
    model = FocusViT(focusvit_tiny(depth=2, num_classes=3))
    groups = scaled_groups(model, weight_decay=0.1, lr_scales={"blocks": 0.5, "blocks.1": 0.7, "head": 10.0})
    of = {id(p): (group["lr_scale"], group["weight_decay"]) for group in groups for p in group["params"]}
    named = dict(model.named_parameters())
    assert of[id(named["blocks.0.attn.qkv.weight"])] == (0.5, 0.1)
    assert of[id(named["blocks.1.attn.qkv.weight"])] == (0.7, 0.1)
    assert of[id(named["head.bias"])] == (10.0, 0.0)
    assert of[id(named["patch_embed.proj.weight"])] == (1.0, 0.1)
    assert of[id(named["pos_embed"])] == (1.0, 0.0)
    for call in (lambda: freeze(model, ["block"]), lambda: scaled_groups(model, weight_decay=0, lr_scales={"hed": 2})):
        with pytest.raises(ValueError, match="no weight of the model matches"):
            call()
