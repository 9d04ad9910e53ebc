"""Starts of a training on one run directory: refused ones leave nothing, later ones say where they go on."""

import json
import os
import shutil
import signal
import sqlite3
import threading
from pathlib import Path

import pytest

from cluster.train.holder import held
from focusvit.cli import main
from focusvit.recipes.small import debug
from focusvit.runs.run_dir import RunDir
from testkit.damage import flip
from testkit.tiny_shards import make_dataset


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_dataset(tmp_path_factory.mktemp("data"))


def command(uri: str, folder: Path, *options: str) -> list[str]:
    store = f"sqlite:///{folder}/mlflow.db"
    where = ["--data", uri, "--run-dir", str(folder / "run"), "--tracking-uri", store, "--local", "--device", "cpu"]
    return ["pretrain", "debug", *where, "--epochs", "4", *options]


def said(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    code = main(list(argv))
    text = capsys.readouterr()
    assert "Traceback" not in text.err
    return code, text.out, text.err


@pytest.fixture(scope="module")
def done(uri: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("done")
    assert main(command(uri, folder, "--run-name", "first", "--checkpoint-every-epochs", "1")) == 0
    return folder


def test_a_finished_run_says_so_and_starts_nothing(uri: str, done: Path, capsys, monkeypatch) -> None:
    monkeypatch.setattr("cluster.train.pretrain.placed_on_ray", None)  # it would fail
    monkeypatch.setattr("cluster.train.pretrain.reported_run", None)
    argv = [option for option in command(uri, done, "--json") if option != "--local"]
    code, out, err = said(capsys, *argv)
    summary = json.loads(out)
    assert code == 0 and "finished  " in err and "all of its 192 samples" in err
    assert summary["samples_seen"] == 192 and summary["run_id"] == RunDir(f"{done}/run").info()["run_id"]
    best = json.loads(Path(summary["checkpoint"], "checkpoint.json").read_text())
    assert summary["scores"] == best["metrics"] and summary["checkpoint_samples"] == best["samples_seen"]


def test_the_line_at_the_end_has_the_score_of_its_checkpoint(uri: str, done: Path, capsys) -> None:
    _, out, _ = said(capsys, *command(uri, done))
    place = RunDir(f"{done}/run")
    best = place.best()
    metrics = json.loads(Path(place.checkpoint_uri(best or 0), "checkpoint.json").read_text())["metrics"]
    assert f"{place.checkpoint_uri(best or 0)}: val/top1 {metrics['val/top1']:.4f}" in out


def copied(done: Path, tmp_path: Path) -> Path:
    """The run as if it had been stopped after 160 of its 192 samples."""
    shutil.copytree(done, tmp_path, dirs_exist_ok=True)
    run = RunDir(f"{tmp_path}/run")
    shutil.rmtree(run.checkpoint_uri(192))
    return tmp_path


def test_a_resumed_run_says_at_which_sample_and_takes_its_new_name(uri: str, done: Path, tmp_path, capsys) -> None:
    folder = copied(done, tmp_path)
    latest = RunDir(f"{folder}/run").latest()
    code, _, err = said(capsys, *command(uri, folder, "--run-name", "second"))
    assert code == 0 and f"resuming  at {latest} of 192 samples" in err and "is called 'second' now" in err
    assert "starting  1 worker on cpu, " in err


def test_a_resumed_run_names_damage_and_the_sample_before_it(uri: str, done: Path, tmp_path, capsys, caplog) -> None:
    folder = copied(done, tmp_path)
    shutil.copytree(folder / "run/checkpoints" / f"{RunDir(f'{folder}/run').latest():012d}", folder / "kept")
    last = RunDir(f"{folder}/run").checkpoints()[-1]
    flip(Path(RunDir(f"{folder}/run").checkpoint_uri(last), "state.safetensors"), 0.5)
    code, _, err = said(capsys, *command(uri, folder))
    assert code == 0 and "state.safetensors is not what was written" in caplog.text
    assert f"at {last} of" not in err


def test_another_experiment_on_resume_is_refused(uri: str, done: Path, tmp_path, capsys) -> None:
    code, _, err = said(capsys, *command(uri, copied(done, tmp_path), "--experiment", "other"))
    assert code == 2 and "MLflow cannot move it to 'other'" in err


REFUSED = {
    "no such GPU": (["--device", "gpu"], "torch sees no GPU"),
    "a dead server": (["--tracking-uri", "http://127.0.0.1:9"], "does not answer"),
    "a missing split": (["--data.eval-split", "nothing"], "nothing"),
    "no such start": (["--init-from", "/nowhere"], "No checkpoint at /nowhere"),
    "a pattern without a weight": (["--freeze", "nothing.*"], "freeze"),  # seen by the worker
}


@pytest.mark.parametrize(("options", "words"), REFUSED.values(), ids=REFUSED)
def test_a_refused_start_leaves_no_run_directory(options, words, uri: str, tmp_path, capsys) -> None:
    code, _, err = said(capsys, *command(uri, tmp_path, *options))
    assert code == 2 and words in err and not (tmp_path / "run").exists()


def test_a_second_start_names_the_first(uri: str, done: Path, capsys) -> None:
    with held(RunDir(f"{done}/run")):
        code, _, err = said(capsys, *command(uri, done))
    assert code == 2 and f"process {os.getpid()} on host" in err and "another --run-dir" in err


def test_ctrl_c_saves_says_where_it_stopped_and_how_to_go_on(uri: str, tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.setenv("FOCUSVIT_GRACE_S", "200")  # a busy machine needs more than a pod has
    points, over = tmp_path / "run/metrics.jsonl", threading.Event()

    def press() -> None:
        while not over.wait(0.05):
            if points.exists() and points.read_bytes().count(b"\n") >= 3:
                os.kill(os.getpid(), signal.SIGINT)
                return

    thread = threading.Thread(target=press)
    thread.start()
    try:
        endless = ["--epochs", "20000", "--eval-every-epochs", "20000", "--checkpoint-every-epochs", "20000"]
        with pytest.raises(SystemExit) as ended:
            main([*command(uri, tmp_path), *endless])
    finally:
        over.set()
        thread.join()
    err = capsys.readouterr().err
    assert ended.value.code == 130 and "Traceback" not in err and "saving a checkpoint, then stopping" in err
    latest = RunDir(f"{tmp_path}/run").latest()
    assert f"stopped at {latest} of 1000000 samples; the same command goes on from there" in err


def test_every_key_of_the_config_is_a_param(done: Path) -> None:
    def rows(query: str) -> list[tuple]:
        with sqlite3.connect(done / "mlflow.db") as database:
            return database.execute(query).fetchall()

    tags, params = (dict(rows(f"select key, value from {table}")) for table in ("tags", "params"))
    assert "best checkpoint: `" in tags["mlflow.note.content"] and tags["mlflow.source.name"] == "focusvit pretrain"
    config = debug()
    assert (params["optim.lr"], params["model.tokens"]) == (str(config.optim.lr), str(config.model.tokens))
    assert rows("select count(*) from datasets")[0][0] == 2  # what it learned from, what scored it
