"""Data and records for the tests of the accuracy study."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.benchmarks.study import study
from tests.benchmarks.study.matrix import PLAIN

FACTS = {"commit": "abc1234"}


def config_of(shards: Path, tmp_path: Path, **values: object) -> study.StudyConfig:
    given = {
        "data": str(shards), "sets": ("tiny-imagenet-40",), "epochs": 0.0 if "stage" in values else 3.0,
        "ledger": str(tmp_path / "ledger"), "runs": str(tmp_path / "runs"), "precision": "fp32",
    }  # fmt: skip
    return study.StudyConfig(**{**given, **values})  # type: ignore[arg-type]


def rates_tried(ledger: Path, rows: Iterable[str], best: float = study.RATES[2]) -> None:
    """Records of stage rates in which `best` is the best."""
    ledger.mkdir(exist_ok=True)
    for at, row in enumerate(rows):
        for lr in study.RATES:
            record = {
                "stage": "rates", "set": "tiny-imagenet-40", "row": row, "lr": lr, "seed": 0, "commit": "abc1234",
                "device": "cpu", "scores": {"top1": 0.5 if lr == best else 0.4}, "epochs": 2.0, "train_samples": 45,
                "test_samples": 5, "config": {"unknown": 1}, "data": "",
            }  # fmt: skip
            (ledger / f"tried-{at}-{lr}.json").write_text(json.dumps(record))


def records(top1: dict[str, list[float]]) -> list[dict[str, Any]]:
    """Of CIFAR-10, with a curve of ten points that rises to the score in equal steps."""
    return [
        {"row": row, "seed": seed, "set": "cifar10", "stage": "core", "train_samples": 100, "test_samples": 50,
         "lr": 1e-3, "epochs": 10.0, "multiply_adds": 4_000_000 if row == PLAIN else 1_000_000,
         "commit": "abc", "device": "cpu",
         "curve": [{"samples": 100 * (at + 1), "top1": value * (at + 1) / 10, "loss": 1.0, "learned": 0.5}
                   for at in range(10)],
         "scores": {"top1": value, "samples": 1000, "num_samples": 50}}
        for row, values in top1.items() for seed, value in enumerate(values)
    ]  # fmt: skip
