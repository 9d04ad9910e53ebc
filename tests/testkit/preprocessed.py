"""A split of a source, made in the process of the test."""

from pathlib import Path
from typing import Any

from pipeline.preprocess import PreprocessConfig, Say, Summary, preprocess


def preprocessed(
    source: Path | str, out: Path | str, split: str = "train", say: Say = lambda _: None, **options: Any
) -> Summary:
    """What `focusvit preprocess --local --workers 0` came to; `say` gets the lines of its plan."""
    settings = {"local": True, "workers": 0, **options}
    summary = preprocess(PreprocessConfig(source=str(source), out=str(out), split=split, **settings), say)
    assert isinstance(summary, Summary)
    return summary
