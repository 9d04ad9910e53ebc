"""The promises of both executors, with real processes and a real Ray, and a driver that is killed."""

import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import DataError
from pipeline.plan.plan import make_plan, save_plan
from pipeline.preprocess import PreprocessConfig
from pipeline.shards.build import ShardSpec
from pipeline.shards.commit import root_hash
from pipeline.shards.dataset import open_dataset, plan_uri
from pipeline.shards.description import describe, shard_specs
from pipeline.shards.executors import run_local, run_ray
from pipeline.shards.sidecar import read_sidecar
from pipeline.shards.worker import run_shard
from pipeline.sources import detect
from testkit import failing_work
from testkit.checkout import ROOT
from testkit.image_sources import class_images, write_folder
from testkit.preprocessed import preprocessed


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("source"), class_images(per_class=6))


@pytest.fixture(scope="module")
def specs(source: Path) -> list[ShardSpec]:
    config = PreprocessConfig(source=str(source), out="")
    found = detect(str(source), "train")
    plan = make_plan(found, "train", samples_per_shard=5)
    description = describe(plan, config.image, config.superpixels)
    return shard_specs("", plan, description, found.reader(), skip_bad=False)


def _at(specs: list[ShardSpec], out: Path) -> list[ShardSpec]:
    source = detect(specs[0].source.root, "train")
    plan = make_plan(source, "train", samples_per_shard=5)
    save_plan(plan_uri(str(out), "train"), plan, {})
    return [replace(spec, out=str(out)) for spec in specs]


def _root(specs: list[ShardSpec]) -> str:
    sidecars = [read_sidecar(spec) for spec in specs]
    assert all(sidecars)
    return root_hash([sidecar["sha256"] for sidecar in sidecars if sidecar])


@pytest.fixture(scope="module")
def expected(specs: list[ShardSpec], tmp_path_factory: pytest.TempPathFactory) -> str:
    here = _at(specs, tmp_path_factory.mktemp("expected"))
    for spec in here:
        run_shard(spec)
    return _root(here)


@pytest.fixture(scope="module")
def ray_session() -> Iterator[None]:
    import ray

    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=100 * 2**20,
        log_to_driver=False,
        logging_level="ERROR",
        runtime_env={
            "env_vars": {"PYTHONPATH": str(ROOT / "tests")},  # for testkit
            "py_executable": shlex.quote(sys.executable),  # Ray does not quote a path with a space
        },
    )
    yield
    ray.shutdown()


def _local(specs: list[ShardSpec], **options: Any) -> list[dict[str, Any]]:
    return list(run_local(specs, workers=2, **options))


def _ray(specs: list[ShardSpec], **options: Any) -> list[dict[str, Any]]:
    return list(run_ray(specs, **options))


@pytest.fixture(params=["local", pytest.param("ray", marks=pytest.mark.ray)])
def run(request: pytest.FixtureRequest) -> Callable[..., list[dict[str, Any]]]:
    if request.param == "ray":
        request.getfixturevalue("ray_session")
        return _ray
    return _local


def test_whatever_fails_the_bytes_are_the_same(run: Any, specs: list[ShardSpec], expected: str, tmp_path: Path) -> None:
    here = _at(specs, tmp_path)
    results = run(here, work=failing_work.everything_fails)
    assert [result["isolated"] for result in sorted(results, key=lambda r: r["shard"])] == [False, True, False, False]
    assert _root(here) == expected


def test_what_does_not_pass_ends_the_run_in_words(run: Any, specs: list[ShardSpec], tmp_path: Path) -> None:
    here = _at(specs, tmp_path)[:1]
    with pytest.raises(DataError, match=r"train-000000\.tar failed 3 times.*No space left on device.*run the same"):
        run(here, work=failing_work.disk_is_full)
    with pytest.raises(DataError, match=r"the machine .* makes other bytes of the golden image"):
        run(here, work=failing_work.machine_differs)
    assert not list(tmp_path.glob("*.tar"))


@pytest.mark.ray
@pytest.mark.soak
def test_ray_without_a_session_starts_and_ends_its_own(source: Path, tmp_path: Path) -> None:
    """The command in its default form, killed in the middle and run again, in the shape of a user's session."""
    arguments = ["preprocess", "--source", str(source), "--out", str(tmp_path / "out"), "--samples-per-shard", "1"]
    command = [sys.executable, "-m", "focusvit.cli", *arguments, "--workers", "2"]
    shards = tmp_path / "out" / ".focusvit" / "shards"
    first = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(shards.glob("*.json")) and first.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    first.send_signal(signal.SIGKILL)
    first.wait()
    kept = {path: path.stat().st_mtime_ns for path in shards.glob("*.json")}
    assert kept
    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert again.returncode == 0, again.stderr
    assert all(path.stat().st_mtime_ns == when for path, when in kept.items())
    whole = preprocessed(source, tmp_path / "whole", samples_per_shard=1)
    assert open_dataset(str(tmp_path / "out")).splits["train"].root_hash == whole.root_hash
