"""A verb submitted to a real head, with Ray's token authentication on: it runs there, and its exit code comes back."""

import json
import re
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest

from cluster.jobs import watch as jobs
from pipeline.errors import UsageError
from pipeline.shards.dataset import open_dataset
from testkit.ray_head import BIN, RayHead

pytestmark = pytest.mark.ray
SECRET = "hunter2-must-not-be-seen"


def write_images(folder: Path, count: int = 6) -> Path:
    rng = np.random.default_rng(0)
    for number in range(count):
        path = folder / "train" / f"class_{number % 2}" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        small = rng.integers(0, 255, (6, 6, 3), dtype=np.uint8)
        path.write_bytes(cv2.imencode(".jpg", cv2.resize(small, (64, 64)))[1].tobytes())
    return folder


def test_a_job_from_submission_to_its_end(tmp_path, monkeypatch, capsys):
    source, out = write_images(tmp_path / "images"), tmp_path / "shards"
    with RayHead(num_cpus=1) as head:
        environment = {**head.environment, "RAY_API_SERVER_ADDRESS": head.url, "MLFLOW_TRACKING_PASSWORD": SECRET}
        command = ["submit", "--", "preprocess", "--source", source, "--out", out, "--split", "train"]
        done = subprocess.run(
            [str(BIN / "focusvit"), *map(str, command)], env=environment, capture_output=True, text=True, timeout=240
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "1 nodes run code" in done.stdout and "MLFLOW_TRACKING_PASSWORD (secret)" in done.stderr
        assert "6/6" in done.stdout, "the progress bar of the job is missing from its log"

        monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(head.token_path))
        assert jobs.main(["list", "--json", "--jobs-address", head.url]) == 0
        rows = json.loads(capsys.readouterr().out)
        assert [(row["status"], row["verb"], row["exit_code"]) for row in rows] == [("SUCCEEDED", "preprocess", 0)]
        assert jobs.main(["status", rows[0]["job"], "--jobs-address", head.url]) == 0
        assert re.search(r"6/6 \(100 %\), .*images/s, .* left, shards=1/1, bad=0", capsys.readouterr().out)
        lines = [line for line in head.log_text().splitlines() if line.startswith('{"time"')]
        (line,) = [told for told in map(json.loads, lines) if told["event"] == "shard finished"]
        assert (line["job"], line["shard"], line["num_samples"]) == (rows[0]["job"], "train-000000.tar", 6)
        monkeypatch.setenv("RAY_AUTH_TOKEN", "0" * 64)
        with pytest.raises(UsageError, match="refuses the token of this machine"):
            jobs.main(["list", "--jobs-address", head.url])
        assert SECRET not in head.log_text() + done.stdout + done.stderr
    assert open_dataset(str(out)).split("train").num_samples == 6
