"""Further levels of one hierarchy inside FocusViT: against loops, and what stays as it was."""

import dataclasses

import pytest
import torch
from torch import Tensor

from focusvit.model.model import FocusViT
from focusvit.predict.attention import layers, rollout
from testkit import model_reference as reference

LEVELS = ((2, 4), (3, 2))
TINY = {"rtol": 1e-4, "atol": 1e-5}


@pytest.fixture(scope="module")
def nested() -> FocusViT:
    torch.manual_seed(0)
    return reference.shaken(FocusViT(reference.tiny_config(then=LEVELS, area_bias=True))).eval()


def seen_of(model: FocusViT) -> tuple[dict[str, Tensor], dict]:
    inputs = reference.inputs(model.config, 3)
    with torch.inference_mode():
        return inputs, model.forward_intermediates(**inputs)


def slow_merges(keys: Tensor, area: list[float], touch: set[tuple[int, int]], tokens: int) -> list[set[int]]:
    """Groups of one image: of all that touch, the two whose union adds least to the squared error, one by one."""
    groups = [{i} for i in range(len(keys))]

    def mean(group: set[int]) -> Tensor:
        return sum(area[i] * keys[i] for i in group) / sum(area[i] for i in group)

    while len(groups) > tokens:
        costs = []
        for a in range(len(groups)):
            for b in range(a + 1, len(groups)):
                if any((i, j) in touch for i in groups[a] for j in groups[b]):
                    one, other = (sum(area[i] for i in group) for group in (groups[a], groups[b]))
                    apart = (mean(groups[a]) - mean(groups[b])).square().sum()
                    costs.append((float(one * other / (one + other) * apart), a, b))
        _, a, b = min(costs)
        groups[a] |= groups.pop(b)
    return groups


def test_the_first_level_merges_touching_regions_as_a_loop_does(nested: FocusViT) -> None:
    inputs, seen = seen_of(nested)
    plain = FocusViT(dataclasses.replace(nested.config, then=())).eval()
    plain.load_state_dict(nested.state_dict())
    before = {}
    plain.blocks[2].norm1.register_forward_hook(lambda _, args, out: before.update(x=args[0], normed=out))
    plain(**inputs)
    keys = plain.blocks[2].attn.qkv(before["normed"])[:, 1:, 16:32]
    keys = torch.nn.functional.normalize(keys, dim=2).detach()
    for image, labels in enumerate(inputs["maps"].tolist()):
        touch = set()
        for y, row in enumerate(labels):
            for x, one in enumerate(row):
                for v, u in ((y + 1, x), (y, x + 1)):
                    if v < len(labels) and u < len(row) and labels[v][u] != one:
                        touch |= {(one, labels[v][u]), (labels[v][u], one)}
        area = [float((inputs["maps"][image] == region).sum()) for region in range(7)]
        wanted = slow_merges(keys[image], area, touch, 4)
        weights = seen["levels"][2][image]
        found = [set(row.nonzero().flatten().tolist()) for row in weights]
        assert sorted(map(sorted, found)) == sorted(map(sorted, wanted))
        for row, group in zip(weights, found):
            for region in group:
                assert float(row[region]) == pytest.approx(area[region] / sum(area[i] for i in group), rel=1e-5)


def test_each_level_is_a_union_of_the_one_before(nested: FocusViT) -> None:
    _, seen = seen_of(nested)
    assert [tuple(seen["levels"][block].shape[1:]) for block, _ in LEVELS] == [(4, 7), (2, 4)]
    for weights in seen["levels"].values():
        assert torch.equal((weights > 0).sum(1), torch.ones(weights.shape[0], weights.shape[2], dtype=torch.long))
        torch.testing.assert_close(weights.sum(2), torch.ones(weights.shape[:2]))
    assert seen["rows"].shape[1] == 2


def test_one_level_and_calls_with_fewer_tokens_are_todays_model(nested: FocusViT) -> None:
    """Bit for bit: a level that has as many tokens as the call does nothing, and there are no weights of levels."""
    plain = FocusViT(dataclasses.replace(nested.config, then=())).eval()
    plain.load_state_dict(nested.state_dict())
    inputs = reference.inputs(nested.config, 3)
    few = {**inputs, "maps": inputs["maps"].clamp(max=1), "num_tokens": 2}
    assert torch.equal(plain(**few), nested(**few))
    assert not torch.equal(plain(**inputs), nested(**inputs))


def test_regions_read_the_row_of_their_union_and_train_it(nested: FocusViT) -> None:
    inputs, seen = seen_of(nested)
    label = (seen["levels"][3] > 0).float().transpose(1, 2) @ seen["rows"]
    label = (seen["levels"][2] > 0).float().transpose(1, 2) @ label
    dense = nested.dense_features(**inputs)
    torch.testing.assert_close(dense, torch.cat([seen["tokens"], label], 2), **TINY)
    torch.testing.assert_close(nested.token_features(**inputs)[1], label, **TINY)
    nested.zero_grad()
    nested(**inputs).square().sum().backward()
    assert all(float(p.grad.abs().sum()) > 0 for p in nested.blocks.parameters())


def test_attention_is_told_of_the_first_superpixels(nested: FocusViT) -> None:
    """Two tokens' attention handed on to seven regions sums to what it was, and rollout to one."""
    _, seen = seen_of(nested)
    told = layers(nested, seen)
    assert [len(layer.shares) for layer in told] == [24, 7, 7, 7]
    weights = seen["levels"][3][0] @ seen["levels"][2][0]
    last = seen["attention"][3][0].mean(0)[0, 1:]
    torch.testing.assert_close(torch.from_numpy(told[3].shares).float(), (last / last.sum()) @ weights, **TINY)
    shares = rollout(nested, seen)
    assert shares is not None and shares.sum() == pytest.approx(1.0)
