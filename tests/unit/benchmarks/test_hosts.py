"""The parts of `bench hosts` that need no pretrained weights: probes on features, token merging, maps of every kind."""

import json
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.errors import UsageError
from pipeline.sources.embedded import draw_shape
from testkit.hosts import hugging_face
from tests.benchmarks.hosts.borders import CLUSTERS, _score
from tests.benchmarks.hosts.dense import Scores, confusion, head_of
from tests.benchmarks.hosts.frozen import probes
from tests.benchmarks.hosts.hosts import BenchHostsConfig
from tests.benchmarks.hosts.images import Sample
from tests.benchmarks.hosts.pictures import by_title, points, together
from tests.benchmarks.hosts.readings import Reading, read
from tests.benchmarks.hosts.shapes import shape_table
from tests.benchmarks.hosts.states import Views, outputs, views_of
from tests.benchmarks.hosts.tuning import Tuning, tuned
from tests.benchmarks.hosts.ways import Way, bipartite, maps_of, pooled, prepared, some


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


def test_some_ways_are_taken_by_their_numbers():
    every = [Way(), pooled("grid", {1: 6}), pooled("keys", {1: 6})]
    assert some(every, ()) == every and some(every, (2, 0)) == [every[2], every[0]]
    with pytest.raises(UsageError, match=r"--only 3: no way has that number. They are 0 all patches, 1 grid, 6 before"):
        some(every, (0, 3))
    with pytest.raises(ValueError, match="--only chooses ways of images, scenes-tuned, speed; section borders runs"):
        BenchHostsConfig(host="x", section="borders", only=(1,))
    with pytest.raises(ValueError, match="--seed orders the batches of fine-tuning; section images trains nothing"):
        BenchHostsConfig(host="x", section="images", seed=1)


def test_the_speed_table_of_a_shape_has_every_source_of_superpixels():
    photos = [draw_shape(np.random.default_rng(i), i, 64)[0] for i in range(2)]
    table = shape_table("ViT-Ti/16", 70, photos, share=0.25, depth=0.5, rounds=1, device="cpu", clock=time.perf_counter)
    assert table.title == "ViT-Ti/16, 64 px, batch 2, cpu" and "4 of 16 patches left before block 6" in table.note
    assert [row[0].rpartition(" ")[2] for row in table.rows] == ["is", "shards", "fast-slic", "device"]
    assert table.rows[0][2] == "1.00x" and all(float(row[1]) > 0 and float(row[3]) > 0 for row in table.rows)


HOST = {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.25, 0.3]}


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    """(folder with the record of pixels, model): 56 x 56 px are 4 x 4 patches."""
    folder = tmp_path_factory.mktemp("host")
    record = {"image_mean": HOST["mean"], "image_std": HOST["std"]}
    (folder / "preprocessor_config.json").write_text(json.dumps(record))
    torch.manual_seed(0)
    model = hugging_face("Dinov2Model", "Dinov2", patch_size=14, image_size=56).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return folder, model


def images(count: int) -> list[np.ndarray]:
    random = np.random.default_rng(1)
    return [random.integers(0, 256, (56, 56, 3), np.uint8) for _ in range(count)]


@pytest.mark.parametrize(
    "way",
    [Way(), pooled("superpixels", {2: 6}), pooled("keys", {2: 6, 3: 3}), pooled("grid", {3: 4})],
    ids=lambda w: w.name,
)
def test_going_on_from_kept_states_gives_what_the_whole_host_gives(host, way):
    """Up to the rounding of bfloat16; the blocks below are not run again, and the host is as it was afterwards."""
    folder, model = host
    views = views_of(folder, model, images(3), [1, 2], 2)
    assert {depth: tuple(states.shape) for depth, states in views.at.items()} == {1: (3, 17, 32), 2: (3, 17, 32)}
    prepared(model, way)
    with torch.inference_mode():
        found = outputs(folder, model, way, views, range(3))
        wanted = outputs(folder, model, way, Views(views.images), range(3), exact=True)
        views.at[2] *= -1
        changed = outputs(folder, model, way, views, range(3))
    assert float((found - wanted).norm() / wanted.norm()) < 0.03
    assert not torch.allclose(found, changed, atol=1e-2)
    prepared(model, Way())
    assert not any("forward" in vars(block) for block in model.encoder.layer)


def test_readings_of_a_frame_are_its_patches_its_regions_and_their_means(host):
    folder, model = host
    way = pooled("superpixels", {2: 6})
    prepared(model, way)
    with torch.inference_mode():
        (one,) = read(folder, model, way, ["patches", "tokens", "superpixels"], Views(images(1)), [0], exact=True)
    prepared(model, Way())
    regions = one["tokens"].regions
    shares = np.stack([(regions == region).reshape(4, 7, 4, 7).mean((1, 3)).ravel() for region in range(6)])
    tokens = one["tokens"].values.float()
    patches = torch.from_numpy(shares.T).float() @ tokens
    torch.testing.assert_close(one["patches"].values.float(), patches, rtol=1e-2, atol=1e-2)
    finest = one["superpixels"].regions
    weights = (finest == finest[0, 0]).reshape(4, 7, 4, 7).mean((1, 3)).ravel()
    wanted = torch.from_numpy(weights / weights.sum()).float() @ patches
    torch.testing.assert_close(one["superpixels"].values[int(finest[0, 0])].float(), wanted, rtol=1e-2, atol=1e-2)
    best = one["tokens"].painted(torch.eye(6), (56, 56))
    assert np.array_equal(best, np.kron(regions, np.ones((2, 2), regions.dtype)))


def test_a_head_learns_classes_of_regions_and_its_score_is_counted(tmp_path):
    """Rows that tell their class, on a truth of two halves: all right, and the interval of no difference is 0."""
    truth = np.repeat([[0, 1]], 8, 0).repeat(4, 1).astype(np.uint8)
    Image.fromarray(truth).save(tmp_path / "truth.png")
    sample = Sample(Path("x"), labels=tmp_path / "truth.png")
    reading = Reading(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), np.array([[0, 1]]), False)
    weights = torch.from_numpy(head_of([reading], [sample])).float()
    table, border = confusion(reading, reading.values @ weights[:-1] + weights[-1], truth)
    assert table[0, 0] == table[1, 1] == 32 and table.sum() == 64 and border == 1.0
    worse = table.copy()
    worse[0, 0], worse[0, 1] = 16, 16
    first, other = (Scores(np.stack([one] * 3), np.ones(3)) for one in (table, worse))
    assert first.cells(first)[:2] == ["100.0", ""]
    assert other.cells(first)[:2] == ["58.3", "-41.7 (-41.7 .. -41.7)"]


def test_fine_tuning_changes_what_lies_behind_the_pooling_only(host):
    folder, model = host
    way, views = pooled("superpixels", {2: 6}), views_of(folder, model, images(4), [2], 2)
    before = {name: value.clone() for name, value in model.state_dict().items()}

    def loss(trained, head, rows):
        return head(outputs(folder, trained, way, views, rows)[:, 0]).square().mean()

    trained, head = tuned(model, way, np.ones((33, 3)), loss, range(4), Tuning(epochs=2, batch=2))
    same = {name for name, value in trained.state_dict().items() if torch.equal(value, before[name])}
    behind = {name for name in before if "layer.2." in name or "layer.3." in name or name.startswith("layernorm")}
    assert not same & {name for name in behind if "mask_token" not in name} and before.keys() - behind <= same
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not torch.equal(head.weight, torch.ones(3, 32))


def test_clusters_that_follow_the_drawn_borders_score_all_of_them():
    """Two people: one drew the clusters, the other one border only, which all lie on ours."""
    regions = np.arange(CLUSTERS)[None].repeat(2, 0)
    reading = Reading(torch.eye(CLUSTERS) * 10, regions, False)
    drawn = np.kron(regions, np.ones((20, 20), int))
    halves = drawn // (CLUSTERS // 2)
    f1, recall = _score(reading, [drawn])
    assert (f1, recall) == (1.0, 1.0)
    f1, recall = _score(reading, [drawn, halves])
    precision = 1 / (CLUSTERS - 1)
    assert recall == 1.0 and f1 == pytest.approx((1 + 2 * precision / (1 + precision)) / 2)


def test_points_of_the_picture_are_the_rows_of_the_table():
    table = {"columns": ["way", "mIoU %", "speed"], "score": "mIoU %"}
    table["rows"] = [
        ["168x224 px, read over 196 superpixels", "33.3", "2.50x"],
        ["keys, 9 before block 2", "36.0", "1.10x"],
    ]
    first, second = points(table)
    assert (first["speed"], first["score"], first["mark"]) == (2.5, 33.3, "^")
    assert (second["score"], second["mark"]) == (36.0, "o") and first["colour"] != second["colour"]


def test_tables_of_the_same_images_are_drawn_as_one():
    first = {"title": "a", "score": "kNN", "columns": ["way", "kNN"], "rows": [["all", "1"], ["grid", "2"]]}
    more = {**first, "rows": [["all", "9"], ["token merging", "3"]]}
    found = by_title([first, {**first, "title": "b"}, more])
    assert [table["title"] for table in found] == ["a", "b"] and found[1]["rows"] == first["rows"]
    assert found[0]["rows"] == [["all", "1"], ["grid", "2"], ["token merging", "3"]] and len(first["rows"]) == 2
    with pytest.raises(ValueError, match="two records of 'a' have other columns"):
        by_title([first, {**first, "columns": ["way", "speed"]}])


def test_fine_tuned_rows_are_drawn_together_at_the_speeds_of_the_runs_that_only_time():
    columns = ["way", "mIoU %", "CPU ms a frame", "speed"]
    whole = [
        ["all patches", "38.0", "200", "1.00x"],
        ["all patches, read over 196 superpixels", "37.0", "250", "0.80x"],
    ]
    parts = [
        {"title": "a", "score": "mIoU %", "columns": columns, "rows": [*whole, ["grid, 9 before 2", "36", "99", "9x"]]},
        {"title": "b", "score": "mIoU %", "columns": columns, "rows": [["grid, 9 before 2, painted", "5", "50", "1x"]]},
    ]
    timed = [
        {"columns": ["way", "speed"], "rows": [["all patches", "1.00x"], ["grid, 9 before 2, painted", "1.50x"]]},
    ]
    table = together(parts, timed)
    assert table["columns"] == ["way", "mIoU %", "speed"] and table["title"] == "a"
    assert table["rows"] == [
        ["all patches", "38.0", "1.00x"],
        ["all patches, read over 196 superpixels", "37.0", "0.80x"],
        ["grid, 9 before 2", "36", "1.50x"],
        ["grid, 9 before 2, painted", "5", "1.50x"],
    ]
    with pytest.raises(KeyError, match="grid"):
        together(parts, [{"columns": ["way", "speed"], "rows": [["all patches", "1.00x"]]}])
