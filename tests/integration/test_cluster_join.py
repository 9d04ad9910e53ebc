"""--ray-address from a node that has the packages and not our code: a real head, tasks that run what was sent."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from pipeline.shards.dataset import open_dataset
from testkit.checkout import ROOT
from testkit.image_sources import class_images, write_folder
from testkit.ray_head import RayHead
from testkit.tiny_checkpoint import make_checkpoint
from testkit.tiny_shards import make_dataset

pytestmark = [pytest.mark.soak, pytest.mark.ray, pytest.mark.timeout(600)]

DRIVER = """
import os, sys
sys.path.insert(0, {root!r})
from cluster.train.launch import TransferLaunch
from cluster.train.transfers import _side_by_side
from transfer.tasks.spec import WorkSpec, Outcome
from transfer.tasks.task import Task
from transfer import work
sys.path.remove({root!r})  # else Ray tells this path to workers of the same machine
config = TransferLaunch(checkpoint={checkpoint!r}, ray_address={address!r})
spec = WorkSpec(task=Task(name="tiny", uri={data!r}), checkpoint={checkpoint!r}, suite="quick", baselines=False,
                out={out!r}, features_folder={out!r} + "/features", device="auto")

def where(spec):
    import transfer.work
    outcome = transfer.work.run_task(spec)
    outcome.notes.append(transfer.work.__file__)
    outcome.notes.append(spec.device)
    return outcome

(outcome,) = _side_by_side(config)(where, [spec])
import json
print(json.dumps([outcome.failures, len(outcome.rows), outcome.notes[-2:]]))
"""


SHARDS = """
import sys
sys.path.insert(0, {root!r})
import cluster.joined, pipeline.preprocess, pipeline.care.verify
from focusvit.cli import VERBS
sys.path.remove({root!r})
assert VERBS["preprocess"][0] == "cluster.joined:preprocess_main"
argv = ["--source", {source!r}, "--out", {out!r}, "--ray-address", {address!r}]
assert cluster.joined.preprocess_main(argv) == 0
assert cluster.joined.verify_main([{out!r}, "--ray-address", {address!r}]) == 0
"""


def test_shards_are_made_and_checked_by_the_code_that_came_along(tmp_path: Path) -> None:
    source = write_folder(tmp_path / "photos", class_images(2, 6))
    elsewhere = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    with RayHead(num_cpus=1) as head:
        head.environment.pop("PYTHONPATH", None)
        given = {"root": str(ROOT), "source": str(source), "out": str(tmp_path / "shards")}
        script = SHARDS.format(**given, address=f"{head.address()}:{head.gcs_port}")
        command, environment = [str(head.bin / "python"), "-c", script], {**elsewhere, **head.environment}
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=300
        )
    assert done.returncode == 0, done.stderr
    assert open_dataset(str(tmp_path / "shards")).split("train").num_samples == 12


def test_a_task_of_a_joined_cluster_runs_the_code_that_came_along(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path / "ckpt")
    data = make_dataset(tmp_path / "data", splits={"train": 24, "val": 8})
    elsewhere = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    with RayHead(num_cpus=1) as head:
        head.environment.pop("PYTHONPATH", None)
        script = DRIVER.format(
            root=str(ROOT), checkpoint=checkpoint, address=f"{head.address()}:{head.gcs_port}", data=data,
            out=str(tmp_path / "out"),
        )  # fmt: skip
        command = [str(head.bin / "python"), "-c", script]
        environment = {**elsewhere, **head.environment}
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=300
        )
        assert done.returncode == 0, done.stderr
        failures, num_rows, (place, device) = json.loads(done.stdout.splitlines()[-1])
        assert failures == [] and num_rows > 0 and device == "cpu"
        assert Path(place).is_relative_to(head.folder) and not Path(place).is_relative_to(ROOT)
