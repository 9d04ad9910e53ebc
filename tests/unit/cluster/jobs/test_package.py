"""What a job and --ray-address ship: our packages whole with variables and secrets, nothing of the laboratory."""

import ast
from pathlib import Path
from typing import Any

import pytest
import ray

from cluster.jobs.environment import SECRETS_FILE, SETUP_HOOK
from cluster.jobs.package import checkout_root, code_files, fingerprint, stage
from cluster.ray_session import ray_session


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


def test_a_process_that_joins_a_cluster_sends_its_code_and_shows_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden-word")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://store:9000")
    seen: list[Path] = []

    def init(address: str, runtime_env: dict[str, Any], **options: Any) -> None:
        folder = Path(runtime_env["working_dir"])
        assert address == "head:6379" and fingerprint(folder) == fingerprint(checkout_root())
        assert runtime_env["env_vars"]["AWS_ENDPOINT_URL"] == "http://store:9000"
        assert runtime_env["worker_process_setup_hook"] == SETUP_HOOK
        assert "hidden-word" not in str(runtime_env) and "hidden-word" in (folder / SECRETS_FILE).read_text()
        seen.append(folder)

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with ray_session("head:6379"):
        pass
    assert len(seen) == 1 and not seen[0].exists()


def test_a_ray_of_this_process_needs_no_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[dict[str, Any]] = []
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "init", lambda **options: given.append(options))
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with ray_session():
        pass
    assert given[0]["address"] == "local" and "working_dir" not in given[0]["runtime_env"]


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
