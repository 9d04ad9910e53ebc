"""Predictions painted back through the superpixels, beside the image, the truth and the best the regions allow."""

import colorsys

import cv2
import numpy as np

from focusvit.predict.pictures import labelled_sheet, save_png
from pipeline.image.borders import draw_borders
from pipeline.io import storage
from pipeline.shards.dataset import Split

from .data import DenseConfig, DenseSample, load_dense
from .segmentation import best_labels, confusion_of, pixel_accuracy, region_histograms

_EXAMPLES = 6


def class_colours(num_classes: int) -> np.ndarray:
    """uint8 (C + 1, 3): far-apart hues; the last one, near black, is for pixels that are not counted."""
    steps = range(num_classes)
    hues = [colorsys.hsv_to_rgb((0.61803 * i) % 1, 0.55 + 0.35 * (i % 2), 0.95 - 0.3 * (i % 3)) for i in steps]
    return (np.array([*hues, (0.08, 0.08, 0.08)]) * 255).round().astype(np.uint8)


def paint_examples(
    split: Split, config: DenseConfig, predicted: np.ndarray, out: str, name: str, classes: tuple[str, ...]
) -> list[str]:
    """Write one strip for each of a few test images spread over the split: predicted classes (N, K). Returns places."""
    numbers = np.unique(np.linspace(0, split.num_samples - 1, _EXAMPLES).round().astype(int))
    places = []
    for step, number in enumerate(numbers):
        sample = load_dense(split, int(number), config)
        place = storage.join(out, "painted", f"{name}-{step}.png")
        save_png(place, strip(sample, predicted[number], classes))
        places.append(place)
    return places


def strip(sample: DenseSample, predicted: np.ndarray, classes: tuple[str, ...]) -> np.ndarray:
    """uint8 RGB: image with region borders, truth, prediction and best labels, with their pixel accuracies below."""
    num_classes = len(classes)
    colours = class_colours(num_classes)
    table = region_histograms(sample.region_map, sample.label_map, len(predicted), num_classes)
    best = best_labels(table)
    counted = sample.label_map < num_classes
    rgb = cv2.resize(sample.rgb, sample.label_map.shape[::-1], interpolation=cv2.INTER_LINEAR)  # the same where it fits
    cells = [
        ("image and regions", draw_borders(rgb, sample.region_map)),
        ("truth", colours[np.where(counted, sample.label_map, num_classes)]),
        (f"prediction {_right(table, predicted)}", colours[predicted[sample.region_map]]),
        (f"best of these regions {_right(table, best)}", colours[best[sample.region_map]]),
    ]
    sheet = labelled_sheet(cells, "", columns=4, cell_px=rgb.shape[1])
    shown = sorted({*np.unique(sample.label_map[counted]).tolist(), *predicted.tolist(), *best.tolist()})
    return np.concatenate([sheet, _legend(shown, classes, colours, sheet.shape[1])])


def _legend(shown: list[int], classes: tuple[str, ...], colours: np.ndarray, width: int) -> np.ndarray:
    """A line of colour patches with class names, as many as fit."""
    line = np.full((22, width, 3), 255, np.uint8)
    x = 6
    for class_id in shown:
        name = classes[class_id].encode("ascii", "replace").decode()
        step = 24 + 8 * len(name)
        if x + step > width:
            break
        line[5:17, x : x + 14] = colours[class_id]
        cv2.putText(line, name, (x + 18, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (30, 30, 30), 1, cv2.LINE_AA)
        x += step
    return line


def _right(table: np.ndarray, labels: np.ndarray) -> str:
    return f"{pixel_accuracy(confusion_of(table, labels)):.1%}"
