"""`focusvit predict`: top classes of image files, and pictures of what the model was shown of them.

With --onnx nothing here loads torch, so this module imports the checkpoint's side only when it is asked for.
"""

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from focusvit.options import PredictConfig
from pipeline.commandline import parse
from pipeline.image.image import BadImage
from pipeline.io import storage
from pipeline.io.json_text import json_text
from pipeline.io.passed import PassedOver

from .pictures import enlarge, labelled_sheet, outlined, paint_means, save_png
from .places import Place, image_places, picture_names
from .view import Prediction

if TYPE_CHECKING:
    from .onnx_predictor import OnnxPredictor
    from .predictor import Predictor


def main(argv: list[str]) -> int:
    config = parse(PredictConfig, argv, prog="focusvit predict")
    passed = PassedOver()
    places = image_places(config.images, passed)
    predictor = open_predictor(config)
    say = sys.stderr.write if config.json else sys.stdout.write
    kind = f"{predictor.tokens} superpixels" if predictor.tokens else "plain patches"
    say(f"predict {len(places)} images with {predictor.name}, {len(predictor.classes)} classes, {kind}\n")
    for line in passed.lines():
        say(f"{line}\n")
    pictures = dict(zip(places, picture_names(places)))
    bad: list[tuple[Place, str]] = []
    num_done = 0
    for place, found in tqdm(_predictions(predictor, places, bad), total=len(places), unit="image"):
        num_done += 1
        tqdm.write(_line(config, predictor.classes, place, found), file=sys.stdout)  # above the bar, not into it
        if config.out:
            overlay = _overlay(predictor.classes, place, found)
            save_png(storage.join(storage.resolve(config.out), pictures[place]), overlay)
    for place, reason in bad:
        if config.json:
            sys.stdout.write(json_text({"image": place.uri, "error": reason}) + "\n")
        sys.stderr.write(f"bad image: {place.uri} {reason}\n")
    where = f"; overlays in {storage.resolve(config.out)}" if config.out and num_done else ""
    say(f"{num_done} images predicted, {len(bad)} could not be read{where}\n")
    return 1 if bad else 0


def open_predictor(config: PredictConfig) -> "Predictor | OnnxPredictor":
    if config.onnx:
        from .onnx_predictor import OnnxPredictor

        return OnnxPredictor(storage.resolve(config.onnx))
    from focusvit.choices import pick_device

    from .predictor import Predictor

    return Predictor.of(
        config.checkpoint,
        device=pick_device(config.device),
        tokens=config.tokens or None,
        batch_size=config.batch_size or 16,
        precision=config.precision,
    )


def _predictions(
    predictor: "Predictor | OnnxPredictor", places: list[Place], bad: list[tuple[Place, str]]
) -> Iterator[tuple[Place, Prediction]]:
    """Predictions in the order of `places`, a batch at a time. What cannot be read goes to `bad` and is left out."""
    for start in range(0, len(places), predictor.batch_size):
        views = []
        for place in places[start : start + predictor.batch_size]:
            try:
                views.append((place, predictor.view(storage.read_bytes(place.uri))))
            except (BadImage, OSError) as error:
                bad.append((place, str(error)))
        if views:
            found = predictor.predict([view for _, view in views])
            yield from zip((place for place, _ in views), found)


def _line(config: PredictConfig, classes: tuple[str, ...], place: Place, found: Prediction) -> str:
    best = [(classes[i], float(found.shares[i])) for i in found.top(config.top)]
    if config.json:
        top: list[dict[str, Any]] = [{"class": name, "share": share} for name, share in best]
        return json_text({"image": place.uri, "top": top})
    return f"{place.name:<32} " + "  ".join(f"{name} {share:.1%}" for name, share in best)


def _overlay(classes: tuple[str, ...], place: Place, found: Prediction) -> Any:
    """The crop with its region borders, the regions in their mean colours, and the best classes as text."""
    view, name = found.view, place.name
    best = ", ".join(f"{classes[i]} {found.shares[i]:.1%}" for i in found.top(3))
    cells = [(name, view.image)]
    if view.map is not None:
        cells = [(name, outlined(view.image, view.map)), ("", paint_means(*enlarge(view.image, view.map)))]
    return labelled_sheet(cells, best, columns=2, cell_px=320)
