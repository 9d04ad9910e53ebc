"""The house keeps its shape: arrows between packages and rooms run one way, heavy libraries stay in their rooms.

A room is a folder of a package; a file that lies directly in a package is a room of its own (`pipeline/errors.py`).
`pytest tests/unit/test_architecture.py -k arrows -s` prints every arrow.
"""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from testkit.checkout import ROOT

LAYERS = ("pipeline", "focusvit", "transfer", "cluster")  # each may import itself and what stands before it
LABORATORY = "tests/benchmarks"
# Third-party roots with one home each (a prefix of the path below the root).
HOMES = {
    "ray": ("pipeline/shards/executors.py", "cluster/"),
    "mlflow": ("focusvit/runs/store.py", "focusvit/runs/tracker.py", "focusvit/runs/pyfunc.py"),
    "torch": ("focusvit/", "transfer/", "cluster/"),
    "albumentations": ("focusvit/data/augment.py", "focusvit/data/transforms.py"),
    "fast_slic": ("pipeline/superpixels/slic.py",),
    "triton": ("focusvit/segment/",),
    "tyro": ("pipeline/commandline.py",),
}
# What runs on a machine that has only torch and numpy: with everything that it imports when it is loaded.
TORCH_ONLY = ("focusvit/model/", "focusvit/segment/", "focusvit/data/batch.py", "focusvit/train/optim.py")
MAX_FILES, MAX_LINES = 16, 300


def _files() -> Iterator[Path]:
    for name in (*LAYERS, LABORATORY):
        for path in sorted((ROOT / name).rglob("*.py")):
            if "peers" not in path.parts:  # scripts of other environments
                yield path


PATHS = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in _files()}
PRODUCT = [path for path in PATHS.values() if path.relative_to(ROOT).parts[0] in LAYERS]


def _place(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _room(module: str) -> str:
    path = PATHS[module].relative_to(ROOT)
    return path.as_posix() if len(path.parts) == 2 and path.name != "__init__.py" else path.parent.as_posix()


@cache
def _imports(module: str) -> set[tuple[str, bool]]:
    """(module of this house, or root of another package; at module level) of every import in the file."""
    path = PATHS[module]
    tree = ast.parse(path.read_text())
    top = {id(node) for node in tree.body}
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    found = set()
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [name.name for name in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level <= 1, f"{path}: a relative import that leaves its room"
            base = ".".join(filter(None, [package if node.level else "", node.module]))
            for name in node.names:
                inner = f"{base}.{name.name}"
                assert inner in PATHS or base in PATHS or base.split(".")[0] not in LAYERS, f"{path}: {base} is nowhere"
                names.append(inner if inner in PATHS else base)
        found |= {(name if name in PATHS else name.split(".")[0], id(node) in top) for name in names}
    return found


@cache
def _arrows() -> dict[str, set[str]]:
    """Room -> rooms that its files import, lazily or not."""
    found: dict[str, set[str]] = {}
    for module in PATHS:
        targets = {_room(name) for name, _ in _imports(module) if name in PATHS}
        found.setdefault(_room(module), set()).update(targets - {_room(module)})
    return found


def _reach(start: str, arrows: dict[str, set[str]]) -> set[str]:
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        for target in arrows.get(waiting.pop(), set()) - seen:
            seen.add(target)
            waiting.append(target)
    return seen


def test_the_house_was_found():
    assert len(PRODUCT) > 150 and len(_arrows()) > 25  # else every test below passes empty


def test_arrows_between_rooms_run_one_way():
    arrows = _arrows()
    for room in sorted(arrows):
        sys.stdout.write(f"{room} -> {', '.join(sorted(arrows[room])) or 'nothing'}\n")
    circles = [room for room in arrows if room in _reach(room, arrows)]
    assert not circles, f"rooms that reach themselves: {circles}"


def test_no_two_files_import_each_other():
    arrows = {module: {name for name, _ in _imports(module) if name in PATHS and name != module} for module in PATHS}
    circles = [module for module in arrows if module in _reach(module, arrows)]
    assert not circles, f"files that reach themselves: {circles}"


@pytest.mark.parametrize("module", PATHS)
def test_imports_run_one_way_and_stay_home(module):
    place = _place(PATHS[module])
    if place.startswith("tests"):
        return
    layer = LAYERS.index(place.split("/")[0])
    for name, _ in _imports(module):
        root = name.split(".")[0]
        if root in LAYERS:
            assert LAYERS.index(root) <= layer, f"{place} imports {name}, which stands above it"
        if root in HOMES:
            assert place.startswith(HOMES[root]), f"{place} imports {root}; its home is {HOMES[root]}"
        assert root not in ("tests", "testkit"), f"{place} imports {name}: the product needs no laboratory"


def test_the_training_loop_needs_no_image_library():
    """On a GPU machine without Ray, MLflow, OpenCV or PyArrow the loop trains from batches that its caller brings.
    Torch's compiler, a second of CPU to load, is for those who compile."""
    heavy = "cv2 numba ray mlflow albumentations pyarrow webdataset torch._dynamo"
    assert _loaded("import focusvit.train.loop, focusvit.drop_in.patch", heavy) == []


@pytest.mark.parametrize("module", [name for name in PATHS if _place(PATHS[name]).startswith(TORCH_ONLY)])
def test_the_model_needs_only_torch_and_numpy(module):
    """Transitively: what loading the module loads, and what that loads."""
    allowed = {"torch", "numpy", "triton", *sys.stdlib_module_names}
    at_top = {name: {target for target, top in _imports(name) if top} for name in PATHS}
    for name in {module, *_reach(module, at_top)}:
        if name in PATHS:
            assert not name.startswith("pipeline"), f"{module} loads {name}"
        else:
            assert name in allowed, f"{module} loads {name}"


def _loaded(code: str, watched: str) -> list[str]:
    """The modules of `watched` that a fresh process holds after `code`."""
    code += f"\nimport sys\nprint('LOADED', [m for m in '{watched}'.split() if m in sys.modules])"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    return ast.literal_eval(done.stdout.rpartition("LOADED ")[2])


def test_import_focusvit_loads_nothing_heavy():
    heavy = "torch numpy cv2 ray mlflow albumentations pyarrow pipeline"
    assert _loaded("import focusvit", heavy) == []
    assert _loaded("import focusvit; focusvit.FocusViT", heavy) == ["torch", "numpy"]


def test_the_onnx_predictor_loads_neither_torch_nor_ray():
    code = "import focusvit.predict.predict, focusvit.predict.onnx_predictor"
    assert _loaded(code, "torch ray mlflow albumentations") == []


def test_every_verb_leads_somewhere():
    from focusvit.cli import OPTIONS, VERBS
    from tests.benchmarks.__main__ import BENCHES

    assert set(OPTIONS) <= set(VERBS)
    for target in [*(main for main, _ in (*VERBS.values(), *BENCHES.values())), *OPTIONS.values()]:
        module, name = target.split(":")
        tops = ast.parse(PATHS[module].read_text()).body
        names = {node.name for node in tops if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
        assert name in names, f"a verb points at {target}, which does not exist"


def test_packages_come_from_this_checkout():
    for name in LAYERS:
        module = __import__(name)
        assert Path(module.__file__).resolve().parent.parent == ROOT


def test_top_level_holds_only_the_agreed_folders():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:  # a copy without git: what Python could import from here
        folders = {path.parent.name for path in ROOT.glob("*/__init__.py")} | {"tests"}
    else:
        folders = {line.split("/")[0] for line in listed.stdout.splitlines() if "/" in line} - {".ci"}
    assert folders == {*LAYERS, "tests"}


@pytest.mark.parametrize("path", PATHS.values(), ids=_place)
def test_files_stay_readable(path):
    assert len(path.read_text().splitlines()) <= MAX_LINES
    assert path.stem not in {"utils", "util", "common", "helpers", "base", "misc"}


def test_rooms_stay_small():
    rooms: dict[Path, int] = {}
    for path in PATHS.values():
        rooms[path.parent] = rooms.get(path.parent, 0) + (path.name != "__init__.py")
    assert {_place(room): count for room, count in rooms.items() if count > MAX_FILES} == {}
