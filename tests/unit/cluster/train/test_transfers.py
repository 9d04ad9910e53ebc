"""The suite on Ray: where a device is settled, and what options may not stand alone."""

from typing import Any

import pytest

from cluster.train import transfers
from cluster.train.launch import LaunchConfig, TransferLaunch
from pipeline.errors import UsageError
from testkit.tiny_checkpoint import make_checkpoint
from testkit.tiny_shards import make_dataset
from transfer import suite
from transfer.finetune import train_here
from transfer.tasks.spec import Outcome, in_turn


@pytest.mark.parametrize(
    ("options", "said"),
    [({"workers": "2"}, "--finetune"), ({"tasks_at_once": 2, "device": "cuda:1"}, "Ray chooses"),
     ({"ray_address": "auto", "device": "cuda:0"}, "Ray chooses")],
)  # fmt: skip
def test_an_option_that_would_do_nothing_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        TransferLaunch(checkpoint="c", **options)
    assert TransferLaunch(checkpoint="c", workers="2", finetune=True).on_ray
    assert not TransferLaunch(checkpoint="c", device="cuda:1").on_ray


def test_auto_goes_to_the_tasks_as_it_is_and_is_settled_here_only_for_tasks_that_run_here(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The machine that submits has a GPU; what that means for tasks elsewhere is theirs to say."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    common = {"checkpoint": make_checkpoint(tmp_path / "ckpt"), "task": (f"a={make_dataset(tmp_path / 'data')}",)}
    config = TransferLaunch(
        **common, out=str(tmp_path / "out"), tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}", baselines=False
    )
    seen: list[str] = []

    def elsewhere(work: Any, specs: Any) -> Any:
        seen.extend(spec.device for spec in specs)
        return [Outcome(task=spec.task, failures=["played"]) for spec in specs]

    assert suite.run(config, elsewhere) == 1
    monkeypatch.setattr(suite, "run_task", lambda spec: elsewhere(None, [spec])[0])
    assert suite.run(config, in_turn) == 1
    assert seen == ["auto", "cuda"]


@pytest.mark.parametrize(("asked", "given"), [("auto", "auto"), ("cuda", "gpu"), ("cpu", "cpu")])
def test_fine_tuning_on_workers_asks_for_the_device_that_the_user_asked_for(
    asked: str, given: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not for that of the machine on which the suite was started."""
    launched: list[LaunchConfig] = []
    monkeypatch.setattr(transfers, "train_on_ray", lambda training, launch: launched.append(launch))
    config = TransferLaunch(checkpoint="c", finetune=True, ray_address="auto", workers="1", device=asked)
    from focusvit.recipes.small import debug

    transfers._on_workers(config)(debug(), "data", "run", "cpu")
    assert [launch.device for launch in launched] == [given]


def test_a_device_without_a_name_is_refused_before_ray_starts(tmp_path: Any) -> None:
    config = TransferLaunch(
        checkpoint=make_checkpoint(tmp_path / "ckpt"), task=("a=nowhere",), out=str(tmp_path), device="tpu",
        tasks_at_once=2,
    )  # fmt: skip
    with pytest.raises(UsageError, match="--device is 'tpu'"):
        suite.run(config, lambda work, specs: pytest.fail("tasks were started"), train_here)
