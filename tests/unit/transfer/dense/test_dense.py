"""A dense task end to end on drawn shapes with exact masks: painted scores, oracles, no region lost on the way."""

import dataclasses
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from sklearn.metrics import jaccard_score

from focusvit.model.partitions import static_partition
from focusvit.runs.checkpoint import load_model
from pipeline.errors import DataError
from pipeline.shards.dataset import open_dataset
from testkit.tiny_checkpoint import make_checkpoint
from testkit.tiny_shards import make_dataset
from transfer.dense import segmentation
from transfer.dense import work as dense_work
from transfer.dense.data import (
    DenseConfig,
    batches_of,
    colour_features,
    load_dense,
    model_inputs,
    nearest,
)
from transfer.dense.labels import read_labels
from transfer.dense.protocols import DenseKMeans, DenseLinear, thinned
from transfer.protocols.protocol import Labelled
from transfer.report.table import text_table
from transfer.tasks.spec import WorkSpec
from transfer.tasks.task import Task
from transfer.work import run_task

CONFIG = DenseConfig(num_classes=5, num_regions=9)


@pytest.fixture(scope="module")
def road(tmp_path_factory):
    root = tmp_path_factory.mktemp("dense")
    data = make_dataset(root / "data", splits={"train": 24, "val": 10}, dense=True)
    return root, data, make_checkpoint(root / "ckpt")


def spec(road, out: Path, **changes) -> WorkSpec:
    _, data, checkpoint = road
    task = Task(name="shapes", uri=data, classes=("ground", "disc", "square", "triangle", "star"))
    values = {"suite": "quick", "out": str(out / "results"), "features_folder": str(out / "features")}
    return WorkSpec(**{"task": task, "checkpoint": checkpoint, **values, **changes})


@pytest.fixture(scope="module")
def done(road):
    return run_task(spec(road, road[0] / "first"))


def test_every_row_has_its_bounds_spread_and_chance(done):
    assert done.failures == []
    by_name = {(row.features, row.protocol): row for row in done.rows}
    assert len(by_name) == 8
    oracle, grid = by_name["oracle", "superpixels"], by_name["oracle", "grid"]
    assert oracle.variant == "K=9" and grid.variant == "3x3" and oracle.value > grid.value
    most = max(row.scores["pixel_accuracy"] for row in (oracle, grid))
    for row in done.rows:
        assert row.metric == "miou" and row.low <= row.value <= row.high and row.num_test == 10
        assert row.scores["pixel_accuracy"] <= most + 1e-9
        assert 0 <= row.scores["boundary_f1"] <= 1
    assert by_name["checkpoint", "k-means"].interval == "t over 5 draws"


def test_the_oracle_equals_counting_painted_pixels(road, done):
    _, data, _ = road
    split = open_dataset(data).split("val")
    truth, painted = [], []
    for number in range(split.num_samples):
        sample = load_dense(split, number, CONFIG)
        answer = np.zeros_like(sample.label_map)
        for region in range(9):
            inside = (sample.region_map == region) & (sample.label_map != 255)
            labels = sample.label_map[inside]
            answer[sample.region_map == region] = max(range(5), key=lambda c: ((labels == c).sum(), -c))
        counted = sample.label_map != 255
        truth.append(sample.label_map[counted])
        painted.append(answer[counted])
    expected = jaccard_score(np.concatenate(truth), np.concatenate(painted), labels=range(5), average=None)
    oracle = next(row for row in done.rows if row.protocol == "superpixels")
    assert oracle.value == pytest.approx(expected.mean(), abs=1e-12)
    assert oracle.per_class == pytest.approx(expected.tolist())


def test_finished_results_are_skipped_and_pictures_stay(road, done):
    again = run_task(spec(road, road[0] / "first"))
    assert again.num_skipped == 7 and again.features_s == 0 and again.rows == done.rows
    pictures = next(row for row in done.rows if row.features == "checkpoint" and row.protocol == "linear").pictures
    assert len(pictures) == 6 and all(cv2.imread(place).shape[1] > 100 for place in pictures)


def test_no_region_is_lost_between_the_cut_the_model_and_the_labels(road):
    _, data, checkpoint = road
    split = open_dataset(data).split("val")
    samples = [load_dense(split, number, CONFIG) for number in range(4)]
    images, maps = model_inputs(samples, (32, 32), (4, 4), True)
    assert images.shape == (4, 3, 32, 32) and maps.shape[1] % 4 == 0
    for sample, model_map in zip(samples, maps.numpy()):
        assert set(np.unique(model_map)) == set(np.unique(sample.region_map)) == set(range(9))
        assert (nearest(sample.small_map, sample.label_map.shape) == sample.region_map).all()
    model, _ = load_model(checkpoint)
    tokens = model.dense_features(images, maps, 9)
    assert tokens.shape == (4, 9, 64)
    # Renaming the regions renames the tokens and changes nothing else.
    order = torch.randperm(9)
    renamed = model.dense_features(images, order[maps.long()].to(torch.int16), 9)
    torch.testing.assert_close(renamed[:, order], tokens, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("trunk", ["latent", "kv_pool"])
def test_latent_trunks_give_one_feature_per_region(road, tmp_path, trunk):
    model, _ = load_model(make_checkpoint(tmp_path / "ckpt", trunk=trunk, num_latents=4, depth=3))
    split = open_dataset(road[1]).split("val")
    images, maps = model_inputs([load_dense(split, 0, CONFIG)], (32, 32), (4, 4), True)
    assert model.dense_features(images, maps, 9).shape == (1, 9, 64)


def test_a_plain_vit_is_scored_on_its_patches(road, tmp_path):
    checkpoint = make_checkpoint(tmp_path / "ckpt", tokens=None)
    outcome = run_task(spec(road, tmp_path, checkpoint=checkpoint, baselines=False))
    assert outcome.failures == []
    assert [row.variant for row in outcome.rows if row.features == "oracle"] == ["4x4"]


def test_the_cells_of_a_uniform_grid_are_those_that_its_model_pools(road, tmp_path):
    model, _ = load_model(make_checkpoint(tmp_path / "ckpt", tokens=6, partition="grid"))
    config = dataclasses.replace(CONFIG, num_regions=6, patch_grid=model.config.grid)
    sample = load_dense(open_dataset(road[1]).split("val"), 0, config)
    painted = torch.from_numpy(nearest(sample.region_map, (32, 32)))[None]
    rows, columns = model.config.grid
    patches = painted.reshape(rows, 32 // rows, columns, 32 // columns).permute(0, 2, 1, 3).reshape(rows * columns, -1)
    shares = torch.stack([(patches == cell).float().mean(1) for cell in range(6)])
    pooled = static_partition("grid", 6, model.config.grid)[0][0]
    torch.testing.assert_close(shares / shares.sum(1, keepdim=True), pooled / pooled.sum(1, keepdim=True))
    outcome = run_task(spec(road, tmp_path, checkpoint=str(tmp_path / "ckpt"), baselines=False))
    assert outcome.failures == []
    assert {row.features for row in outcome.rows} == {"checkpoint", "oracle"}


def test_linear_head_learns_soft_targets_and_kmeans_finds_clusters():
    rng = np.random.default_rng(0)
    kinds = rng.integers(0, 3, 600)
    values = (rng.normal(size=(3, 5))[kinds] * 4 + rng.normal(size=(600, 5)) * 0.3).astype(np.float32)
    histograms = np.eye(3)[kinds] * 90 + rng.integers(0, 10, (600, 3))
    train, held_out = (
        Labelled(values=values[:400], truth=histograms[:400], num_classes=3),
        Labelled(values=values[400:500], truth=histograms[400:500], num_classes=3),
    )
    for protocol in (DenseLinear(), DenseKMeans(repeats=2)):
        for fitted in protocol.fit(train, held_out):
            assert (fitted.predict(values[500:]).argmax(1) == kinds[500:]).mean() > 0.98
    assert len(thinned(Labelled(values=values, truth=histograms, num_classes=3), 50, 0)) == 50


def test_colour_features_are_means(road):
    sample = load_dense(open_dataset(road[1]).split("val"), 0, CONFIG)
    found = colour_features(sample, 9)
    inside = sample.region_map == 4
    np.testing.assert_allclose(found[4, :3], sample.rgb[inside].mean(0) / 255, atol=1e-5)
    assert found[4, 3] == pytest.approx((np.nonzero(inside)[0] + 0.5).mean() / 40, abs=1e-5)


def test_wrong_labels_and_sizes_are_named(road, tmp_path, monkeypatch):
    labels = np.array([[0, 5]], np.uint8)
    with pytest.raises(DataError, match=r"label 5 lies outside 0\.\.4.*--map-labels 5:1"):
        read_labels(labels, 5, (), (), "sample x")
    assert read_labels(labels, 5, (5,), (), "x").tolist() == [[0, segmentation.IGNORE]]
    assert read_labels(labels, 5, (0,), ((5, 4),), "x").tolist() == [[segmentation.IGNORE, 4]]
    assert labels.tolist() == [[0, 5]]
    split = open_dataset(road[1]).split("val")
    with pytest.raises(DataError, match="fewer than the budget of 257"):
        load_dense(split, 0, DenseConfig(num_classes=5, num_regions=257))
    sample = split.read(0)
    monkeypatch.setattr(
        type(split), "read", lambda self, i: type(sample)(**{**vars(sample), "label_map": sample.label_map[:9]})
    )
    with pytest.raises(DataError, match="must have one ratio"):
        load_dense(split, 0, CONFIG)
    monkeypatch.setattr(type(split), "read", lambda self, number: dataclasses.replace(sample, label_map=None))
    with pytest.raises(DataError, match="has no label map"):
        load_dense(split, 0, CONFIG)


def test_too_few_training_images_are_named_and_the_bounds_stay(road, tmp_path):
    data = make_dataset(tmp_path / "data", splits={"train": 1, "val": 3}, dense=True)
    outcome = run_task(
        spec(road, tmp_path, task=dataclasses.replace(spec(road, tmp_path).task, uri=data), baselines=False)
    )
    (failure,) = outcome.failures  # k-means chooses nothing and takes the one image
    assert "checkpoint linear: none of the 0 regions to fit on holds a counted pixel" in failure
    assert {row.protocol for row in outcome.rows} == {"k-means", "superpixels", "grid"}


def test_labels_out_of_range_fail_the_task_and_are_listed(road, tmp_path):
    task = Task(name="few", uri=road[1], classes=("ground", "disc"))
    outcome = run_task(spec(road, tmp_path, task=task))
    assert outcome.rows == [] and "lies outside 0..1" in outcome.failures[0] and json.dumps(outcome.failures)


def bounds_of(road, out, monkeypatch, changed, **changes):
    """The rows by protocol, on images whose number n was replaced by changed(n, sample)."""

    def batches(split, config, size):
        for numbers, samples in batches_of(split, config, size):
            yield numbers, [changed(number, sample) for number, sample in zip(numbers, samples)]

    monkeypatch.setattr(dense_work, "batches_of", batches)
    outcome = run_task(spec(road, out, baselines=False, **changes))
    assert outcome.failures == []
    return {row.protocol: row for row in outcome.rows}


def test_the_grid_is_named_after_all_test_images(road, tmp_path, monkeypatch):
    def flat(number, sample):
        rows = 12 if number % 2 else 40
        return dataclasses.replace(sample, label_map=sample.label_map[:rows], region_map=sample.region_map[:rows])

    by_name = bounds_of(road, tmp_path, monkeypatch, flat, tokens=31)
    cells = [np.prod(segmentation.grid_shape(rows, 40, 31)) for rows in (40, 12)]
    assert min(cells) < max(cells)
    assert by_name["grid"].variant == f"{min(cells)} to {max(cells)} cells"
    assert by_name["grid"].chosen == {"regions": f"{min(cells)} to {max(cells)}"}
    assert segmentation.grid_label({(40, 40), (80, 80)}, 9) == ("3x3", 9)
    assert segmentation.grid_label({(40, 40), (40, 80)}, 11) == ("12 cells", 12)


def test_without_a_border_the_boundary_score_is_left_out(road, tmp_path, monkeypatch):
    by_name = bounds_of(
        road, tmp_path, monkeypatch, lambda _, sample: dataclasses.replace(sample, label_map=sample.label_map * 0)
    )
    for name in ("linear", "superpixels", "grid"):
        assert by_name[name].scores == {"miou": 1.0, "pixel_accuracy": 1.0}
    assert by_name["k-means"].scores["boundary_f1"] == 0.0  # it draws borders where there are none
    assert text_table(list(by_name.values())).count("boundary F1") == 1
