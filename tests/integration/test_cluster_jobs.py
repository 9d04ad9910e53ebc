"""A verb submitted to a real head, with Ray's token authentication on: it runs there, and its exit code comes back."""

import json
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest
from testkit.ray_head import BIN, RayHead

from pipeline.dataset import open_dataset

pytestmark = pytest.mark.ray
SECRET = "hunter2-must-not-be-seen"


def focusvit(head: RayHead, *argv: object, env: dict[str, str] | None = None, **options):
    """The console command as a person types it, on a machine that has the token of the head."""
    return subprocess.run(
        [str(BIN / "focusvit"), *map(str, argv)],
        env={**head.environment, "RAY_API_SERVER_ADDRESS": head.url, **(env or {})},
        capture_output=True,
        text=True,
        timeout=240,
        **options,
    )


def write_images(folder: Path, count: int = 6) -> Path:
    rng = np.random.default_rng(0)
    for number in range(count):
        path = folder / "train" / f"class_{number % 2}" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        small = rng.integers(0, 255, (6, 6, 3), dtype=np.uint8)
        path.write_bytes(cv2.imencode(".jpg", cv2.resize(small, (64, 64)))[1].tobytes())
    return folder


def test_a_job_from_submission_to_its_end(tmp_path):
    source, out = write_images(tmp_path / "images"), tmp_path / "shards"
    with RayHead(num_cpus=2) as head:
        work = ("preprocess", "--source", source, "--out", out, "--split", "train")
        done = focusvit(head, "submit", "--", *work, env={"MLFLOW_TRACKING_PASSWORD": SECRET})
        assert done.returncode == 0, done.stdout + done.stderr
        assert "1 nodes run code" in done.stdout and "MLFLOW_TRACKING_PASSWORD (secret)" in done.stderr
        listed = json.loads(focusvit(head, "jobs", "list", "--json").stdout)
        assert [(row["status"], row["verb"], row["exit_code"]) for row in listed] == [("SUCCEEDED", "preprocess", 0)]
        # A wrong token, and none at all, are each said in one paragraph.
        wrong = focusvit(head, "jobs", "list", env={"RAY_AUTH_TOKEN": "0" * 64})
        assert wrong.returncode == 2 and "refuses the token of this machine" in wrong.stderr
        assert SECRET not in head.log_text() + done.stdout + done.stderr
    assert open_dataset(str(out)).split("train").num_samples == 6
