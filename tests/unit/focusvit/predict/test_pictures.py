"""Pictures: borders are the map's own, painting is indexing, sizes are what they say."""

import numpy as np

from focusvit.predict import pictures


def _halves(height: int = 8, width: int = 8) -> np.ndarray:
    region_map = np.zeros((height, width), np.uint8)
    region_map[:, width // 2 :] = 1
    return region_map


def test_borders_are_drawn_where_regions_meet_and_nowhere_else():
    image = np.full((224, 224, 3), 100, np.uint8)
    changed = np.unique(np.argwhere((pictures.outlined(image, _halves()) != image).any(2))[:, 1])
    assert 1 <= len(changed) <= 8 and abs(changed.mean() - 111.5) < 1
    assert (pictures.outlined(image, np.zeros((8, 8), np.uint8)) == image).all()


def test_overlay_accepts_half_resolution_maps_and_enlarges_small_images():
    images = np.random.default_rng(0).integers(0, 255, (3, 64, 64, 3), np.uint8)
    maps = np.stack([_halves(32, 32)] * 3)
    sheet = pictures.superpixel_overlay(images, maps)
    assert sheet.dtype == np.uint8
    assert sheet.shape == (12 + 2 * 240 + 12, 12 + 3 * (240 + 12), 3)  # 240 px wide, no room for absent labels


def test_every_region_is_painted_in_its_mean_colour():
    image = np.random.default_rng(0).integers(0, 255, (8, 8, 3), np.uint8)
    painted = pictures.paint_means(image, _halves())
    for half in (np.s_[:, :4], np.s_[:, 4:]):
        assert (painted[half] == image[half].mean((0, 1)).round()).all()


def test_density_is_clear_at_zero_and_strongest_from_the_top_on():
    image = np.full((224, 224, 3), 128, np.uint8)
    quarters = np.repeat(np.arange(4, dtype=np.uint8), 56)[None].repeat(224, 0)
    painted = pictures.density_overlay(image, quarters, np.array([0.0, 1.0, 2.0, 8.0]), top=2.0)
    zero, some, top, beyond = (painted[100, 56 * i + 20].astype(int) for i in range(4))
    assert zero.max() - zero.min() == 0 and (top == beyond).all()
    assert (top - zero).sum() > (some - zero).sum()


def test_a_sheet_holds_every_cell_in_equal_rows():
    cells = [(f"cell {i}", np.full((50, 60, 3), 10 * i, np.uint8)) for i in range(8)]
    sheet = pictures.labelled_sheet(cells, "title " * 200, columns=7, cell_px=120)  # too long a title is shortened
    columns = 4  # 8 cells in two rows
    assert sheet.shape[1] == 12 + columns * 132
    for i in range(8):
        assert (sheet[44 + i // columns * (100 + 26 + 12) + 50, 12 + i % columns * 132 + 60] == 10 * i).all()


def test_confusion_figure_draws_few_and_many_classes():
    for num_classes in (3, 100):
        counts = np.eye(num_classes, dtype=int) * 4
        figure = pictures.confusion_figure(counts, [f"class-{i}" for i in range(num_classes)])
        assert "100.0%" in figure.axes[0].get_title()
        assert pictures.figure_pixels(figure).shape[2] == 3
