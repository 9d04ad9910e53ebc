"""A run directory: no point twice, no torn line, no other run's config."""

from pathlib import Path

import pytest

from focusvit.recipes.small import debug
from focusvit.runs.config_json import to_json
from focusvit.runs.run_dir import RunDir
from pipeline.errors import UsageError


def test_another_config_is_refused_with_the_difference(tmp_path: Path) -> None:
    run = RunDir(str(tmp_path))
    config = {"optim": {"lr": 0.1}, "data": {"loader_workers": 0}, "seed": 1}
    run.prepare(config, {"data_identity": "x"})
    run.prepare({**config, "data": {"loader_workers": 7}}, {"data_identity": "x"})  # speed only: the same run
    with pytest.raises(UsageError, match=r"optim\.lr: 0\.1 -> 0\.2"):
        run.prepare({**config, "optim": {"lr": 0.2}}, {"data_identity": "x"})
    with pytest.raises(UsageError, match="data_identity: 'x' -> 'y'"):
        run.prepare(config, {"data_identity": "y"})


def test_a_run_of_a_release_with_other_draws_is_told(tmp_path: Path) -> None:
    run = RunDir(str(tmp_path))
    run.prepare({"seed": 1}, {"data_identity": "x"})
    run.prepare({"seed": 1}, {"data_identity": "x"})
    with pytest.raises(UsageError, match=r"drawn by another release \(draws 1; this one has draws 2\)"):
        run.prepare({"seed": 1}, {"data_identity": "x", "draws": 2})
    with pytest.raises(UsageError, match="another config: seed"):
        run.prepare({"seed": 2}, {"data_identity": "x", "draws": 2})


def test_a_run_that_an_older_version_began_goes_on(tmp_path: Path) -> None:
    """Its config names the number of slices in the model, and does not know what changes no result."""
    config = to_json(debug())
    older = {**config, "model": {**config["model"], "micro_batches": 4}}
    older["data"] = {key: value for key, value in config["data"].items() if key != "check_shards"}
    RunDir(str(tmp_path)).prepare(older, {})
    RunDir(str(tmp_path)).prepare(config, {})


def test_info_is_kept_and_extended(tmp_path: Path) -> None:
    run = RunDir(str(tmp_path))
    assert run.info() == {}
    run.set_info({"run_id": "a"})
    run.set_info({"starts": 2})
    assert run.info() == {"run_id": "a", "starts": 2}
