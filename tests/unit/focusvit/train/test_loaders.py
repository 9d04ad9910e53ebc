"""The training's loader and the scoring's never wait side by side."""

from typing import Any

import pytest

from focusvit.train.loaders import in_stretches


class Counted:
    """Batches 0, 1, ... of 10 samples; `alive` while somebody iterates."""

    samples_seen, alive = 0, 0

    def __init__(self, total_samples: int) -> None:
        self.total_samples: int | None = total_samples

    def __iter__(self) -> Any:
        self.alive += 1
        try:
            for start in range(self.samples_seen, self.total_samples or 0, 10):
                yield start // 10
        finally:
            self.alive -= 1


@pytest.mark.parametrize("ends", [{4}, {2, 4}, {1, 2, 3, 4}, {3}, set()])
@pytest.mark.parametrize("begin", [0, 10])
def test_the_loader_of_the_training_rests_while_a_scoring_reads(ends: set[int], begin: int) -> None:
    loader, seen = Counted(40), []
    loader.samples_seen = begin
    for batch in in_stretches(loader, ends, 10):
        seen.append(batch)
        assert loader.alive == (0 if batch + 1 in ends else 1)  # type: ignore[operator]
    assert seen == list(range(begin // 10, 4)) and loader.alive == 0
