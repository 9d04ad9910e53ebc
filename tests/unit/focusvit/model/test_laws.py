"""Laws that hold for every variant of FocusViT and for its controls."""

import pytest
import torch
from torch import Tensor, nn

from focusvit.model.model import FocusViT, FocusViTConfig
from focusvit.model.regions import EMPTY_BIAS
from testkit import model_reference as reference

VARIANTS = {**reference.VARIANTS, **reference.NESTED_VARIANTS, **reference.CONTROL_VARIANTS}
WITH_MAPS = [*reference.VARIANTS, *reference.NESTED_VARIANTS]
# Float32: another batch size or token order lets the matrix product sum in another order.
TOLERANCE = {"rtol": 1e-4, "atol": 2e-5}


def build(name: str, *, double: bool = False, **values: object) -> FocusViT:
    torch.manual_seed(0)
    model = FocusViT(reference.tiny_config(**{**VARIANTS[name], **values}))
    return reference.shaken(model.double() if double else model).eval()


def batch(config: FocusViTConfig, num: int = 3) -> tuple[Tensor, Tensor | None]:
    given = reference.inputs(config, num)
    return given["images"], given.get("maps")


@pytest.mark.parametrize("name", VARIANTS)
def test_an_image_alone_equals_the_same_image_in_a_batch(name: str) -> None:
    model = build(name)
    inputs = reference.inputs(model.config, 12)
    together = model(**inputs)
    model.images_at_once = 5
    with torch.no_grad():  # in slices of the batch
        torch.testing.assert_close(model(**inputs), together, **TOLERANCE)
    for i in (0, 11):
        alone = model(**{key: value[i : i + 1] for key, value in inputs.items()})
        torch.testing.assert_close(alone, together[i : i + 1], **TOLERANCE)


@pytest.mark.parametrize("name", VARIANTS)
def test_a_training_step_changes_no_buffer(name: str) -> None:
    """So ranks need not send them to each other, and a checkpoint need not hold them."""
    model = build(name).train()
    before = {key: value.clone() for key, value in model.named_buffers()}
    model(**reference.inputs(model.config)).sum().backward()
    assert not before.keys() & model.state_dict().keys()
    assert all(torch.equal(value, before[key]) for key, value in model.named_buffers())


@pytest.mark.parametrize("name", WITH_MAPS)
def test_permuting_ids_permutes_tokens_and_leaves_logits(name: str) -> None:
    model = build(name)
    inputs = reference.inputs(model.config)
    order = torch.randperm(7, generator=torch.Generator().manual_seed(5))
    moved = {**inputs, "maps": order[inputs["maps"].long()]}
    before, after = model.forward_intermediates(**inputs), model.forward_intermediates(**moved)
    torch.testing.assert_close(after["tokens"][:, order], before["tokens"], **TOLERANCE)
    torch.testing.assert_close(after["logits"], before["logits"], **TOLERANCE)


@pytest.mark.parametrize("name", WITH_MAPS)
@pytest.mark.parametrize("num_tokens", [1, 2, 24, 40])
def test_the_token_budget_is_free_at_every_call(name: str, num_tokens: int) -> None:
    """One region, fewer and more than the 24 patches; every token gets something."""
    model = build(name)
    seen = model.forward_intermediates(**reference.inputs(model.config, 2, num_tokens), num_tokens=num_tokens)
    assert seen["tokens"].shape == (2, num_tokens, 16)
    assert seen["logits"].isfinite().all()
    assert (seen["overlap"].sum(2) > 0).all()
    assert (seen["tokens"].abs().sum(2) > 0).all()


@pytest.mark.parametrize("num_tokens", [3, 5, 20])
@pytest.mark.parametrize("name", ["grid_cells", "random_cells", "merge", "merge_class"])
def test_controls_take_another_budget_at_every_call(name: str, num_tokens: int) -> None:
    """The same as a model that was made for this budget."""
    images, _ = batch(build(name).config)
    made_for_it = build(name, tokens=num_tokens)
    torch.testing.assert_close(build(name)(images, None, num_tokens), made_for_it(images), **TOLERANCE)


@pytest.mark.parametrize("name", [name for name in reference.VARIANTS if "window" not in name])
def test_exactly_k_regions_need_no_mask_and_no_padding(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, calls, real = build(name), [], nn.functional.scaled_dot_product_attention

    def attention(q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        calls.append((k.shape[2], attn_mask))
        return real(q, k, v, attn_mask=attn_mask)

    monkeypatch.setattr(nn.functional, "scaled_dot_product_attention", attention)
    for num_tokens in (5, 24):
        model(**reference.inputs(model.config, 2, num_tokens), num_tokens=num_tokens)
        after_pooling = calls[model.config.grid_depth :]
        longest = num_tokens + model.num_class_tokens
        assert after_pooling and all(keys in (num_tokens, longest, *_latents(model)) for keys, _ in after_pooling)
        assert all(mask is None or float(mask.detach().min()) > EMPTY_BIAS / 2 for _, mask in calls)
        calls.clear()


def _latents(model: FocusViT) -> tuple[int, ...]:
    return (model.config.num_latents, model.config.num_latents + 1) if model.config.has_latents else ()


@pytest.mark.parametrize("name", reference.VARIANTS)
def test_empty_slots_are_masked_and_change_nothing(name: str) -> None:
    """Images with other numbers of regions in one batch: each gets the logits that it gets alone, at its exact K."""
    model = build(name, allow_empty=True)
    exact = build(name)
    few, many = (reference.inputs(model.config, 2, k) for k in (5, 9))
    alone = [exact(**{key: value[:1] for key, value in few.items()}, num_tokens=5)]
    alone += [exact(**{key: value[1:] for key, value in many.items()}, num_tokens=9)]
    spread = torch.tensor([0, 2, 3, 7, 10])[few["maps"].long()]  # empty slots between the others
    for maps in (few["maps"].long(), spread):
        mixed = {key: torch.cat([few[key][:1], many[key][1:]]) for key in few}
        mixed["maps"] = torch.cat([maps[:1], many["maps"][1:].long()])
        torch.testing.assert_close(model(**mixed, num_tokens=11), torch.cat(alone), **TOLERANCE)
    model.train()(**mixed, num_tokens=11).square().sum().backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert gradients and all(gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize("name", VARIANTS)
def test_every_weight_gets_a_finite_gradient(name: str) -> None:
    model = build(name).train()
    model(**reference.inputs(model.config)).square().sum().backward()
    silent = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    # The bias of keys cannot matter: softmax ignores what all keys share. It is part of larger tensors elsewhere.
    assert silent == []
    assert all(p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("name", VARIANTS)
def test_gradients_agree_with_differences_in_float64(name: str) -> None:
    """With random regions in the weights alone: the regions are drawn by the pixels, a step function."""
    model = build(name, double=True)
    inputs = reference.inputs(model.config, 1)
    pixels = ((inputs.pop("images").double() - 128) / 64).requires_grad_("random" not in name)
    weight = model.blocks[-1].mlp.fc1.weight

    def total(images: Tensor, _: Tensor) -> Tensor:
        return model(images, **inputs).sum(1)

    assert torch.autograd.gradcheck(total, (pixels, weight), fast_mode=True, atol=1e-4)


@pytest.mark.parametrize("name", VARIANTS)
def test_checkpointed_blocks_give_the_same_gradients(name: str) -> None:
    grads = []
    for checkpointed in (False, True):
        model = build(name, checkpoint_blocks=checkpointed).train()
        model(**reference.inputs(model.config)).square().sum().backward()
        grads.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    torch.testing.assert_close(grads[0], grads[1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", VARIANTS)
def test_the_same_seed_gives_the_same_bits(name: str) -> None:
    torch.use_deterministic_algorithms(True)
    try:
        out = []
        for _ in range(2):
            model = build(name, drop_path=0.3, dropout=0.1).train()
            logits = model(**reference.inputs(model.config))
            logits.square().sum().backward()
            out.append((logits, model.blocks[0].attn.qkv.weight.grad))
        assert torch.equal(out[0][0], out[1][0])
        assert torch.equal(out[0][1], out[1][1])
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("name", VARIANTS)
def test_bfloat16_stays_near_float32(name: str) -> None:
    model = build(name)
    inputs = reference.inputs(model.config)
    expected = model(**inputs)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = model(**inputs)
    for found in (mixed, model.bfloat16()(**inputs)):
        assert (found.float() - expected).norm() < 0.1 * expected.norm()


@pytest.mark.parametrize("name", VARIANTS)
def test_intermediates_have_their_names_and_shapes(name: str) -> None:
    model = build(name)
    config = model.config
    inputs = reference.inputs(config, 2)
    seen = model.forward_intermediates(**inputs)
    first = 1 if config.readout == "cls" else 0
    torch.testing.assert_close(seen["logits"], model(**inputs), **TOLERANCE)
    torch.testing.assert_close(seen["features"], model.features(**inputs), **TOLERANCE)
    assert seen["stem"].shape == seen["grid"].shape == (2, 24, 16)
    pooled = config.tokens is not None and config.partition != "merge"
    assert ("overlap" in seen) == pooled
    assert seen["tokens"].shape == (2, 7 if pooled else 24, 16)
    for weights in [*seen["attention"], *seen["reads"]]:
        torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]))
    if config.trunk in ("latent", "hybrid"):
        assert seen["latents"].shape == (2, 3, 16)
        assert len(seen["reads"]) == config.num_reads
        assert seen["reads"][0].shape == (2, 2, first + 3, 7 if pooled else 24)
    if config.has_latents:
        assert seen["latent_weights"].shape == (2, 3, 7 if pooled else 24)
    assert len(seen["attention"]) == config.depth + (config.depth - config.grid_depth) * (config.trunk == "gather")


def test_a_map_at_half_resolution_is_as_good_when_regions_agree() -> None:
    model = build("default")
    images, maps = batch(model.config)
    larger = maps.repeat_interleave(2, 1).repeat_interleave(2, 2)
    torch.testing.assert_close(model(images, larger), model(images, maps), **TOLERANCE)


def test_uint8_images_are_normalised_inside() -> None:
    model = build("default")
    images, maps = batch(model.config)
    mean, std = (torch.tensor(x).view(1, 3, 1, 1) for x in (model.config.mean, model.config.std))
    torch.testing.assert_close(model((images / 255 - mean) / std, maps), model(images, maps), **TOLERANCE)


@pytest.mark.parametrize(("over", "reached"), [("centres", (-6, -1, 1, 6)), ("raster", (-2, -1, 1, 2))])
def test_windows_reach_the_nearest_places_and_the_class_token(over: str, reached: tuple[int, ...]) -> None:
    model = build("plain_window", window=5, window_over=over)
    images, _ = batch(model.config, 1)
    weights = model.forward_intermediates(images)["attention"][0][0, 0]
    assert (weights[0] > 0).all()
    assert (weights[:, 0] > 0).all()
    inner = 1 + 1 * 6 + 1  # row 1, column 1: two to the left in raster order is the end of row 0
    near = {0, inner, *(inner + step for step in reached)}
    assert set(weights[inner].nonzero().flatten().tolist()) == near


def test_position_modulates_the_reads() -> None:
    """Exchanging the positions of two equal-sized regions changes what latents read, with the tokens' content fixed."""
    model = build("latent", position="pooled")
    images, maps = batch(model.config, 1)
    seen = model.forward_intermediates(images, maps)
    read, tokens, latents = model.reads[0], seen["tokens"], seen["latents"]
    features = model.region_features(seen["regions"])
    places = model.region_features(seen["latent_regions"])
    bias = torch.zeros(1, 1, 1, 7)
    moved = features[:, torch.tensor([1, 0, 2, 3, 4, 5, 6])]
    same = read(latents, places, tokens, features, bias)
    assert not torch.allclose(same, read(latents, places, tokens, moved, bias), atol=1e-3)
    heavier = bias.clone()
    heavier[..., 0] = 1e4
    only_first = read(latents, places, tokens[:, :1], features[:, :1], bias[..., :1])
    torch.testing.assert_close(read(latents, places, tokens, features, heavier), only_first, **TOLERANCE)


def test_random_regions_belong_to_the_image_and_differ_between_images() -> None:
    model = build("random_cells")
    images, _ = batch(model.config, 6)
    overlap = model.forward_intermediates(images)["overlap"]
    torch.testing.assert_close(model.forward_intermediates(images.flip(0))["overlap"].flip(0), overlap)
    assert not torch.equal(overlap[0], overlap[1])


def test_drop_path_and_dropout_rest_at_inference_and_grow_with_depth() -> None:
    model = build("default", drop_path=0.3)
    assert [block.drop_path.rate for block in model.blocks] == pytest.approx([0.0, 0.1, 0.2, 0.3])
    images, maps = batch(model.config)
    torch.testing.assert_close(model(images, maps), build("default")(images, maps), rtol=0, atol=0)
    model.train()
    assert not torch.equal(model(images, maps), model(images, maps))
