"""What a user meets on the first day: each mistake and each failure of the world is one paragraph with a way out."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from focusvit.cli import main
from pipeline.sources.embedded import write_shapes
from testkit.checkout import ROOT
from testkit.web import scripted_server

NEW = (200, '{"version": "4", "ray_version": "2.60.0", "ray_commit": "x"}')


def one_paragraph(text: str) -> str:
    """The text that a user reads, checked to be one line and no traceback."""
    assert text.count("\n") == 1 and text.endswith("\n") and "Traceback" not in text, text
    return text


def said(capsys, *argv: str, code: int = 2) -> str:
    assert main([*map(str, argv)]) == code
    return one_paragraph(capsys.readouterr().err)


def test_a_cluster_that_wants_a_token_of_a_driver(tmp_path):
    """In a process of its own: Ray reads the mode of its tokens once, and finds the token in the home folder."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
    variables |= {"HOME": str(tmp_path), "RAY_AUTH_MODE": "token"}
    code = "from cluster.ray_session import ray_session\nwith ray_session('127.0.0.1:9'): pass"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=variables)
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(
        "pipeline.errors.UsageError: The Ray cluster at '127.0.0.1:9' takes no one without its token"
    )
    assert "RAY_AUTH_TOKEN" in last


def run_without(module: str, *argv: object) -> subprocess.CompletedProcess:
    """The console command in an environment that lacks a package."""
    code = f"import sys; sys.modules['{module}'] = None; from focusvit.cli import main; sys.exit(main(sys.argv[1:]))"
    return subprocess.run([sys.executable, "-c", code, *map(str, argv)], capture_output=True, text=True, timeout=120)


def test_ray_without_its_default_extra():
    with scripted_server() as web:
        web.answers |= {("GET", "/api/version"): NEW, ("GET", "/api/jobs/"): (200, "[]")}
        done = run_without("aiohttp", "jobs", "list", "--jobs-address", web.url)
    assert done.returncode == 2
    assert "pip install -c constraints.txt 'ray[default,train]'" in one_paragraph(done.stderr)


def test_a_store_without_its_extra():
    done = run_without("s3fs", "preprocess", "--local", "--source", "s3://bucket/images", "--out", "/tmp/never")
    assert done.returncode == 2 and "s3fs" in one_paragraph(done.stderr)


def full_disk_works() -> bool:
    """Is this a Linux on which a process may have mounts of its own?"""
    command = ["unshare", "-rm", "sh", "-c", "mount -t tmpfs -o size=64k none /mnt"]
    return shutil.which("unshare") is not None and subprocess.run(command, capture_output=True).returncode == 0


def on_a_full_disk(folder: Path, kilobytes: int, *argv: object) -> str:
    """What a command says whose `folder` is a disk of that size; the mount ends with its process."""
    folder.mkdir(exist_ok=True)
    script = f'mount -t tmpfs -o size={kilobytes}k none "$0" && exec "$@"'
    command = [sys.executable, "-m", "focusvit.cli", *map(str, argv)]
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", script, str(folder), *command],
        capture_output=True,
        text=True,
        timeout=240,
        cwd=folder.parent,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode in (1, 2) and "Traceback" not in done.stderr, done.stderr
    return done.stderr.splitlines()[-1]


@pytest.mark.soak
@pytest.mark.skipif(not full_disk_works(), reason="no mounts of one's own here (unshare -rm)")
def test_a_full_disk(tmp_path):
    write_shapes(tmp_path / "images", train_per_class=4, val_per_class=1)
    source, shards, full = tmp_path / "images", tmp_path / "shards", tmp_path / "full"
    arguments = ("preprocess", "--local", "--workers", 0, "--source", source)
    text = on_a_full_disk(full, 100, *arguments, "--out", full / "shards")
    assert f"cannot write {full}/shards/" in text and "No space left on device" in text and "run again" in text
    for split in ("train", "val"):
        assert main([*map(str, (*arguments, "--out", shards, "--split", split))]) == 0
    train = ("pretrain", "debug", "--local", "--device", "cpu", "--data", shards, "--epochs", 1)
    store = f"sqlite:///{tmp_path}/mlflow.db"
    text = on_a_full_disk(full, 300, *train, "--run-dir", full / "run", "--tracking-uri", store)
    assert f"cannot write {full}/run/checkpoints/" in text and "No space left on device" in text
    text = on_a_full_disk(full, 300, *train, "--run-dir", tmp_path / "run", "--tracking-uri", f"sqlite:///{full}/m.db")
    assert "MB are free" in text and str(full) in text
