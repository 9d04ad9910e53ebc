"""Evaluation: numbers equal a loop and scikit-learn, parts add up, nothing is counted twice."""

import dataclasses
import itertools
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import confusion_matrix, log_loss, top_k_accuracy_score

from focusvit.data.batch import Batch
from focusvit.predict import look, predict
from focusvit.predict.evaluate import main
from focusvit.runs.checkpoint import read_checkpoint, save_checkpoint
from focusvit.runs.checkpoint_record import record_at
from focusvit.score.scoring import tally
from focusvit.score.tally import Tally
from pipeline.errors import DataError, UsageError
from testkit.tiny_checkpoint import edit_checkpoint, make_checkpoint
from testkit.tiny_shards import make_dataset
from transfer.suite import main as transfer

NUM, CLASSES = 53, 7


class Fixed(torch.nn.Module):
    """Logits by sample: the first pixel holds the sample's number."""

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, images, maps=None, num_tokens=None):
        return self.logits[images[:, 0, 0, 0].long()]


@pytest.fixture
def problem():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(NUM, CLASSES, generator=generator)
    class_ids = torch.randint(0, CLASSES, (NUM,), generator=generator)
    return Fixed(logits), logits, class_ids


def batches(class_ids, rows, size=8):
    for start in range(0, len(rows), size):
        ids = torch.tensor(rows[start : start + size])
        images = ids.to(torch.uint8)[:, None, None, None].expand(-1, 3, 2, 2)
        yield Batch(images=images, class_ids=class_ids[ids], sample_ids=ids)


def test_numbers_equal_scikit_learn(problem):
    model, logits, class_ids = problem
    result = tally(model, batches(class_ids, range(NUM)), num_samples=NUM, num_classes=CLASSES)
    metrics = result.metrics()
    share = torch.softmax(logits, 1).numpy()
    labels = range(CLASSES)
    assert metrics["top1"] == pytest.approx(float((logits.argmax(1) == class_ids).float().mean()))
    assert metrics["top5"] == pytest.approx(top_k_accuracy_score(class_ids, logits.numpy(), k=5, labels=labels))
    assert metrics["loss"] == pytest.approx(log_loss(class_ids, share, labels=labels), abs=1e-5)
    assert (result.confusion == confusion_matrix(class_ids, logits.argmax(1), labels=labels)).all()
    low, high = result.interval()
    assert low < metrics["top1"] < high


@pytest.mark.parametrize("world_size", [1, 2, 3, 8])
def test_ranks_add_up_whatever_their_number(problem, world_size):
    model, _, class_ids = problem
    whole = tally(model, batches(class_ids, range(NUM)), num_samples=NUM, num_classes=CLASSES).metrics()
    cuts = np.linspace(0, NUM, world_size + 1).astype(int)
    parts = [
        tally(model, batches(class_ids, range(a, b)), num_samples=NUM, num_classes=CLASSES)
        for a, b in itertools.pairwise(cuts)
    ]
    vectors: list[np.ndarray] = []
    for part in parts:
        part.all_reduce(lambda vector: vectors.append(vector) or vector)
    parts[0].all_reduce(lambda vector: np.sum(vectors, 0))
    assert parts[0].metrics() == pytest.approx(whole)


def test_double_and_missing_samples_are_refused(problem):
    model, _, class_ids = problem
    for rows in ([*range(NUM), 0], list(range(NUM - 1))):
        with pytest.raises(AssertionError, match="exactly once"):
            tally(model, batches(class_ids, rows), num_samples=NUM, num_classes=CLASSES).metrics()


def test_a_sample_without_class_is_refused_and_the_mode_is_put_back(problem):
    model, _, class_ids = problem
    model.train()
    with pytest.raises(ValueError, match="-1"):
        tally(model, batches(class_ids * 0 - 1, range(NUM)), num_samples=NUM, num_classes=CLASSES).metrics()
    assert model.training


def test_fewer_than_five_classes_and_restricted_logits(problem):
    model, logits, class_ids = problem
    keep = torch.tensor([2, 0, 5])
    few = class_ids % 3
    result = tally(
        model, batches(few, range(NUM)), num_samples=NUM, num_classes=3, keep_logits=lambda rows: rows[:, keep]
    )
    assert result.metrics()["top5"] == 1.0
    assert result.metrics()["top1"] == pytest.approx(float((logits[:, keep].argmax(1) == few).float().mean()))


@pytest.fixture(scope="module")
def road(tmp_path_factory, exported):
    root = tmp_path_factory.mktemp("evaluate")
    return root, make_dataset(root / "data"), exported[0]


def test_more_tokens_than_a_map_has_pixels_are_refused_before_any_work(road, tmp_path):
    _, data, checkpoint = road
    side = 32  # of the maps of this checkpoint
    assert main(["--checkpoint", checkpoint, "--data", data, "--tokens", str(side**2)]) == 0
    photo = tmp_path / "photo.png"
    Image.new("RGB", (40, 40)).save(photo)
    most = ["--tokens", str(side**2 + 1)]
    for verb, rest in (
        (main, ["--data", data, "--tokens", f"4,{side**2 + 1}"]),
        (predict.main, [*most, str(photo)]),
        (look.main, [*most, str(photo), "--out", str(tmp_path / "out")]),
        (look.main, ["--budgets", f"4,{side**2 + 1}", str(photo), "--out", str(tmp_path / "out")]),
        (transfer, ["--suite", "quick", "--task", f"a={data}", "--out", str(tmp_path / "out"), *most]),
    ):
        with pytest.raises(UsageError, match=r"1025 tokens are too many: .* of 32 x 32 pixels, so choose 1 to 1024"):
            verb(["--checkpoint", checkpoint, *rest])


def test_the_verb_prints_budgets_interval_and_chance(road, capsys):
    root, data, checkpoint = road
    picture = root / "confusion.png"
    argv = ["--checkpoint", checkpoint, "--data", data, "--tokens", "4,9,16", "--json", "--batch-size", "5"]
    assert main([*argv, "--confusion", str(picture)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["tokens"] for row in found["results"]] == [4, 9, 16] and picture.stat().st_size > 1000
    assert found["chance"] == pytest.approx(5 / 17)
    assert all(row["top1_low"] <= row["top1"] <= row["top1_high"] for row in found["results"])
    assert all(row["num_samples"] == 17 and row["top5"] == 1.0 for row in found["results"])
    assert found["own_tokens"] == 9 and found["score"] == found["results"][1]  # not the best of the three
    for tokens, words in (
        ("16,9,4", f"top-1 {found['score']['top1']:.2%} with its own budget of 9 tokens of 17 samples"),
        ("4,16", "own budget of 9 tokens was not scored; always answering"),
        ("9", f"top-1 {found['score']['top1']:.2%} of 17 samples, each counted once; always answering"),
    ):
        assert main(["--checkpoint", checkpoint, "--data", data, "--tokens", tokens]) == 0
        said = capsys.readouterr().out
        assert "95 % interval" in said and words in said.splitlines()[-1]


def test_answers_that_are_no_numbers_are_no_score(road, tmp_path, capsys):
    """Weights that are numbers, whose sums are none."""
    _, data, _ = road
    record, weights = read_checkpoint(make_checkpoint(tmp_path / "wild"))
    weights["head.weight"][:] = 3e38
    save_checkpoint(record.uri, record, weights)
    with pytest.raises(DataError, match=r"wild: the loss of its answers .* is no finite number"):
        main(["--checkpoint", record.uri, "--data", data])


class Hungry(torch.nn.Module):
    """Fails like a GPU whose memory is full when it gets more than `most` images at once."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most, self.sizes = most, []

    def forward(self, images, maps=None, num_tokens=None):
        self.sizes.append(len(images))
        if len(images) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3 GiB")
        return images.float().mean((2, 3))


def test_scoring_halves_its_batch_when_memory_runs_out(problem):
    _, _, class_ids = problem
    pictures = torch.randint(0, 255, (NUM, 3, 4, 4), dtype=torch.uint8)
    parts = [
        dataclasses.replace(batch, images=pictures[batch.sample_ids]) for batch in batches(class_ids % 3, range(NUM))
    ]
    size = len(parts[0])
    model, plenty = Hungry(size // 2), Hungry(size)
    found, expected = (tally(one, parts, num_samples=NUM, num_classes=3) for one in (model, plenty))
    assert (found.answers == expected.answers).all() and found.metrics() == pytest.approx(expected.metrics())
    assert model.sizes.count(size) == 1  # the smaller size is kept
    with pytest.raises(UsageError, match="memory does not suffice for one image"):
        tally(Hungry(0), parts, num_samples=NUM, num_classes=3)


def test_a_part_of_the_classes_is_scored_among_themselves(road, tmp_path, capsys):
    _, data, _ = road
    names = ("other", "star", "triangle", "square", "disc")
    checkpoint = make_checkpoint(tmp_path / "ckpt", classes=names)
    assert main(["--checkpoint", checkpoint, "--data", data]) == 0
    assert "4 of the model's 5 classes" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "options", "words"),
    [
        ({}, ["--split", "test"], "no split 'test'"),
        ({"classes": ("a", "b", "c", "d")}, [], "'disc'"),
        ({"tokens": None}, ["--tokens", "9"], "plain ViT"),
    ],
)
def test_wrong_usage_is_named(road, tmp_path, change, options, words):
    _, data, _ = road
    checkpoint = make_checkpoint(tmp_path / "ckpt", **change)
    with pytest.raises(UsageError, match=words):
        main(["--checkpoint", checkpoint, "--data", data, *options])


def test_a_budget_that_is_no_number_is_wrong_usage(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--checkpoint", "c", "--data", "d", "--tokens", "9,x"])
    assert stopped.value.code == 2 and "'x' is not a positive" in capsys.readouterr().err


def test_other_superpixel_settings_are_refused(road, tmp_path):
    _, data, checkpoint = road
    place = tmp_path / "ckpt"
    shutil.copytree(checkpoint, place)
    superpixels = {**record_at(str(place)).superpixels, "compactness": 33.0}
    edit_checkpoint(str(place), superpixels=superpixels)
    with pytest.raises(UsageError, match=r"compactness: 33\.0"):
        main(["--checkpoint", str(place), "--data", data])


def test_no_skew_between_stored_maps_maps_made_now_and_an_exported_file(road, exported, tmp_path, capsys):
    _, data, checkpoint = road
    file = str(exported[1])
    argv = ["--checkpoint", checkpoint, "--data", data, "--segmenter", "shards,fast-slic,torch"]
    capsys.readouterr()
    assert main([*argv, "--onnx", file, "--json"]) == 0
    shards, fast_slic, torch_slic, onnx = json.loads(capsys.readouterr().out)["results"]
    assert [row["superpixels"] for row in (shards, fast_slic, torch_slic, onnx)] == [
        "shards", "fast-slic", "torch", "model.onnx",
    ]  # fmt: skip
    assert shards["loss"] == pytest.approx(fast_slic["loss"], abs=1e-6)
    assert shards["loss"] == pytest.approx(onnx["loss"], abs=1e-4)
    assert onnx["same_answers"] == fast_slic["same_answers"] == 1 and onnx["top1_against_first"] == 0
    assert torch_slic["loss"] != shards["loss"] and torch_slic["num_samples"] == 17  # other regions, all samples
    assert main([*argv, "--onnx", file]) == 0
    assert "same answers" in capsys.readouterr().out
    other = make_checkpoint(tmp_path / "other", classes=("star", "triangle", "square", "disc"))
    with pytest.raises(UsageError, match="not an export of this checkpoint"):
        main(["--checkpoint", other, "--data", data, "--onnx", file])


def compared(gained, lost, num_samples):
    first, second = (Tally(num_classes=2, num_samples=num_samples) for _ in range(2))
    second.right[:gained], first.right[gained : gained + lost] = True, True
    return second.against(first)


def test_the_paired_interval_is_that_of_the_samples_that_changed():
    off, half, same = compared(300, 200, 10_000)
    changes = np.r_[np.ones(300), -np.ones(200), np.zeros(9_500)]
    assert off == pytest.approx(changes.mean()) and half == pytest.approx(1.96 * changes.std() / 100, rel=2e-3)
    assert same == 1
    alone = Tally(num_classes=2, num_samples=9)
    assert alone.against(alone) == (0, 0, 1)


def test_the_paired_interval_holds_the_truth_when_few_samples_change():
    rng = np.random.default_rng(0)
    for num_samples, gains, losses in ((20, 0.06, 0.0), (100, 0.01, 0.0), (30, 0.06, 0.02)):
        drawn = rng.multinomial(num_samples, [gains, losses, 1 - gains - losses], 1000)
        found = [compared(gained, lost, num_samples) for gained, lost, _ in drawn]
        assert np.mean([abs(off - (gains - losses)) <= half + 1e-12 for off, half, _ in found]) > 0.92


def test_a_segmenter_that_is_unknown_or_useless_is_wrong_usage(road, tmp_path, capsys):
    _, data, _ = road
    with pytest.raises(SystemExit):
        main(["--checkpoint", "c", "--data", data, "--segmenter", "slico"])
    assert "'slico'" in capsys.readouterr().err
    plain = make_checkpoint(tmp_path / "plain", tokens=None)
    with pytest.raises(UsageError, match="takes no superpixels"):
        main(["--checkpoint", plain, "--data", data, "--segmenter", "torch"])
