"""What a confusion matrix says, by hand."""

import numpy as np

from focusvit.score.confusion import chance, recall


def test_the_commonest_class_is_chance_and_a_class_without_samples_has_no_recall() -> None:
    counts = np.array([[5, 0, 1], [0, 0, 0], [1, 1, 2]])
    assert chance(counts) == 0.6
    assert recall(counts) == [5 / 6, None, 0.5]
