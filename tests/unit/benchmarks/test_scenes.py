"""`bench scenes`: what each row reads of a frame, and that it learns."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from focusvit.model.model import FocusViT
from pipeline.errors import UsageError
from tests.benchmarks.hosts.dense import Split
from tests.benchmarks.hosts.images import Sample
from tests.benchmarks.scenes.learn import Learning, best_rate, crop, learned, scored
from tests.benchmarks.scenes.rows import features, read_too, reading, rows, view
from tests.benchmarks.scenes.scenes import BenchScenesConfig, main

SIZE, WIDTH = (32, 64), 32
ROWS = rows(SIZE, WIDTH)
ALL = [one for row in ROWS for one in (row, read_too(row)) if one]
COUNT = ROWS[0].tokens


@pytest.fixture(scope="module")
def camvid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Frames of two drives, half dark and half bright: class 0 and class 1, some pixels void."""
    root, draw = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    for split, names in (("train", ("a_1", "a_2", "b_1", "b_2")), ("val", ("a_3", "b_3"))):
        for name in names:
            border = int(draw.integers(40, 90))
            truth = np.repeat([np.arange(128) >= border], 64, 0).astype(np.uint8)
            image = np.clip(60 + 130 * truth[..., None] + draw.normal(0, 12, (64, 128, 3)), 0, 255)
            truth[:4] = 11
            for kind, pixels in (("images", image.astype(np.uint8)), ("labels", truth)):
                (root / "camvid" / split / kind).mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(root / "camvid" / split / kind / f"{name}.png"), pixels)
    return root


def samples(root: Path, split: str) -> list[Sample]:
    folder = root / "camvid" / split
    return [Sample(path, labels=folder / "labels" / path.name) for path in sorted((folder / "images").iterdir())]


@pytest.mark.parametrize("row", ALL, ids=lambda row: row.name)
def test_a_reading_has_a_row_of_features_for_each_of_its_regions(row) -> None:
    """And every pixel of the view lies in the region that it is read from."""
    draw = np.random.default_rng(1)
    seen = view(row, draw.integers(0, 256, (64, 128, 3), np.uint8), COUNT)
    assert seen.image.shape[:2] == row.model.image_size
    with torch.inference_mode():
        values = features(FocusViT(row.model).eval(), row, [seen], COUNT)[0]
    one = reading(row, seen, values)
    assert values.shape == (len(np.unique(one.regions)), WIDTH) and one.smooth is not row.superpixels
    assert one.regions.max() == len(values) - 1
    shares = one.shares(np.zeros((64, 128), np.uint8), 11)
    assert shares[:, 0].sum() == 64 * 128 and (shares[:, 0] > 0).all()


def test_features_read_over_superpixels_are_means_of_the_patches_in_them() -> None:
    row = read_too(ROWS[-1])
    assert row is not None
    seen = view(row, np.random.default_rng(2).integers(0, 256, (64, 128, 3), np.uint8), COUNT)
    model = FocusViT(row.model).eval()
    with torch.inference_mode():
        patches = features(model, ROWS[-1], [seen], COUNT)[0].reshape(4, 8, WIDTH)
        found = features(model, row, [seen], COUNT)[0]
    assert seen.regions is not None
    for region in range(COUNT):
        inside = np.argwhere(seen.regions == region)
        mean = torch.stack([patches[y // 8, x // 8] for y, x in inside]).mean(0)
        torch.testing.assert_close(found[region], mean, rtol=1e-4, atol=1e-5)


def test_a_mirrored_view_is_that_of_the_mirrored_frame() -> None:
    frame = np.random.default_rng(3).integers(0, 256, (32, 64, 3), np.uint8)
    found, wanted = view(ROWS[0], frame, COUNT, flip=True), view(ROWS[0], frame[:, ::-1], COUNT)
    assert np.array_equal(found.image, wanted.image) and np.array_equal(found.regions, wanted.regions)


def test_crops_keep_the_proportions_of_a_frame_and_lie_in_it() -> None:
    draw = np.random.default_rng(4)
    shares = []
    for _ in range(200):
        top, left, height, width = crop(360, 480, 0.5, draw)
        assert 0 <= top <= 360 - height and 0 <= left <= 480 - width and abs(width / height - 4 / 3) < 0.01
        shares.append(height * width / (360 * 480))
    assert 0.49 < min(shares) < 0.55 and 0.95 < max(shares) <= 1


@pytest.mark.parametrize("row", ROWS[:3], ids=lambda row: row.name)
def test_rows_learn_a_scene_of_two_classes(row, camvid: Path) -> None:
    train, val = samples(camvid, "train"), samples(camvid, "val")
    split = Split("x", range(4), range(4, 6))
    learning = Learning(epochs=25, batch=2, rates=(3e-3,))
    (found,), rates = learned(row, [], [*train, *val], [split], COUNT, learning)
    torch.manual_seed(0)
    untrained = scored(FocusViT(row.model).eval(), row, val, COUNT)
    assert len(found.tables) == len(found.borders) == 2 and rates == [3e-3]
    assert found.tables.sum() == 2 * (64 - 4) * 128
    assert found.miou > 80 > untrained.miou


def test_the_rate_is_the_best_on_held_out_frames_of_those_to_learn_from(camvid: Path) -> None:
    """Of a rate that moves nothing and one that learns the latter."""
    learned_from = samples(camvid, "train") * 4
    learning = Learning(epochs=1, batch=2, rates=(1e-9, 3e-3), rate_epochs=6)
    assert best_rate(ROWS[3], learned_from, COUNT, learning) == 3e-3


def test_the_bench_tells_both_questions(camvid: Path, monkeypatch: pytest.MonkeyPatch, results: Path) -> None:
    monkeypatch.setenv("FOCUSVIT_DATA", str(camvid))
    toy = ["--height", "32", "--width-px", "64", "--width", "32", "--epochs", "1", "--rounds", "1", "--batch", "2"]
    toy += ["--rates", "0.001"]
    assert main([*toy, "--only", "0", "3"]) == 0
    assert Image.open(results / "scenes.jpg").width > 800
    told = (results / "scenes.md").read_text()
    assert (
        told.count("| FocusViT | 8 | 0.00")
        == 2
        == told.count("| ViT, half resolution, read over superpixels | 8 | 0.00")
    )
    with pytest.raises(UsageError, match=r"--only 9: no row has that number. They are 0 FocusViT, 1 control"):
        main([*toy, "--only", "9"])
    with pytest.raises(ValueError, match="height 100 and width_px 256 must be multiples of 32"):
        BenchScenesConfig(height=100)
    with pytest.raises(ValueError, match=r"256x352 px have more than 1,024 patches"):
        BenchScenesConfig(height=256, width_px=352)
