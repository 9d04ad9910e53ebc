"""Segmentation: any image, no crash, the same result every time, ids dense and connected, clear refusals."""

import concurrent.futures
import json
import re
import subprocess
import sys

import cv2
import numpy as np
import pytest
from fast_slic import Slic
from PIL import Image

from pipeline.commandline import parse
from pipeline.errors import UsageError
from pipeline.preprocess import PreprocessConfig
from pipeline.superpixels import slic as slic_module
from pipeline.superpixels.connected import connected_regions
from pipeline.superpixels.segment import LIGHT, SuperpixelConfig, scale_for_segmentation, segment_image
from testkit import regions as slow
from testkit.checkout import ROOT

CONFIG = SuperpixelConfig()


def photo(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Smooth colour blobs with a little grain: SLIC finds regions in it, as in a photo."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (8, 8, 3), np.uint8)
    smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC).astype(int)
    return np.clip(smooth + rng.integers(-6, 7, smooth.shape), 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    "shape", [(256, 341), (341, 256), (64, 64), (32, 32), (8, 8), (3, 5), (1, 1), (1, 500), (37, 2)]
)
def test_maps_keep_their_promises_at_every_size(shape: tuple[int, int]) -> None:
    regions, merges = segment_image(photo(*shape), CONFIG)
    n = len(merges) + 1
    assert regions.dtype == merges.dtype == np.uint8 and merges.shape == (n - 1, 2)
    assert int(regions.max()) + 1 == n <= 256 and slow.is_dense(regions) and slow.all_connected(regions)
    assert sorted(merges[:, 1].tolist()) == list(range(1, n)) and (merges[:, 0] < merges[:, 1]).all()
    if min(shape) >= 8:
        assert n >= 0.8 * 256  # small images are enlarged, so that they have as many regions as others
        assert abs(np.log((regions.shape[0] / regions.shape[1]) / (shape[0] / shape[1]))) < 0.02


@pytest.mark.parametrize("kind", ["constant", "noise", "checkerboard", "gradient"])
def test_unnatural_images_are_segmented_too(kind: str) -> None:
    grid = np.indices((256, 256))
    image = {
        "constant": np.full((256, 256), 7),
        "noise": np.random.default_rng(0).integers(0, 256, (256, 256)),
        "checkerboard": grid.sum(0) % 2 * 255,
        "gradient": grid[1],
    }[kind]
    regions, merges = segment_image(np.dstack([image] * 3).astype(np.uint8), CONFIG)
    assert 1 <= len(merges) + 1 <= 256 and slow.is_dense(regions) and slow.all_connected(regions)


def test_the_same_image_gives_the_same_map_from_any_thread_and_after_any_other_image() -> None:
    images = [photo(120, 160, seed) for seed in range(6)]
    alone = [segment_image(image, CONFIG) for image in images]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda image: segment_image(image, CONFIG), images * 3))
    for expected, found in zip(alone * 3, together):
        assert np.array_equal(expected.map, found.map) and np.array_equal(expected.merges, found.merges)


def test_the_portable_class_gives_the_same_labels() -> None:
    for seed in range(5):
        image = photo(90 + seed, 120, seed)
        fast, portable = (kind(num_components=200, num_threads=1) for kind in (slic_module.slic_class(), Slic))
        assert np.array_equal(fast.iterate(image), portable.iterate(image))


def test_slic_is_the_librarys_own_with_its_own_lab() -> None:
    image = photo(128, 170)
    plain = slic_module.slic_class()(num_components=300, compactness=7, num_threads=1, convert_to_lab=True)
    assert np.array_equal(slic_module.slic(image, 300, 7.0, 10), plain.iterate(image, 10))


def test_views_and_read_only_arrays_are_fine() -> None:
    image = photo(96, 128)
    expected = segment_image(np.ascontiguousarray(image[:, ::-1]), CONFIG)
    view = image[:, ::-1]
    view.flags.writeable = False
    assert np.array_equal(segment_image(view, CONFIG).map, expected.map)


def test_the_segmentation_size_follows_the_pixels_per_region() -> None:
    sizes = {
        shape: scale_for_segmentation(photo(*shape), CONFIG).shape[:2] for shape in [(256, 342), (32, 32), (64, 64)]
    }
    assert sizes == {(256, 342): (128, 171), (32, 32): (160, 160), (64, 64): (128, 128)}
    large = SuperpixelConfig(pixels_per_region=340)
    assert scale_for_segmentation(photo(256, 342), large).shape[:2] == (256, 342)


def test_few_regions_can_be_asked_for() -> None:
    regions, merges = segment_image(photo(64, 64), SuperpixelConfig(fine_regions=16, seed_regions=16))
    assert 1 <= len(merges) + 1 <= 16 and int(regions.max()) == len(merges)


@pytest.mark.parametrize("seed", range(5))
def test_connected_regions_equal_a_flood_fill(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2 + seed, rng.integers(1, 30, 2))
    assert np.array_equal(connected_regions(labels), slow.components(labels))


@pytest.mark.parametrize(
    "image",
    [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)],
)
def test_what_is_not_an_image_is_refused(image: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"uint8 \(H, W, 3\)"):
        segment_image(image, CONFIG)


@pytest.mark.parametrize(
    "field, value",
    [
        ("fine_regions", 0),
        ("fine_regions", 257),
        ("pixels_per_region", 15),
        ("seed_regions", 255),
        ("compactness", 0.0),
        ("iterations", 0),
        ("spatial_weight", -1.0),
    ],
)
def test_settings_are_checked(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{field} is {value}; choose"):
        SuperpixelConfig(**{field: value})


def test_without_avx2_the_import_is_tried_in_a_child_and_the_error_says_what_to_do(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(slic_module, "cpu_flags", frozenset)
    slic_module.slic_class.cache_clear()
    try:
        assert slic_module.slic_class()  # this machine's build survives, so it is used
        slic_module.slic_class.cache_clear()
        monkeypatch.setattr(slic_module, "_IMPORT", "import os, signal; os.kill(os.getpid(), signal.SIGILL)")
        with pytest.raises(UsageError, match=r"AVX2.*Portable build"):
            slic_module.slic_class()
    finally:
        slic_module.slic_class.cache_clear()


def test_nothing_ends_the_process_for_tiny_and_thin_images() -> None:
    """In a child process, because fast-slic called bare dies of these with a division by zero."""
    code = """
import json, numpy as np
from pipeline.superpixels.slic import slic
from pipeline.superpixels.segment import SuperpixelConfig, segment_image
rng = np.random.default_rng(0)
sizes = [(1, 1), (1, 2), (2, 2), (3, 3), (1, 17), (8, 8), (16, 16), (1, 3000), (3000, 1), (5, 4000), (700, 700)]
counts = []
for h, w in sizes:
    image = rng.integers(0, 256, (h, w, 3), np.uint8)
    for k in (1, 2, 100, 256, 5000):
        slic(image, k, 10.0, 2)
    counts.append(len(segment_image(image, SuperpixelConfig()).merges) + 1)
print(json.dumps(counts))
"""
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert child.returncode == 0, child.stderr
    assert all(1 <= n <= 256 for n in json.loads(child.stdout))


def test_the_page_types_the_light_superpixels() -> None:
    page = (ROOT / "pipeline" / "SUPERPIXELS.md").read_text().replace("\\\n", "")
    words = re.search(r"^focusvit preprocess (.*fine-regions.*)$", page, re.MULTILINE)[1].split()
    config = parse(PreprocessConfig, words, prog="focusvit preprocess")
    assert config.superpixels == LIGHT


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "1", "CMYK"])
def test_a_pil_image_is_taken_as_what_it_shows(mode: str) -> None:
    image = Image.fromarray(photo(40, 30)).convert(mode)
    found, expected = segment_image(image, CONFIG), segment_image(np.asarray(image.convert("RGB")), CONFIG)
    assert (found.map == expected.map).all() and (found.merges == expected.merges).all()


@pytest.mark.parametrize(
    ("wrong", "words"),
    [(b"bytes", "not bytes"), ([[1, 2]], "not list"), (None, "not NoneType"), (np.zeros((4, 4, 3)), "got float64")],
)
def test_what_is_no_image_is_named(wrong: object, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        segment_image(wrong, CONFIG)
