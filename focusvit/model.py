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
from .inputs import check_shapes
from .latents import LatentRead, LatentStart, pooled_regions
from .merging import merge_schedule, merging_block
from .model_config import FocusViTConfig
from .partitions import RANDOM_PARTITIONS, patch_regions, static_partition
from .pooling import SuperpixelPooling
from .position import DescriptorEncoding, RegionFeatures
from .regions import EMPTY_BIAS, Regions, measure_regions, overlap_matrix
from .stem import make_stem
from .weights import initialize

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
        x = self._tokens(images, overlap, regions, features, seen)
        if self.config.partition == "merge" and num_tokens is not None:
            x, weight = self._merging_trunk(x, num_tokens, seen)
        else:
            coarse = None
            if coarse_maps is not None and maps is not None and num_tokens is not None:
                coarse = self.latent_start.coarse_share(maps, coarse_maps, num_tokens)
            x, weight = self._trunk(x, regions, features, coarse, seen)
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
            # Drawn by the image's own pixels: other images get other regions, one image always the same.
            pixels = images if not images.is_floating_point() else (images.nan_to_num() * 256).round().long()
            drawn = pixels.sum((1, 2, 3), dtype=torch.long) % RANDOM_PARTITIONS
            overlap, regions = overlap[drawn], Regions(*(part[drawn] for part in regions))
        return overlap, regions

    def _tokens(self, images: Tensor, overlap: Tensor | None, regions: Regions, features: Tensor, seen: Seen) -> Tensor:
        """Stem, grid blocks and pooling: (B, n, D). At inference in slices of the batch: what the grid needs is gone
        before the next slice, so the peak of memory stays at the level of the tokens.
        """
        B = images.shape[0]
        membership = None if overlap is None else self.pool.membership(overlap, regions.centre)
        if seen is not None and overlap is not None:
            seen.update(overlap=overlap, regions=regions)
        position = self.position(features) if hasattr(self, "position") else None
        size = max(_MIN_MICRO_BATCH, -(-B // self.config.micro_batches))
        if seen is not None or membership is None or torch.is_grad_enabled() or B <= size:
            return self._pooled_grid(images, membership, position, seen)
        out = []
        for start in range(0, B, size):
            rows = slice(start, start + size)
            out.append(self._pooled_grid(images[rows], _rows(membership, rows), _rows(position, rows), None))
        return torch.cat(out)

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
        trace = None if seen is None else seen["attention"]
        for block in self.blocks[: self.config.grid_depth]:
            x = block(x, None, trace)
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
        dtype = self.norm.weight.dtype
        if images.is_floating_point():
            return images.to(dtype)
        return (images.to(dtype) - self.pixel_mean.to(dtype)) / self.pixel_std.to(dtype)

    def _trunk(
        self, x: Tensor, regions: Regions, features: Tensor, coarse: Tensor | None, seen: Seen
    ) -> tuple[Tensor, Tensor]:
        """Blocks on tokens, then on latents: (B, n or m, D) and the weight of each row in a mean (B or 1, K or M)."""
        config, first = self.config, self.num_class_tokens
        trace = None if seen is None else seen["attention"]
        on_tokens, _ = config.trunk_depths
        context, weights = self._context(x, regions, features, coarse)
        split = config.grid_depth + on_tokens
        for block in self.blocks[config.grid_depth : split]:
            x = block(x, context, trace)
        if config.trunk not in ("latent", "hybrid"):
            if seen is not None and weights is not None:
                seen["latent_weights"] = weights
            return x, regions.area / regions.area.sum(1, keepdim=True)
        tokens = x[:, first:]
        weights = self.latent_start(tokens, features, regions, coarse)
        latents = weights.to(tokens.dtype) @ tokens
        places = pooled_regions(weights, regions)
        latent_features = nn.functional.pad(self.region_features(places), (0, 0, first, 0)).to(x.dtype)
        key_bias = regions.log_relative_area()[:, None, None, :]
        z = torch.cat([x[:, :first], latents], 1)
        blocks = self.blocks[split:]
        read_at = {i * len(blocks) // config.num_reads: read for i, read in enumerate(self.reads)}
        for i, block in enumerate(blocks):
            if i in read_at:
                reads = None if seen is None else seen["reads"]
                z = read_at[i](z, latent_features, tokens, features.to(x.dtype), key_bias, reads)
            z = block(z, None, trace)
        if seen is not None:
            seen.update(latents=z[:, first:], latent_weights=weights, latent_regions=places)
        return z, places.area

    def _context(
        self, x: Tensor, regions: Regions, features: Tensor, coarse: Tensor | None
    ) -> tuple[AttentionContext, Tensor | None]:
        """What attention in token blocks knows of the regions, and the pooling weights of kv_pool and gather."""
        config = self.config
        pooled = config.tokens is not None
        if config.trunk == "window":
            height, width = config.image_size
            return AttentionContext(window_bias(regions, config.window, height / width, config.readout)), None
        bias = None
        if pooled and (config.area_bias or config.trunk == "gather"):
            bias = with_class_token(regions.log_relative_area(), config.readout)
        elif pooled and config.allow_empty:
            bias = with_class_token(torch.where(regions.area > 0, 0.0, EMPTY_BIAS), config.readout)
        if config.trunk not in ("kv_pool", "gather"):
            return AttentionContext(bias), None
        weights = self.latent_start(x[:, self.num_class_tokens :], features, regions, coarse)
        pool_bias = with_class_token(pooled_regions(weights, regions).log_relative_area(), config.readout)
        pool = nn.functional.pad(weights, (self.num_class_tokens, 0, self.num_class_tokens, 0))
        if self.num_class_tokens:
            corner = torch.zeros_like(pool[:1])
            corner[:, 0, 0] = 1
            pool = pool + corner
        return AttentionContext(bias, pool, pool_bias), weights

    def _merging_trunk(self, x: Tensor, num_tokens: int, seen: Seen) -> tuple[Tensor, Tensor]:
        blocks = self.blocks[self.config.grid_depth :]
        trace = None if seen is None else seen["attention"]
        size = x.new_ones(x.shape[0], x.shape[1], 1)
        for block, num_merged in zip(blocks, merge_schedule(self.config.num_patches, num_tokens, len(blocks))):
            x, size = merging_block(block, x, size, num_merged, self.num_class_tokens, trace)
        weight = size[:, self.num_class_tokens :, 0]
        return x, weight / weight.sum(1, keepdim=True)


def _rows(part: Tensor | None, rows: slice) -> Tensor | None:
    """A slice of the batch; what all images share has one row and stays whole."""
    return part if part is None or part.shape[0] == 1 else part[rows]
