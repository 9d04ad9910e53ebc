"""Data that needs no download: generated photo-like shapes, and scikit-learn's real handwritten digits.

Both are written as ImageFolder trees, so they take the same road as any user's images. The shapes come with exact
masks under `masks/` (0 ground, class index + 1 object). Every image depends on (split, class, number) alone.
"""

from pathlib import Path

import cv2
import numpy as np

SHAPE_CLASSES = (
    *("checked_square", "dotted_disc", "plain_crescent", "ringed_ellipse"),
    *("speckled_star", "striped_triangle", "wavy_cross", "woven_ring"),
)


def write_shapes(
    root: Path, *, classes: int = 8, train_per_class: int = 160, val_per_class: int = 40, side_px: int = 96
) -> None:
    """Write `root/{train,val}/<class>/*.jpg` and `root/masks/{train,val}/<class>/*.png` of the first `classes` of
    `SHAPE_CLASSES`. Existing files are kept."""
    for split_number, (split, count) in enumerate((("train", train_per_class), ("val", val_per_class))):
        for class_id, name in enumerate(SHAPE_CLASSES[:classes]):
            for number in range(count):
                stem, rng = f"{name}_{number:04d}", (0, split_number, class_id, number)
                mask = root / "masks" / split / name / f"{stem}.png"
                _write_drawn(root / split / name / f"{stem}.jpg", mask, rng, class_id, side_px)


def write_scenes(root: Path) -> None:
    """Write `root/{train,val}/{images,labels}/*`: 160 and 60 scenes of 4 kinds of shapes with the exact class of each
    pixel, 0 for the ground. Existing files are kept."""
    for split_number, (split, count) in enumerate((("train", 160), ("val", 60))):
        for number in range(count):
            image, labels = root / split / "images" / f"scene_{number:04d}.jpg", root / split / "labels"
            _write_drawn(image, labels / f"scene_{number:04d}.png", (1, split_number, number), number % 4, 112)


def _write_drawn(path: Path, mask_path: Path, seed: tuple[int, ...], class_id: int, side_px: int) -> None:
    """An image and, before it, its mask: 0 for the ground, class index + 1 for the object."""
    if not path.exists():
        image, mask = draw_shape(np.random.default_rng(seed), class_id, side_px)
        _write(mask_path, mask * np.uint8(class_id + 1))
        _write(path, image[..., ::-1], cv2.IMWRITE_JPEG_QUALITY, 92)


def write_digits(root: Path) -> None:
    """Write scikit-learn's 1,797 scanned digits (8x8, 17 grey levels) as `root/{train,val}/<digit>/*.png`.

    Every fifth image of a digit goes to `val`: 1,442 train, 355 val.
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    seen = [0] * 10
    for pixels, digit in zip(digits.images, digits.target):
        split = "val" if seen[digit] % 5 == 4 else "train"
        path = root / split / str(digit) / f"digit_{seen[digit]:03d}.png"
        seen[digit] += 1
        if not path.exists():
            grey = (pixels * 15.9375).astype(np.uint8)
            _write(path, cv2.resize(grey, (32, 32), interpolation=cv2.INTER_CUBIC))


def draw_shape(rng: np.random.Generator, class_id: int, side_px: int) -> tuple[np.ndarray, np.ndarray]:
    """One scene: uint8 RGB (side, side, 3) and its exact mask, uint8 0 or 1 (side, side)."""
    texture, shape = SHAPE_CLASSES[class_id].split("_")
    mask = shape_mask(rng, shape, side_px)
    ground = blend(smooth_noise(rng, side_px, octaves=4), colour(rng), colour(rng))
    surface = blend(textured(rng, texture, side_px), colour(rng), colour(rng))
    scene = laid_over(ground, surface, mask)
    # Light falls from one side; the sensor adds grain.
    y, x = _grid(side_px)
    angle = rng.uniform(0, 2 * np.pi)
    light = 1 + 0.25 * rng.random() * (np.cos(angle) * (x - 0.5) + np.sin(angle) * (y - 0.5))
    scene = scene * light[..., None] + rng.normal(0, 0.02, scene.shape)
    return (np.clip(scene, 0, 1) * 255).astype(np.uint8), mask


def laid_over(ground: np.ndarray, surface: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """`surface` where `mask` is 1, its edge softened by half a pixel."""
    edge = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 0.6)[..., None]
    return ground * (1 - edge) + surface * edge


def _write(path: Path, pixels: np.ndarray, *options: int) -> None:
    """Appear whole or not at all, so that an interrupted generation is simply continued."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".tmp")
    part.write_bytes(cv2.imencode(path.suffix, pixels, options)[1].tobytes())
    part.replace(path)


def _grid(side_px: int) -> tuple[np.ndarray, np.ndarray]:
    centres = (np.arange(side_px) + 0.5) / side_px
    y, x = np.meshgrid(centres, centres, indexing="ij")
    return y, x


def colour(rng: np.random.Generator) -> np.ndarray:
    return rng.uniform(0.08, 0.92, 3)


def blend(amount: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return first * amount[..., None] + second * (1 - amount[..., None])


def smooth_noise(rng: np.random.Generator, side_px: int, octaves: int) -> np.ndarray:
    """Smooth noise in [0, 1]: random grids of growing fineness, enlarged and added."""
    total = np.zeros((side_px, side_px))
    for octave in range(octaves):
        cells = 2 ** (octave + 1) + 1
        coarse = rng.random((cells, cells)).astype(np.float32)
        total += cv2.resize(coarse, (side_px, side_px), interpolation=cv2.INTER_CUBIC) / 2**octave
    low, high = total.min(), total.max()
    return (total - low) / (high - low)


def textured(rng: np.random.Generator, kind: str, side_px: int) -> np.ndarray:
    """One surface in [0, 1], at a random angle and scale."""
    y, x = _grid(side_px)
    angle = rng.uniform(0, np.pi)
    along = (np.cos(angle) * x + np.sin(angle) * y) * rng.uniform(7, 11)
    across = (-np.sin(angle) * x + np.cos(angle) * y) * rng.uniform(7, 11)
    turn = 2 * np.pi
    match kind:
        case "plain":
            return 0.25 * smooth_noise(rng, side_px, octaves=2)
        case "speckled":
            speckles = rng.random((side_px // 2, side_px // 2)).astype(np.float32)
            return cv2.resize(speckles, (side_px, side_px), interpolation=cv2.INTER_LINEAR).astype(float)
        case "striped":
            return 0.5 + 0.5 * np.sign(np.sin(turn * along))
        case "wavy":
            return 0.5 + 0.5 * np.sin(turn * (along + 0.35 * np.sin(turn * across / 3)))
        case "checked":
            return 0.5 + 0.5 * np.sign(np.sin(turn * along / 2) * np.sin(turn * across / 2))
        case "dotted":
            return ((along % 1 - 0.5) ** 2 + (across % 1 - 0.5) ** 2 < 0.09).astype(float)
        case "woven":
            return np.where((np.floor(along) + np.floor(across)) % 2 == 0, along % 1, across % 1)
        case "ringed":
            centre_y, centre_x = rng.uniform(0.3, 0.7, 2)
            return 0.5 + 0.5 * np.sin(turn * rng.uniform(8, 12) * np.hypot(y - centre_y, x - centre_x))
    raise ValueError(f"unknown texture '{kind}'")


def shape_mask(rng: np.random.Generator, kind: str, side_px: int) -> np.ndarray:
    """The silhouette, uint8 0 or 1: a random place, size and turn, always whole inside the frame."""
    y, x = _grid(side_px)
    radius = rng.uniform(0.24, 0.36)
    centre_y, centre_x = rng.uniform(radius, 1 - radius, 2)
    angle = rng.uniform(0, 2 * np.pi)
    u = (np.cos(angle) * (x - centre_x) + np.sin(angle) * (y - centre_y)) / radius
    v = (-np.sin(angle) * (x - centre_x) + np.cos(angle) * (y - centre_y)) / radius
    distance, turn = np.hypot(u, v), np.arctan2(v, u)
    match kind:
        case "disc":
            inside = distance < 0.95
        case "square":
            inside = np.maximum(abs(u), abs(v)) < 0.7
        case "crescent":
            inside = (distance < 1) & (np.hypot(u - 0.45, v) > 0.75)
        case "ellipse":
            inside = u**2 + (v / 0.55) ** 2 < 1
        case "star":
            inside = distance < 0.62 + 0.36 * np.cos(5 * turn)
        case "triangle":
            inside = (v > -0.5) & (v + 1.732 * abs(u) < 1)
        case "cross":
            inside = (np.minimum(abs(u), abs(v)) < 0.27) & (np.maximum(abs(u), abs(v)) < 0.95)
        case "ring":
            inside = (distance < 1) & (distance > 0.55)
        case _:
            raise ValueError(f"unknown shape '{kind}'")
    return inside.astype(np.uint8)
