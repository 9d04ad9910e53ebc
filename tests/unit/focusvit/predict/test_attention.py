"""Where a model looks: shares sum to 1, lie where the model can look, and equal what the weights say."""

import numpy as np
import pytest
import torch

from focusvit.model.model import FocusViT
from focusvit.predict import attention as looking
from focusvit.predict import look, pictures
from focusvit.runs.checkpoint import load_model
from pipeline.errors import DataError
from pipeline.sources.embedded import draw_shape
from testkit import model_reference as reference
from testkit.tiny_checkpoint import make_checkpoint

VARIANTS = [
    {"trunk": "full"},
    {"trunk": "full", "readout": "mean"},
    {"trunk": "full", "tokens": None},
    {"trunk": "window"},
    {"trunk": "kv_pool", "num_latents": 3},
    {"trunk": "gather", "num_latents": 3},
    {"trunk": "latent", "num_latents": 3, "num_reads": 2},
    {"trunk": "hybrid", "num_latents": 3, "num_reads": 1, "readout": "mean"},
    {"trunk": "full", "partition": "grid"},
    {"trunk": "full", "grid_depth": 0},
    {"trunk": "full", "grid_depth": 4},
]


def _seen(values):
    torch.manual_seed(0)
    model = reference.shaken(FocusViT(reference.tiny_config(**values))).eval()
    tokens = model.config.tokens
    maps = reference.maps(2, model.config, tokens) if model.config.needs_maps else None
    with torch.no_grad():
        return model, model.forward_intermediates(reference.images(2, model.config), maps, tokens), maps


@pytest.mark.parametrize("values", VARIANTS, ids=str)
def test_every_block_has_a_picture_and_its_shares_sum_to_one(values):
    model, seen, _ = _seen(values)
    found = looking.layers(model, seen)
    assert len(found) == model.config.depth
    for number, layer in enumerate(found):
        on_patches = number < model.config.grid_depth or model.config.tokens is None
        assert layer.over == ("patches" if on_patches else "regions")
        assert len(layer.shares) == (model.config.num_patches if on_patches else model.config.tokens)
        assert layer.shares.min() >= 0 and layer.shares.sum() == pytest.approx(1)
    flow = looking.rollout(model, seen)
    assert flow is not None and len(flow) == model.config.num_patches
    assert flow.min() >= 0 and flow.sum() == pytest.approx(1)


def test_attention_of_a_block_is_the_class_tokens_row_in_the_mean_over_heads():
    model, seen, _ = _seen({"trunk": "full"})
    row = seen["attention"][-1][0, :, 0, 1:].double().mean(0)
    np.testing.assert_allclose(looking.layers(model, seen)[-1].shares, (row / row.sum()).numpy(), atol=1e-6)


def test_rollout_equals_a_product_written_out():
    model, seen, _ = _seen({"trunk": "full", "grid_depth": 1, "depth": 2})
    first, second = (part[0].double().mean(0).numpy() for part in seen["attention"])
    overlap = seen["overlap"][0].double().numpy()
    pool = np.zeros((1 + overlap.shape[0], 1 + overlap.shape[1]))
    pool[0, 0], pool[1:, 1:] = 1, overlap / overlap.sum(1, keepdims=True)
    half = [0.5 * (rows + np.eye(len(rows))) for rows in (first, second)]
    row = (half[1] @ pool @ half[0])[0, 1:]
    np.testing.assert_allclose(looking.rollout(model, seen), row / row.sum(), atol=1e-9)


def test_a_latent_model_shows_what_its_latents_are_pooled_from_and_read():
    model, seen, _ = _seen({"trunk": "latent", "num_latents": 3, "num_reads": 2})
    np.testing.assert_allclose(looking.latent_shares(seen), seen["latent_weights"][0].numpy(), atol=1e-9)
    reads = looking.last_read(seen)
    assert reads.shape == (2, model.num_class_tokens + 3, model.config.tokens)
    np.testing.assert_allclose(reads.sum(2), 1, atol=1e-5)
    _, seen, _ = _seen({"trunk": "full"})
    assert looking.latent_shares(seen) is None and looking.last_read(seen) is None


def test_merging_shows_the_blocks_before_the_first_merge():
    model, seen, _ = _seen({"trunk": "full", "partition": "merge", "tokens": 7, "grid_depth": 2})
    assert [layer.over for layer in looking.layers(model, seen)] == ["patches"] * 3
    assert looking.rollout(model, seen) is None


@pytest.fixture
def photos(tmp_path):
    for number in range(2):
        pictures.save_png(str(tmp_path / "in" / f"{number}.png"), draw_shape(np.random.default_rng(number), 3, 64)[0])
    return tmp_path / "in"


def _look(tmp_path, photos, *more, **model):
    checkpoint = make_checkpoint(tmp_path / "ckpt", **model)
    code = look.main(["--checkpoint", checkpoint, "--out", str(tmp_path / "out"), str(photos), *more])
    return code, sorted(path.name for path in (tmp_path / "out").iterdir())


def test_the_verb_writes_what_the_model_has(tmp_path, photos, capsys):
    code, names = _look(tmp_path, photos, "--budgets", "4,9", trunk="hybrid", num_latents=4, depth=4)
    assert code == 0 and len(names) == 8
    assert {name.rsplit("-", 1)[1] for name in names} == {"budgets.png", "attention.png", "latents.png", "reads.png"}
    sheet = pictures.read_png(str(tmp_path / "out" / "000-0-attention.png"))
    assert sheet.shape[1] > 700 and (sheet[:4] == 255).all()
    assert "9 superpixel tokens" in capsys.readouterr().out


def test_a_plain_vit_shows_attention_only_and_a_bad_image_is_named(tmp_path, photos, capsys):
    (photos / "bad.png").write_bytes(b"no")
    code, names = _look(tmp_path, photos, tokens=None)
    assert code == 1 and [name.rsplit("-", 1)[1] for name in names] == ["attention.png"] * 2
    assert "bad.png" in capsys.readouterr().err


def test_a_place_that_takes_no_pictures_is_not_blamed_on_the_images(tmp_path, photos, capsys):
    (tmp_path / "out").touch()
    with pytest.raises(DataError, match=r"cannot write .*/out/000-0-budgets"):
        _look(tmp_path, photos, "--budgets", "4")
    assert "bad image" not in capsys.readouterr().err


@pytest.mark.parametrize("more", [["--budgets", "4,x"], ["--budgets", ""], ["--tokens", "4,9"]])
def test_wrong_budgets_are_named(tmp_path, photos, capsys, more):
    with pytest.raises(SystemExit) as left:
        _look(tmp_path, photos, *more)
    assert left.value.code == 2 and more[0] in capsys.readouterr().err


def test_frames_of_a_slider_are_numbered_by_budget_and_by_block(tmp_path, photos):
    eye = look.Eye(*load_model(make_checkpoint(tmp_path / "ckpt"), "cpu"))
    images = [path.read_bytes() for path in sorted(photos.iterdir())]
    found = [(series, step) for series, step, _ in look.slider_frames(eye, images, (4, 9))]
    assert found == [("look_token_budget", 4), ("look_token_budget", 9), *(("look_attention", i) for i in range(4))]
