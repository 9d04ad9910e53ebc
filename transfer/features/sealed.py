"""Test labels that can be looked at once per protocol. 'Test touched once' is then a property of the code."""

from dataclasses import dataclass

import numpy as np


class SecondLookError(Exception):
    """A protocol asked for the test labels again: its first number could have steered a choice."""


@dataclass(frozen=True, kw_only=True)
class Answers:
    """The test samples' features and classes, handed over when a protocol has finished fitting."""

    values: np.ndarray
    truth: np.ndarray


class SealedTest:
    """Holds test features and labels. Protocols get training data only; the suite opens this after they have fitted."""

    def __init__(self, values: np.ndarray, truth: np.ndarray, opened: set[str] | None = None) -> None:
        """`opened`: what was opened so far, shared by all seals of one task: features differ, labels do not."""
        self._values, self._truth = values, truth
        self._opened = set() if opened is None else opened

    def open_once(self, protocol: str) -> Answers:
        """The test set, for the one scoring of `protocol`. Raises SecondLookError the second time."""
        if protocol in self._opened:
            raise SecondLookError(
                f"protocol '{protocol}' asked for the test labels a second time. Choose on held-out training samples, "
                "and score every fitted classifier in one call."
            )
        self._opened.add(protocol)
        return Answers(values=self._values, truth=self._truth)
