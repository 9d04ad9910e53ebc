"""FocusViT: images and superpixel maps -> logits. One class; every variant and control is a `FocusViTConfig`.

Shapes: B batch, H W pixels, N patches, K tokens, M latents, D width, F region features; n = K + 1 with a class token.
Coordinates are (y, x) in [0, 1]. Weight names follow timm's VisionTransformer where the parts are the same.
"""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from .attention import AttentionContext, window_bias, with_class_token
from .blocks import Block
from .config import FocusViTConfig
from .inputs import check_shapes
from .latents import LatentRead, LatentStart, pooled_regions
from .merging import merging_trunk
from .partitions import drawn_by_pixels, patch_regions, static_partition
from .pooling import SuperpixelPooling
from .position import DescriptorEncoding, RegionFeatures
from .regions import EMPTY_BIAS, Regions, measure_regions, overlap_matrix
from .start import initialize
from .stem import make_stem

__all__ = ["FocusViT", "FocusViTConfig"]

Seen = dict[str, Any] | None
_MIN_MICRO_BATCH = 8


class FocusViT(nn.Module):
    """stem -> grid blocks -> superpixel pooling + dynamic position -> trunk on tokens or latents -> norm -> head."""

    patch_area: Tensor
    patch_centre: Tensor
    patch_covariance: Tensor
    static_overlap: Tensor
    static_area: Tensor
    static_centre: Tensor
    static_covariance: Tensor
    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, config: FocusViTConfig) -> None:
        super().__init__()
        self.config = config
        D, N = config.width, config.num_patches
        self.num_class_tokens = 1 if config.readout == "cls" else 0
        self.patch_embed = make_stem(config)
        if self.num_class_tokens:
            self.cls_token = nn.Parameter(torch.zeros(1, 1, D))
        if config.position != "descriptor":
            self.pos_embed = nn.Parameter(torch.zeros(1, N + self.num_class_tokens, D))
        self.region_features = RegionFeatures(config)
        if config.position != "pooled":
            self.position = DescriptorEncoding(config)
        if config.tokens is not None and config.partition != "merge":
            self.pool = SuperpixelPooling(config)
        rates = [config.drop_path * i / max(1, config.depth - 1) for i in range(config.depth)]
        self.blocks = nn.ModuleList(Block(config, rate) for rate in rates)
        if config.has_latents:
            self.latent_start = LatentStart(config)
        if config.trunk in ("latent", "hybrid"):
            self.reads = nn.ModuleList(LatentRead(config) for _ in range(config.num_reads))
        self.norm = nn.LayerNorm(D, config.norm_eps)
        self.head = nn.Linear(D, config.num_classes)
        for name, value in patch_regions(config.grid)._asdict().items():
            self.register_buffer(f"patch_{name}", value.clone(), persistent=False)
        if config.tokens is not None and config.partition in ("grid", "random"):
            overlap, regions = static_partition(config.partition, config.tokens, config.grid)
            for name, value in {"overlap": overlap, **regions._asdict()}.items():
                self.register_buffer(f"static_{name}", value.clone(), persistent=False)
        self.register_buffer("pixel_mean", 255 * torch.tensor(config.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("pixel_std", 255 * torch.tensor(config.std).view(1, 3, 1, 1), persistent=False)
        initialize(self)

    def forward(
        self, images: Tensor, maps: Tensor | None = None, num_tokens: int | None = None,
        coarse_maps: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """Logits (B, num_classes).

        Args:
            images: (B, 3, H, W), uint8 RGB, or float that is already normalised.
            maps: integer (B, Hm, Wm) superpixel ids 0..K-1, each present; Hm and Wm are multiples of the patch grid.
            num_tokens: K of these maps, any number at any call; None is `config.tokens`.
            coarse_maps: only with latent_start coarse: the same hierarchy cut to `num_latents` regions.

        Raises:
            ValueError: shapes that do not fit the config. Values are checked at the boundary (`inputs.check_values`).
        """
        return self.head(self.features(images, maps, num_tokens, coarse_maps))

    def features(
        self, images: Tensor, maps: Tensor | None = None, num_tokens: int | None = None,
        coarse_maps: Tensor | None = None, seen: Seen = None,
    ) -> Tensor:  # fmt: skip
        """(B, D): what the head reads. The data path of the model, read downwards; `seen` collects stages by name."""
        num_tokens = check_shapes(self.config, images, maps, num_tokens, coarse_maps)
        overlap, regions = self._partition(images, maps, num_tokens)
        features = self.region_features(regions)
        bias = self._key_bias(regions)
        x = self._tokens(images, overlap, regions, features, bias, seen)
        if self.config.partition == "merge" and num_tokens is not None:
            trace = None if seen is None else seen["attention"]
            x, weight = merging_trunk(
                self.blocks[self.config.grid_depth :], x, num_tokens, self.num_class_tokens, trace
            )
        else:
            coarse = None
            if coarse_maps is not None and maps is not None and num_tokens is not None:
                coarse = self.latent_start.coarse_share(maps, coarse_maps, num_tokens)
            x, weight = self._trunk(x, regions, features, bias, coarse, seen)
        x = self.norm(x)
        if self.num_class_tokens:
            return x[:, 0]
        return (weight.to(x.dtype)[:, None] @ x).squeeze(1) if weight is not None else x.mean(1)

    def forward_intermediates(
        self, images: Tensor, maps: Tensor | None = None, num_tokens: int | None = None,
        coarse_maps: Tensor | None = None,
    ) -> dict[str, Any]:  # fmt: skip
        """The stages by name: stem and grid (B, N, D), overlap (B, K, N), regions, tokens (B, K, D), latents (B, M, D),
        latent_weights (B, M, K), attention and reads (lists of (B, heads, queries, keys), one a block or a read),
        features (B, D), logits. The class token comes first in attention. Keys exist where the variant has the stage.
        """
        seen: dict[str, Any] = {"attention": [], "reads": []}
        seen["features"] = self.features(images, maps, num_tokens, coarse_maps, seen)
        seen["logits"] = self.head(seen["features"])
        return seen

    def reset_head(self, num_classes: int) -> None:
        """A new head for other classes; everything else stays."""
        self.config = replace(self.config, num_classes=num_classes)
        head = nn.Linear(self.config.width, num_classes).to(self.head.weight)
        nn.init.trunc_normal_(head.weight, std=0.02)
        nn.init.zeros_(head.bias)
        self.head = head

    # Stages, in the order of the data path.

    def _partition(self, images: Tensor, maps: Tensor | None, num_tokens: int | None) -> tuple[Tensor | None, Regions]:
        """Overlap (B or 1, K, N), None where nothing is pooled, and the regions that the tokens stand for."""
        patches = Regions(self.patch_area, self.patch_centre, self.patch_covariance)
        if num_tokens is None or self.config.partition == "merge":
            return None, patches
        if maps is not None:
            return overlap_matrix(maps, self.config.grid, num_tokens), measure_regions(maps, num_tokens)
        if num_tokens == self.config.tokens:
            overlap = self.static_overlap
            regions = Regions(self.static_area, self.static_centre, self.static_covariance)
        else:
            overlap, regions = static_partition(self.config.partition, num_tokens, self.config.grid)
            overlap, regions = overlap.to(images.device), Regions(*(part.to(images.device) for part in regions))
        if self.config.partition == "random":
            drawn = drawn_by_pixels(images)
            overlap, regions = overlap[drawn], Regions(*(part[drawn] for part in regions))
        return overlap, regions

    def _tokens(
        self, images: Tensor, overlap: Tensor | None, regions: Regions, features: Tensor, bias: Tensor | None,
        seen: Seen,
    ) -> Tensor:  # fmt: skip
        """Stem, grid blocks, pooling, and token blocks of trunk hybrid: (B, n, D). At inference in slices of the batch
        wherever something smaller follows, so that the peak of memory stays at the tokens, or at the latents.
        """
        B = images.shape[0]
        membership = None if overlap is None else self.pool.membership(overlap, regions.centre)
        if seen is not None and overlap is not None:
            seen.update(overlap=overlap, regions=regions)
        position = self.position(features) if hasattr(self, "position") else None
        size = max(_MIN_MICRO_BATCH, -(-B // self.config.micro_batches))
        shrinks = membership is not None or self.config.trunk in ("latent", "hybrid")
        if seen is not None or not shrinks or torch.is_grad_enabled() or B <= size:
            return self._first_blocks(images, membership, position, bias, seen)
        out = []
        for rows in (slice(start, start + size) for start in range(0, B, size)):
            given = _rows(membership, rows), _rows(position, rows), _rows(bias, rows)
            out.append(self._first_blocks(images[rows], *given, None))
        return torch.cat(out)

    def _first_blocks(
        self, images: Tensor, membership: Tensor | None, position: Tensor | None, bias: Tensor | None, seen: Seen
    ) -> Tensor:
        x = self._pooled_grid(images, membership, position, seen)
        if self.config.trunk == "hybrid":
            for block in self.blocks[self.config.grid_depth : self._latents_from]:
                x = block(x, AttentionContext(bias), None if seen is None else seen["attention"])
        return x

    def _pooled_grid(self, images: Tensor, membership: Tensor | None, position: Tensor | None, seen: Seen) -> Tensor:
        x = self.patch_embed(self._normalized(images))
        if seen is not None:
            seen["stem"] = x
        if self.num_class_tokens:
            x = torch.cat([self.cls_token.to(x.dtype).expand(x.shape[0], -1, -1), x], 1)
        own = None
        if self.config.position != "descriptor":
            x = x + self.pos_embed
        else:
            patches = Regions(self.patch_area, self.patch_centre, self.patch_covariance)
            own = nn.functional.pad(self.position(self.region_features(patches)), (0, 0, self.num_class_tokens, 0))
            x = x + own
        for block in self.blocks[: self.config.grid_depth]:
            x = block(x, None, None if seen is None else seen["attention"])
        if seen is not None:
            seen["grid"] = x[:, self.num_class_tokens :]
        if membership is not None:
            # With descriptors alone, a token trades the mean of its patches' encodings for its own.
            x = x if own is None else x - own
            first = x[:, : self.num_class_tokens]
            tokens = self.pool(x[:, self.num_class_tokens :], membership) + (0 if position is None else position)
            x = torch.cat([first if own is None else first + own[:, : self.num_class_tokens], tokens], 1)
        elif self.config.position == "both" and position is not None:
            x = x + nn.functional.pad(position, (0, 0, self.num_class_tokens, 0))
        if seen is not None:
            seen["tokens"] = x[:, self.num_class_tokens :]
        return x

    def _normalized(self, images: Tensor) -> Tensor:
        exact, raw = images.to(self.norm.weight.dtype), not images.is_floating_point()
        return (exact - self.pixel_mean.to(exact.dtype)) / self.pixel_std.to(exact.dtype) if raw else exact

    def _trunk(
        self, x: Tensor, regions: Regions, features: Tensor, bias: Tensor | None, coarse: Tensor | None, seen: Seen
    ) -> tuple[Tensor, Tensor]:
        """Blocks on tokens, or on latents: (B, n or m, D) and the weight of each row in a mean (B or 1, K or M)."""
        if self.config.trunk in ("latent", "hybrid"):
            return self._latent_trunk(x, regions, features, coarse, seen)
        context, weights = self._context(x, regions, features, bias, coarse)
        if seen is not None and weights is not None:
            seen["latent_weights"] = weights
        for block in self.blocks[self.config.grid_depth :]:
            x = block(x, context, None if seen is None else seen["attention"])
        return x, regions.area / regions.area.sum(1, keepdim=True)

    def _latent_trunk(
        self, x: Tensor, regions: Regions, features: Tensor, coarse: Tensor | None, seen: Seen
    ) -> tuple[Tensor, Tensor]:
        """Latents are pooled from the tokens, read them again and run through the remaining blocks: (B, m, D)."""
        first = self.num_class_tokens
        tokens = x[:, first:]
        weights = self.latent_start(tokens, features, regions, coarse)
        latents = weights.to(tokens.dtype) @ tokens
        places = pooled_regions(weights, regions)
        latent_features = nn.functional.pad(self.region_features(places), (0, 0, first, 0)).to(x.dtype)
        key_bias = regions.log_relative_area()[:, None, None, :]
        z = torch.cat([x[:, :first], latents], 1)
        blocks = self.blocks[self._latents_from :]
        read_at = {i * len(blocks) // self.config.num_reads: read for i, read in enumerate(self.reads)}
        for i, block in enumerate(blocks):
            if i in read_at:
                reads = None if seen is None else seen["reads"]
                z = read_at[i](z, latent_features, tokens, features.to(x.dtype), key_bias, reads)
            z = block(z, None, None if seen is None else seen["attention"])
        if seen is not None:
            seen.update(latents=z[:, first:], latent_weights=weights, latent_regions=places)
        return z, places.area

    @property
    def _latents_from(self) -> int:
        """The first block that runs on latents, in trunks latent and hybrid."""
        return self.config.grid_depth + self.config.trunk_depths[0]

    def _key_bias(self, regions: Regions) -> Tensor | None:
        """What token blocks add to keys (B or 1, 1, 1, n): log area where asked for, a mask of empty slots, or None."""
        config = self.config
        if config.tokens is None or config.trunk == "window":
            return None
        if config.area_bias or config.trunk == "gather":
            return with_class_token(regions.log_relative_area(), config.readout)
        if config.allow_empty:
            return with_class_token(torch.where(regions.area > 0, 0.0, EMPTY_BIAS), config.readout)
        return None

    def _context(
        self, x: Tensor, regions: Regions, features: Tensor, bias: Tensor | None, coarse: Tensor | None
    ) -> tuple[AttentionContext, Tensor | None]:
        """What attention in token blocks knows of the regions, and the pooling weights of kv_pool and gather."""
        config = self.config
        if config.trunk == "window":
            aspect = config.image_size[0] / config.image_size[1]
            return AttentionContext(window_bias(regions, config.window, aspect, config.readout)), None
        if config.trunk == "full":
            return AttentionContext(bias), None
        weights = self.latent_start(x[:, self.num_class_tokens :], features, regions, coarse)
        pool_bias = with_class_token(pooled_regions(weights, regions).log_relative_area(), config.readout)
        pool = nn.functional.pad(weights, (self.num_class_tokens, 0, self.num_class_tokens, 0))
        if self.num_class_tokens:
            # The class token stands for itself.
            pool = pool + nn.functional.pad(pool.new_ones(1, 1, 1), (0, weights.shape[2], 0, weights.shape[1]))
        return AttentionContext(bias, pool, pool_bias), weights


def _rows(part: Tensor | None, rows: slice) -> Tensor | None:
    """A slice of the batch; what all images share has one row and stays whole."""
    return part if part is None or part.shape[0] == 1 else part[rows]
