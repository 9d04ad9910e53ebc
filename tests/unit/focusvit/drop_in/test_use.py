"""A patched Hugging Face ViT under what people do to their models: copy, save, compile, checkpoint, look inside."""

import copy
import io

import pytest
import torch
import transformers
from torch import nn

import focusvit
from focusvit.drop_in import slicing
from focusvit.drop_in.hosts import find_host
from focusvit.model.cost import peak_bytes

PIXELS = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
OTHERS = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def _vit(**changes) -> nn.Module:
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        image_size=32, patch_size=8, hidden_size=32, num_hidden_layers=4, num_attention_heads=2, intermediate_size=64,
        num_labels=5, **changes,
    )  # fmt: skip
    model = transformers.ViTForImageClassification(config).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)
    return model


def _patched(model, latents):
    return focusvit.patch(model, tokens=5, depth=2, latents=latents, mean=(0.5,) * 3, std=(0.5,) * 3, merge="colour")


@pytest.fixture(params=[None, 3], ids=["tokens", "latents"])
def latents(request):
    return request.param


def test_a_copy_and_a_pickle_are_patched_on_their_own(latents):
    model = _patched(_vit(), latents)
    expected = model(PIXELS).logits.detach()
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    for other in (copy.deepcopy(model), torch.load(file, weights_only=False)):
        torch.testing.assert_close(other(PIXELS).logits, expected)
        plain = _vit()(PIXELS).logits
        assert torch.equal(focusvit.unpatch(other)(PIXELS).logits, plain)
        assert not torch.allclose(plain, expected, atol=1e-4)
        torch.testing.assert_close(model(PIXELS).logits, expected)  # unpatching the copy left the original alone


def test_saving_writes_the_weights_of_the_unpatched_model(tmp_path, latents):
    model = _patched(_vit(), latents)
    model.save_pretrained(tmp_path)
    again = transformers.ViTForImageClassification.from_pretrained(tmp_path).eval()
    assert torch.equal(again(PIXELS).logits, _vit()(PIXELS).logits)
    assert list(model.state_dict()) == list(again.state_dict())
    torch.testing.assert_close(_patched(again, latents)(PIXELS).logits, model(PIXELS).logits)


def _gradient(model, checkpointing):
    if checkpointing:
        model.activation_checkpointing_enable()
    model.train()
    loss = model(PIXELS).logits.square().sum() + 3 * model(OTHERS).logits.square().sum()
    loss.backward()
    return [parameter.grad for parameter in model.parameters()]


def test_checkpointed_blocks_give_the_gradients_of_their_own_forward(latents):
    """Two forwards before one backward: each block is computed again with the superpixels of its own batch."""
    plain = _gradient(_patched(_vit(), latents), False)
    again = _gradient(_patched(_vit(), latents), True)
    for one, other in zip(plain, again):
        torch.testing.assert_close(other, one, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_hidden_states_and_attentions_show_where_tokens_begin(latents):
    model = _patched(_vit(attn_implementation="eager"), latents)
    out = model(PIXELS, output_hidden_states=True, output_attentions=True)
    keys = 6 if latents is None else latents + 1
    assert [tuple(x.shape) for x in out.attentions] == [(2, 2, 17, 17)] * 2 + [(2, 2, 6, keys)] * 2
    assert [x.shape[1] for x in out.hidden_states] == [17, 17, 17, 6, 17]  # the last block gives every patch its token
    for shares in out.attentions:
        torch.testing.assert_close(shares.sum(-1), torch.ones(shares.shape[:-1]))
    other = _patched(_vit(), latents)
    torch.testing.assert_close(other(PIXELS).logits, out.logits, atol=1e-5, rtol=0)


@torch.no_grad()
def test_another_image_size_and_number_format_work(latents):
    model = _patched(_vit(), latents)
    large = torch.randn(1, 3, 48, 64)
    assert model(large, interpolate_pos_encoding=True).logits.isfinite().all()
    full = model(PIXELS).logits
    half = model.to(torch.bfloat16)(PIXELS.bfloat16()).logits
    assert (half - full).norm() < 0.1 * full.norm()


@torch.no_grad()
def test_a_compiled_model_gives_the_same_logits(latents):
    model = _patched(_vit(), latents)
    compiled = torch.compile(model, backend="eager")
    torch.testing.assert_close(compiled(PIXELS).logits, model(PIXELS).logits)
    torch.testing.assert_close(compiled(OTHERS).logits, model(OTHERS).logits)


def test_a_mask_over_patches_is_refused_and_the_next_call_goes_on(latents):
    model = _patched(_vit(), latents)
    mask = torch.ones(2, 17, dtype=torch.long)
    mask[:, 9:] = 0
    with pytest.raises(ValueError, match="attention_mask, which counts patches"):
        model(PIXELS, attention_mask=mask)
    assert model(PIXELS).logits.isfinite().all()


@pytest.mark.parametrize("name", ["Swin", "ConvNext", "Bert"])
def test_other_classes_are_refused_in_one_paragraph(name):
    small = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    sizes = {"Swin": {"embed_dim": 8, "depths": [1], "num_heads": [1], "image_size": 32}, "Bert": small}
    sizes["ConvNext"] = {"hidden_sizes": [8] * 4, "depths": [1] * 4}
    config = getattr(transformers, f"{name}Config")(**sizes[name])
    model = getattr(transformers, f"{name}Model")(config)
    with pytest.raises(TypeError, match="cannot be patched") as error:
        focusvit.patch(model)
    assert type(model).__name__ in str(error.value) and "\n" not in str(error.value)


@torch.no_grad()
def test_what_a_trainer_passes_along_is_no_mask(latents):
    model = _patched(_vit(), latents)
    out = model(pixel_values=PIXELS, labels=torch.tensor([0, 1]), num_items_in_batch=torch.tensor(2))
    assert out.loss.isfinite()


@torch.no_grad()
def test_blocks_before_pooling_run_in_slices_and_memory_falls(monkeypatch):
    images = torch.randn(32, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    maps = (torch.arange(8)[:, None] // 4 * 2 + torch.arange(8) // 4).expand(32, -1, -1)
    model = focusvit.patch(_vit(), tokens=4, depth=2, merge="colour")
    whole = model(images, maps=maps).logits
    before = peak_bytes(lambda: model(images, maps=maps))
    monkeypatch.setitem(slicing.LEAST_TOKENS, "cpu", 32)
    seen = []
    find_host(model).attentions[0].register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(len(next(iter((*args, *kwargs.values()))))), with_kwargs=True
    )
    torch.testing.assert_close(model(images, maps=maps).logits, whole, atol=1e-5, rtol=1e-5)
    assert seen == [7, 7, 7, 7, 4]  # 32 images of 4 tokens are 7 of 17
    assert peak_bytes(lambda: model(images, maps=maps)) < 0.7 * before
    seen.clear()
    with torch.enable_grad():  # nothing is cut where gradients are kept
        model(images, maps=maps)
    focusvit.unpatch(model)(images)
    assert seen == [32, 32]


def test_maps_are_refused_where_nothing_reads_them():
    model = focusvit.patch(_vit(), tokens=5, depth=2, merge="keys")
    with pytest.raises(ValueError, match="takes no maps: leave them out"):
        model(PIXELS, maps=torch.zeros(2, 8, 8, dtype=torch.int64))
    assert model(PIXELS).logits.shape == (2, 5)
