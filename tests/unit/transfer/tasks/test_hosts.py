"""A vision transformer of another library in the suite: every protocol, patched, with its controls in one table."""

import numpy as np
import pytest

from focusvit.runs.checkpoint import load_checkpoint
from testkit.hosts import save_host
from testkit.tiny_shards import make_dataset
from transfer.finetune import FineTune, run_finetune
from transfer.suite import TransferConfig
from transfer.tasks.controls import controls
from transfer.tasks.spec import WorkSpec
from transfer.tasks.task import Task
from transfer.work import run_task


@pytest.fixture(scope="module")
def road(tmp_path_factory):
    root = tmp_path_factory.mktemp("hosts")
    save_host(root / "dino", "Dinov2Model")
    make_dataset(root / "shapes", splits={"train": 40, "val": 12})
    make_dataset(root / "masks", splits={"train": 16, "val": 6}, dense=True)
    return root


def spec(road, out, task="shapes", **changes) -> WorkSpec:
    names = ("ground", "disc", "square", "triangle", "star") if task == "masks" else ()
    values = {"suite": "quick", "out": str(out / "results"), "features_folder": str(out / "features")}
    task = Task(name=task, uri=str(road / task), classes=names)
    return WorkSpec(**{"task": task, "checkpoint": str(road / "dino"), **values, **changes})


def test_features_are_cached_by_weights_and_patch(road, tmp_path):
    counts = []
    for patch in ((), ("tokens=4", "depth=2"), ("tokens=4", "depth=3"), ("tokens=4", "depth=2")):
        outcome = run_task(spec(road, tmp_path, patch=patch, baselines=False))
        assert outcome.failures == [] and np.isfinite([row.value for row in outcome.rows]).all()
        counts.append(len(list((tmp_path / "features").glob("*.npy"))))
    assert counts == [2, 4, 6, 6] and outcome.num_skipped > 0


def test_every_protocol_measures_a_patched_host(road, tmp_path):
    outcome = run_task(spec(road, tmp_path, patch=("tokens=4", "depth=2")))
    assert outcome.failures == [] and {row.features for row in outcome.rows} == {"checkpoint", "random", "pixels"}
    settings = FineTune(learning_rates=(1e-3,), layer_decays=(0.75,), steps=4, batch=16, seeds=1, flip=0.0)
    tuned = run_finetune(spec(road, tmp_path, patch=("tokens=4", "depth=2")), settings)
    assert tuned.failures == [] and tuned.rows[0].num_test == 12
    colour, keys = ("tokens=4", "depth=2", "merge=colour"), ("tokens=4", "depth=2")
    for patch, regions in ((colour, "K=4"), (("tokens=4", "merge=readout"), "K=4"), (keys, "4x4"), ((), "4x4")):
        dense = run_task(spec(road, tmp_path, task="masks", patch=patch, baselines=False))
        assert dense.failures == []
        by_name = {(row.features, row.protocol): row for row in dense.rows}
        assert {("checkpoint", "linear"), ("checkpoint", "k-means")} < set(by_name)
        oracle = by_name["oracle", "superpixels" if regions == "K=4" else "grid"]
        assert oracle.variant == regions and by_name["checkpoint", "linear"].value <= oracle.value + 1e-9


@pytest.mark.parametrize("task", ["shapes", "masks"])
def test_controls_stand_beside_the_patched_host(road, tmp_path, task):
    first = spec(road, tmp_path, task, patch=("tokens=4", "depth=2"))
    rows = []
    for one in controls(first, load_checkpoint(first.checkpoint, first.patch)):
        outcome = run_task(one)
        assert outcome.failures == []
        assert {row.features for row in outcome.rows} == {one.control}  # baselines and bounds are the first row's
        rows += outcome.rows
    assert {row.features for row in rows} == {"all patches", "grid", "token merging", "fewer pixels"}
    with pytest.raises(ValueError, match="give --patch"):
        TransferConfig(checkpoint="x", controls=True)
