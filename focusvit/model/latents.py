"""LLA, light latent attention: M latents pooled from the tokens by attention, which then read the tokens again.

The positional encoding modulates every read: it is part of queries and keys, and log area is added to the logits.
"""

import torch
from torch import Tensor, nn

from .attention import Trace, attend, join_heads
from .config import FocusViTConfig
from .partitions import static_partition
from .position import NUM_FEATURES, RegionFeatures
from .regions import Regions, exact, full_precision


def pooled_regions(weights: Tensor, regions: Regions) -> Regions:
    """Where the latents lie: moments of the mixture that each row of `weights` (B, M, K) makes of the regions.

    A region's area is shared among latents in proportion to its column, so the latents' areas sum to 1.
    """
    dtype = torch.promote_types(weights.dtype, regions.area.dtype)
    weights = exact(weights.to(dtype))
    regions = Regions(*(part.to(weights.dtype) for part in regions))
    with full_precision(weights):
        share = weights / weights.sum(1, keepdim=True).clamp(min=1e-9)
        area = (share @ regions.area[..., None]).squeeze(-1)
        y, x = regions.centre.unbind(-1)
        second = regions.covariance + torch.stack([y * y, x * x, y * x], -1)
        centre = weights @ regions.centre
        # Not y, x = centre.unbind(-1): torch.compile would keep centre and its two views for the backward pass and
        # write over the one while it still reads the others (torch 2.13, CPU: gradients wrong by percents).
        of_centre = torch.cat([centre.square(), (centre * centre.flip(-1))[..., :1]], -1)
        covariance = weights @ second - of_centre
    # Made on the device: a list of numbers would be sent, and the host would wait.
    is_variance = torch.arange(3, device=covariance.device) < 2
    covariance = torch.where(is_variance, covariance.clamp(min=0), covariance)
    return Regions(area.to(dtype), centre.to(dtype), covariance.to(dtype))


class LatentStart(nn.Module):
    """Attention weights A (B, M, K) that pool tokens into the first latents: z = A x.

    seeds    a[m, i] = q(phi(seed_m)) k(x_i, phi_i) - g |c_m - c_i|^2 M / 2 + log area_i: latent m looks from cell m of
             a uniform grid of M cells; g is learned and 4 at the start: a soft local average. |.|^2 is in units of
             the image's area, the same along y and x for any shape of image
    learned  a[m, i] = q_m k(x_i, phi_i) + log area_i with M learned queries (Perceiver)
    """

    seed_features: Tensor
    seed_centre: Tensor
    axis_scale: Tensor

    def __init__(self, config: FocusViTConfig) -> None:
        super().__init__()
        self.num_latents = config.num_latents
        self.norm = nn.LayerNorm(config.width, config.norm_eps)
        self.key = nn.Linear(config.width, 64)
        self.key_position = nn.Linear(NUM_FEATURES, 64, bias=False)
        seeded = config.latent_start == "seeds"
        self.query_position = nn.Linear(NUM_FEATURES, 64) if seeded else None
        self.log_sharpness = nn.Parameter(torch.tensor(4.0).log()) if seeded else None
        self.query = None if seeded else nn.Parameter(torch.zeros(1, config.num_latents, 64))
        if seeded:
            _, seeds = static_partition("grid", config.num_latents, config.grid)
            self.register_buffer("seed_features", RegionFeatures(config)(seeds), persistent=False)
            self.register_buffer("seed_centre", seeds.centre.clone(), persistent=False)
            aspect = config.image_size[0] / config.image_size[1]
            self.register_buffer("axis_scale", torch.tensor([aspect, 1 / aspect]), persistent=False)

    def reset_start(self) -> None:
        if self.query is not None:
            nn.init.trunc_normal_(self.query, std=1.0)  # equal queries would stay equal

    def forward(self, tokens: Tensor, features: Tensor, regions: Regions) -> Tensor:
        """(B, K, D) tokens, (B or 1, K, F) features -> (B, M, K), rows that sum to 1."""
        key = self.key(self.norm(tokens)) + self.key_position(features.to(tokens.dtype))
        query = self.query
        if self.query_position is not None:
            query = self.query_position(self.seed_features.to(tokens.dtype))
        assert query is not None
        logits = (query.to(key.dtype) @ key.transpose(1, 2)) * 64**-0.5
        logits = logits.to(torch.promote_types(logits.dtype, regions.area.dtype))  # never in bfloat16
        logits = logits + regions.log_relative_area()[:, None, :]
        if self.log_sharpness is not None:
            difference = self.seed_centre[:, :, None, :] - regions.centre[:, None, :, :]
            # A sum of products, since autocast would take a matrix product to bfloat16.
            distance = (difference.square() * self.axis_scale.to(difference.dtype)).sum(-1)
            logits = logits - self.log_sharpness.exp().to(logits.dtype) * self.num_latents / 2 * distance
        return torch.softmax(logits, -1)


class LatentRead(nn.Module):
    """One cross-attention of latents (B, m, D) to tokens (B, K, D):

    q_m = Wq norm(z_m) + Pq phi(r_m),  k_i = Wk norm(x_i) + Pk phi(r_i),  v_i = Wv norm(x_i),
    z_m + Wo sum_i softmax_i(q_m k_i / sqrt(d) + log(a_i / mean a)) v_i
    """

    def __init__(self, config: FocusViTConfig) -> None:
        super().__init__()
        self.heads, self.head_width = config.heads, config.width // config.heads
        self.norm_latents = nn.LayerNorm(config.width, config.norm_eps)
        self.norm_tokens = nn.LayerNorm(config.width, config.norm_eps)
        self.q = nn.Linear(config.width, config.width)
        self.kv = nn.Linear(config.width, 2 * config.width)
        self.query_position = nn.Linear(NUM_FEATURES, config.width, bias=False)
        self.key_position = nn.Linear(NUM_FEATURES, config.width, bias=False)
        self.proj = nn.Linear(config.width, config.width)

    def _split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.heads, self.head_width).transpose(1, 2)

    def forward(
        self, latents: Tensor, latent_features: Tensor, tokens: Tensor, features: Tensor, key_bias: Tensor,
        trace: Trace = None,
    ) -> Tensor:  # fmt: skip
        """`latent_features` (B, m, F) and `features` (B, K, F) are phi; `key_bias` (B, 1, 1, K) is log area."""
        q = self.q(self.norm_latents(latents)) + self.query_position(latent_features)
        k, v = self.kv(self.norm_tokens(tokens)).chunk(2, -1)
        k = k + self.key_position(features)
        read = attend(self._split(q), self._split(k), self._split(v), key_bias, trace)
        return latents + self.proj(join_heads(read))


def read_back(weights: Tensor, latents: Tensor) -> Tensor:
    """(B, K, D): token k gets the latents (B, M, D) in the shares in which it fed them, by their weights (B, M, K)."""
    weights = weights.to(latents.dtype)
    return (weights / weights.sum(1, keepdim=True).clamp_min(1e-12)).transpose(1, 2) @ latents
