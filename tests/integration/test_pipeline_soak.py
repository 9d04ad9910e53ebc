"""Long campaigns: a driver, workers or everything killed at random moments; a thousand damaged images."""

import hashlib
import json
import os
import random
import signal
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

import psutil
import pytest
from testkit.image_sources import class_images, jpeg, png, write_folder

from focusvit.cli import main
from pipeline.dataset import open_dataset
from pipeline.preprocess import PreprocessConfig, Summary, preprocess

pytestmark = [pytest.mark.soak, pytest.mark.timeout(3000)]
ROOT = Path(__file__).resolve().parents[2]


def _photos(count: int) -> list[bytes]:
    """Real photos when $FOCUSVIT_DATA holds some, else generated ones."""
    root = os.environ.get("FOCUSVIT_DATA")
    files = sorted(Path(root, "imagenet-sample").rglob("*.JPEG"))[:count] if root else []
    return [path.read_bytes() for path in files] or [jpeg(i, 200 + i, 300) for i in range(count)]


def _kill(process: subprocess.Popen[bytes], rng: random.Random) -> str:
    """End the driver, one of its workers, or all of them at once; returns which."""
    children = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    what = rng.choice(["driver", "worker", "all"])
    targets = {"driver": [process.pid], "worker": [rng.choice(children).pid] if children else []}
    for pid in targets.get(what, [process.pid, *(child.pid for child in children)]):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    return what


@pytest.mark.parametrize(
    "mode", [["--local", "--workers", "2"], pytest.param(["--workers", "2"], marks=pytest.mark.ray)]
)
def test_twenty_kills_end_in_one_root_hash(tmp_path: Path, mode: list[str]) -> None:
    source = write_folder(tmp_path / "images", class_images(classes=8, per_class=60))
    whole = preprocess(
        PreprocessConfig(source=str(source), out=str(tmp_path / "whole"), samples_per_shard=5, local=True, workers=0)
    )
    assert isinstance(whole, Summary)
    out, rng, killed = tmp_path / "out", random.Random(0), []
    command = [sys.executable, "-m", "focusvit.cli", "preprocess", "--source", str(source), "--out", str(out)]
    command += ["--samples-per-shard", "5", *mode]
    shards = out / ".focusvit" / "shards"
    while len(killed) < 20:
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        before, deadline = len(list(shards.glob("*.json"))), time.monotonic() + 120
        wanted = before + rng.randrange(5)
        while len(list(shards.glob("*.json"))) < wanted and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(rng.random() * 0.5)
        killed.append(_kill(process, rng))
        if killed[-1] == "worker":
            process.kill()
        process.wait()
    again = subprocess.run([*command, "--json"], cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["root_hash"] == whole.root_hash, killed
    assert main(["verify", str(out)]) == 0


def _bomb(rng: random.Random) -> bytes:
    """A small PNG that states a huge size, in its header or also in its compressed pixels."""
    side = rng.choice([9_500, 20_000, 2**31 - 1])
    body = b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    pixels = b"IDAT" + zlib.compress(bytes(10**6))
    chunks = [struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in (body, pixels, b"IEND")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def _mutant(data: bytes, rng: random.Random) -> bytes:
    kind, data = rng.randrange(6), bytearray(data)
    if kind == 0:
        return bytes(data[: rng.randrange(len(data))])
    if kind == 1:
        for _ in range(rng.choice([1, 2, 50])):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    elif kind == 2:
        for place in range(rng.randrange(1, 30)):
            data[place] = rng.randrange(256)
    elif kind == 3:
        start = rng.randrange(len(data))
        data[start : start + rng.randrange(1, 2000)] = b""
    elif kind == 4:
        marker = data.find(b"\xff\xc0")
        data[marker + 5 : marker + 9] = rng.choice([b"\0\0\0\0", b"\xff\xff\xff\xff", b"\0\1\xff\xff"])
    else:
        return _bomb(rng)
    return bytes(data)


def test_a_thousand_mutants(tmp_path: Path) -> None:
    rng = random.Random(0)
    originals = [*_photos(200), *(png(i, 90, 70) for i in range(20))]
    images, lines = tmp_path / "images", []
    (images / "good").mkdir(parents=True)
    (images / "bad").mkdir()
    for i, data in enumerate(originals):
        (images / "good" / f"{i}.jpg").write_bytes(data)
        lines.append(f"{hashlib.sha256(data).hexdigest()}  good/{i}.jpg")
    for i in range(1000):
        original = rng.choice(originals)
        data = _mutant(original, rng)
        while data == original:
            data = _mutant(original, rng)
        (images / "bad" / f"{i}.jpg").write_bytes(data)
        lines.append(f"{hashlib.sha256(original).hexdigest()}  bad/{i}.jpg")
    (tmp_path / "sums").write_text("\n".join(lines))

    def run(out: str, **options: object) -> Summary:
        config = PreprocessConfig(source=str(images), out=str(tmp_path / out), local=True, on_error="skip", **options)  # type: ignore[arg-type]
        summary = preprocess(config)
        assert isinstance(summary, Summary)
        return summary

    summary = run("plain")
    assert summary.num_samples + summary.num_skipped == 1000 + len(originals)
    split = open_dataset(str(tmp_path / "plain")).split("train")
    for number in range(split.num_samples):
        sample = split.read(number)
        assert sample.meta["sha256"] == hashlib.sha256((images / sample.meta["source"]).read_bytes()).hexdigest()
    listed = json.loads((tmp_path / "plain" / ".focusvit" / "errors-train.json").read_text())
    assert len(listed) == summary.num_skipped > 400 and all(entry["source"].startswith("bad/") for entry in listed)
    assert not any("ends the process" in entry["reason"] for entry in listed), "no image may end a worker"
    assert main(["verify", str(tmp_path / "plain"), "--recompute"]) == 0
    assert run("checked", checksums=str(tmp_path / "sums")).num_skipped == 1000


def test_a_plan_of_imagenet_fits_the_driver(tmp_path: Path) -> None:
    """1.28 million rows in less than 500 MB, interpreter and libraries included."""
    code = f"""
import resource
from pipeline.plan import make_plan, save_plan
from pipeline.sources import Row

class Listing:
    root = kind = "listing"
    def rows(self):
        for i in range(1_281_167):
            name = f"n{{i % 1000:08d}}"
            yield Row(f"{{name}}/{{name}}_{{i}}.JPEG", f"{{name}}/{{name}}_{{i}}.JPEG", class_name=name)
    def class_names(self):
        return None

save_plan({str(tmp_path / "plan.parquet")!r}, make_plan(Listing(), "train"), {{}})
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 500e6
