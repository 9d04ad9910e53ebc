"""A campaign of damage to data sets: no flipped byte, cut, swapped or odd file gives a wrong result in silence, and no
repair makes anything worse. $FOCUSVIT_FLIPS is the number of flips in each file.
"""

import json
import os
import random
import shutil
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from focusvit.cli import main
from focusvit.data.config import DataConfig
from focusvit.data.loader import EvalLoader, TrainLoader
from pipeline.errors import DataError, UsageError
from pipeline.shards.dataset import open_dataset
from testkit.image_sources import class_images, write_folder
from testkit.preprocessed import preprocessed

pytestmark = [pytest.mark.soak, pytest.mark.timeout(3000)]
FLIPS = int(os.environ.get("FOCUSVIT_FLIPS", "40"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`train/` with a bad file, `val/`, and `out/` with both as splits of two shards."""
    root = tmp_path_factory.mktemp("made")
    for start, split in ((0, "train"), (50, "val")):
        write_folder(root / split, class_images(classes=2, per_class=4, start=start))
        (root / split / "n00000001" / "bad.jpg").write_bytes(b"no image")
        preprocessed(root / split, root / "out", split, samples_per_shard=5, on_error="skip")
    return root


def _used(out: Path) -> str:
    """Everything that training and scoring see of a data set, as one text. Raises DataError, UsageError."""
    dataset = open_dataset(str(out))
    data = DataConfig(image_px=32, map_px=16)
    train, val = dataset.split("train"), dataset.split("val")
    learned = TrainLoader(train, data, seed=0, global_batch=4, rank=0, world_size=1, total_samples=8, tokens=6)
    seen = []
    for batch in [*learned, *EvalLoader(val, data, batch_size=4, tokens=6)]:
        assert batch.maps is not None
        arrays = (batch.images, batch.maps, batch.class_ids, batch.sample_ids)
        seen.append([batch.num_replaced, *(np.asarray(array).tobytes().hex() for array in arrays)])
    return json.dumps([dataset.classes, seen])


def _bytes(root: Path) -> dict[str, bytes]:
    """All files; timings in sidecars are of the moment."""
    found = {}
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        data = path.read_bytes()
        if path.parent.name == "shards":
            content = json.loads(data)
            data = json.dumps({k: v for k, v in content.items() if k not in ("timing", "sidecar_sha256")}).encode()
        found[str(path.relative_to(root))] = data
    return found


def _outcome(out: Path, expected: str) -> str:
    try:
        return "unchanged" if _used(out) == expected else "SILENT"
    except (DataError, UsageError) as error:
        assert str(error)
        return "refused"


def _verify(out: Path, *options: str) -> int:
    return main(["verify", str(out), "--workers", "0", "--json", *options])


def _files(out: Path) -> list[str]:
    return sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())


def _kind(name: str) -> str:
    return name.removesuffix(Path(name).suffix).rstrip("0123456789-") + Path(name).suffix


def test_flips_are_refused_or_change_nothing(made: Path, tmp_path: Path, capsys: Any) -> None:
    rng, counts = random.Random(0), Counter[tuple[str, str]]()
    out = Path(shutil.copytree(made / "out", tmp_path / "out"))
    expected, whole = _used(out), _bytes(out)
    for name in _files(out):
        for _ in range(FLIPS):
            data = bytearray((made / "out" / name).read_bytes())
            data[rng.randrange(len(data))] ^= rng.randrange(1, 256)
            (out / name).write_bytes(data)
            counts[_kind(name), _outcome(out, expected)] += 1
            assert _verify(out) == 1, name
        assert _verify(out, "--repair") == 0, name
        assert _bytes(out) == whole, name
        capsys.readouterr()
    sys.stderr.write("".join(f"{kind}: {count} {outcome}\n" for (kind, outcome), count in sorted(counts.items())))
    # Names and settings in dataset.json have no hash where they are read: `verify` alone compares them with the plan.
    silent = {
        kind: count for (kind, outcome), count in counts.items() if outcome == "SILENT" and kind != "dataset.json"
    }
    assert silent == {}
    assert counts["train.tar", "refused"] + counts["val.tar", "refused"] == 4 * FLIPS


DAMAGE: dict[str, Callable[[Path, Path], None]] = {
    "missing": lambda place, _: place.unlink(),
    "empty": lambda place, _: place.write_bytes(b"") and None,
    "cut": lambda place, _: place.write_bytes(place.read_bytes()[: place.stat().st_size // 2]) and None,
    "zeros": lambda place, _: place.write_bytes(bytes(place.stat().st_size)) and None,
    "half zeros": lambda place, _: (
        place.write_bytes(place.read_bytes()[: place.stat().st_size // 2] + bytes(-(-place.stat().st_size // 2)))
        and None
    ),
    "longer": lambda place, _: place.write_bytes(place.read_bytes() + bytes(1024)) and None,
    "of another file": lambda place, other: place.write_bytes(other.read_bytes()) and None,
    "pipe": lambda place, _: (place.unlink(), os.mkfifo(place)) and None,
    "loop": lambda place, _: (place.unlink(), place.symlink_to(place)) and None,
}


def _damaged(made: Path, out: Path, name: str, kind: str) -> bool:
    """Damage a file of a fresh copy; False when it has no sibling to be mistaken for."""
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(made / "out", out)
    place = out / name
    others = [other for other in _files(out) if _kind(other).split("/")[-1][-5:] == _kind(name).split("/")[-1][-5:]]
    other = next((out / other for other in others if other != name), None)
    if kind == "of another file" and (other is None or other.read_bytes() == place.read_bytes()):
        return False
    DAMAGE[kind](place, other or place)
    return True


@pytest.mark.parametrize("kind", DAMAGE)
def test_damaged_files_are_refused_named_and_mended(made: Path, tmp_path: Path, capsys: Any, kind: str) -> None:
    """With the images there all comes back to the byte, one file at a time."""
    whole, expected, out = _bytes(made / "out"), _used(made / "out"), tmp_path / "out"
    for name in _files(made / "out"):
        if _damaged(made, out, name, kind):
            assert _outcome(out, expected) != "SILENT", (name, kind)
            assert _verify(out) == 1, (name, kind)
            assert _verify(out, "--repair") == 0, (name, kind, capsys.readouterr().err[-500:])
            assert _bytes(out) == whole, (name, kind)
            capsys.readouterr()


@pytest.mark.parametrize("kind", DAMAGE)
def test_without_images_repair_makes_nothing_worse(made: Path, tmp_path: Path, capsys: Any, kind: str) -> None:
    """What cannot be mended keeps every sound file, every split of dataset.json, and is used no more than before."""
    whole, expected, out = _bytes(made / "out"), _used(made / "out"), tmp_path / "out"
    for split in ("train", "val"):
        (made / split).rename(made / f"{split}-away")
    try:
        for name in _files(made / "out"):
            if not _damaged(made, out, name, kind):
                continue
            code = _verify(out, "--repair")
            said = capsys.readouterr().err
            after = _bytes(out) if code == 0 else {n: (out / n).read_bytes() for n in _files(out) if n != name}
            if code == 0:
                assert after == whole, (name, kind)
                continue
            assert "Traceback" not in said and f"{made}/" in said, (name, kind, said[-500:])
            sound = {n: (made / "out" / n).read_bytes() for n in _files(made / "out") if n != name}
            assert after == sound, (name, kind, [n for n in sound if after.get(n) != sound[n]])
            assert _outcome(out, expected) != "SILENT"
    finally:
        for split in ("train", "val"):
            (made / f"{split}-away").rename(made / split)
