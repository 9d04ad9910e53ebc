"""Average precision equals scikit-learn's, ties and rare classes included."""

import dataclasses

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score

from pipeline.shards.dataset import Split
from testkit.tiny_checkpoint import make_checkpoint
from testkit.tiny_shards import make_dataset
from transfer.protocols.knn import Knn
from transfer.protocols.logistic import OneAgainstRest
from transfer.protocols.multilabel import average_precision, eleven_point_precision, mean_of_known
from transfer.protocols.protocol import Labelled, best_strength
from transfer.tasks.spec import WorkSpec
from transfer.tasks.task import Task
from transfer.work import run_task


@pytest.mark.parametrize("decimals", [1, 8])  # one decimal: many ties
def test_equals_a_loop_over_ties(decimals):
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(200, 4)).round(decimals)
    relevant = rng.random((200, 4)) < np.array([0.5, 0.1, 0.02, 0.9])
    for c, found in enumerate(average_precision(scores, relevant)):
        area, before = 0.0, 0
        for level in sorted(set(scores[:, c]), reverse=True):  # samples of one score are taken together
            taken = scores[:, c] >= level
            right = int(relevant[taken, c].sum())
            area += right / taken.sum() * (right - before)
            before = right
        assert found == pytest.approx(area / relevant[:, c].sum())


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
    assert eleven_point_precision(scores[:, None], relevant[:, None]) == pytest.approx([np.mean(best)])


def test_a_class_without_a_sample_is_left_out():
    scores = np.array([[0.9, 0.1], [0.2, 0.5]])
    relevant = np.array([[True, False], [False, False]])
    for measure in (average_precision, eleven_point_precision):
        np.testing.assert_equal(measure(scores, relevant), [1.0, np.nan])
        assert mean_of_known(measure(scores, relevant)) == 1.0
        assert np.isnan(mean_of_known(measure(scores, relevant & False)))


def test_the_strongest_of_the_best_is_chosen_and_no_number_never():
    said = {1.0: (0.5, 1.0), 10.0: (0.5, 2.0), 100.0: (0.5, 2.0), 1000.0: (np.nan, 9.0)}
    found = best_strength([100.0, 1.0, 1000.0, 10.0], lambda c, starts: [*starts, c], lambda s: said[s[-1]], [])
    assert found == (10.0, (0.5, 2.0), [1.0, 10.0])


@pytest.fixture(scope="module")
def problem():
    rng = np.random.default_rng(2)
    directions = rng.normal(size=(5, 12))
    values = rng.normal(size=(400, 12)).astype(np.float32)
    relevant = values @ directions.T + 0.5 * rng.normal(size=(400, 5)) > 2.5
    parts = np.split(np.arange(400), [240, 280])
    return [Labelled(values=values[rows], truth=relevant[rows], num_classes=5) for rows in parts]


def test_one_against_rest_equals_scikit_learn(problem):
    train, held_out, test = problem
    (fitted,) = OneAgainstRest(grid=(0.1, 10.0)).fit(train, held_out)
    whole = train.with_more(held_out)
    theirs = np.stack(
        [
            # Two columns of weights share the penalty, so a class pair at C is a single column at C / 2.
            LogisticRegression(C=fitted.chosen["C"] * 2, max_iter=2000, tol=1e-8)
            .fit(whole.values.astype(np.float64), whole.truth[:, c])
            .decision_function(test.values.astype(np.float64))
            for c in range(5)
        ],
        1,
    )
    ours = fitted.predict(test.values)
    expected = average_precision_score(test.truth, theirs, average="macro")
    assert average_precision(ours, test.truth).mean() == pytest.approx(expected, abs=1e-3)
    np.testing.assert_allclose(ours, theirs, atol=0.05)


def test_knn_votes_for_all_classes_of_a_neighbour(problem):
    train, held_out, test = problem
    (fitted,) = Knn(k=10).fit(train, held_out)
    whole = train.with_more(held_out)
    a, b = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (test.values, whole.values))
    similar = a @ b.T
    for row in range(5):
        near = np.argsort(-similar[row])[:10]
        weight = np.exp(similar[row, near] / 0.07)
        expected = weight @ whole.truth[near] / weight.sum()
        np.testing.assert_allclose(fitted.predict(test.values)[row], expected, atol=1e-4)


def test_a_task_of_label_lists_gives_mean_ap_rows(tmp_path, monkeypatch):
    data = make_dataset(tmp_path / "data", splits={"train": 40, "val": 16})
    real = Split.read

    def with_lists(self, number, *reader):
        sample = real(self, number, *reader)
        labels = [] if number % 7 == 6 else sorted({sample.class_id, number % 3})
        return dataclasses.replace(sample, class_id=None, meta={"labels": labels})

    monkeypatch.setattr(Split, "read", with_lists)
    values = {"checkpoint": make_checkpoint(tmp_path / "ckpt"), "suite": "quick"}
    values |= {"out": str(tmp_path / "out"), "features_folder": str(tmp_path / "features")}
    outcome = run_task(WorkSpec(task=Task(name="lists", uri=data), **values))
    assert outcome.failures == [] and len(outcome.rows) == 5
    for row in outcome.rows:
        assert row.metric == "map" and row.low <= row.value <= row.high and 0.2 < row.chance < 0.6
        assert 0 <= row.scores["map_11_points"] <= 1 and row.num_train == 40
