"""The check before a job: whatever makes nodes write other bytes or fail hours later is named with its node."""

import copy

import pytest

from cluster.jobs import node_check
from cluster.jobs.package import checkout_root, fingerprint
from cluster.jobs.places import Place

DRIVER = {
    "node": "head (10.0.0.1)",
    "python": "3.11.7",
    "fingerprint": "f" * 64,
    "foreign": [],
    "root": "/tmp/ray/pkg",
    "format": 1,
    "versions": {"ray": "2.60.0", "numpy": "2.4.6", "opencv-python-headless": "5.0"},
    "cpu_flags": ["avx2", "fma"],
    "slic": ["ok", "fine", ""],
    "places": [["--out", "/data", ""]],
}


def other(**changes):
    return {**copy.deepcopy(DRIVER), "node": "worker (10.0.0.2)", **changes}


def test_equal_nodes_are_fine():
    found = node_check.compare(DRIVER, [other(), other(python="3.11.9")], "f" * 64)
    assert [finding.level for finding in found] == ["ok"] and "3 nodes run code ffffffffffff" in found[0].found


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"fingerprint": "0" * 64}, "runs other code than was submitted, from /tmp/ray/pkg"),
        ({"foreign": ["pipeline: /site-packages/pipeline/__init__.py"]}, "/site-packages/pipeline"),
        ({"python": "3.12.1"}, "Python 3.12.1, the job runs 3.11.7"),
        ({"format": 2}, "shard format 2, the job writes 1"),
        (
            {"versions": {"ray": "2.60.0", "numpy": "2.2.0"}},
            "numpy 2.2.0 instead of 2.4.6, opencv",
        ),
        ({"slic": ["broken", "SIGILL", "rebuild"]}, "fast-slic: SIGILL"),
        ({"places": [["--out", "/data", "does not exist on this node"]]}, "--out /data: does not exist on this node"),
    ],
)
def test_what_differs_is_named_with_its_node(changes, words):
    found = node_check.compare(DRIVER, [other(), other(**changes)], "f" * 64)
    assert [(one.level, one.check) for one in found] == [("broken", "node worker (10.0.0.2)")]
    assert words in found[0].found and found[0].fix


def test_another_cpu_is_only_a_warning():
    found = node_check.compare(DRIVER, [other(cpu_flags=["sse4_2"])], "f" * 64)
    assert [one.level for one in found] == ["warning", "ok"]


def test_the_driver_itself_is_checked_too():
    found = node_check.compare({**DRIVER, "places": [["--source", "/x", "does not exist on this node"]]}, [], "f" * 64)
    assert found[0].check == "node head (10.0.0.1)"


def test_places_to_read_must_exist(tmp_path):
    assert node_check.try_place(Place("--data", str(tmp_path), "read"), "") == ""
    assert "does not exist" in node_check.try_place(Place("--data", str(tmp_path / "no"), "read"), "")


@pytest.mark.parametrize("make_uri", [lambda folder: str(folder / "not" / "yet"), lambda folder: "memory://place/out"])
def test_places_to_write_are_tried_and_left_as_they_were(tmp_path, make_uri):
    place = Place("--out", make_uri(tmp_path), "write")
    mark = node_check.leave_mark(place)
    assert node_check.try_place(place, mark) == ""
    node_check.storage.remove(mark)
    assert list(tmp_path.iterdir()) == []
    # A node with a disk of its own at the same path does not see the mark.
    assert "does not see the files" in node_check.try_place(place, mark)


def test_a_place_that_cannot_be_written_stops_the_check(monkeypatch, tmp_path):
    def refuse(uri, data):
        raise PermissionError(13, "Permission denied", uri)

    monkeypatch.setattr(node_check.storage, "put", refuse)
    found = node_check.check_nodes([Place("--out", str(tmp_path), "write")], "f" * 64, all_nodes=False)
    assert [one.level for one in found] == ["broken"] and "Permission denied" in found[0].found


def test_one_node_checks_itself(tmp_path):
    places = [Place("--source", str(tmp_path), "read"), Place("--out", str(tmp_path / "out"), "write")]
    found = node_check.check_nodes(places, fingerprint(checkout_root()), all_nodes=False)
    assert [one.level for one in found] == ["ok"] and list(tmp_path.iterdir()) == []
