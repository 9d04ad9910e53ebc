"""What comes from elsewhere runs nothing and leaves its folder never: checkpoints, shards, archives, YAML."""

import ast
import io
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from cluster.jobs.package import PACKAGES, checkout_root
from focusvit.cli import main
from pipeline.errors import DataError
from pipeline.shards.dataset import open_dataset
from pipeline.shards.sample import decode
from testkit.tiny_checkpoint import make_checkpoint
from testkit.tiny_shards import make_dataset

# Python tells its audit hooks of every class that an unpickling looks up; a hook cannot be taken off again, so the
# reading happens in a child.
READS = """
import sys

def refuse(event, arguments):
    if event == "pickle.find_class":
        raise SystemExit(f"unpickled {arguments}")

shards, checkpoint = sys.argv[1:]
from pipeline.shards.dataset import open_dataset
open_dataset(shards).split("train").read(0)  # numba unpickles its own cache of compiled functions, once
sys.addaudithook(refuse)
from focusvit.runs.checkpoint import load_checkpoint, load_weights
from focusvit.predict.predictor import Predictor
from pipeline.shards.sample import decode

split = open_dataset(shards).split("train")
for number in range(1, split.num_samples):
    assert split.read(number).image
found = load_checkpoint(checkpoint)
assert load_weights(found.uri)
Predictor.of(checkpoint)
print("read", split.num_samples)
"""


def test_shards_and_checkpoints_are_read_without_unpickling(tmp_path):
    shards = make_dataset(tmp_path / "shards", splits={"train": 9})
    checkpoint = make_checkpoint(tmp_path / "checkpoint")
    command = [sys.executable, "-c", READS, shards, checkpoint]
    done = subprocess.run(command, capture_output=True, text=True, cwd=checkout_root(), timeout=120)
    assert done.stdout == "read 9\n", done.stderr


class Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_pickle_in_the_place_of_an_array_is_damage_and_not_run(tmp_path):
    split = open_dataset(make_dataset(tmp_path / "shards", splits={"train": 2})).split("train")
    members = dict(split.read_members(0)[1])
    evil = io.BytesIO()
    np.save(evil, np.array([Payload(tmp_path / "ran")], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match=r"merges\.npy cannot be read"):
        decode("one", {**members, "merges.npy": evil.getvalue()})
    assert not (tmp_path / "ran").exists()


NAMES = ["../../evil/1.jpg", "/evil/2.jpg", "cats/../../3.jpg", "cats/..\\4.jpg", "cats/new\nline.jpg", "cats/5.jpg"]


def test_names_in_an_archive_stay_names(tmp_path):
    """Nothing is extracted, and what is written carries keys of our own letters."""
    image = cv2.imencode(".jpg", np.zeros((40, 40, 3), np.uint8))[1].tobytes()
    (tmp_path / "in").mkdir()
    with tarfile.open(tmp_path / "in" / "train.tar", "w") as archive:
        for name in NAMES:
            member = tarfile.TarInfo(name)
            member.size = len(image)
            archive.addfile(member, io.BytesIO(image))
    out = tmp_path / "deep" / "er" / "out"
    before = set(tmp_path.rglob("*"))
    arguments = ["--source", str(tmp_path / "in"), "--out", str(out)]
    assert main(["preprocess", "--local", "--workers", "0", *arguments]) == 0
    written = {path for path in tmp_path.rglob("*") if path.is_file()} - before
    assert written and all(path.is_relative_to(out) for path in written) and not Path("/evil").exists()
    keys = [key for path in out.glob("*.tar") for key in tarfile.open(path).getnames()]
    assert keys and all(re.fullmatch(r"[A-Za-z0-9_-]+(\.[a-z]+)+", key) for key in keys)


PICKLERS = {"pickle", "dill", "cloudpickle", "shelve", "marshal", "joblib"}


def name_of(called: ast.expr) -> str:
    """'torch.load' of what a call calls; without what stands before an expression: '.load' of open()(...).load."""
    if isinstance(called, ast.Attribute):
        return f"{name_of(called.value)}.{called.attr}"
    return called.id if isinstance(called, ast.Name) else ""


def test_no_code_of_ours_reads_in_a_way_that_could_run_something():
    """pickle and extractall nowhere; torch.load with weights_only; yaml by its safe loaders."""
    seen = set()
    for path in (path for package in PACKAGES for path in (checkout_root() / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                assert not {name.name for name in node.names} & PICKLERS, path
            if isinstance(node, ast.ImportFrom) and node.module in PICKLERS:  # to catch torch's refusal
                assert [name.name for name in node.names] == ["UnpicklingError"], path
            if isinstance(node, ast.Call):
                name, options = name_of(node.func), {word.arg: word.value for word in node.keywords}
                seen.add(name)
                assert name not in ("eval", "exec") and not name.endswith(".extractall"), (path, name)
                assert name != "torch.load" or ast.unparse(options["weights_only"]) == "True", path
                assert not name.startswith("yaml.") or name.startswith("yaml.safe_"), (path, name)
                assert "allow_pickle" not in options or ast.unparse(options["allow_pickle"]) == "False", path
    assert {"torch.load", "np.load"} <= seen  # else the names above are not those that our code calls
