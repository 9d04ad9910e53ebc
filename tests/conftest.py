"""What makes the suite cheap: rare garbage collection, and one set of MLflow's tables."""

import gc
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from focusvit.runs import store

_MAKE = store._make_database

# By default every tenth collection of the middle generation looks at all of torch's objects: a twelfth of the CPU.
gc.set_threshold(50_000, 20, 100)


@pytest.fixture(scope="session", autouse=True)
def copied_tables(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """MLflow takes a second of CPU to make the tables of a new database. Tests copy those that the first one made."""
    template = tmp_path_factory.mktemp("tables") / "mlflow.db"

    def copy(uri: str) -> None:
        path = Path(uri.removeprefix("sqlite:///"))
        if path.exists() and path.stat().st_size:
            return
        if not template.exists():
            _MAKE(f"sqlite:///{template}")
        shutil.copy(template, path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "_make_database", copy)
        yield


@pytest.fixture
def own_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    """As users get them."""
    monkeypatch.setattr(store, "_make_database", _MAKE)
