"""What `focusvit train` ends with: the score with chance, the page, and the lines of Python that load the model."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from focusvit.predict.pictures import confusion_figure, labelled_sheet, outlined
from focusvit.predict.predictor import Predictor
from focusvit.runs.checkpoint import load_checkpoint, read_confusion
from focusvit.score.confusion import chance, recall
from focusvit.score.intervals import wilson
from pipeline.errors import shorten
from pipeline.io import storage
from pipeline.shards.dataset import Dataset, Split, errors_uri, open_dataset
from pipeline.shards.overlap import shared_images
from transfer.report.charts import curves_figure
from transfer.report.finished import find_runs
from transfer.report.page import Page

SHOWN = 12


def write_page(source: str, why: Sequence[str], out: Path, seconds: float) -> str:
    """Write `index.html` and return what the terminal is told."""
    record, data = load_checkpoint(str(out / "run")), open_dataset(str(out / "shards"))
    split, counts = data.split("val"), read_confusion(record)
    assert counts is not None  # a finished training is scored
    right, total = int(np.trace(counts)), int(counts.sum())
    low, high = wilson(right, total)
    said = (
        f"{right / total:.1%} of {total} validation images right (95 % interval {low:.1%} to {high:.1%}; they "
        f"also chose the best checkpoint); always the most frequent class would give {chance(counts):.1%}"
    )
    lines = (
        f'import focusvit\nmodel = focusvit.load("{out / "run"}")\n'
        'answer = model.predict("photo.jpg")[0]  # .name, .share, .shares, .superpixels'
    )
    page = Page(f"A classifier of {storage.name_of(source)}", said)
    for line in why:
        page.text(line, dim=True)
    notes = _caveats(data, counts)
    for line in notes:
        page.text(line)
    page.heading("Answers on validation images")
    page.picture(_answers(Predictor.of(record.uri), split), "regions as the model got them; wrong answers are marked")
    page.heading("Which classes are taken for which")
    page.figure(confusion_figure(counts, data.classes), "rows: true class; columns: answer")
    page.table(("class", "images", "right"), _by_class(data.classes, counts))
    page.heading("How it learned")
    page.figure(curves_figure(find_runs([str(out / "run")])[0]), "the best checkpoint is kept")
    page.heading("Go on")
    page.code(lines)
    page.code(
        f"focusvit predict --checkpoint {out / 'run'} photo.jpg --out overlays\n"
        f"focusvit export --checkpoint {out / 'run'} --out model.onnx\n"
        f"focusvit ui --tracking-uri sqlite:///{out / 'mlflow.db'}"
    )
    storage.put(str(out / "index.html"), page.html().encode())
    return (
        f"\ntrained in {seconds / 60:.1f} minutes: {said}\n"
        + "".join(f"note       {line}\n" for line in notes)
        + f"checkpoint {record.uri}\npage       {out / 'index.html'}\n\n{lines}\n"
    )


def _caveats(data: Dataset, counts: np.ndarray) -> list[str]:
    """What a reader of the score must know: classes that it says nothing of, images left out, images learned from."""
    unseen = [name for name, row in zip(data.classes, counts) if not row.any()]
    lines = []
    if unseen:
        lines.append(f"{len(unseen)} of {len(data.classes)} classes have no validation image: {shorten(unseen, 8)}")
    for name, info in data.splits.items():
        if info.num_skipped:
            lines.append(f"{info.num_skipped} images of split '{name}' were left out: {errors_uri(data.uri, name)}")
    return lines + shared_images(data.uri, list(data.splits))


def _by_class(classes: Sequence[str], counts: np.ndarray) -> list[tuple[str, int, str]]:
    """A row for each class, the worst first, those that were not scored last."""
    shares = recall(counts)
    known = sorted((share, i) for i, share in enumerate(shares) if share is not None)
    rows = [(classes[i], int(counts[i].sum()), f"{share:.0%}") for share, i in known]
    return rows + [(classes[i], 0, "-") for i, share in enumerate(shares) if share is None]


def _answers(predictor: Predictor, split: Split) -> np.ndarray:
    """A sheet of validation images, spread over the split, with answer and truth."""
    cells = []
    for i in np.linspace(0, split.num_samples - 1, min(SHOWN, split.num_samples)).round().astype(int):
        sample = split.read(int(i))
        (found,) = predictor.predict([predictor.view(sample.image)])
        best = int(found.shares.argmax())
        truth = predictor.classes[int(split.class_ids[i])]
        note = "" if predictor.classes[best] == truth else f" (is {truth})"
        picture = found.view.image if found.view.map is None else outlined(found.view.image, found.view.map)
        cells.append((f"{predictor.classes[best]} {found.shares[best]:.0%}{note}", picture))
    return labelled_sheet(cells, "", columns=4)
