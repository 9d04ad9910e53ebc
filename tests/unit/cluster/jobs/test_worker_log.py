"""Log lines and metrics of a job's processes: one JSON object a line, numbers that Ray's metrics page adds up."""

import json
import logging
import re
import sys
import types
from typing import ClassVar

import pytest
from tqdm import tqdm

from cluster.jobs import worker_log
from cluster.jobs.job import ProgressLog
from cluster.jobs.package import PACKAGES
from cluster.jobs.progress_lines import SHARD_RETRIED, read_bar
from pipeline.shards.executors import _Attempts


class Metric:
    """Stands for ray.util.metrics.Counter and Gauge; knows Ray's rule that a counter takes no 0."""

    made: ClassVar[dict[str, "Metric"]] = {}

    def __init__(self, name, description, tag_keys):
        self.value, self.tags, self.tag_keys = 0.0, None, tag_keys
        assert name not in self.made, "Ray wants one object for each name"
        self.made[name] = self

    def inc(self, value, tags):
        assert value > 0 and set(tags) == set(self.tag_keys)
        self.value, self.tags = self.value + value, tags

    def set(self, value, tags):
        self.value, self.tags = value, tags


@pytest.fixture
def heard(monkeypatch, capsys):
    """What a worker writes to stderr, line by line; all loggers are put back afterwards."""
    import ray.util.metrics

    monkeypatch.setattr(ray.util.metrics, "Counter", Metric)
    monkeypatch.setattr(ray.util.metrics, "Gauge", Metric)
    monkeypatch.setattr(Metric, "made", {})
    monkeypatch.setenv("FOCUSVIT_JOB", "preprocess-1")
    loggers = [logging.getLogger(name) for name in PACKAGES]
    before = [(one, one.handlers, one.propagate, one.level) for one in loggers]
    yield lambda: capsys.readouterr().err
    for one, one.handlers, one.propagate, level in before:
        one.setLevel(level)


def test_a_worker_writes_json_and_counts(heard):
    worker_log.start_worker()
    for number, bad in ((1, 0), (2, 3)):
        facts = {"run": "abc", "shard": f"train-00000{number}.tar", "num_samples": 100, "num_bad": bad}
        logging.getLogger("pipeline.shards.build").info("shard finished", extra={"facts": facts})
    lines = [json.loads(line) for line in heard().splitlines()]
    assert [line["shard"] for line in lines] == ["train-000001.tar", "train-000002.tar"]
    assert {(line["event"], line["job"], line["run"]) for line in lines} == {("shard finished", "preprocess-1", "abc")}
    values = {name: metric.value for name, metric in Metric.made.items()}
    assert values == {"focusvit_shards": 2, "focusvit_images": 200, "focusvit_bad_images": 3}
    assert Metric.made["focusvit_shards"].tags == {"job": "preprocess-1"}


def test_an_exception_and_a_warning_stay_one_line_each(heard):
    worker_log.start_worker()
    try:
        raise OSError("no space left")
    except OSError:
        logging.getLogger("transfer.work").exception("a task failed")
    (line,) = heard().splitlines()
    assert "no space left" in json.loads(line)["error"] and json.loads(line)["level"] == "error"


def test_the_driver_writes_warnings_for_people_and_shows_the_training(heard):
    worker_log.start_driver()
    point = {"run": "abc", "samples": 64, "train/loss": 2.5, "perf/img_per_s": 300.0}
    logging.getLogger("cluster.train.reporting").info("point", extra={"facts": point})
    logging.getLogger("focusvit.runs.shipper").warning("the store is away")
    assert heard() == "the store is away\n"
    shown = {name: metric.value for name, metric in Metric.made.items()}
    assert shown == {"focusvit_train_samples": 64, "focusvit_train_images_per_s": 300, "focusvit_train_loss": 2.5}


def test_a_warning_beside_a_bar_is_a_line_of_its_own(heard, monkeypatch):
    """`jobs logs --follow` overwrites bars: a sentence on the line of one would be lost."""
    monkeypatch.setattr(sys, "stderr", ProgressLog(sys.stderr))  # as cluster.jobs.job does
    worker_log.start_driver()
    with tqdm(total=10, desc="preprocess train") as bar:
        bar.update(3)
        logging.getLogger("pipeline.shards.executors").warning("train-3 is tried again")
    lines = re.split(r"[\r\n]+", heard())
    assert "train-3 is tried again" in lines and read_bar(lines[-2])


def test_a_retry_is_a_sentence_in_the_log_and_a_count_for_machines(heard):
    worker_log.start_driver()
    task = types.SimpleNamespace(shard=3, name="train-000003.tar")
    _Attempts().after(task, "no space left", crashed=False)
    text = heard()
    assert text == "train-000003.tar is tried again (2 of 3): no space left\n" and SHARD_RETRIED in text
    assert Metric.made["focusvit_shard_retries"].value == 1


def test_without_a_job_our_packages_are_silent(capfd):
    logging.getLogger("pipeline.shards.build").info("shard finished", extra={"facts": {"shard": "x"}})
    assert capfd.readouterr().err == ""
