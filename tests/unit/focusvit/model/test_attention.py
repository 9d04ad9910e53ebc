"""Every form of attention against loops over heads, queries and keys, in float64."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from focusvit.model.attention import (
    Attention,
    AttentionContext,
    attend,
    plane_places,
    raster_places,
    window_bias,
    with_class_token,
)
from focusvit.model.latents import LatentRead, LatentStart, pooled_regions
from focusvit.model.position import NUM_FEATURES, RegionFeatures
from focusvit.model.regions import EMPTY_BIAS, Regions, measure_regions
from testkit import model_reference as reference

D, HEADS, K, M = 16, 2, 7, 3
CONFIG = reference.tiny_config()
FUSED = torch.nn.functional.scaled_dot_product_attention


def exact(module: torch.nn.Module) -> torch.nn.Module:
    return reference.shaken(module.double()).requires_grad_(False)


def tokens(num: int, seed: int = 0) -> Tensor:
    return torch.randn(1, num, D, generator=torch.Generator().manual_seed(seed)).double()


def regions_of(num: int = K) -> Regions:
    found = measure_regions(reference.maps(1, CONFIG, num), num)
    return Regions(*(part.double() for part in found))


def weights_of(logits: list[float]) -> list[float]:
    """Softmax."""
    top = max(logits)
    raised = [math.exp(value - top) for value in logits]
    return [value / sum(raised) for value in raised]


def attention_loop(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
    """(queries, D), (keys, D), (keys, D) and a bias (queries or 1, keys): each head, query and key by itself."""
    width = D // HEADS
    out = torch.zeros_like(q)
    for head in range(HEADS):
        part = slice(head * width, (head + 1) * width)
        for i in range(len(q)):
            logits = [float(q[i, part] @ k[j, part]) / math.sqrt(width) for j in range(len(k))]
            if bias is not None:
                row = bias[i if len(bias) > 1 else 0]
                logits = [value + float(row[j]) for j, value in enumerate(logits)]
            for weight, value in zip(weights_of(logits), v[:, part]):
                out[i, part] += weight * value
    return out


def qkv(attention: Attention, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return (x @ attention.qkv.weight.T + attention.qkv.bias).chunk(3, -1)  # type: ignore[return-value]


def projected(attention: Attention, x: Tensor) -> Tensor:
    return x @ attention.proj.weight.T + attention.proj.bias


def make(trunk: str, **values: object) -> Attention:
    torch.manual_seed(0)
    return exact(Attention(reference.tiny_config(trunk=trunk, **values)))  # type: ignore[return-value]


@pytest.mark.parametrize("with_bias", [False, True])
def test_full_attention(with_bias: bool) -> None:
    attention, x = make("full"), tokens(K + 1)
    bias = with_class_token(regions_of().log_relative_area(), "cls") if with_bias else None
    q, k, v = qkv(attention, x[0])
    expected = projected(attention, attention_loop(q, k, v, None if bias is None else bias[0, 0]))
    torch.testing.assert_close(attention(x, AttentionContext(bias))[0], expected)


@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("count", [9, 600])  # by products of matrices, by the fused kernel
def test_bfloat16_on_a_cpu_rounds_like_the_fused_kernel(count: int, with_bias: bool) -> None:
    """Output and gradients, each against float64; the weights are shown as they were used."""
    seeded = torch.Generator().manual_seed(0)
    q, k, v, back = torch.randn(4, 2, HEADS, count, 8, generator=seeded).bfloat16()
    bias = torch.randn(2, 1, 1, count, generator=seeded).bfloat16() if with_bias else None

    def run(attention: Any, dtype: torch.dtype) -> list[Tensor]:
        inputs = [x.to(dtype).requires_grad_() for x in (q, k, v)]
        out = attention(*inputs, None if bias is None else bias.to(dtype))
        return [out, *torch.autograd.grad(out, inputs, back.to(dtype))]

    true, ours, fused = (run(attend, torch.float64), run(attend, torch.bfloat16), run(FUSED, torch.bfloat16))
    for expected, found, rounded in zip(true, ours, fused):
        assert found.dtype == torch.bfloat16
        assert (found - expected).norm() <= 2.5 * (rounded - expected).norm()  # logits are rounded too
    shown: list[Tensor] = []
    out = attend(q, k, v, bias, shown)
    torch.testing.assert_close(shown[0].double() @ v.double(), out.double(), rtol=0.02, atol=0.02)


@pytest.mark.parametrize("window", [1, 3, 50])
@pytest.mark.parametrize("projection", [False, True])
def test_window_attention_sees_the_nearest_centres(window: int, projection: bool) -> None:
    attention, x, regions = make("window", window_projection=projection), tokens(K + 1), regions_of()
    found = attention(x, AttentionContext(window_bias(plane_places(regions, 16, 24), regions, window, "cls").double()))[
        0
    ]
    centre = [(float(y) * 16 / 24, float(x)) for y, x in regions.centre[0]]
    allowed = torch.zeros(K + 1, K + 1)  # the class token, row and column 0, sees and is seen by all
    for i in range(K):
        near = sorted(range(K), key=lambda j: math.dist(centre[i], centre[j]))[:window]
        allowed[1 + i, 1:] = torch.tensor([0.0 if j in near else EMPTY_BIAS for j in range(K)])
    q, k, v = qkv(attention, x[0])
    if projection:
        k = torch.cat([part @ attention.key_projection.weight.T for part in k.split(D // HEADS, 1)], 1)
        v = torch.cat([part @ attention.value_projection.weight.T for part in v.split(D // HEADS, 1)], 1)
    torch.testing.assert_close(found, projected(attention, attention_loop(q, k, v, allowed)))


def test_raster_places_number_the_centres_line_by_line() -> None:
    """On squares of whole lines they are the numbers of the squares, whatever the width and the kind of numbers."""
    for rows, columns in ((4, 6), (14, 14), (1, 5)):
        squares = measure_regions(torch.arange(rows * columns).view(1, rows, columns), rows * columns)
        for kind in (torch.float32, torch.bfloat16):
            found = raster_places(Regions(*(part.to(kind) for part in squares)), rows * 8, columns * 8)
            assert found[0, :, 0].tolist() == list(range(rows * columns))


def test_regions_that_are_nowhere_come_last_in_raster_order() -> None:
    regions = regions_of()
    first = int(raster_places(regions, 16, 24)[0, :, 0].argmin())
    gone = regions._replace(area=regions.area.index_fill(1, torch.tensor(first), 0.0))
    found = raster_places(gone, 16, 24)[0, :, 0].tolist()
    assert found[first] == K - 1 and sorted(found) == list(range(K))


def pool_rows() -> Tensor:
    """(M, K) rows that sum to 1."""
    return torch.softmax(torch.randn(M, K, generator=torch.Generator().manual_seed(4)).double(), 1)


def test_kv_pool_answers_from_pooled_tokens() -> None:
    attention, x, pool = make("kv_pool"), tokens(K), pool_rows()
    bias = torch.linspace(-1, 1, M).double()
    found = attention(x, AttentionContext(None, pool[None], bias[None, None, None]))[0]
    pooled = torch.stack([sum(pool[m, i] * x[0, i] for i in range(K)) for m in range(M)])
    q, (_, k, v) = qkv(attention, x[0])[0], qkv(attention, pooled)
    torch.testing.assert_close(found, projected(attention, attention_loop(q, k, v, bias[None])))


def test_gather_reads_all_tokens_and_returns_to_them() -> None:
    attention, x, pool = make("gather"), tokens(K), pool_rows()
    key_bias, pool_bias = torch.linspace(-1, 1, K).double(), torch.linspace(1, -1, M).double()
    context = AttentionContext(key_bias[None, None, None], pool[None], pool_bias[None, None, None])
    q, k, v = qkv(attention, x[0])
    latents = torch.stack([sum(pool[m, i] * q[i] for i in range(K)) for m in range(M)])
    gathered = attention_loop(latents, k, v, key_bias[None])
    expected = projected(attention, attention_loop(q, latents, gathered, pool_bias[None]))
    torch.testing.assert_close(attention(x, context)[0], expected)


def norm(layer: torch.nn.LayerNorm, x: Tensor) -> Tensor:
    mean = x.mean(-1, keepdim=True)
    return (x - mean) / ((x - mean).square().mean(-1, keepdim=True) + layer.eps).sqrt() * layer.weight + layer.bias


@pytest.mark.parametrize("kind", ["seeds", "learned"])
def test_the_latents_start_by_their_formula(kind: str) -> None:
    torch.manual_seed(0)
    start = exact(LatentStart(reference.tiny_config(trunk="latent", latent_start=kind)))
    x, regions = tokens(K), regions_of()
    features = RegionFeatures(CONFIG)(regions)
    found = start(x, features, regions)[0]
    area, centre = regions.area[0], regions.centre[0]
    for m in range(M):
        logits = []
        for i in range(K):
            key = start.key.weight @ norm(start.norm, x[0, i]) + start.key.bias
            key = key + start.key_position.weight @ features[0, i]
            if kind == "seeds":
                query = start.query_position.weight @ start.seed_features[0, m] + start.query_position.bias
                y, x_ = (start.seed_centre[0, m] - centre[i]).tolist()
                far = float(start.log_sharpness.exp()) * M * (y * y * 16 / 24 + x_ * x_ * 24 / 16) / 2
            else:
                query, far = start.query[0, m], 0.0
            logits.append(float(query @ key) / 8 - far + math.log(float(area[i]) * K))
        torch.testing.assert_close(found[m], torch.tensor(weights_of(logits)).double(), rtol=1e-5, atol=1e-7)


def test_latents_lie_where_their_tokens_lie() -> None:
    """Mean and covariance of the mixture, by drawing each region as 4 points with its mean and covariance."""
    weights, regions = pool_rows(), regions_of()
    places = pooled_regions(weights[None], regions)
    for m in range(M):
        points, mass = [], []
        for i in range(K):
            vy, vx, vyx = regions.covariance[0, i]
            root = torch.linalg.cholesky(torch.tensor([[vy, vyx], [vyx, vx]]).double()) * math.sqrt(2)
            for side in (root[:, 0], -root[:, 0], root[:, 1], -root[:, 1]):
                points.append(regions.centre[0, i] + side)
                mass.append(weights[m, i] / 4)
        point, share = torch.stack(points), torch.stack(mass)
        mean = (share[:, None] * point).sum(0)
        torch.testing.assert_close(places.centre[0, m], mean)
        away = point - mean
        spread = torch.stack([(share * away[:, a] * away[:, b]).sum() for a, b in ((0, 0), (1, 1), (0, 1))])
        torch.testing.assert_close(places.covariance[0, m], spread)
        area = sum(weights[m, i] / weights[:, i].sum() * regions.area[0, i] for i in range(K))
        torch.testing.assert_close(places.area[0, m], area)
    torch.testing.assert_close(places.area.sum(), torch.tensor(1.0).double())


def test_a_read_is_cross_attention_that_position_modulates() -> None:
    torch.manual_seed(0)
    read = exact(LatentRead(reference.tiny_config(trunk="latent")))
    z, x = tokens(M, 1), tokens(K, 2)
    phi_z, phi_x = (torch.randn(1, n, NUM_FEATURES).double() for n in (M, K))
    bias = torch.linspace(-1, 1, K).double()
    q = norm(read.norm_latents, z[0]) @ read.q.weight.T + read.q.bias + phi_z[0] @ read.query_position.weight.T
    k, v = (norm(read.norm_tokens, x[0]) @ read.kv.weight.T + read.kv.bias).chunk(2, 1)
    k = k + phi_x[0] @ read.key_position.weight.T
    expected = z[0] + attention_loop(q, k, v, bias[None]) @ read.proj.weight.T + read.proj.bias
    torch.testing.assert_close(read(z, phi_z, x, phi_x, bias[None, None, None])[0], expected)
