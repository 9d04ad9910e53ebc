"""One exported file for all tests of the room: making it takes seconds, reading it does not."""

from pathlib import Path

import pytest

from focusvit.predict import export
from testkit.tiny_checkpoint import make_checkpoint


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """An untrained checkpoint and its ONNX file of batch 4. Copy them to change them."""
    root = tmp_path_factory.mktemp("exported")
    checkpoint, file = make_checkpoint(root / "ckpt"), root / "model.onnx"
    assert export.main(["--checkpoint", checkpoint, "--out", str(file), "--batch-size", "4"]) == 0
    return checkpoint, file
