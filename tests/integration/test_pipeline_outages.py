"""A full disk and a store that fails: bounded retries, no half shard, and the next run ends in the same hash."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from focusvit.cli import main
from pipeline.errors import DataError
from pipeline.io import storage
from pipeline.io import store as stores
from pipeline.preprocess import Summary
from pipeline.shards.dataset import open_dataset
from testkit.checkout import ROOT
from testkit.flaky_store import FlakyStore
from testkit.image_sources import jpeg
from testkit.preprocessed import preprocessed

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 photos in 6 classes: real ones when $FOCUSVIT_DATA holds some."""
    root = os.environ.get("FOCUSVIT_DATA")
    files = sorted(Path(root, "imagenet-sample").rglob("*.JPEG"))[:60] if root else []
    photos = [path.read_bytes() for path in files] or [jpeg(i, 300, 400) for i in range(60)]
    folder = tmp_path_factory.mktemp("outages") / "images"
    for number, data in enumerate(photos):
        path = folder / f"class{number % 6}" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def _run(source: str, out: str, **options: object) -> Summary:
    return preprocessed(source, out, **{"workers": 2, "samples_per_shard": 5, **options})


@pytest.fixture(scope="module")
def whole(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Summary:
    return _run(str(images), str(tmp_path_factory.mktemp("whole")), workers=0)


def _may_mount() -> bool:
    command = ["unshare", "--user", "--map-root-user", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    try:
        return subprocess.run(command, capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not _may_mount(), reason="needs user namespaces: a small disk is mounted to be filled")
@pytest.mark.parametrize("mode", ["--local", pytest.param("", marks=pytest.mark.ray)], ids=["local", "ray"])
def test_a_full_disk_ends_the_run_in_words_and_room_completes_it(
    images: Path, whole: Summary, tmp_path: Path, mode: str
) -> None:
    """A disk of 1 MB for 2 MB of shards; then it grows."""
    script = f"""
        mkdir disk && mount -t tmpfs -o size={whole.num_bytes // 2} tmpfs disk || exit 77
        run() {{ '{sys.executable}' -m focusvit.cli preprocess --source '{images}' --out "$PWD/disk/out" \
            --samples-per-shard 5 --workers 2 {mode} "$@"; }}
        run 2> first; echo "first $?"
        find disk -name '*.tmp' | wc -l
        ls disk/out/.focusvit/shards | wc -l
        mount -o remount,size=100m disk
        run --json 2> second; echo "second $?"
        '{sys.executable}' -m focusvit.cli verify disk/out --workers 0 2>&1 | tail -1
    """
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "bash", "-c", script],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    lines = done.stdout.splitlines()
    first = (tmp_path / "first").read_text()
    assert "first 1" in lines and "second 0" in lines, (done.stdout, done.stderr, first)
    at = lines.index("first 1")
    left_over, kept = int(lines[at + 1]), int(lines[at + 2])
    summary = json.loads(lines[lines.index("second 0") - 1])
    said = " ".join(first.split())
    assert "No space left on device" in said and "run the same command again" in said and "Traceback" not in said
    assert left_over == 0 and 0 < kept < whole.num_shards
    assert summary["root_hash"] == whole.root_hash and summary["built_shards"] == whole.num_shards - kept
    assert lines[-1].endswith("all is well")


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[FlakyStore]:
    import boto3
    import s3fs
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with FlakyStore(f"http://{host}:{port}") as proxy:
        for name, value in {
            "AWS_ENDPOINT_URL": proxy.url,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_MAX_ATTEMPTS": "1",  # the library's own retries would hide ours
            "NO_PROXY": "127.0.0.1,localhost",
            "no_proxy": "127.0.0.1,localhost",
        }.items():
            monkeypatch.setenv(name, value)
        stores._store.cache_clear()
        s3fs.S3FileSystem.clear_instance_cache()
        boto3.client("s3", endpoint_url=proxy.url).create_bucket(Bucket="bucket")
        yield proxy
    stores._store.cache_clear()
    server.stop()


def _upload(images: Path) -> str:
    for path in images.rglob("*.jpg"):
        storage.put(f"s3://bucket/images/{path.relative_to(images)}", path.read_bytes())
    return "s3://bucket/images"


def test_a_store_that_refuses_every_tenth_request_costs_nothing(
    images: Path, whole: Summary, store: FlakyStore
) -> None:
    source = _upload(images)
    store.failing = 0.1
    summary = _run(source, "s3://bucket/out", on_error="skip")
    assert (summary.root_hash, summary.num_skipped) == (whole.root_hash, 0), "no outage may count as a sample's"
    assert store.failed > 10
    assert main(["verify", "s3://bucket/out", "--workers", "2"]) == 0


def test_a_store_that_goes_away_ends_the_run_and_the_next_one_goes_on(
    images: Path, whole: Summary, store: FlakyStore
) -> None:
    source, kept = _upload(images), []  # another place than above: the server's memory outlives a test
    for wanted in (40, 60, 80):  # requests that still succeed: while listing, in the first shards, in later ones
        store.until = store.requests + wanted
        with pytest.raises(DataError, match=r"tried 5 times"):
            _run(source, "s3://bucket/cut-off", on_error="skip", workers=0)
        store.until = None
        shards = storage.list_names("s3://bucket/cut-off/.focusvit/shards")
        kept.append(len(shards))
    assert kept == sorted(kept) and 0 < kept[-1] < whole.num_shards
    summary = _run(source, "s3://bucket/cut-off", on_error="skip", workers=0)
    assert (summary.root_hash, summary.num_skipped) == (whole.root_hash, 0)
    assert summary.built_shards <= whole.num_shards - kept[-1]
    assert open_dataset("s3://bucket/cut-off").splits["train"].root_hash == whole.root_hash
