"""Configs, presets and controls; what is refused, and with which words."""

import dataclasses
import json

import pytest
import torch
from PIL import Image

from focusvit.model import presets
from focusvit.model.inputs import check_values
from focusvit.model.model import FocusViT, FocusViTConfig
from focusvit.runs.config_json import from_json
from focusvit.train.config import TrainConfig
from pipeline.errors import UsageError
from testkit import model_reference as reference

tiny = reference.tiny_config


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"width": 10, "heads": 4}, "width 10 is not a multiple of model.heads 4"),
        ({"image_px": 30}, r"image_px is 30, model.patch_px 4: each side .* multiple of the patch"),
        ({"image_px": 30, "patch_px": 6}, "patch_px is 6; the conv stem halves the image"),
        ({"trunk": "sparse"}, "trunk is 'sparse'; it must be one of full, latent, hybrid"),
        ({"tokens": 0}, "tokens is 0; use at least 1, or None"),
        ({"grid_depth": 5}, r"grid_depth is 5; it must lie in 0..depth \(4\)"),
        ({"trunk": "latent", "grid_depth": 4}, "no block left for the latents"),
        ({"trunk": "latent", "num_reads": 4}, "num_reads is 4; the 3 latent blocks allow 1..3"),
        ({"partition": "merge", "tokens": 25}, "tokens 25 exceeds the 24 patches"),
        ({"partition": "merge", "trunk": "latent"}, "partition merge works inside full attention"),
        ({"trunk": "latent", "latent_start": "coarse"}, "latent_start is 'coarse'; it must be one of seeds, learned"),
        ({"drop_path": 1.0}, "drop_path is 1.0; it is a probability below 1"),
        ({"std": (1.0, 0.0, 1.0)}, "std above 0"),
        ({"num_latents": 0}, "num_latents is 0; it must be at least 1"),
        ({"area_bias": True, "trunk": "window"}, "area_bias acts on full attention of tokens.* 'window'"),
        ({"area_bias": True, "partition": "merge"}, "area_bias acts on full attention of tokens.* 'merge'"),
        ({"area_bias": True, "tokens": None}, "area_bias acts on full attention of tokens.* tokens None"),
        ({"then": ((2, 7),)}, r"then is \(\(2, 7\),\): blocks must rise from 2 to 3 .* fall from 6 to 1"),
        ({"then": ((1, 5),)}, "blocks must rise from 2 to 3"),
        ({"then": ((2, 4), (3, 5))}, "blocks must rise from 2 to 3"),
        ({"then": ((4, 4),)}, "blocks must rise from 2 to 3"),
        ({"then": ((2, 4),), "trunk": "latent"}, "then merges superpixels .* model.trunk is 'latent'"),
        ({"then": ((2, 4),), "partition": "grid"}, "then merges superpixels .* partition 'grid'"),
        ({"window_projection": True}, "window_projection belongs to trunk window.* 'full'"),
        ({"window_over": "raster"}, "window_over belongs to trunk window.* 'full'"),
    ],
)
def test_a_wrong_config_is_named_with_its_fix(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny(**values)


def test_a_config_survives_json() -> None:
    config = tiny(mean=(0.5, 0.5, 0.5), then=((2, 5), (3, 4)))
    assert FocusViTConfig(**json.loads(json.dumps(dataclasses.asdict(config)))) == config


def test_a_config_of_an_older_checkpoint_is_read_without_what_was_retired() -> None:
    values = {**dataclasses.asdict(tiny()), "micro_batches": 4}
    assert from_json(FocusViTConfig, values) == tiny()
    train = {"model": {**values, "image_px": 32}, "data": {"image_px": 32}}
    assert from_json(TrainConfig, train).model == tiny(image_px=32)
    with pytest.raises(UsageError, match="unknown key 'macro_batches'"):
        from_json(FocusViTConfig, {"macro_batches": 4})


@pytest.mark.parametrize(
    ("images", "maps", "num_tokens", "message"),
    [
        (
            (2, 3, 16, 16),
            (2, 4, 6),
            None,
            r"images have shape \(2, 3, 16, 16\); this model takes \(B, 3, \*\(16, 24\)\)",
        ),
        ((2, 3, 16, 24), None, None, "maps are missing; a model with tokens 7 and partition 'superpixel' needs maps"),
        ((2, 3, 16, 24), (2, 5, 6), None, r"maps have shape \(2, 5, 6\).*Hm a multiple of 4 and Wm of 6"),
        ((2, 3, 16, 24), (1, 4, 6), None, r"maps have shape \(1, 4, 6\)"),
        ((2, 3, 16, 24), (2, 4, 6), 0, "num_tokens is 0; it must be at least 1"),
    ],
)
def test_shapes_that_do_not_fit_are_refused_in_forward(
    images: tuple[int, ...], maps: tuple[int, ...] | None, num_tokens: int | None, message: str
) -> None:
    model = FocusViT(tiny())
    with pytest.raises(ValueError, match=message):
        model(torch.zeros(images), None if maps is None else torch.zeros(maps, dtype=torch.uint8), num_tokens)


def test_float_maps_and_needless_maps_are_refused() -> None:
    images = torch.zeros(1, 3, 16, 24)
    with pytest.raises(ValueError, match=r"dtype torch.float32; .* need integers"):
        FocusViT(tiny())(images, torch.zeros(1, 4, 6))
    with pytest.raises(ValueError, match=r"maps are given; .* takes no maps"):
        FocusViT(tiny(partition="grid"))(images, torch.zeros(1, 4, 6, dtype=torch.uint8))
    with pytest.raises(ValueError, match="a plain ViT has no token budget"):
        FocusViT(tiny(tokens=None))(images, num_tokens=4)


@pytest.mark.parametrize(("given", "fitting"), [(100, True), (9, True), (5, True), (6, False)])
def test_another_number_of_regions_is_told_with_the_argument_that_takes_it(given: int, fitting: bool) -> None:
    """More and fewer than the model's 7, and images that differ: one sentence, not an index error of torch."""
    model = FocusViT(tiny()).eval()
    images, maps = reference.images(2, model.config), reference.maps(2, model.config, given, scale=4)
    if not fitting:
        maps[0] = maps[0].clamp(max=3)
    with pytest.raises(ValueError, match=r"this call is for 7 tokens: .*num_tokens=\d+$") as error:
        model(images, maps)
    if fitting:
        assert str(error.value).endswith(f"hold {given} regions and this call is for 7 tokens: pass num_tokens={given}")
        assert model(images, maps, given).shape == (2, 5)
    else:
        assert "hold 4 to 6 regions" in str(error.value) and "set model.allow_empty" in str(error.value)
        assert FocusViT(tiny(allow_empty=True))(images, maps, given).shape == (2, 5)
    with pytest.raises(ValueError, match="ids from -1 on; ids of regions begin with 0"):
        model(images, maps.short() - 1, given)
    at_the_boundary = f"tokens allow 0..6: pass num_tokens={given}" if given > 7 else "regions for 7"
    with pytest.raises(ValueError, match=at_the_boundary):
        check_values(model.config, images, maps)


def test_pictures_and_arrays_in_the_place_of_tensors_are_named() -> None:
    model, images, maps = FocusViT(tiny()), reference.images(1, tiny()), reference.maps(1, tiny(), 7)
    picture = Image.fromarray(images[0].permute(1, 2, 0).numpy())
    for wrong, name in ((picture, "a PIL Image"), ([picture], "a list"), (images.numpy(), "a numpy ndarray")):
        with pytest.raises(ValueError, match=rf"images is {name}; this model takes torch tensors: .*permute\(0, 3,"):
            model(wrong, maps)
    with pytest.raises(ValueError, match="maps is a numpy ndarray; "):
        model(images, maps.numpy())


def test_values_are_checked_at_the_boundary() -> None:
    config = tiny()
    images, maps = reference.images(2, config), reference.maps(2, config, 7)
    check_values(config, images, maps)
    with pytest.raises(ValueError, match=r"the map of image 0 holds ids 0\.\.6; 5 tokens allow 0\.\.4"):
        check_values(config, images, maps, 5)
    with pytest.raises(ValueError, match=r"image 0 holds 7 regions for 9 tokens; absent: \[7, 8\]"):
        check_values(config, images, maps, 9)
    check_values(tiny(allow_empty=True), images, maps, 9)
    with pytest.raises(ValueError, match=r"holds ids -1\.\.6"):
        check_values(config, images, maps.short() - (maps == 0).short())
    broken = images.float()
    broken[1, 0, 3, 3] = float("nan")
    with pytest.raises(ValueError, match="image 1 of the batch holds NaN or infinite pixels"):
        check_values(config, broken, maps)


@pytest.mark.parametrize(("size", "width", "heads"), [("tiny", 192, 3), ("small", 384, 6), ("base", 768, 12)])
def test_sizes_are_those_of_deit(size: str, width: int, heads: int) -> None:
    lla = presets.focusvit(size, **{**presets.LLA, "num_classes": 10})
    for config in (presets.focusvit(size, num_classes=10), lla, presets.vit(size, num_classes=10)):
        assert (config.width, config.heads, config.depth, config.num_classes) == (width, heads, 12, 10)
    assert lla.trunk == "hybrid"


def test_vit_small_has_the_known_number_of_parameters() -> None:
    """22,050,664 with 1000 classes (timm's vit_small_patch16_224)."""
    model = FocusViT(presets.vit("small"))
    assert sum(p.numel() for p in model.parameters()) == 22_050_664


def test_the_model_for_small_images_runs() -> None:
    config = presets.focusvit_64px(image_px=32, patch_px=4, num_classes=4)
    model = FocusViT(config)
    assert model(reference.images(2, config), reference.maps(2, config, 32)).shape == (2, 4)
