"""The parts of `bench hosts` that need no pretrained weights: probes on features, token merging, maps of every kind."""

import time
from pathlib import Path

import numpy as np
import torch

from pipeline.sources.embedded import draw_shape
from tests.benchmarks.hosts.frozen import probes
from tests.benchmarks.hosts.images import Sample
from tests.benchmarks.hosts.shapes import shape_table
from tests.benchmarks.hosts.dense import Scores, confusion, head_of
from tests.benchmarks.hosts.readings import Reading, read, read_all
from tests.benchmarks.hosts.states import Views, outputs, views_of
from tests.benchmarks.hosts.tuning import Tuning, tuned
from tests.benchmarks.hosts.ways import Way, bipartite, maps_of, pooled, prepared


def test_probes_find_classes_that_features_tell():
    samples = [Sample(Path("x"), number % 3) for number in range(30)]
    noise = np.random.default_rng(0).normal(0, 0.1, (30, 3))
    values = (np.eye(3)[[sample.class_id for sample in samples]] + noise).astype(np.float32)
    told = probes(values, samples, values, samples)
    assert len(told) == 2 and all(cell.startswith("100.0% (") for cell in told)


def test_token_merging_keeps_every_patch_once():
    keys = torch.randn(2, 16, 8, generator=torch.Generator().manual_seed(0))
    level = bipartite(keys, None, (4, 4), 12)
    assert level.overlap.shape == (2, 12, 16)
    torch.testing.assert_close(level.overlap.sum(1), torch.ones(2, 16))
    torch.testing.assert_close(level.weights.sum(2), torch.ones(2, 12))


def test_maps_have_exactly_the_regions_asked_for():
    image = np.random.default_rng(0).integers(0, 256, (56, 56, 3), np.uint8)
    for way in (pooled("superpixels", {1: 9, 2: 4}), pooled("grid", {1: 6})):
        found = maps_of(way, [image], (4, 4))
        assert [len(maps.unique()) for maps in found] == [tokens for _, tokens in way.levels]
    assert maps_of(pooled("keys", {1: 6}), [image], (4, 4)) is None


def test_the_speed_table_of_a_shape_has_every_source_of_superpixels():
    photos = [draw_shape(np.random.default_rng(i), i, 64)[0] for i in range(2)]
    table = shape_table("ViT-Ti/16", 70, photos, share=0.25, depth=0.5, rounds=1, device="cpu", clock=time.perf_counter)
    assert table.title == "ViT-Ti/16, 64 px, batch 2, cpu" and "4 of 16 patches left before block 6" in table.note
    assert [row[0].rpartition(" ")[2] for row in table.rows] == ["is", "shards", "fast-slic", "device"]
    assert table.rows[0][2] == "1.00x" and all(float(row[1]) > 0 and float(row[3]) > 0 for row in table.rows)
