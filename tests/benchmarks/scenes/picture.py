"""The picture of `bench scenes`: mIoU and boundary F1 against the time of a frame."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from focusvit.predict.pictures import figure_pixels
from tests.benchmarks.report import Table

_SCORES = ("mIoU %", "boundary F1 %")


def draw(tables: Sequence[Table], place: Path) -> None:
    """A line of two panels for each table, as a JPEG; each reading of a model in its colour, triangles are painted."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 4.4 * len(tables)), dpi=90, layout="constrained")
    for line, table in zip(figure.subplots(len(tables), len(_SCORES), squeeze=False), tables):
        for axes, score in zip(line, _SCORES):
            _panel(axes, table, score)
        line[0].set_title(table.title, fontsize=10)
    handles, labels = line[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=8)
    Image.fromarray(figure_pixels(figure)).save(place, quality=88)


def _panel(axes: Any, table: Table, score: str) -> None:
    name, spent, column = (list(table.columns).index(one) for one in ("row", "CPU ms a frame", score))
    models = list(dict.fromkeys(str(row[name]).partition(", read over")[0] for row in table.rows))
    for row in table.rows:
        told = str(row[name])
        painted = told.startswith("FocusViT") or "read over" in told
        colour = f"C{models.index(told.partition(', read over')[0])}"
        axes.plot(float(row[spent]), float(row[column]), "^" if painted else "o", color=colour, label=told)
    axes.set(xlabel="CPU ms a frame, superpixels included", ylabel=score)
    axes.set_xlim(0, 1.05 * max(float(row[spent]) for row in table.rows))
    axes.grid(alpha=0.3)
