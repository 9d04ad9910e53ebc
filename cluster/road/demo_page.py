"""The page of `focusvit demo`: superpixels and what a model sees of photos, the comparison, transfer, curves, costs."""

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from focusvit.box.names import about, checkpoint_place, names
from focusvit.model.model import FocusViT
from focusvit.predict.look import Eye
from focusvit.predict.pictures import labelled_sheet, with_regions
from focusvit.runs.checkpoint import load_model
from pipeline.io import storage
from transfer.report.charts import curves_figure
from transfer.report.finished import TrainingRun, find_runs
from transfer.report.page import Page
from transfer.tasks.result import Result

BUDGETS = (16, 36, 64)
_CAPTION = (
    "one stored hierarchy gives every number of regions; last: the three main directions of the features of 64 "
    "regions, as red, green and blue"
)


def write_page(out: Path, start: str, steps: list[tuple[str, float]], killed_at: int, seconds: float) -> str:
    """Write `index.html` and return what the terminal is told. `start`: the model that the transfer began with, a name
    or a run; `steps`: title and seconds of each.
    """
    trainings, transfers = find_runs([str(out / "runs")])
    page = Page(
        "FocusViT: superpixels as the tokens of a vision transformer",
        f"Everything here was made in {seconds:.0f} s by `focusvit demo`, on this machine.",
    )
    _photos(page, start)
    compared = _comparison(page, trainings, killed_at)
    answers = _transfer(page, transfers[0].rows)
    page.heading("Curves")
    page.figure(curves_figure(trainings), "demo: FocusViT; demo_vit: plain ViT of the same size and steps")
    page.heading("Where the time went")
    page.table(("seconds", "step"), [(f"{s:.1f}", title) for title, s in steps])
    page.heading("Go on")
    store = f"sqlite:///{out / 'mlflow.db'}"
    page.code(
        f"focusvit train MY_PHOTOS          # one folder of images for each class\nfocusvit ui --tracking-uri {store}"
    )
    page.code(
        f'import focusvit\n\nmodel = focusvit.load("{start}")\nfeatures = model.embed(["photo.jpg"])   # (1, D)\n'
        "regions = focusvit.superpixels(photo, 64)"
    )
    storage.put(str(out / "index.html"), page.html().encode())
    return f"\n{compared}\n{answers}\n\ndemo finished in {seconds:.0f} s; look at {out / 'index.html'}\n"


def _photos(page: Page, start: str) -> None:
    """scikit-learn's two photos: regions at three budgets, and the model's own features of the regions as colours."""
    from sklearn.datasets import load_sample_images

    model, record = load_model(checkpoint_place(start))
    assert isinstance(model, FocusViT)
    eye = Eye(model, record)
    page.heading("Two photos as the model gets them")
    for photo in load_sample_images().images:
        buffer = io.BytesIO()
        Image.fromarray(photo).save(buffer, "jpeg", quality=92)
        page.picture(labelled_sheet(list(_cells(eye, buffer.getvalue())), "", columns=5, cell_px=224), _CAPTION)
    made = about(start).made if start in names() else "features of the small model that this demo trained"
    page.text(made, dim=True)


def _cells(eye: Eye, data: bytes) -> Iterator[tuple[str, np.ndarray]]:
    yield "the photo", eye.view(data, BUDGETS[0]).image
    for budget in BUDGETS:
        view = eye.view(data, budget)
        assert view.map is not None
        yield f"{budget} superpixels", with_regions(view.image, view.map)
    assert view.map is not None
    images = torch.from_numpy(view.image).permute(2, 0, 1)[None]
    with torch.inference_mode():
        _, rows = eye.model.token_features(images, torch.from_numpy(view.map)[None], BUDGETS[-1])
    centred = rows[0] - rows[0].mean(0)
    directions = torch.linalg.svd(centred, full_matrices=False).Vh[:3]
    values = (centred @ directions.T).numpy()
    low, high = np.quantile(values, (0.02, 0.98), axis=0)
    shown = np.clip((values - low) / (high - low), 0, 1)
    yield "its features", (255 * shown[view.map]).astype(np.uint8)


def _comparison(page: Page, trainings: list[TrainingRun], killed_at: int) -> str:
    """FocusViT beside the plain ViT: one row each. Returns the sentence for the terminal."""
    page.heading("FocusViT and the plain ViT of its size, on the same images")
    runs = {run.name.split("/")[-1]: run for run in trainings}
    rows = []
    for name, label in (("demo", "FocusViT, 24 superpixels"), ("demo_vit", "plain ViT, 144 patches")):
        run = runs[name]
        steps = [value for _, value in run.curves["perf/img_per_s"]]
        rate, memory = float(np.median(steps)), max(value for _, value in run.curves["perf/memory_gb"])
        rows.append((label, run.best("val/top1") or 0.0, rate, memory))
    page.table(
        ("model", "top-1 (chance 25 %)", "images a second in training", "memory of a worker"),
        [(label, f"{top1:.1%}", f"{rate:.0f}", f"{memory:.2f} GB") for label, top1, rate, memory in rows],
    )
    page.text(
        f"The FocusViT's training was killed without warning after its checkpoint at {killed_at} samples; the "
        "same command went on from there. Superpixels were made once, when the shards were written. Memory counts the "
        "worker's libraries too."
    )
    (_, mine, fast, _), (_, plain, slow, _) = rows
    return f"FocusViT {mine:.1%} at {fast:.0f} images a second in training, plain ViT {plain:.1%} at {slow:.0f}"


def _transfer(page: Page, rows: list[Result]) -> str:
    """What pretrained features are worth on other tasks. Returns the sentences for the terminal."""
    page.heading("What the pretrained features are worth on other tasks")
    lines, sentences = [], []
    for task in dict.fromkeys(row.task for row in rows):
        best: dict[str, Result] = {}
        for row in sorted(rows, key=lambda row: row.value):  # the best protocol of each kind of features stays
            if row.task == task and row.features in _WORDS:
                best[row.features] = row
        order = sorted(best, key=lambda name: -best[name].value)
        for name in order:
            row = best[name]
            lines.append((task, _WORDS[name], row.label, f"{row.value:.1%}", f"{row.low:.1%} to {row.high:.1%}"))
        sentences.append(f"{task}: " + ", ".join(f"{_WORDS[name]} {best[name].value:.1%}" for name in order))
        if order[0] != "checkpoint":
            sentences[-1] += f" - here {_WORDS[order[0]]} say more than the pretrained ones"
    page.table(("task", "features", "protocol", "score", "95 % interval"), lines)
    page.text(
        "digits: top-1 of 355 scanned digits, all of one size in one place, so that pixels alone tell them apart. "
        "scenes: mean IoU of pixels against exact masks, each region painted with one class.",
        dim=True,
    )
    return "\n".join(sentences)


_WORDS = {
    "checkpoint": "pretrained features",
    "random": "untrained features",
    "pixels": "raw pixels",
    "colour": "mean colours",
}
