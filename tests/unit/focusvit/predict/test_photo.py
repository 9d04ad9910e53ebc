"""`focusvit.superpixels`: one map for one image, whatever holds it."""

import numpy as np
import pytest
import torch
from PIL import Image

import focusvit
from focusvit.predict.photo import as_rgb, given
from pipeline.errors import UsageError
from pipeline.image.image import decode_image


@pytest.fixture(scope="module")
def rgb() -> np.ndarray:
    random = np.random.default_rng(0)
    small = random.integers(0, 256, (6, 8, 3), np.uint8)
    return np.asarray(Image.fromarray(small).resize((80, 60), Image.Resampling.BICUBIC))


@pytest.mark.parametrize("tokens", [1, 16, 100, 300])
def test_exactly_so_many_regions_at_the_size_of_the_image(rgb, tokens):
    found = focusvit.superpixels(rgb, tokens)
    assert found.shape == (60, 80) and found.dtype == np.int64
    assert np.array_equal(np.unique(found), np.arange(tokens))


def test_every_holder_gives_the_same_map(rgb):
    wanted = focusvit.superpixels(rgb, 32)
    tensor = torch.from_numpy(rgb.copy()).permute(2, 0, 1)
    for image in (Image.fromarray(rgb), tensor, tensor.float() / 255, rgb / 255.0):
        assert np.array_equal(focusvit.superpixels(image, 32), wanted)
    gray = np.asarray(Image.fromarray(rgb).convert("L"))
    assert np.array_equal(focusvit.superpixels(gray, 9), focusvit.superpixels(Image.fromarray(gray), 9))


def test_sixteen_bits_are_read_as_their_file_is(tmp_path):
    """PIL itself makes such a photo white."""
    deep = np.linspace(1500, 61000, 80 * 60).reshape(60, 80).astype(np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    wanted = decode_image((tmp_path / "deep.png").read_bytes())
    with Image.open(tmp_path / "deep.png") as image:
        assert image.mode == "I;16" and np.array_equal(as_rgb(image), wanted)
    for other, said in (
        (deep // 16, "at most 14 would come out dark"),
        (deep.astype(np.float32), "mode F does not say"),
    ):
        with pytest.raises(ValueError, match=said):
            as_rgb(Image.fromarray(other))
    with pytest.raises(ValueError, match=r"uint16 \(60, 80\)"):
        as_rgb(deep)
    with pytest.raises(UsageError, match=r"images are wanted .* not int"):
        given(3)


@pytest.mark.parametrize("image", [np.zeros((2, 3, 4, 5), np.uint8), np.zeros((4, 4, 3)) - 1, "photo.jpg", None])
def test_what_is_no_image_is_said(image):
    with pytest.raises(ValueError, match=r"an image must be|must lie in \[0, 1\]"):
        focusvit.superpixels(image, 4)
