"""Which protocols a suite runs on which features. A suite is data: this table."""

from .fewshot import Ridge
from .knn import Knn
from .logistic import FULL_GRID, Logistic
from .protocol import Protocol

SUITES = ("quick",)


def protocols_of(suite: str, features: str, device: str) -> list[Protocol]:
    """The protocols of one suite on one kind of features. Raw pixels get kNN only: it needs no training to compare."""
    if features == "pixels":
        return [Knn(device=device)]
    if suite == "quick":
        return [Knn(device=device), Ridge(), Logistic(device=device)]
    return [Knn(device=device), Ridge(), Logistic(device=device, grid=FULL_GRID)]
