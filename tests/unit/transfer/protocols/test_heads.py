"""Many heads in one pass are the same heads trained alone; the best one is close to the exact solution."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from transfer.protocols.heads import LEARNING_RATES, REPRESENTATIONS, LinearHeads, _Scale
from transfer.protocols.logistic import Logistic
from transfer.protocols.protocol import Labelled


@pytest.fixture(scope="module")
def digits():
    images, class_ids = load_digits(return_X_y=True)
    whole = Labelled(values=(images / 16).astype(np.float32), truth=class_ids.astype(np.int64), num_classes=10)
    order = np.random.default_rng(0).permutation(1797)
    return whole.rows(order[:1000]), whole.rows(order[1000:1200]), whole.rows(order[1200:])


def test_there_are_fifty_two_heads():
    assert len(LEARNING_RATES) * len(REPRESENTATIONS) == 52


def test_a_head_in_the_crowd_equals_sgd_on_it_alone(digits):
    train, _, _ = digits
    heads = LinearHeads(steps=40, batch=32, seed=3)
    scale = _Scale(train.values)
    rates, kinds = np.array([0.1, 0.01, 0.1]), np.array([0, 3, 2])
    together = heads._train(train, scale, rates, kinds)
    for h in range(3):
        alone = heads._train(train, scale, rates[h : h + 1], kinds[h : h + 1])[0]
        np.testing.assert_allclose(together[h], alone, atol=1e-5)
    # And against torch's own SGD for the plain one.
    generator = torch.Generator().manual_seed(3)
    start = 0.01 * torch.randn(1, 129, 10, generator=generator)[0]
    weight = torch.nn.Parameter(torch.cat([start[:64], start[128:]]))
    optimizer = torch.optim.SGD([weight], lr=1.0, momentum=0.9)
    values, class_ids = torch.from_numpy(train.values), torch.from_numpy(train.truth)
    for step in range(40):
        rows = torch.randint(0, len(values), (32,), generator=generator)
        optimizer.param_groups[0]["lr"] = 0.1 * 32 / 256 * (0.5 + 0.5 * np.cos(np.pi * step / 40))
        optimizer.zero_grad()
        logits = torch.cat([values[rows], torch.ones(32, 1)], 1) @ weight
        torch.nn.functional.cross_entropy(logits, class_ids[rows]).backward()
        optimizer.step()
    np.testing.assert_allclose(np.r_[together[0][:64], together[0][128:]], weight.detach().numpy(), atol=1e-4)


def test_the_best_head_comes_close_to_the_exact_probe(digits):
    train, held_out, test = digits
    head, *others = LinearHeads(steps=150, batch=128).fit(train, held_out)
    assert len(others) == 2 and (head.predict(test.values) != others[0].predict(test.values)).any()
    (exact,) = Logistic().fit(train, held_out)
    mine, best = ((f.predict(test.values).argmax(1) == test.truth).mean() for f in (head, exact))
    assert mine > best - 0.03 and head.chosen["num_heads"] == 52 and head.chosen["features"] in REPRESENTATIONS
