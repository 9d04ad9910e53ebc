"""Real Ray: Ctrl-C saves and tells; more GPUs than Ray counts are refused by number."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from focusvit.cli import main
from focusvit.runs.run_dir import RunDir
from testkit.checkout import ROOT
from testkit.tiny_shards import make_dataset

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_dataset(tmp_path_factory.mktemp("data"))


def command(uri: str, folder: Path, *options: str) -> list[str]:
    where = ["--data", uri, "--run-dir", str(folder / "run"), "--tracking-uri", f"sqlite:///{folder}/mlflow.db"]
    return ["pretrain", "debug", *where, *options]


@pytest.mark.timeout(400)
def test_ctrl_c_on_ray_saves_says_where_it_stopped_and_ends_with_130(uri: str, tmp_path: Path) -> None:
    options = ["--epochs", "20000", "--eval-every-epochs", "20000", "--checkpoint-every-epochs", "20000"]
    argv = [sys.executable, "-m", "focusvit.cli", *command(uri, tmp_path, *options)]
    process = subprocess.Popen(argv, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=os.environ)
    points = tmp_path / "run/metrics.jsonl"
    while not points.exists() or not points.read_bytes().count(b"\n"):
        assert process.poll() is None
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    latest = RunDir(f"{tmp_path}/run").latest()
    assert process.returncode == 130 and "Traceback" not in err, err
    assert f"stopped at {latest} of 1000000 samples; the same command goes on from there" in err
    assert "starting  1 worker on cpu, " in err and "training  1 worker on cpu" in err


@pytest.mark.soak  # `cluster/train/test_placement.py` has the law; here Ray itself counts
@pytest.mark.timeout(400)
def test_more_gpus_than_ray_counts_are_refused_by_number(uri: str, tmp_path: Path, capsys) -> None:
    import ray

    ray.init(address="local", num_cpus=8, num_gpus=4, include_dashboard=False, object_store_memory=100 * 2**20)
    try:
        assert main(command(uri, tmp_path, "--workers", "8")) == 2
        assert "8 workers want 8 GPUs; Ray sees 4. Use --workers 4, --workers 1-8" in capsys.readouterr().err
        assert not (tmp_path / "run").exists()
    finally:
        ray.shutdown()
