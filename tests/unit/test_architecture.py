"""The house keeps its shape: arrows between packages run one way, heavy libraries stay in their rooms."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LAYERS = ("pipeline", "focusvit", "transfer", "cluster")  # each may import itself and what stands before it
FILES = sorted(path for name in LAYERS for path in (ROOT / name).rglob("*.py"))
# Third-party roots with one home each (a prefix of the path below the root).
HOMES = {
    "ray": ("pipeline/executors.py", "cluster/"),
    "mlflow": ("focusvit/tracking.py", "focusvit/pyfunc_model.py"),
    "torch": ("focusvit/", "transfer/", "cluster/"),
    "albumentations": ("focusvit/augment.py", "focusvit/transforms.py"),
    "fast_slic": ("pipeline/slic.py",),
    "tyro": ("pipeline/commandline.py",),
}
# The model side also runs on a machine that has only torch and numpy.
TORCH_ONLY = "model stem pooling position attention blocks presets batch optim array_loader".split()


def _imports(path: Path) -> set[tuple[str, bool]]:
    """(root, at module level) of every absolute import in the file, and of relative ones as their own package."""
    tree = ast.parse(path.read_text())
    top = set(map(id, tree.body))
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {(name.name.split(".")[0], id(node) in top) for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level <= 1, f"{path}: a relative import that leaves the package"
            root = path.relative_to(ROOT).parts[0] if node.level else (node.module or "").split(".")[0]
            found.add((root, id(node) in top))
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_imports_run_one_way_and_stay_home(path):
    place = path.relative_to(ROOT).as_posix()
    layer = LAYERS.index(place.split("/")[0])
    for root, _ in _imports(path):
        if root in LAYERS:
            assert LAYERS.index(root) <= layer, f"{place} imports {root}, which stands above it"
        if root in HOMES:
            assert place.startswith(HOMES[root]), f"{place} imports {root}; its home is {HOMES[root]}"
        assert root != "tests"


@pytest.mark.parametrize("name", TORCH_ONLY)
def test_model_side_needs_only_torch_and_numpy(name):
    path = ROOT / "focusvit" / f"{name}.py"
    allowed = {"torch", "numpy", "focusvit", *sys.stdlib_module_names}
    assert {root for root, at_top in _imports(path) if at_top} <= allowed


def test_import_focusvit_loads_nothing_heavy():
    heavy = "torch numpy cv2 ray mlflow albumentations pyarrow pipeline"
    code = f"import sys, focusvit; print([m for m in '{heavy}'.split() if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_verb_leads_somewhere():
    from focusvit.bench import BENCHES
    from focusvit.cli import VERBS

    for verb, (target, _) in {**VERBS, **BENCHES}.items():
        module, function = target.split(":")
        source = ROOT / (module.replace(".", "/") + ".py")
        names = {node.name for node in ast.parse(source.read_text()).body if isinstance(node, ast.FunctionDef)}
        assert function in names, f"focusvit {verb} points at {target}, which does not exist"


def test_packages_come_from_this_checkout():
    for name in LAYERS:
        module = __import__(name)
        assert Path(module.__file__).resolve().parent.parent == ROOT


def test_top_level_holds_only_the_agreed_folders():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    folders = {line.split("/")[0] for line in listed.stdout.splitlines() if "/" in line}
    assert folders <= {*LAYERS, "tests", ".ci"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_files_stay_readable(path):
    assert len(path.read_text().splitlines()) <= 300
    assert path.stem not in {"utils", "util", "common", "helpers", "base", "misc"}
