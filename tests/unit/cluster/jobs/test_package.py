"""What a job ships: our packages whole, and nothing of the laboratory or its results."""

import ast
from pathlib import Path

from cluster.jobs.package import checkout_root, code_files, stage


def test_a_job_ships_our_packages_and_no_laboratory(tmp_path: Path) -> None:
    total = stage(checkout_root(), tmp_path)
    shipped = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert shipped == set(code_files(checkout_root())) and total == sum(map(_size, tmp_path.rglob("*")))
    assert {name.split("/")[0] for name in shipped} == {"pipeline", "focusvit", "transfer", "cluster"}
    assert {"focusvit/cli.py", "cluster/configs/Dockerfile", "pipeline/superpixels/segment.py"} <= shipped
    assert not [name for name in shipped if "bench" in name or "study" in name or "results" in name]


def test_the_product_leads_nowhere_below_tests() -> None:
    """No default, message or help leads there: a job could not follow. Docstrings name where a number was measured."""
    found, texts = [], 0
    for name, path in code_files(checkout_root()).items():
        tree = ast.parse(path.read_text()) if name.endswith(".py") else ast.Module([], [])
        statements = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in statements:
                texts += 1
                found += [f"{name}:{node.lineno}"] if "tests/" in node.value or "tests." in node.value else []
    assert texts > 1000 and found == []


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
