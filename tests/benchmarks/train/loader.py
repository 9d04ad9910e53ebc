"""`bench loader`: what a decoded, cropped, augmented sample with its map costs, beside bare work and peers.

Each contestant is a process of its own (tests/benchmarks/peers/loader_*.py), peers in their own environments. They take
turns pass by pass, so that other work on the machine moves all alike. CPU time is the default clock: on a busy machine
wall time measures the others. No contestant uses worker processes: a rate is per core.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tqdm import tqdm

from pipeline.errors import DataError, UsageError
from pipeline.io import storage
from tests.benchmarks.record import TimedConfig, begin, data_folder
from tests.benchmarks.report import ROOT, Table
from tests.benchmarks.train.loader_sizes import sizes_table

SCRIPTS = ROOT / "tests" / "benchmarks" / "peers"
PEERS = ("webdataset", "streaming", "litdata", "datasets", "ffcv")
WITH_RECIPE = ("webdataset", "datasets")  # have the whole recipe too
FLOOR, OURS = "bare decode + crop + fit", "FocusViT"


@dataclass(frozen=True, kw_only=True)
class BenchConfig(TimedConfig):
    """CPU time of a training sample, beside bare work and other loaders; memory and opening by data set size."""

    data: str = ""
    """A data set with a split 'train'; by default made of $FOCUSVIT_DATA/imagenet-sample (a minute)."""
    peers: str = ""
    """The folder that tests/benchmarks/peers/loader_environments.sh filled; without it only our own rows."""
    only: str = ""
    """Peers to take, such as webdataset,litdata; empty = all that are installed."""
    rounds: int = 7
    """Passes over all samples per contestant, in turns; medians are reported."""
    clock: Literal["cpu", "wall"] = "cpu"
    """What a time is: of the processor (other work does not count), or of the wall."""
    sizes: bool = True
    """Also measure memory and opening for larger data sets."""

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise ValueError(f"--rounds is {self.rounds}; it must be at least 1")
        wrong = [name for name in self.only.split(",") if name and name not in PEERS]
        if wrong:
            raise ValueError(f"--only names '{wrong[0]}'; peers are {', '.join(PEERS)}")


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """A row of a table: its name, and the process that answers for it."""

    name: str
    kind: Literal["floor", "ours", "same", "default", "recipe", "finished"]
    python: str
    script: str


def contestants(config: BenchConfig) -> list[Contestant]:
    """Floor and our loader, then each installed peer with its kinds of work. UsageError when `--peers` holds none."""
    own = "loader_focusvit.py"
    found = [
        Contestant(name=FLOOR, kind="floor", python=sys.executable, script=own),
        Contestant(name=OURS, kind="ours", python=sys.executable, script=own),
        Contestant(name=OURS, kind="recipe", python=sys.executable, script=own),
        Contestant(name=OURS, kind="finished", python=sys.executable, script=own),
    ]
    own_rows = len(found)
    wanted = [name for name in config.only.split(",") if name] or PEERS
    for name in wanted if config.peers else ():
        python = Path(config.peers, name, "bin", "python").absolute()
        if python.exists():
            script = f"loader_{name}.py"
            found.append(Contestant(name=name, kind="same", python=str(python), script=script))
            found.append(Contestant(name=name, kind="default", python=str(python), script=script))
            if name in WITH_RECIPE:
                found.append(Contestant(name=name, kind="recipe", python=str(python), script=script))
        else:
            sys.stderr.write(f"bench loader: {name} is left out, {python} is not there\n")
    if config.peers and len(found) == own_rows:
        raise UsageError(f"--peers {config.peers} holds no environment. Make them with {SCRIPTS.name}/loader_*.sh.")
    return found


class Running:
    """A contestant's process. One line asks for one pass."""

    def __init__(self, who: Contestant, data: str, folder: str) -> None:
        self.who, self._errors = who, Path(folder, f"{who.name}-{who.kind}.log".replace(" ", "-"))
        mode = {"floor": "floor", "ours": "loader"}.get(who.kind, who.kind)
        self._process = subprocess.Popen(
            [who.python, str(SCRIPTS / who.script), mode, data, folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors.open("w"),
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "NO_ALBUMENTATIONS_UPDATE": "1"},
        )

    def run_pass(self) -> dict[str, float]:
        """Its numbers for one pass. DataError with its last words when it died."""
        assert self._process.stdin and self._process.stdout
        try:
            self._process.stdin.write("\n")
            self._process.stdin.flush()
            return json.loads(self._process.stdout.readline())
        except (BrokenPipeError, ValueError):
            last = self._errors.read_text().strip().splitlines()[-3:]
            raise DataError(f"the contestant {self.who.name} ({self.who.kind}) died: {' / '.join(last)}") from None

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe
            with suppress(BrokenPipeError):  # it died with a line unread
                pipe.close()


@contextmanager
def _all_running(who: Sequence[Contestant], data: str, folder: str) -> Iterator[list[Running]]:
    running: list[Running] = []
    try:
        for one in who:
            running.append(Running(one, data, folder))
        yield running
    finally:
        for process in running:
            process.stop()


def measure(config: BenchConfig, data: str, folder: str) -> dict[Contestant, list[dict[str, float]]]:
    """The passes of each contestant: the first one, in a fresh process, and then `rounds` in turns."""
    who = contestants(config)
    passes: dict[Contestant, list[dict[str, float]]] = {one: [] for one in who}
    with _all_running(who, data, folder) as running:
        dead: set[Contestant] = set()
        bar = tqdm(total=(config.rounds + 1) * len(running), desc="passes", unit="pass", disable=None)
        for _ in range(config.rounds + 1):
            for process in running:
                bar.update()
                try:
                    if process.who not in dead:
                        passes[process.who].append(process.run_pass())
                except DataError as error:  # a peer that fails must not cost the others' rows
                    if process.who.name in (FLOOR, OURS):
                        raise
                    dead.add(process.who)
                    sys.stderr.write(f"bench loader: left out, {error}\n")
        bar.close()
    return {one: found for one, found in passes.items() if one not in dead}


def speed_table(passes: dict[Contestant, list[dict[str, float]]], clock: str) -> Table:
    """Rates, times and ratios; ratios are medians over rounds of times of one round."""
    times = {
        one: [p[f"{clock}_s"] / p["samples"] * 1000 for p in found[1:]]  # ms a sample, warm
        for one, found in passes.items()
    }
    ours = next(found for one, found in times.items() if one.kind == "ours")
    recipe = next(found for one, found in times.items() if (one.name, one.kind) == (OURS, "recipe"))
    floor = next(found for one, found in times.items() if one.kind == "floor")
    rows = []
    for one, found in times.items():
        median = statistics.median(found)
        first = "" if one.kind == "floor" else f"{passes[one][0][f'first_{clock}_s']:.2f}"
        rows.append(
            [one.name, KINDS[one.kind], f"{1000 / median:.0f}", f"{median:.3f}", _ratio(found, floor),
             _ratio(found, recipe if one.kind in ("recipe", "finished") else ours), first]
        )  # fmt: skip
    unit = "CPU second" if clock == "cpu" else "second"
    return Table(
        title=f"Training samples, 224 px, {clock} clock, no worker processes",
        columns=("loader", "work", f"samples per {unit}", "ms a sample", "over the floor", "over FocusViT",
                 f"first batch of a fresh process, {clock} s"),
        rows=rows,
        note="Same work: OpenCV's JPEG decode, the map's PNG, FocusViT's crop, flip and fit to 64 regions, batches of "
        "64; only reading, shuffling and stacking differ. Default recipe: as in the peer's own ImageNet example (PIL, "
        "torchvision's RandomResizedCrop, flip, ToTensor, Normalize; FFCV its compiled crop), image only, no map. "
        "Floor: the same work on bytes in memory in a loop, nothing kept. Full recipe: focusvit_small_in1k, with "
        "3-augment, jitter, random token budgets and CutMix by superpixels; over FocusViT's own row of it. FocusViT's "
        "loader only draws colours and mixing, and the device does them: the last of its rows does that on this CPU "
        "too. A peer does them as it loads, by albumentations and numpy, its maps by our compiled paste. Ratios are "
        "medians over rounds. Goals: FocusViT at most 1.25 of the floor, its full recipe at most 1.33 of its same "
        "work, no peer with the same work below 1.00 of FocusViT, default recipes 1.3 and more.",
    )  # fmt: skip


KINDS = {
    "floor": "same work, no loader", "ours": "same work", "same": "same work", "default": "default recipe",
    "recipe": "full recipe", "finished": "full recipe, its pixels on this CPU",
}  # fmt: skip


def _ratio(found: list[float], base: list[float]) -> str:
    return f"{statistics.median(a / b for a, b in zip(found, base)):.2f}"


def main(argv: list[str]) -> int:
    """Print the tables and save them under tests/benchmarks/results."""
    packages = ("torch", "albumentations", "opencv-python-headless", "numba", "numpy")
    config, record = begin("loader", BenchConfig, argv, packages)
    record.facts["versions"] |= _peer_versions(config)
    with tempfile.TemporaryDirectory() as folder:
        data = storage.resolve(config.data) if config.data else _made(folder)
        record.say(f"{data}, {config.rounds} rounds")
        record.add(speed_table(measure(config, data, folder), config.clock))
        if config.sizes:
            record.add(sizes_table(data, folder))
    return record.end()


def _made(folder: str) -> str:
    """A data set of the 320 photos in a folder of its own."""
    from pipeline.preprocess import PreprocessConfig, preprocess

    photos, place = data_folder("imagenet-sample", option="--data"), storage.join(folder, "data")
    preprocess(PreprocessConfig(source=photos, out=place, local=True, workers=2), lambda text: None)
    return place


def _peer_versions(config: BenchConfig) -> dict[str, str]:
    package = {"streaming": "mosaicml-streaming"}
    found = {}
    for one in [one for one in contestants(config) if one.kind == "same"]:
        name = package.get(one.name, one.name)
        code = f"from importlib.metadata import version; print(version('{name}'))"
        done = subprocess.run([one.python, "-c", code], capture_output=True, text=True)
        found[name] = done.stdout.strip()
    return found
