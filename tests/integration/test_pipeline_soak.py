"""Long campaigns: a driver, workers or everything killed at random moments; a thousand damaged images."""

import contextlib
import hashlib
import io
import json
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from focusvit.cli import main
from pipeline.care.verify import VerifyConfig, find_problems
from pipeline.image.image import decode_image
from pipeline.preprocess import Summary
from pipeline.shards.dataset import open_dataset
from testkit.checkout import ROOT
from testkit.image_sources import jpeg, png
from testkit.preprocessed import preprocessed

pytestmark = [pytest.mark.soak, pytest.mark.timeout(3000)]


def _photos(count: int) -> list[bytes]:
    """Real photos when $FOCUSVIT_DATA holds some, else generated ones."""
    root = os.environ.get("FOCUSVIT_DATA")
    files = sorted(Path(root, "imagenet-sample").rglob("*.JPEG"))[:count] if root else []
    return [path.read_bytes() for path in files] or [jpeg(i, 200 + i % 50, 300) for i in range(count)]


class Campaign:
    """One `focusvit preprocess` after the other, each ended at a random moment, until `wanted` were."""

    def __init__(self, command: list[str], out: Path, log: Path, seed: int) -> None:
        self._command, self._out, self._log = command, out, log.open("wb")
        self._rng = random.Random(seed)
        self.killed: list[str] = []
        self.finished = 0
        started = time.monotonic()
        self.root = self._root_of_a_whole_run()
        self._whole_s = time.monotonic() - started

    def run(self, wanted: int) -> None:
        """The last run is left to its end. A run that ended before its kill must have been right, and starts anew."""
        process = self._start()
        while len(self.killed) < wanted:
            try:
                code = process.wait(self._rng.uniform(0, self._whole_s))
            except subprocess.TimeoutExpired:
                self.killed.append(self._kill(process))
                if self.killed[-1] == "worker":
                    continue  # the run goes on by itself
                process.wait()
            else:
                self._check(code)
                shutil.rmtree(self._out)
            process = self._start()
        self._check(process.wait())

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(self._command, cwd=ROOT, stdout=self._log, stderr=self._log)

    def _root_of_a_whole_run(self) -> str:
        assert self._start().wait() == 0
        root = open_dataset(str(self._out)).splits["train"].root_hash
        shutil.rmtree(self._out)
        return root

    def _check(self, code: int) -> None:
        assert code == 0, (self.killed, Path(self._log.name).read_text()[-2000:])
        assert open_dataset(str(self._out)).splits["train"].root_hash == self.root, self.killed
        self.finished += 1

    def _kill(self, process: subprocess.Popen[bytes]) -> str:
        """SIGKILL to a process that makes shards, to the driver, or to all at once; returns which."""
        children = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        workers = [child.pid for child in children if _makes_shards(child)]
        what = self._rng.choice(["driver", "worker", "worker", "all"])
        if what == "worker" and not workers:
            what = "driver"
        everything = [process.pid, *(child.pid for child in children)]
        targets = {"driver": [process.pid], "worker": [self._rng.choice(workers or [0])], "all": everything}
        for pid in targets[what]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return what


def _makes_shards(process: psutil.Process) -> bool:
    try:
        words = " ".join(process.cmdline())
    except psutil.Error:
        return False
    return "ray::run_shard" in words or "multiprocessing.spawn" in words


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(
    "mode",
    [["--local", "--workers", "2"], pytest.param(["--workers", "2"], marks=pytest.mark.ray)],
    ids=["local", "ray"],
)
def test_twenty_kills_end_in_one_root_hash(tmp_path: Path, mode: list[str], seed: int) -> None:
    """Ten for each seed, so that a slow machine is done in minutes."""
    for number, data in enumerate(_photos(80)):
        path = tmp_path / "images" / f"class{number % 8}" / f"{number}.JPEG"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    source, out = str(tmp_path / "images"), tmp_path / "out"
    whole = preprocessed(source, tmp_path / "whole", samples_per_shard=2)
    assert whole.num_shards == 40
    command = [sys.executable, "-m", "focusvit.cli", "preprocess", "--source", source, "--out", str(out)]
    campaign = Campaign([*command, "--samples-per-shard", "2", *mode], out, tmp_path / "log", seed)
    assert campaign.root == whole.root_hash
    campaign.run(10)
    sys.stderr.write(f"{campaign.killed} end in root {campaign.root}; {campaign.finished} runs reached their end\n")
    assert len(set(campaign.killed)) > 1
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
        return preprocessed(images, tmp_path / out, **{"workers": None, "on_error": "skip", **options})

    summary = run("plain")
    assert summary.num_samples + summary.num_skipped == 1000 + len(originals)
    split = open_dataset(str(tmp_path / "plain")).split("train")
    for number in range(split.num_samples):
        sample = split.read(number)
        seen = np.asarray(Image.open(io.BytesIO(sample.image)).convert("RGB"))
        assert np.array_equal(seen, decode_image(sample.image)), "every reader sees the same pixels"
        assert sample.meta["sha256"] == hashlib.sha256((images / sample.meta["source"]).read_bytes()).hexdigest()
    listed = json.loads((tmp_path / "plain" / ".focusvit" / "errors-train.json").read_text())
    assert len(listed) == summary.num_skipped > 400 and all(entry["source"].startswith("bad/") for entry in listed)
    assert not any("ends the process" in entry["reason"] for entry in listed), "no image may end a worker"
    assert main(["verify", str(tmp_path / "plain"), "--recompute"]) == 0
    checked = run("checked", checksums=str(tmp_path / "sums"))
    sys.stderr.write(f"{summary.line()}\nwith checksums: {checked.line()}\n")
    assert checked.num_skipped == 1000


def test_every_flipped_byte_of_a_data_set_is_found(tmp_path: Path) -> None:
    """One byte of one file at a time, 250 in each file, any other value; and no flip may crash the check."""
    for number, data in enumerate([*_photos(8), b"no image"]):
        path = tmp_path / "images" / f"class{number % 2}" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    out, rng = tmp_path / "out", random.Random(0)
    preprocessed(tmp_path / "images", out, samples_per_shard=5, on_error="skip")
    files = sorted(path for path in out.rglob("*") if path.is_file())
    assert len(files) == 2 * 3 + 2 + 1 + 1 + 2  # of shards; plan, index; errors; wids; dataset.json, _info.json
    check = VerifyConfig(uri=str(out), workers=0)
    assert not find_problems(check, str(out)).problems
    for file in files:
        whole = file.read_bytes()
        for _ in range(250):
            place, change = rng.randrange(len(whole)), rng.randrange(1, 256)
            file.write_bytes(whole[:place] + bytes([whole[place] ^ change]) + whole[place + 1 :])
            assert find_problems(check, str(out)).problems, f"{file.name}: byte {place} xor {change}"
        file.write_bytes(whole)
    assert not find_problems(check, str(out)).problems


def test_a_plan_of_imagenet_fits_the_driver(tmp_path: Path) -> None:
    """1.28 million rows in less than 500 MB, interpreter, libraries and the storing of the plan included."""
    code = f"""
import time
from pipeline.shards.description import describe
from pipeline.io.peak_memory import peak_bytes
from pipeline.plan.plan import make_plan, save_plan
from pipeline.image.image import ImageConfig, decode_image
from pipeline.sources import SourceImage
from pipeline.superpixels.config import SuperpixelConfig

class Listing:
    root = kind = "listing"
    classes = None
    def images(self):
        for i in range(1_281_167):
            name = f"n{{i % 1000:08d}}"
            yield SourceImage(f"{{name}}/{{name}}_{{i}}.JPEG", f"{{name}}/{{name}}_{{i}}.JPEG", class_name=name)

plan = make_plan(Listing(), "train")
save_plan({str(tmp_path / "plan.parquet")!r}, plan, describe(plan, ImageConfig(), SuperpixelConfig()))
print(time.process_time(), peak_bytes())
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    cpu_s, peak_bytes = map(float, done.stdout.split())
    sys.stderr.write(f"plan of 1,281,167 rows: {peak_bytes / 1e6:.0f} MB at most, {cpu_s:.1f} s of CPU\n")
    assert peak_bytes < 500e6
