"""Throughput, peak memory and cost of a training step at the study's geometry: the other half of the joint claim."""

import json
import re
import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from focusvit.model.cost import cut_alike, inference_peak, time_calls, training_loss
from focusvit.model.model import FocusViT
from focusvit.recipes.cost import superpixel_seconds
from focusvit.train.compiling import lead_around_spaces
from pipeline.shards.dataset import open_dataset
from tests.benchmarks.study.arrays import ArrayData
from tests.benchmarks.study.matrix import LIGHTER, PLAIN, SETS, core_rows, lighter_in, lighter_settings, with_lighter

BATCH = 64


def measure_speed(root: str, set_name: str, ledger: Path, arrays: Any, facts: dict[str, Any], rounds: int = 7) -> Path:
    """CPU seconds an image, superpixels included, of a forward, eager and compiled, and of a training step, and peak
    bytes, at batch 64, of every row of the matrix. All rows run whole batches, their stems slices of as many pixels.

    A new record at every call, so that the table can show how far sittings differ. `root` holds the shards of the sets,
    `arrays(uri, split, image_px, map_px, tokens)` gives the test images, `facts` say what makes the record. Superpixels
    are computed as for the shards.
    """
    of = SETS[set_name]
    images: dict[int, ArrayData] = {}
    calls, steps, models, inputs, uses_maps = {}, {}, {}, {}, {}
    for row, config in core_rows(of).items():
        tokens = config.tokens if config.needs_maps else None
        px = config.image_size[0]
        data = arrays(f"{root}/{of.folder}", of.test_split, px, of.map_px, tokens)
        images[px] = data
        given = (data.images[:BATCH],) if data.maps is None else (data.images[:BATCH], data.maps[:BATCH])
        models[row] = FocusViT(replace(config, num_classes=int(data.class_ids.max()) + 1)).eval()
        inputs[row], uses_maps[row] = given, tokens
        calls[row], steps[row] = _forward(models[row], given), _training_step(models[row], given)
    seconds = time_calls(calls, rounds, clock=time.process_time)
    step_seconds = time_calls(steps, rounds, clock=time.process_time)
    compiled_seconds = time_calls(_compiled(models, inputs), rounds, clock=time.process_time)
    pixels = images[of.image_px].images[:BATCH].permute(0, 2, 3, 1).contiguous().numpy()
    rows = {}
    for row, model in models.items():
        tokens = uses_maps[row]
        segmenting, lighter = 0.0, {}
        if tokens is not None:
            own = open_dataset(f"{root}/{of.folder}").superpixels
            segmenting, *less = [
                superpixel_seconds(pixels, (of.map_px, of.map_px), tokens, settings, time.process_time)
                for settings in (own, *LIGHTER.values())
            ]
            lighter = dict(zip(LIGHTER, less))
        rows[row] = {
            "forward_s": [value / BATCH for value in seconds[row]],
            "compiled_s": [value / BATCH for value in compiled_seconds[row]],
            "training_s": [value / BATCH for value in step_seconds[row]],
            "superpixels_s": segmenting,
            "lighter_s": lighter,
            "peak_bytes": inference_peak(model, *inputs[row], images_at_once=BATCH),
        }
    record = {
        "set": set_name, "stage": "speed", "batch": BATCH, "clock": "cpu seconds of all threads", "rows": rows,
        "threads": torch.get_num_threads(), "settings": lighter_settings(),
        **facts,
    }  # fmt: skip
    ledger.mkdir(parents=True, exist_ok=True)
    place = new_record(ledger, set_name)
    place.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return place


def new_record(ledger: Path, set_name: str) -> Path:
    """speed-SET-N.json with N above those that are there: no record is written over."""
    taken = [int(path.stem.rpartition("-")[2]) for path in ledger.glob(f"speed-{set_name}-*.json")
             if re.fullmatch(rf"speed-{set_name}-\d+", path.stem)]  # fmt: skip
    return ledger / f"speed-{set_name}-{1 + max(taken, default=0)}.json"


def _forward(model: FocusViT, given: tuple[torch.Tensor, ...]) -> Any:
    def forward() -> object:
        with torch.inference_mode(), cut_alike(model.eval(), BATCH) as run:
            return run(*given)

    return forward


def _compiled(models: dict[str, FocusViT], inputs: dict[str, tuple[torch.Tensor, ...]]) -> dict[str, Any]:
    """The same forwards, each compiled for this batch."""
    lead_around_spaces()
    torch._dynamo.config.recompile_limit = 2 * len(models)  # all rows are one class with one forward
    calls: dict[str, Any] = {}
    for row, model in models.items():
        compiled = torch.compile(model.eval(), fullgraph=True, dynamic=False, options={"freezing": True})

        def forward(run: Any = compiled, given: tuple[torch.Tensor, ...] = inputs[row]) -> object:
            with torch.no_grad():  # the compiler freezes weights in no_grad
                return run(*given)

        forward()
        calls[row] = forward
    return calls


def _training_step(model: FocusViT, given: tuple[torch.Tensor, ...]) -> Any:
    """Forward and backward in the precision of the study; the optimizer costs every row alike."""

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16):
            loss = training_loss(model.train(), *given)
        loss.backward()

    return step


def training_costs(record: dict[str, Any]) -> dict[str, float]:
    """One sitting, by row: CPU seconds of a training sample."""
    return {row: statistics.median(cost["training_s"]) for row, cost in record["rows"].items()}


class Speedup(NamedTuple):
    """Of a row against the plain ViT: throughput, medians over rounds of paired ratios, and memory."""

    bare: float
    whole: float
    """superpixels included"""
    memory: float
    """share of the plain ViT's peak"""
    compiled: float | None
    """both compiled, superpixels included; None in records that did not measure it"""


def speedups(record: dict[str, Any]) -> dict[str, Speedup]:
    """One sitting, by row, and with lighter superpixels by `with_lighter`."""
    rows = record["rows"]
    plain = rows[PLAIN]
    found = {}
    for row, cost in rows.items():
        found[row] = _speedup(plain, cost, cost["superpixels_s"])
        for name in lighter_in(record) if cost.get("lighter_s") else ():
            found[with_lighter(row, name)] = _speedup(plain, cost, cost["lighter_s"][name])
    return found


def _speedup(plain: dict[str, Any], cost: dict[str, Any], superpixels_s: float) -> Speedup:
    return Speedup(
        bare=_faster(plain["forward_s"], cost["forward_s"]),
        whole=_faster(plain["forward_s"], cost["forward_s"], superpixels_s),
        memory=cost["peak_bytes"] / plain["peak_bytes"],
        compiled=_faster(plain["compiled_s"], cost["compiled_s"], superpixels_s) if "compiled_s" in plain else None,
    )


def _faster(plain: list[float], seconds: list[float], more: float = 0.0) -> float:
    return statistics.median(a / (b + more) for a, b in zip(plain, seconds, strict=True))
