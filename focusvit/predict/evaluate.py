"""Scores of a checkpoint on a labelled split: top-1, top-5, loss. Every sample counts once, and that is checked."""

import math
import sys
from functools import partial
from typing import Any

import torch
from tqdm import tqdm

from focusvit.choices import pick_device, token_budgets
from focusvit.options import EvaluateConfig
from focusvit.precision import as_trained, settled
from focusvit.predict.segmenters import Scored, scored
from focusvit.runs.checkpoint import load_model
from focusvit.score.confusion import chance
from focusvit.score.scoring import tally
from focusvit.score.tally import Tally
from pipeline.commandline import aligned, parse
from pipeline.errors import DataError, UsageError
from pipeline.io import storage
from pipeline.io.json_text import json_text
from pipeline.shards.dataset import open_dataset

from .compatible import check_labelled, check_superpixels, check_tokens, class_columns


def main(argv: list[str]) -> int:
    config = parse(EvaluateConfig, argv, prog="focusvit evaluate")
    device = pick_device(config.device)
    model, record = load_model(config.checkpoint, device)
    dataset = open_dataset(storage.resolve(config.data))
    split = dataset.split(config.split)
    check_labelled(split)
    columns = class_columns(record, dataset)
    budgets = token_budgets(config.tokens, model.config.tokens)
    if model.config.needs_maps:
        check_superpixels(record, dataset)
        for tokens in budgets:
            check_tokens(record, tokens)
    elif config.tokens:
        raise UsageError(f"--tokens {config.tokens}: {record.uri} is a plain ViT, its number of tokens is fixed.")
    elif config.segmenters != ["shards"]:
        raise UsageError(f"--segmenter {config.segmenter}: {record.uri} takes no superpixels.")
    precision = as_trained(config.precision, record.config)
    say = sys.stderr.write if config.json else sys.stdout.write
    say(
        f"evaluate {record.uri} ({record.samples_seen:,} samples seen) on {dataset.uri} split {config.split}: "
        f"{split.num_samples:,} samples, {split.num_classes} classes, token budgets {config.tokens or budgets[0]}, "
        f"{device}, {settled(precision, device)}\n"
    )
    keep = None
    if columns is not None:
        say(f"the data set holds {len(columns)} of the model's {record.num_classes} classes: only these compete\n")
        keep = partial(torch.index_select, dim=1, index=torch.from_numpy(columns).to(device))
    rows = [(name, tokens) for tokens in budgets for name in config.segmenters] + [(f, None) for f in config.onnx]
    counted = []
    for name, tokens in rows:
        row = scored(
            name, model, record, split, tokens, batch_size=config.batch_size, loader_workers=config.loader_workers,
            pin_memory=torch.device(device).type == "cuda",
        )  # fmt: skip
        label = f"{row.name}, {row.tokens} tokens" if row.tokens else row.name
        found = tally(
            row.model, tqdm(row.batches, desc=label, unit="batch", leave=False), num_samples=split.num_samples,
            num_classes=split.num_classes, device=device, precision=precision, keep_logits=keep,
        )  # fmt: skip
        counted.append((row, found))
        if not math.isfinite(found.loss_sum):
            raise DataError(
                f"{record.uri}: the loss of its answers ({label}) is no finite number: its training diverged."
            )
    _show(config, record.uri, dataset.classes, counted, model.config.tokens)
    return 0


def _show(
    config: EvaluateConfig, place: str, classes: tuple[str, ...], counted: list[tuple[Scored, Tally]], own: int | None
) -> None:
    first = counted[0][1]
    by_chance = chance(first.confusion)
    rows: list[dict[str, Any]] = [
        {
            "superpixels": row.name,
            "tokens": row.tokens,
            **found.metrics(),
            **dict(zip(("top1_low", "top1_high"), found.interval())),
            **dict(zip(("top1_against_first", "half_interval", "same_answers"), found.against(first))),
        }
        for row, found in counted
    ]
    if config.confusion:
        from .pictures import confusion_figure, figure_pixels, save_png

        save_png(storage.resolve(config.confusion), figure_pixels(confusion_figure(first.confusion, classes)))
    mine = next((row for row in rows if row["tokens"] == own and row["superpixels"] not in config.onnx), None)
    if config.json:
        found = {"checkpoint": place, "data": config.data, "split": config.split, "chance": by_chance, "results": rows}
        sys.stdout.write(json_text({**found, "own_tokens": own, "score": mine}) + "\n")
        return
    columns = ("superpixels", "tokens", "top-1", "95 % interval", "top-5", "loss", "against the first", "same answers")
    cells = [
        (row["superpixels"], row["tokens"] or "all", f"{row['top1']:.2%}",
         f"{row['top1_low']:.2%} - {row['top1_high']:.2%}", f"{row['top5']:.2%}", f"{row['loss']:.4f}",
         f"{100 * row['top1_against_first']:+.2f} +- {100 * row['half_interval']:.2f}", f"{row['same_answers']:.1%}")
        for row in rows
    ]  # fmt: skip
    shown = None if len(rows) > 1 else -2  # a single row is compared with nothing
    sys.stdout.write("\n".join(aligned([line[:shown] for line in (columns, *cells)], right=True)) + "\n")
    told = f"always answering the commonest class gives {by_chance:.2%} (chance)"
    if mine is None:  # the best of a table is no score: it was chosen by the samples that it is measured on
        told = f"the checkpoint's own budget of {own} tokens was not scored; {told}"
    else:
        budget = f" with its own budget of {own} tokens" if own and len(rows) > 1 else ""
        told = f"top-1 {mine['top1']:.2%}{budget} of {first.num_samples:,} samples, each counted once; {told}"
    sys.stdout.write(told + "\n")
