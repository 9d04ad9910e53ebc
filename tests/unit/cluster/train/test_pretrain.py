"""The training commands refuse what is wrong before anything starts: exit code 2, one paragraph, no traceback."""

import dataclasses
import re
from pathlib import Path

import pytest

from cluster.train.launch import LaunchConfig, worker_range
from cluster.train.on_ray import _raise_reported, _stopped
from cluster.train.pretrain import with_absolute_places
from focusvit.cli import main
from focusvit.recipes.small import RECIPES
from focusvit.train.watch import DivergedError
from pipeline.errors import DataError, UsageError
from pipeline.io import storage
from testkit.tiny_shards import make_dataset


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_dataset(tmp_path_factory.mktemp("data"))


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    try:
        code = main(list(arguments))
    except SystemExit as leaving:
        code = int(leaving.code or 0)
    text = capsys.readouterr()
    assert "Traceback" not in text.err
    return code, text.out + text.err


def test_workers_are_a_number_or_a_range() -> None:
    assert worker_range("3") == (3, 3) and worker_range("1-4") == (1, 4)
    for wrong in ("0", "2-1", "-2", "two", "1-"):
        with pytest.raises(ValueError, match="--workers"):
            worker_range(wrong)
    with pytest.raises(ValueError, match="--device"):
        LaunchConfig(data="a", run_dir="b", device="tpu")


@pytest.mark.parametrize(
    ("recipe", "options", "words"),
    [
        ("nothing", (), "There is no recipe 'nothing'"),
        ("nothing", (), "tiny_imagenet_cpu"),
        ("debug", ("--optim.learning-rate", "1"), "Unrecognized options: --optim.learning-rate"),
        ("debug", ("--optim.lr", "-1"), "optim.lr must be positive"),
        ("debug", ("--data", "/"), "/ holds no data set"),
        ("debug", ("--tracking-uri", "http://127.0.0.1:9"), "http://127.0.0.1:9 does not answer"),
        ("debug", ("--global-batch", "4", "--workers", "5"), "global_batch 4 is smaller than --workers 5"),
    ],
)
def test_what_is_wrong_is_said_before_anything_starts(
    recipe: str, options: tuple[str, ...], words: str, uri: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, text = said(capsys, "pretrain", recipe, "--data", uri, "--run-dir", str(tmp_path / "run"), *options)
    assert code == 2 and words in text and not (tmp_path / "run").exists()


def test_a_run_directory_with_another_config(uri: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from focusvit.recipes.small import debug
    from focusvit.train.loop import train

    run = str(tmp_path / "run")
    train(debug(), data_uri=uri, run_dir=run)
    store = f"sqlite:///{tmp_path}/mlflow.db"
    base = ("pretrain", "debug", "--data", uri, "--run-dir", run, "--tracking-uri", store, "--local")
    code, text = said(capsys, *base, "--seed", "7")
    assert code == 2 and "seed: 0 -> 7" in text
    code, text = said(capsys, "finetune", "--checkpoint", str(tmp_path), "--data", uri, "--run-dir", run)
    assert code == 2 and "No checkpoint at" in text


def test_a_dry_run_starts_nothing(uri: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = ("pretrain", "debug", "--data", uri, "--run-dir", str(tmp_path / "run"))
    code, text = said(capsys, *base, "--dry-run", "--epochs", "4")
    assert code == 0 and "steps     6 of 32 samples = 4 epochs" in text and "optim.lr = 0.001" in text
    assert not (tmp_path / "run").exists()
    for word in ("params ", "tokens    8 an image", "FLOPs ", "memory ", "100 img/s", "1000 img/s"):
        assert word in text
    assert "here      1 worker on cpu, " in text and "loader processes each" in text
    code, text = said(capsys, *base, "--dry-run", "--workers", "32")
    assert code == 0 and "here      not on this machine: 32 workers with 1 CPUs each do not fit" in text
    code, text = said(capsys, *base, "--dry-run", "--images-per-s", "50")
    assert code == 0 and "time      96 samples; 50 img/s: 0.0 h" in text
    code, text = said(capsys, *base, "--images-per-s", "50")
    assert code == 2 and "--images-per-s must be positive" in text


def test_a_dry_run_says_how_many_cores_feed_a_gpu(uri: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Seconds of a core for a sample, measured, times images a second of one GPU: asked for, or by FLOPs, and said."""
    from cluster.train.estimate import feeding

    assert "takes 2500 img/s (as --images-per-s says) needs 3.0 such cores" in feeding(1.2e-3, 1e9, 2500.0)
    by_flops = feeding(2e-3, 989e12 * 0.3 / 1000, None)
    assert "1000 img/s" in by_flops and "30 % of an H100's data sheet" in by_flops and "needs 2.0 such" in by_flops
    base = ("pretrain", "debug", "--data", uri, "--run-dir", str(tmp_path / "run"), "--dry-run")
    code, text = said(capsys, *base, "--workers", "2", "--images-per-s", "5000")
    found = re.search(r"loader +([\d.]+) ms of a core .* takes 2500 img/s .* needs ([\d.]+) such cores", text)
    assert code == 0 and found and float(found[2]) == pytest.approx(2.5 * float(found[1]), abs=0.1)


def test_the_memory_estimate_is_near_what_training_takes() -> None:
    """Within a third, for a model whose activations and weights both count."""
    from types import SimpleNamespace

    from cluster.train.estimate import describe
    from focusvit.model.cost import example_inputs, training_peak
    from focusvit.model.model import FocusViT
    from focusvit.recipes.small import recipe

    config = dataclasses.replace(recipe("tiny_imagenet_cpu"), ema_decay=None)
    split = SimpleNamespace(num_samples=1000)
    data = SimpleNamespace(split=lambda name: split, uri="/data", classes=["x"] * config.model.num_classes)
    launch = LaunchConfig(data="/data", run_dir="/run", workers="4", dry_run=True)
    text = describe(config, data, launch)  # type: ignore[arg-type]
    found = re.search(r"([\d.]+) GB on each worker with 32 images at a time", text)
    assert found
    measured = training_peak(FocusViT(config.model), *example_inputs(config.model, 32)) / 1e9
    assert float(found[1]) == pytest.approx(measured, rel=1 / 3, abs=0.05)


def test_a_training_that_ray_gives_up_says_who_failed(tmp_path: Path) -> None:
    from ray.train import ControllerError, WorkerGroupError

    launch = LaunchConfig(data="/d", run_dir=str(tmp_path), max_failures=2)
    died = _stopped(launch, WorkerGroupError("rank 1:\nthe worker process has died", {}))
    assert "workers failed more than 2 times; the last words were 'the worker process has died'" in str(died)
    no_room = str(_stopped(launch, ControllerError(TimeoutError("no node has 8 CPUs"))))
    assert "Ray Train could not go on; the last words were 'no node has 8 CPUs'" in no_room and "2 times" not in no_room
    assert (tmp_path / "failure.txt").read_text().endswith("no node has 8 CPUs")
    assert "the last words were 'ConnectionError'" in str(_stopped(launch, ConnectionError()))


def test_only_living_nodes_need_a_place_that_all_see(tmp_path: Path) -> None:
    from cluster.train.transfers import TransferLaunch, _check_places

    config = TransferLaunch(checkpoint="/c", out=str(tmp_path), tasks_at_once=2)
    _check_places(config, [{"Alive": True}, {"Alive": False}])
    with pytest.raises(UsageError, match="has 2 nodes"):
        _check_places(config, [{"Alive": True}, {"Alive": True}])


def test_the_places_of_a_config_mean_the_same_in_a_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from focusvit.recipes.small import debug

    monkeypatch.chdir(tmp_path)
    plain = debug()
    assert with_absolute_places(plain) == plain
    data = dataclasses.replace(plain.data, cache_dir="cache")
    distill = dataclasses.replace(plain.distill, teacher="runs/vit")
    found = with_absolute_places(dataclasses.replace(plain, data=data, distill=distill))
    assert (found.data.cache_dir, found.distill.teacher) == (f"{tmp_path}/cache", f"{tmp_path}/runs/vit")
    away = dataclasses.replace(plain, distill=dataclasses.replace(distill, teacher="s3://b/vit"))
    assert with_absolute_places(away) == away


def test_a_warm_up_as_long_as_the_run_is_said(uri: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = ("pretrain", "debug", "--data", uri, "--run-dir", str(tmp_path / "run"), "--dry-run", "--epochs", "2")
    for warmup, share in (("8", "25 %"), ("2", "100 %")):
        code, text = said(capsys, *base, "--optim.warmup-epochs", warmup)
        assert code == 0 and f"takes {warmup} epochs and the run 2: " in text and f"to {share} of optim.lr" in text
    assert "warning" not in said(capsys, *base, "--optim.warmup-epochs", "1.9")[1]
    assert all(one.config.epochs > one.config.optim.warmup_epochs for one in RECIPES.values())


@pytest.mark.parametrize("kind", [UsageError, DataError, DivergedError])
def test_an_error_of_a_worker_keeps_its_kind(kind: type[Exception], tmp_path: Path) -> None:
    """A sweep goes on after a `DivergedError` only."""
    storage.put_json(str(tmp_path / "error.json"), {"kind": kind.__name__, "text": "in its own words"})
    with pytest.raises(kind, match="in its own words") as raised:
        _raise_reported(str(tmp_path), None)
    assert type(raised.value) is kind


def test_data_without_classes_is_refused_and_one_class_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, labels, words in (
        ("none", dict.fromkeys(range(4), -1), "12 of 12 samples of split 'train'"),
        ("val", {3: -1}, "samples of split"),
    ):
        data = make_dataset(tmp_path / name, splits={"train": 12, "val": 8}, labels=labels)
        for more in (["--dry-run"], ["--local"]):
            arguments = ["--data", data, "--run-dir", str(tmp_path / "run"), *more]
            code, text = said(capsys, "pretrain", "debug", *arguments)
            assert code == 2 and words in text and "have no class, and this training is supervised" in text
    one = make_dataset(tmp_path / "one", splits={"train": 12, "val": 8}, labels=dict.fromkeys(range(1, 4), 0))
    storage.put_json(f"{one}/dataset.json", {**storage.read_json(f"{one}/dataset.json"), "classes": ["disc"]})
    code, text = said(capsys, "pretrain", "debug", "--data", one, "--run-dir", str(tmp_path / "run"), "--dry-run")
    assert code == 0 and "warning   there is one class ('disc')" in text
    assert not (tmp_path / "run").exists()
