"""A run that goes on: its store is followed where it can be, and refused in words where it cannot."""

import os
from pathlib import Path

import pytest

from cluster.train import tracked_place as module
from cluster.train.launch import LaunchConfig
from cluster.train.tracked_place import changes_nothing, tracked_place
from pipeline.errors import UsageError
from pipeline.secrets import masked

SECRET = "postgresql://me:pw@db:5432/mlflow"


def launch(**options: str) -> LaunchConfig:
    return LaunchConfig(data="/d", run_dir="/r", **options)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def stores(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Every store answers; those in the set have the run."""
    with_run: set[str] = set()
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(module, "check_reachable", lambda uri: None)
    monkeypatch.setattr(module, "has_run", lambda uri, run_id: uri in with_run)
    return with_run


def known(uri: str = "http://old:5000") -> dict[str, str]:
    return {"tracking_uri": uri, "experiment": "focusvit", "run_id": "abc", "run_name": "one"}


def test_a_first_start_takes_what_it_is_told() -> None:
    place = tracked_place({}, launch(tracking_uri="http://new:5000", experiment="mine"))
    assert (place.uri, place.experiment, place.run_id, place.said) == ("http://new:5000", "mine", None, "")
    assert tracked_place({}, launch()).experiment == "focusvit"


def test_a_run_goes_on_where_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://elsewhere:1")
    for options in ({}, {"tracking_uri": "http://old:5000"}, {"experiment": "focusvit"}):
        place = tracked_place(known(), launch(**options))
        assert (place.uri, place.run_id, place.said) == ("http://old:5000", "abc", "")


def test_a_moved_server_is_followed_in_words(stores: set[str]) -> None:
    stores.add("http://new:5000")
    place = tracked_place(known(), launch(tracking_uri="http://new:5000"))
    assert (place.uri, place.run_id) == ("http://new:5000", "abc")
    assert "the run goes on in http://new:5000, before in http://old:5000" in place.said


def test_a_store_without_the_run_gets_a_new_one_with_all_points() -> None:
    place = tracked_place(known(), launch(tracking_uri="http://new:5000", experiment="other"))
    assert (place.uri, place.experiment, place.run_id) == ("http://new:5000", "other", None)
    assert "http://new:5000 has no run abc of http://old:5000: a new run there gets all points" in place.said


def test_another_experiment_of_the_same_store_is_refused() -> None:
    with pytest.raises(UsageError, match="in the experiment 'focusvit', and MLflow cannot move it to 'other'"):
        tracked_place(known(), launch(experiment="other"))


def test_a_masked_address_is_never_used(monkeypatch: pytest.MonkeyPatch) -> None:
    stored = masked(SECRET)
    assert "pw" not in stored
    with pytest.raises(UsageError, match=r"its password is kept nowhere\. Name the whole address again"):
        tracked_place(known(stored), launch())
    place = tracked_place(known(stored), launch(tracking_uri=SECRET))
    assert (place.uri, place.run_id, place.said) == (SECRET, "abc", "")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", SECRET)
    assert tracked_place(known(stored), launch()).uri == SECRET
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://me:pw@other:5432/mlflow")
    with pytest.raises(UsageError, match="password is kept nowhere"):
        tracked_place(known(stored), launch())


@pytest.mark.parametrize(("host", "user"), [("old", "me"), ("other", "of before")])
def test_the_variable_signs_in_to_its_own_server_alone(monkeypatch: pytest.MonkeyPatch, host: str, user: str) -> None:
    for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.setenv(name, "of before")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:hunter2@{host}:5000")
    assert tracked_place(known("http://old:5000"), launch()).uri == "http://old:5000"
    assert os.environ["MLFLOW_TRACKING_USERNAME"] == user


def test_a_change_that_is_said_never_shows_a_password(stores: set[str]) -> None:
    stores.add(SECRET)
    said = tracked_place(known(), launch(tracking_uri=SECRET)).said
    assert "me:***@db" in said and "pw" not in said


def test_only_what_differs_from_the_run_is_a_change() -> None:
    same = {"tracking_uri": "http://old:5000", "experiment": "focusvit", "run_name": "one"}
    for options in ({}, same, *({name: value} for name, value in same.items())):
        assert changes_nothing(known(), launch(**options))
    for name, value in {"tracking_uri": "http://new:1", "experiment": "x", "run_name": "two"}.items():
        assert not changes_nothing(known(), launch(**{**same, name: value}))


def test_has_run_tells_of_a_real_store(tmp_path: Path) -> None:
    from focusvit.runs.store import has_run
    from focusvit.runs.tracker import Tracker

    uri = f"sqlite:///{tmp_path}/mlflow.db"
    with Tracker.open(uri, "e", "n") as tracker:
        assert has_run(uri, tracker.run_id) and not has_run(uri, "0" * 32)
