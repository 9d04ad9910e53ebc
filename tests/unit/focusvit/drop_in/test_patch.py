"""A patched ViT of another library: its own logits with one region per patch, fewer tokens otherwise, and back."""

import pytest
import torch
from torch import nn

import focusvit
from focusvit.drop_in.hosts import find_parts
from focusvit.drop_in.latents import latent_weights
from focusvit.model.partitions import grid_cells
from focusvit.model.regions import overlap_matrix

SIDE, PATCH = 32, 8
PIXELS = torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
ONE_EACH = torch.arange(16).view(1, 4, 4).expand(2, -1, -1)
QUARTERS = (torch.arange(8)[:, None] // 4 * 2 + torch.arange(8) // 4).expand(2, -1, -1)


def _hugging_face(kind="ViTForImageClassification"):
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        image_size=SIDE, patch_size=PATCH, hidden_size=32, num_hidden_layers=4, num_attention_heads=2,
        intermediate_size=64, num_labels=5,
    )  # fmt: skip
    return getattr(transformers, kind)(config)


def _timm():
    timm = pytest.importorskip("timm")
    return timm.models.vision_transformer.VisionTransformer(
        img_size=SIDE, patch_size=PATCH, embed_dim=32, depth=4, num_heads=2, num_classes=5
    )


def _torchvision():
    models = pytest.importorskip("torchvision.models")
    return models.VisionTransformer(
        image_size=SIDE, patch_size=PATCH, num_layers=4, num_heads=2, hidden_dim=32, mlp_dim=64, num_classes=5
    )


def _stand_in():
    """The parts and names of torchvision's class, for where torchvision is absent."""
    model = nn.Module()
    model.image_size, model.patch_size = SIDE, PATCH
    model.conv_proj = nn.Conv2d(3, 32, PATCH, PATCH)
    model.encoder = nn.Module()
    layers = [nn.TransformerEncoderLayer(32, 2, 64, 0.0, batch_first=True) for _ in range(4)]
    model.encoder.layers = nn.Sequential(*layers)
    model.heads = nn.Linear(32, 5)
    model.class_token = nn.Parameter(torch.randn(1, 1, 32))

    def forward(x):
        x = model.conv_proj(x).flatten(2).transpose(1, 2)
        x = torch.cat([model.class_token.expand(x.shape[0], -1, -1), x], 1)
        return model.heads(model.encoder.layers(x)[:, 0])

    model.forward = forward
    return model


HOSTS = [_hugging_face, _timm, _torchvision, _stand_in]


def _logits(model, **kwargs):
    out = model(PIXELS, **kwargs)
    return getattr(out, "logits", out)


@pytest.fixture(params=HOSTS, ids=lambda make: make.__name__.strip("_"))
def host(request):
    torch.manual_seed(0)
    model = request.param().eval()
    for parameter in model.parameters():  # libraries start heads at zero, where every comparison would hold
        nn.init.normal_(parameter, std=0.1)
    return model


@torch.no_grad()
def test_one_region_per_patch_changes_nothing_and_unpatch_restores(host):
    before, names = _logits(host), list(host.state_dict())
    focusvit.patch(host, tokens=16, grid_depth=2)
    torch.testing.assert_close(_logits(host, maps=ONE_EACH), before, atol=1e-5, rtol=0)
    assert list(host.state_dict()) == names
    focusvit.unpatch(host)
    assert torch.equal(_logits(host), before)


@torch.no_grad()
def test_later_blocks_see_as_many_tokens_as_regions(host):
    focusvit.patch(host, tokens=4, grid_depth=2)
    blocks = find_parts(host).blocks
    seen = []
    for block in blocks:
        block.register_forward_hook(lambda module, args, out: seen.append(args[0].shape[1]))
    plain = _logits(host, maps=QUARTERS)
    assert seen == [17, 17, 5, 5]
    swapped = _logits(host, maps=3 - QUARTERS)
    torch.testing.assert_close(swapped, plain, atol=1e-5, rtol=0)  # ids mean nothing
    assert not torch.allclose(_logits(host, maps=QUARTERS.transpose(1, 2) // 2), plain, atol=1e-4)


@torch.no_grad()
def test_pixels_alone_are_enough_and_given_maps_are_not_kept(host):
    asked = []

    def segmenter(pixels, tokens):
        asked.append(tuple(pixels.shape))
        return QUARTERS

    focusvit.patch(host, tokens=4, grid_depth=1, segmenter=segmenter)
    given = _logits(host, maps=QUARTERS)
    assert asked == []
    torch.testing.assert_close(_logits(host), given)
    assert asked == [tuple(PIXELS.shape)]
    focusvit.patch(focusvit.unpatch(host), tokens=4, grid_depth=1)
    assert _logits(host).isfinite().all()


@torch.no_grad()
def test_as_many_latents_as_patches_or_cells_change_nothing_and_fewer_do(host):
    before = _logits(host)
    focusvit.patch(host, tokens=16, grid_depth=2, latents=16)
    torch.testing.assert_close(_logits(host, maps=ONE_EACH), before, atol=1e-5, rtol=0)
    focusvit.patch(focusvit.unpatch(host), tokens=4, grid_depth=2)
    pooled = _logits(host, maps=QUARTERS)
    focusvit.patch(focusvit.unpatch(host), tokens=4, grid_depth=2, latents=4)  # the cells are the quarters
    torch.testing.assert_close(_logits(host, maps=QUARTERS), pooled, atol=1e-5, rtol=0)
    torch.testing.assert_close(_logits(host, maps=3 - QUARTERS), pooled, atol=1e-5, rtol=0)  # ids mean nothing
    focusvit.patch(focusvit.unpatch(host), tokens=4, grid_depth=2, latents=2)
    light = _logits(host, maps=QUARTERS)
    assert light.isfinite().all() and not torch.allclose(light, pooled, atol=1e-6)
    assert torch.equal(_logits(focusvit.unpatch(host)), before)


def test_latents_are_means_over_the_pixels_of_their_cells():
    maps = torch.randint(0, 5, (2, 12, 12), generator=torch.Generator().manual_seed(0))
    weights = latent_weights(overlap_matrix(maps, (6, 6), 5), (6, 6), 7)
    cells = torch.from_numpy(grid_cells(7, 6, 6)).repeat_interleave(2, 0).repeat_interleave(2, 1)
    for image in range(2):
        for cell in range(7):
            inside = maps[image][cells == cell]
            expected = torch.tensor([float((inside == k).sum()) for k in range(5)]) / len(inside)
            torch.testing.assert_close(weights[image, cell], expected)


def test_a_backbone_alone_is_patched_and_gradients_reach_the_first_weights():
    model = focusvit.patch(_hugging_face("ViTModel"), tokens=4)
    out = model(pixel_values=PIXELS).last_hidden_state
    assert out.shape == (2, 5, 32)
    out.square().sum().backward()
    assert model.embeddings.patch_embeddings.projection.weight.grad.abs().sum() > 0


def test_what_cannot_be_patched_is_named():
    with pytest.raises(TypeError, match=r"Linear cannot be patched"):
        focusvit.patch(nn.Linear(2, 2))
    model = _stand_in()
    with pytest.raises(ValueError, match="has 4 blocks"):
        focusvit.patch(model, grid_depth=4)
    with pytest.raises(ValueError, match="has 16 patches"):
        focusvit.patch(model, latents=17)
    model.encoder.layers[3].self_attn = nn.Linear(2, 2)
    with pytest.raises(TypeError, match="attention Linear"):
        focusvit.patch(model, latents=4)
    assert not any(module._forward_pre_hooks for module in model.modules())
    focusvit.patch(model, tokens=4)
    with pytest.raises(ValueError, match="patched already"):
        focusvit.patch(model)
    with pytest.raises(ValueError, match="patch grid"):
        model(PIXELS, maps=torch.zeros(2, 5, 5, dtype=torch.long))
