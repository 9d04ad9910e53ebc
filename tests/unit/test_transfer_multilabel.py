"""Average precision equals scikit-learn's, ties and rare classes included."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from transfer.multilabel import average_precision, eleven_point_precision, mean_average_precision


@pytest.mark.parametrize("decimals", [1, 8])  # one decimal: many ties
def test_equals_scikit_learn(decimals):
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(200, 4)).round(decimals)
    relevant = rng.random((200, 4)) < np.array([0.5, 0.1, 0.02, 0.9])
    for c in range(4):
        expected = average_precision_score(relevant[:, c], scores[:, c])
        assert average_precision(scores[:, c], relevant[:, c]) == pytest.approx(expected)
    assert mean_average_precision(scores, relevant) == pytest.approx(
        average_precision_score(relevant, scores, average="macro")
    )


def test_eleven_points_equals_a_loop():
    rng = np.random.default_rng(1)
    scores, relevant = rng.normal(size=60), rng.random(60) < 0.3
    order = np.argsort(-scores)
    best = []
    for level in range(11):
        precisions = []
        for count in range(1, 61):
            found = relevant[order[:count]].sum()
            if found / relevant.sum() >= level / 10:
                precisions.append(found / count)
        best.append(max(precisions))
    assert eleven_point_precision(scores, relevant) == pytest.approx(np.mean(best))


def test_a_class_without_a_sample_is_left_out():
    scores = np.array([[0.9, 0.1], [0.2, 0.5]])
    relevant = np.array([[True, False], [False, False]])
    assert np.isnan(average_precision(scores[:, 1], relevant[:, 1]))
    assert mean_average_precision(scores, relevant, eleven_points=True) == 1.0
    assert np.isnan(mean_average_precision(scores, relevant & False))
