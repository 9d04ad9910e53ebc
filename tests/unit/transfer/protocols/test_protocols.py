"""kNN and the linear probe agree with scikit-learn on the same features."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, confusion_matrix
from sklearn.neighbors import KNeighborsClassifier

from transfer.protocols import metrics
from transfer.protocols.knn import Knn
from transfer.protocols.logistic import Logistic, hard_problem
from transfer.protocols.protocol import Labelled
from transfer.protocols.softmax import SoftmaxRegression, few_threads, linear_scores


@pytest.fixture(scope="module")
def digits():
    images, class_ids = load_digits(return_X_y=True)
    values = (images[:1500] / 16 - 0.3).astype(np.float32)
    whole = Labelled(values=values, truth=class_ids[:1500].astype(np.int64), num_classes=10)
    order = np.random.default_rng(0).permutation(1500)
    return whole.rows(order[:800]), whole.rows(order[800:1000]), whole.rows(order[1000:])


def test_knn_equals_scikit_learn(digits):
    train, held_out, test = digits
    whole = train.with_more(held_out)
    (fitted,) = Knn(k=20, temperature=0.07).fit(train, held_out)
    theirs = KNeighborsClassifier(20, metric="cosine", weights=lambda d: np.exp((1 - d) / 0.07)).fit(
        whole.values, whole.truth
    )
    ours = fitted.predict(test.values)
    assert (ours.argmax(1) == test.truth).mean() == pytest.approx(theirs.score(test.values, test.truth), abs=1e-3)
    share = ours / ours.sum(1, keepdims=True)
    np.testing.assert_allclose(share, theirs.predict_proba(test.values), atol=1e-3)
    assert fitted.chosen == {"k": 20, "T": 0.07}


def test_knn_uses_every_sample_when_there_are_fewer_than_k(digits):
    train, _, test = digits
    (fitted,) = Knn(k=50).fit(train.rows(np.arange(10)), train.rows(np.arange(10, 15)))
    assert fitted.chosen["k"] == 15
    assert fitted.predict(test.values).shape == (len(test), 10)


@pytest.mark.parametrize("c", [0.01, 1.0, 100.0])
def test_logistic_solution_equals_scikit_learn(digits, c):
    train, _, test = digits
    problem = hard_problem(train, "cpu")
    weights, _ = problem.solve(c, problem.zeros(), 1000, 1e-8)
    theirs = LogisticRegression(C=c, max_iter=5000, tol=1e-8).fit(train.values.astype(np.float64), train.truth)
    ours = linear_scores(weights, test.values.astype(np.float64))
    expected = theirs.decision_function(test.values.astype(np.float64))
    # Scores are fixed only up to one constant per row.
    np.testing.assert_allclose(
        ours - ours.mean(1, keepdims=True), expected - expected.mean(1, keepdims=True), atol=1e-2
    )
    assert (ours.argmax(1) == test.truth).mean() == pytest.approx(theirs.score(test.values, test.truth), abs=1e-3)


def test_logistic_chooses_c_on_held_out_samples_and_refits(digits):
    train, held_out, test = digits
    grid = (1e-4, 1e-2, 1.0, 100.0)
    (fitted,) = Logistic(grid=grid).fit(train, held_out)
    scores = {}
    for c in grid:
        model = LogisticRegression(C=c, max_iter=5000, tol=1e-6).fit(train.values, train.truth)
        scores[c] = model.score(held_out.values, held_out.truth)
    assert scores[fitted.chosen["C"]] == max(scores.values())
    whole = train.with_more(held_out)
    theirs = LogisticRegression(C=fitted.chosen["C"], max_iter=5000, tol=1e-6).fit(whole.values, whole.truth)
    ours = (fitted.predict(test.values).argmax(1) == test.truth).mean()
    assert ours == pytest.approx(theirs.score(test.values, test.truth), abs=1e-3)


def test_metrics_equal_scikit_learn(digits):
    *_, test = digits
    scores = np.random.default_rng(0).normal(size=(len(test), 10))
    predicted = scores.argmax(1)
    counts = metrics.confusion(predicted, test.truth, 10)
    assert (counts == confusion_matrix(test.truth, predicted)).all()
    balanced = balanced_accuracy_score(test.truth, predicted)
    assert metrics.of_confusion(counts, "mean_per_class") == pytest.approx(balanced)
    assert metrics.of_confusion(counts, "top1") == pytest.approx((predicted == test.truth).mean())
    assert np.isnan(metrics.per_class(np.array([[1, 0], [0, 0]]))[1])
    assert metrics.chance(np.array([0, 0, 1]), 2, "top1") == pytest.approx(2 / 3)
    assert metrics.chance(np.array([0, 0, 1]), 2, "mean_per_class") == 0.5
    constant = np.zeros(4, np.int64)  # classes without a test sample do not count, neither here nor there
    truth = np.array([0, 0, 2, 3])
    reached = metrics.of_confusion(metrics.confusion(constant, truth, 9), "mean_per_class")
    assert metrics.chance(truth, 9, "mean_per_class") == pytest.approx(reached)


def test_labelled_refuses_what_does_not_belong_together():
    values = np.zeros((3, 2), np.float32)
    with pytest.raises(ValueError, match="do not belong"):
        Labelled(values=values, truth=np.zeros(2, np.int64), num_classes=2)
    with pytest.raises(ValueError, match=r"outside 0\.\.1"):
        Labelled(values=values, truth=np.array([0, 1, 2]), num_classes=2)


def test_soft_targets_and_weights_equal_repeated_samples(digits):
    train, _, _ = digits
    some = train.rows(np.arange(60))
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 4, (60, 10)) + np.eye(10, dtype=int)[some.truth]
    soft = SoftmaxRegression(some.values, counts / counts.sum(1, keepdims=True), counts.sum(1))
    weights, converged = soft.solve(0.5, soft.zeros(), 1000, 1e-9)
    rows, class_ids = np.nonzero(counts)
    theirs = LogisticRegression(C=0.5, max_iter=5000, tol=1e-9).fit(
        some.values[rows].astype(np.float64), class_ids, sample_weight=counts[rows, class_ids]
    )
    assert converged
    np.testing.assert_allclose(weights[:-1].T, theirs.coef_, atol=1e-4)


def test_a_small_problem_takes_one_thread_and_gives_the_others_back():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with few_threads(10):
            assert torch.get_num_threads() == 1
        with few_threads(10**9):
            assert torch.get_num_threads() == 2
        with pytest.raises(ZeroDivisionError), few_threads(10):
            1 / 0  # noqa: B018
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
