"""A task from shards to rows: cached, skipped when finished, honest about failures, the test set opened once."""

import dataclasses
import json
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import DataError, UsageError
from pipeline.shards.dataset import open_dataset
from testkit.tiny_checkpoint import make_checkpoint
from testkit.tiny_shards import make_dataset
from transfer import work
from transfer.protocols.knn import Knn
from transfer.report.finished import find_runs
from transfer.report.report import main as report_main
from transfer.report.table import CSV_COLUMNS, csv_cells, csv_text, markdown_table, text_table
from transfer.suite import TransferConfig, with_out
from transfer.suite import main as suite_main
from transfer.tasks.known_tasks import parse_task
from transfer.tasks.measuring import SecondLookError
from transfer.tasks.result import Result, ResultStore
from transfer.tasks.spec import WorkSpec
from transfer.tasks.task import Task
from transfer.work import run_task


@pytest.fixture(scope="module")
def road(tmp_path_factory):
    root = tmp_path_factory.mktemp("suite")
    data = make_dataset(root / "data", splits={"train": 60, "val": 21})
    return root, data, make_checkpoint(root / "ckpt")


def spec(road, out: Path, **changes) -> WorkSpec:
    _, data, checkpoint = road
    values = {"suite": "quick", "out": str(out / "results"), "features_folder": str(out / "features")}
    return WorkSpec(**{"task": Task(name="tiny", uri=data), "checkpoint": checkpoint, **values, **changes})


@pytest.fixture(scope="module")
def done(road):
    return run_task(spec(road, road[0] / "first"))


def test_every_number_has_spread_and_chance(done):
    assert done.failures == []
    kinds = {(row.features, row.protocol) for row in done.rows}
    assert {("checkpoint", "knn"), ("checkpoint", "logistic"), ("random", "knn"), ("pixels", "knn")} <= kinds
    for row in done.rows:
        assert 0 <= row.low <= row.value <= row.high <= 1 and 0.2 < row.chance < 0.4
        assert row.num_train == 60 and row.num_test == 21 and np.sum(row.confusion) % 21 == 0
    assert done.task.test == "val"


def test_finished_results_are_found_and_features_not_computed_again(road, done, monkeypatch):
    monkeypatch.setattr(work, "model_rows", lambda *_: pytest.fail("features were computed again"))
    again = run_task(spec(road, road[0] / "first"))
    assert again.num_skipped > 0 and again.features_s == 0
    assert [row.value for row in again.rows] == [row.value for row in done.rows]


def test_other_weights_are_measured_again(road, done, tmp_path):
    other = make_checkpoint(tmp_path / "ckpt", seed=5)
    again = run_task(dataclasses.replace(spec(road, road[0] / "first"), checkpoint=other, baselines=False))
    assert again.num_skipped == 0 and again.features_s > 0


def test_the_order_of_batches_and_their_size_change_nothing(road, done, tmp_path):
    again = run_task(spec(road, tmp_path, batch_size=7, baselines=False))
    mine = [row for row in done.rows if row.features == "checkpoint"]
    assert [row.value for row in again.rows] == pytest.approx([row.value for row in mine], abs=1e-6)


def test_protocols_never_get_the_test_set_before_they_have_chosen(road, tmp_path, monkeypatch):
    seen: list[int] = []

    class Spy:
        name = "spy"

        def fit(self, train, held_out):
            seen.append(len(train) + len(held_out))
            return []

    monkeypatch.setattr(work, "protocols_of", lambda *_: [dataclasses.make_dataclass("S", [], bases=(Spy,))()])
    assert "no variant could be measured" in run_task(spec(road, tmp_path, baselines=False)).failures[0]
    assert seen == [60]


def test_a_protocol_that_is_measured_twice_in_one_run_is_refused(road, tmp_path):
    run = work.TaskRun(spec(road, tmp_path, baselines=False))
    keys = {name: run._key("checkpoint", split) for name, split in run.splits.items()}
    assert run._measure("checkpoint", keys, Knn())
    with pytest.raises(SecondLookError, match="'checkpoint knn' asked for the test labels a second time"):
        run._measure("checkpoint", keys, Knn())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"task": Task(name="none", uri="/nowhere")}, "holds no data set"),
        ({"checkpoint": "/nowhere"}, "No checkpoint"),
    ],
)
def test_failures_become_lines_and_never_exceptions(road, tmp_path, change, words):
    outcome = run_task(spec(road, tmp_path, **change))
    assert outcome.rows == [] and len(outcome.failures) == 1 and words in outcome.failures[0]


def test_a_missing_test_split_and_a_split_with_two_parts_are_named(tmp_path):
    data = open_dataset(make_dataset(tmp_path / "data", splits={"train": 12}))
    with pytest.raises(UsageError, match="no split to test on"):
        Task(name="t", uri=data.uri).with_splits(data)
    with pytest.raises(UsageError, match="no split 'other'"):
        Task(name="t", uri=data.uri, train="other").with_splits(data)
    with pytest.raises(UsageError, match="two parts"):
        Task(name="t", uri=data.uri, test="train").with_splits(data)


def test_three_splits_choose_on_val_and_test_on_test(tmp_path):
    data = open_dataset(make_dataset(tmp_path / "data", splits={"train": 12, "val": 8, "test": 8}))
    task = Task(name="t", uri=data.uri).with_splits(data)
    assert (task.train, task.held_out, task.test) == ("train", "val", "test")


def test_tasks_on_the_command_line(tmp_path):
    assert parse_task(f"my={tmp_path}") == Task(name="my", uri=str(tmp_path))
    assert parse_task(str(tmp_path)).name == tmp_path.name.replace("_", "_")
    with pytest.raises(UsageError, match="--task a b=x"):
        parse_task("a b=x")


def test_result_files_survive_and_damage_counts_as_absent(tmp_path, done):
    store = ResultStore(str(tmp_path))
    store.put("k" * 64, done.rows)
    assert store.find("k" * 64) == [Result(**json.loads(json.dumps(dataclasses.asdict(row)))) for row in done.rows]
    (file,) = tmp_path.iterdir()
    file.write_text(file.read_text()[:50])
    assert store.find("k" * 64) is None and store.find("j" * 64) is None


def test_tables_hold_every_row(done):
    whole = csv_text(CSV_COLUMNS, map(csv_cells, done.rows))
    for text in (text_table(done.rows), markdown_table(done.rows), whole):
        assert text.count("tiny") == len(done.rows)
    assert "unknown" in text_table([dataclasses.replace(done.rows[0], low=-np.inf, high=np.inf)])


def test_report_finds_runs_below_a_folder(tmp_path, done, capsys):
    rows = [dataclasses.asdict(row) for row in done.rows]
    transfer = {"kind": "transfer", "suite": "quick", "checkpoint": "c", "rows": rows, "failures": ["x: broken"]}
    for number in (1, 2):
        run = tmp_path / "runs" / f"lr0.{number}"
        run.mkdir(parents=True)
        (run / "config.json").write_text(json.dumps({"config": {"optim": {"lr": number}, "seed": 0}, "facts": {}}))
        point = {"samples": 64, "time_ms": 1, "values": {"train/loss": 2.0, "val/loss": 1.5, "val/top1": 0.25}}
        (run / "metrics.jsonl").write_text(json.dumps(point) + '\n{"torn')
        point = {"samples": 64, "time_ms": 2, "values": {"transfer/digits/knn": 0.5}}
        (run / "transfer.jsonl").write_text(json.dumps(point) + "\n")
    (tmp_path / "runs" / "tr").mkdir()
    (tmp_path / "runs" / "tr" / "results.json").write_text(json.dumps(transfer))
    out = tmp_path / "report"
    assert report_main([str(tmp_path / "runs"), "--out", str(out)]) == 0
    text = (out / "report.md").read_text()
    assert "| optim.lr | 1 | 2 |" in text and "25.00%" in text and "failed: x: broken" in text
    assert "| 64 |  | 2.0000 | 1.5000 | 25.00% |  |  |" in text
    assert sorted(path.name for path in out.iterdir()) == [
        "curves.json", "curves.png", "report.md", "trainings.csv", "transfer.csv", "transfer.png",
    ]  # fmt: skip
    assert find_runs([str(tmp_path / "runs")])[0][0].curves["transfer/digits/knn"] == [(64, 0.5)]
    capsys.readouterr()
    with pytest.raises(UsageError, match="holds no finished run"):
        report_main([str(out)])
    with pytest.raises(UsageError, match="no run is named"):
        report_main([])


def test_a_bound_on_samples_draws_by_seed_is_said_and_measured_apart(road, tmp_path):
    small = run_task(spec(road, tmp_path, max_samples=15, baselines=False))
    assert small.failures == [] and "tiny: at most 15 samples of each split" in small.notes[0]
    assert {(row.num_train, row.num_test) for row in small.rows} == {(15, 15)}
    assert run_task(spec(road, tmp_path, max_samples=15, baselines=False)).num_skipped == 3
    other = run_task(spec(road, tmp_path, max_samples=15, baselines=False, seed=1))
    assert other.num_skipped == 0 and other.features_s > 0


def suite_of(road, folder: Path, *options: str) -> list[str]:
    _, data, checkpoint = road
    store = f"sqlite:///{folder}/mlflow.db"
    argv = ["--checkpoint", checkpoint, "--task", f"tiny={data}", "--tracking-uri", store]
    return [*argv, "--no-baselines", "--max-samples", "12", *options]


def test_the_default_folder_never_replaces_another_table(road, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    base = TransferConfig(checkpoint=road[2], task=("tiny=a",))
    out = with_out(base).out
    assert out.startswith("transfer-results/quick-ckpt-") and with_out(base).out == out
    same = {"batch_size": 3, "device": "cpu", "loader_workers": 2, "experiment": "x", "json": True, "register": "m"}
    assert all(with_out(dataclasses.replace(base, **{name: value})).out == out for name, value in same.items())
    other = {
        "suite": "vtab1k", "tokens": "4", "seed": 3, "max_samples": 9, "task": ("tiny=b",), "checkpoint": "/elsewhere",
    }  # fmt: skip
    places = {with_out(dataclasses.replace(base, **{name: value})).out for name, value in other.items()}
    assert len(places | {out}) == len(other) + 1
    assert with_out(dataclasses.replace(base, out="mine")).out == "mine"


def test_a_suite_whose_only_task_failed_is_a_failure(road, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    missing = ["--task", "lost=/nowhere"]
    argv = suite_of(road, tmp_path)
    only = [*argv[:2], *missing, *argv[4:]]
    assert suite_main(only) == 1 and "failed: lost" in capsys.readouterr().err
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        assert database.execute("select status from runs").fetchall() == [("FAILED",)]
    (table,) = (tmp_path / "transfer-results").glob("*/results.md")
    assert "lost" in table.read_text()


@pytest.mark.parametrize("text", ["{", "[1]", '{"a":' * 99_999 + "}" * 99_999, "\x00"])
def test_a_damaged_file_of_a_run_is_named_by_the_report(text, tmp_path):
    (tmp_path / "metrics.jsonl").write_text("{}\n")
    for name in ("config.json", "results.json"):
        (tmp_path / name).write_text(text)
        with pytest.raises(DataError, match=f"{name} is damaged"):
            find_runs([str(tmp_path)])
        (tmp_path / name).unlink()
