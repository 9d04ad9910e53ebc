"""The worked ImageNet-1k example of DEPLOYMENT.md: its products are those of the record and of `--dry-run` itself."""

import re
import types
from dataclasses import replace

import numpy as np
import pytest

from cluster.train.estimate import describe
from cluster.train.launch import LaunchConfig
from focusvit.recipes.small import recipe
from pipeline.dry_run import estimate
from pipeline.image.image import ImageConfig
from pipeline.plan.plan import make_plan
from pipeline.sources import detect
from pipeline.sources.embedded import write_shapes
from pipeline.superpixels.segment import SuperpixelConfig
from testkit.checkout import ROOT

TEXT = " ".join((ROOT / "cluster" / "DEPLOYMENT.md").read_text().split())
NUM_IMAGES = 1_281_167


def number(pattern: str) -> float:
    """The one number that DEPLOYMENT.md has at `pattern`."""
    found = re.findall(pattern, TEXT)
    assert len(found) == 1, f"DEPLOYMENT.md says '{pattern}' {len(found)} times"
    return float(found[0].replace(",", ""))


def test_a_dry_run_multiplies_what_it_measured(tmp_path):
    write_shapes(tmp_path, train_per_class=1, val_per_class=1)
    source = detect(str(tmp_path), "train")
    small = make_plan(source, "train")
    rows = np.resize(np.arange(small.num_samples), 10_000)
    plan = replace(small, table=small.table.take(rows), bounds=np.array([0, len(rows)]))
    found = estimate(plan, source.reader(), ImageConfig(), SuperpixelConfig(), workers=32)
    assert found["num_samples"] == len(rows) and found["timed"] == 48
    seconds = found["ms_per_image"] / 1e3 * len(rows)
    assert found["estimated_s"] * 32 == pytest.approx(seconds, abs=32 * 0.05 + 0.001 * seconds)
    stored = [path.stat().st_size for path in (tmp_path / "train").rglob("*.jpg")]
    assert found["estimated_bytes"] > len(rows) * np.mean(stored), "each image and its superpixels"


def test_the_costs_of_a_full_run_are_those_of_the_record():
    text = (ROOT / "tests" / "benchmarks" / "results" / "growth.md").read_text()
    hours, _, read, stored = re.search(r"^\| ImageNet-1k, train \|" + r" ([\d.]+) \|" * 4, text, re.M).groups()
    ms = float(re.search(r"from what one photo costs here: ([\d.]+) ms of CPU", text)[1])
    assert number(r"A photo cost ([\d.]+) ms of CPU") == ms and number(r"the ([\d,]+) training images") == NUM_IMAGES
    assert number(r"\*\*([\d.]+) core-hours\*\*") == float(hours) == round(NUM_IMAGES * ms / 1e3 / 3600, 1)
    assert number(r"([\d.]+) TB of shards") == float(stored) and number(r"([\d.]+) TB of originals") == float(read)


def test_the_training_hours_in_readme_are_those_of_the_dry_run():
    split = types.SimpleNamespace(num_samples=NUM_IMAGES)
    data = types.SimpleNamespace(split=lambda name: split, uri="/data/shards", classes=["x"] * 1000)
    name = re.search(r"focusvit pretrain (\w+) --data \$DATA/shards --run-dir \$DATA/runs/one --dry-run", TEXT)[1]
    config = recipe(name)
    said = describe(config, data, LaunchConfig(data="/data", run_dir="/runs/one", workers="8", dry_run=True))
    samples, hours = re.search(r"time +(\d+) samples; .*1000 img/s: ([\d.]+) h", said).groups()
    assert int(samples) == config.num_steps(NUM_IMAGES) * config.global_batch
    assert number(r"(\d+) epochs are") == config.epochs
    assert number(r"epochs are (\d+) million samples") == round(int(samples) / 1e6)
    assert number(r"\*\*(\d+) GPU-hours\*\*") == round(float(hours))
