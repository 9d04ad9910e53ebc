"""--ray-address: the code, variables and secrets go along, as with `submit`."""

from pathlib import Path
from typing import Any

import pytest
import ray

from cluster.jobs.environment import SECRETS_FILE, SETUP_HOOK
from cluster.jobs.package import checkout_root, fingerprint
from cluster.ray_session import ray_session


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
