"""Closed-form ridge equals scikit-learn's; draws are fair, repeatable and honest about what is missing."""

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import Ridge as TheirRidge

from transfer.protocols.protocol import Fitted, Labelled, Skipped
from transfer.protocols.ridge import Ridge, draw_rows, solve_ridge


@pytest.fixture(scope="module")
def digits():
    images, class_ids = load_digits(return_X_y=True)
    values = (images / 16).astype(np.float32)
    whole = Labelled(values=values, truth=class_ids.astype(np.int64), num_classes=10)
    return whole.rows(np.arange(1200)), whole.rows(np.arange(1200, 1300)), whole.rows(np.arange(1300, 1797))


@pytest.mark.parametrize("num", [20, 400])
def test_both_forms_equal_scikit_learn(digits, num):
    train, _, _ = digits
    x, y = train.values[:num].astype(np.float64), np.eye(10)[train.truth[:num]]
    theirs = TheirRidge(alpha=3.0, fit_intercept=False, tol=1e-10).fit(x, y)
    np.testing.assert_allclose(solve_ridge(x, y, 3.0), theirs.coef_.T, atol=1e-8)


@pytest.mark.parametrize("shots", [1, 10])
def test_accuracy_equals_scikit_learn_on_the_same_draw(digits, shots):
    train, held_out, test = digits
    fitted = Ridge(shots=(shots,), draws=3).fit(train, held_out)
    whole = train.with_more(held_out)
    for draw, one in enumerate(fitted):
        few = whole.rows(draw_rows(whole.truth, shots, seed=(0, shots, draw)))
        mean, deviation = few.values.mean(0, dtype=np.float64), np.maximum(few.values.std(0, dtype=np.float64), 1e-5)

        def prepared(values, mean=mean, deviation=deviation):
            return np.c_[(values - mean) / deviation, np.full(len(values), 100.0)]

        theirs = TheirRidge(alpha=1024.0, fit_intercept=False).fit(prepared(few.values), 2 * np.eye(10)[few.truth] - 1)
        expected = (theirs.predict(prepared(test.values)).argmax(1) == test.truth).mean()
        assert isinstance(one, Fitted)
        assert (one.predict(test.values).argmax(1) == test.truth).mean() == pytest.approx(expected, abs=1e-3)


def test_draws_hold_every_class_alike_and_differ(digits):
    class_ids = digits[0].truth
    draws = [draw_rows(class_ids, 5, seed=(0, 5, draw)) for draw in range(3)]
    for rows in draws:
        assert (np.bincount(class_ids[rows]) == 5).all() and len(set(rows)) == 50
    assert (draws[0] != draws[1]).any() and (draws[0] == draw_rows(class_ids, 5, seed=(0, 5, 0))).all()


def test_a_class_with_too_few_samples_is_a_listed_skip():
    values = np.random.default_rng(0).normal(size=(12, 4)).astype(np.float32)
    few = Labelled(values=values, truth=np.repeat([0, 1], [9, 3]), num_classes=3)
    found = Ridge(shots=(1, 3, 5), draws=2).fit(few.rows(np.arange(0, 12, 2)), few.rows(np.arange(1, 12, 2)))
    skipped = [one for one in found if isinstance(one, Skipped)]
    assert skipped == [Skipped(variant="5-shot", class_id=1, reason="has 3 training samples")]
    assert [one.variant for one in found if isinstance(one, Fitted)] == ["1-shot"] * 2 + ["3-shot"] * 2
    assert (found[0].predict(values).argmax(1) < 2).all()  # class 2 has no sample and cannot win
