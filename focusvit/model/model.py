"""FocusViT: images and superpixel maps -> logits. One class; every variant and control is a `FocusViTConfig`.

Shapes: B batch, H W pixels, N patches, K tokens, M latents, D width, F features of a region (phi, in `position`);
n = K + 1 with a class token.
Coordinates are (y, x) in [0, 1]. Weight names follow timm's VisionTransformer where the parts are the same.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from .attention import AttentionContext, plane_places, raster_places, window_bias, with_class_token
from .blocks import Block
from .config import FocusViTConfig
from .inputs import check_shapes
from .latents import LatentRead, LatentStart, pooled_regions, read_back
from .merging import Levels, merging_trunk, of_first_level
from .partitions import drawn_by_pixels, patch_regions, static_partition
from .pooling import SuperpixelPooling
from .position import DescriptorEncoding, RegionFeatures
from .regions import EMPTY_BIAS, HeldRegions, Regions, measure_regions, overlap_matrix
from .slices import images_at_once, in_slices, stem_images_at_once
from .stem import make_stem

__all__ = ["FocusViT", "FocusViTConfig"]

Seen = dict[str, Any] | None


class FocusViT(nn.Module):
    """stem -> grid blocks -> superpixel pooling + dynamic position -> trunk on tokens or latents -> norm -> head. A
    part that a variant lacks is None."""

    pixel_mean: Tensor
    pixel_std: Tensor
    cell_overlap: Tensor | None

    def __init__(self, config: FocusViTConfig) -> None:
        super().__init__()
        self.config = config
        self.images_at_once: int | None = None
        """at eager inference, the most images that run at a time, in the stem fewer; None = as the device likes"""
        D, N = config.width, config.num_patches
        self.num_class_tokens = 1 if config.readout == "cls" else 0
        self.patch_embed = make_stem(config)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, D)) if self.num_class_tokens else None
        learned = config.position != "descriptor"
        self.pos_embed = nn.Parameter(torch.zeros(1, N + self.num_class_tokens, D)) if learned else None
        self.region_features = RegionFeatures(config)
        self.position = DescriptorEncoding(config) if config.position != "pooled" else None
        self.pool = SuperpixelPooling(config) if config.pools else None
        rates = [config.drop_path * i / max(1, config.depth - 1) for i in range(config.depth)]
        self.blocks = nn.ModuleList(Block(config, rate) for rate in rates)
        self.latent_start = LatentStart(config) if config.has_latents else None
        on_latents = config.trunk_depths[1] > 0
        self.reads = nn.ModuleList(LatentRead(config) for _ in range(config.num_reads)) if on_latents else None
        self.norm = nn.LayerNorm(D, config.norm_eps)
        self.head = nn.Linear(D, config.num_classes)
        self.patches = HeldRegions(patch_regions(config.grid))
        overlap, cells = None, None
        if config.pools and not config.needs_maps:
            overlap, cells = static_partition(config.partition, config.tokens or 0, config.grid)
        self.register_buffer("cell_overlap", None if overlap is None else overlap.clone(), persistent=False)
        self.cells = None if cells is None else HeldRegions(cells)
        self.register_buffer("pixel_mean", 255 * torch.tensor(config.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("pixel_std", 255 * torch.tensor(config.std).view(1, 3, 1, 1), persistent=False)
        _fill(self)

    def reset_start(self) -> None:
        for embedding in (self.cls_token, self.pos_embed):
            if embedding is not None:
                nn.init.trunc_normal_(embedding, std=0.02)

    def forward(self, images: Tensor, maps: Tensor | None = None, num_tokens: int | None = None) -> Tensor:
        """Logits (B, num_classes).

        Args:
            images: (B, 3, H, W), uint8 RGB, or float that is already normalised.
            maps: integer (B, Hm, Wm) superpixel ids 0..K-1, each present; Hm and Wm are multiples of the patch grid.
            num_tokens: K of these maps, any number at any call; None is `config.tokens`.

        Raises:
            ValueError: shapes that do not fit the config; on a CPU also maps with another number of regions than K. On
                a GPU, where a look at values would wait, they are checked at the boundary (`inputs.check_values`).
        """
        return self.head(self.features(images, maps, num_tokens))

    def features(self, images: Tensor, maps: Tensor | None = None, num_tokens: int | None = None) -> Tensor:
        """(B, D): what the head reads; at inference in slices of the batch, as the device likes."""
        num_tokens = check_shapes(self.config, images, maps, num_tokens)

        def path(images: Tensor, maps: Tensor | None) -> Tensor:
            return self._path(images, maps, num_tokens, None)

        return in_slices(path, images, maps, most=images_at_once(images, self.images_at_once))

    def token_features(
        self, images: Tensor, maps: Tensor | None = None, num_tokens: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """What the head reads (B, D), and each superpixel's own row after the last norm (B, K, D); of a model without
        pooling each patch's. Raises ValueError for a trunk that ends in latents or in merged tokens.
        """
        if self.reads is not None or self.config.merges:
            raise ValueError("this trunk does not end in one row for each superpixel (latents, merged tokens)")
        num_tokens = check_shapes(self.config, images, maps, num_tokens)
        seen: dict[str, Any] = {"attention": None, "reads": None}
        features = self._path(images, maps, num_tokens, seen)
        return features, of_first_level(seen, seen["rows"][:, self.num_class_tokens :])

    def dense_features(self, images: Tensor, maps: Tensor | None = None, num_tokens: int | None = None) -> Tensor:
        """(B, K, 2 D): each token before the trunk and after it. Latents are read back by their pooling weights."""
        seen = self.forward_intermediates(images, maps, num_tokens)
        tokens, end = seen["tokens"], of_first_level(seen, seen["rows"])
        end = end if end.shape[1] == tokens.shape[1] else read_back(seen["latent_weights"], end)
        return torch.cat([tokens, end], 2)

    def forward_intermediates(
        self, images: Tensor, maps: Tensor | None = None, num_tokens: int | None = None
    ) -> dict[str, Any]:
        """The stages by name: stem and grid (B, N, D), overlap (B, K, N), regions, tokens (B, K, D), latents (B, M, D),
        latent_weights (B, M, K), attention and reads (lists of (B, heads, queries, keys), one a block or a read), rows
        (B, K or M, D: after the last norm), features (B, D), logits; levels, {block: (B, K', K) weights that make its
        tokens}. The class token comes first in attention. Keys exist where the variant has the stage.
        """
        num_tokens = check_shapes(self.config, images, maps, num_tokens)
        seen: dict[str, Any] = {"attention": [], "reads": []}
        seen["features"] = self._path(images, maps, num_tokens, seen)
        seen["logits"] = self.head(seen["features"])
        for stage in seen.keys() & {"grid", "tokens", "latents", "rows"}:
            seen[stage] = seen[stage][:, self.num_class_tokens :]
        return seen

    def _path(self, images: Tensor, maps: Tensor | None, num_tokens: int | None, seen: Seen) -> Tensor:
        """(B, D): the data path of every variant, read downwards. `seen` collects the stages by name."""
        config, trace = self.config, None if seen is None else seen["attention"]
        overlap, regions = self._partition(images, maps, num_tokens)
        if overlap is not None:
            _note(seen, overlap=overlap, regions=regions)
        phi = self.region_features(regions)
        position = None if self.position is None else self.position(phi)

        x, own = self._embedded(images, seen)
        for block in self.blocks[: config.grid_depth]:
            x = block(x, None, trace)
        _note(seen, grid=x)
        x = self._pooled(x, own, overlap, regions, position)
        del own, overlap, position  # the trunk takes its own memory
        _note(seen, tokens=x)

        if config.merges and num_tokens is not None:
            x, weight = merging_trunk(self.blocks[config.grid_depth :], x, num_tokens, self.num_class_tokens, trace)
        else:
            context, levels = self._context(x, regions, phi, seen), Levels(config, maps, self.num_class_tokens)
            for number in range(config.grid_depth, self._latents_from):
                if levels.begins(number, regions):
                    x, regions = levels.merge(number, self.blocks[number], x, regions)
                    context = AttentionContext(self._key_bias(regions))
                x = self.blocks[number](x, context, trace)
            _note(seen, levels=levels.weights)
            weight = regions.area / regions.area.sum(1, keepdim=True)
        if self.reads is not None:
            x, weight = self._latent_trunk(x, regions, phi, seen)

        x = self.norm(x)
        _note(seen, rows=x)
        return x[:, 0] if self.num_class_tokens else (weight.to(x.dtype)[:, None] @ x).squeeze(1)

    # Stages, in the order of the data path.

    def _partition(self, images: Tensor, maps: Tensor | None, num_tokens: int | None) -> tuple[Tensor | None, Regions]:
        """Overlap (B or 1, K, N), None where nothing is pooled, and the regions that the tokens stand for."""
        if self.pool is None or num_tokens is None:
            return None, self.patches()
        if maps is not None:
            return overlap_matrix(maps, self.config.grid, num_tokens), measure_regions(maps, num_tokens)
        if self.cells is not None and num_tokens == self.config.tokens:
            overlap, regions = self.cell_overlap, self.cells()
        else:
            overlap, regions = static_partition(self.config.partition, num_tokens, self.config.grid)
            overlap, regions = overlap.to(images.device), Regions(*(part.to(images.device) for part in regions))
        if self.config.partition == "random" and overlap is not None:
            drawn = drawn_by_pixels(images)
            overlap, regions = overlap[drawn], Regions(*(part[drawn] for part in regions))
        return overlap, regions

    def _embedded(self, images: Tensor, seen: Seen) -> tuple[Tensor, Tensor | None]:
        """Stem, class token and position of patches: (B, first + N, D). With descriptors alone also the encodings of
        the patches' own squares, which pooling takes off again.
        """
        x = in_slices(lambda part: self.patch_embed(self._normalized(part)), images, most=stem_images_at_once(images))
        _note(seen, stem=x)
        if self.cls_token is not None:
            x = torch.cat([self.cls_token.to(x.dtype).expand(x.shape[0], -1, -1), x], 1)
        if self.pos_embed is not None:
            return x + self.pos_embed, None
        assert self.position is not None
        own = self._beside_class_token(self.position(self.region_features(self.patches())))
        return x + own, own

    def _normalized(self, images: Tensor) -> Tensor:
        """In the model's precision; in place, as where a stem runs whole three copies of the pixels can be the peak."""
        exact, raw = images.to(self.norm.weight.dtype), not images.is_floating_point()
        return exact.sub_(self.pixel_mean.to(exact.dtype)).div_(self.pixel_std.to(exact.dtype)) if raw else exact

    def _pooled(
        self, x: Tensor, own: Tensor | None, overlap: Tensor | None, regions: Regions, position: Tensor | None
    ) -> Tensor:
        """Patches to tokens with their position: (B, first + K, D)."""
        if self.pool is None or overlap is None:  # the patches are the tokens; `own` is their position already
            return x if position is None or own is not None else x + self._beside_class_token(position)
        x = x if own is None else x - own
        membership = self.pool.membership(overlap, regions.centre)
        tokens = self.pool(x[:, self.num_class_tokens :], membership)
        tokens = tokens if position is None else tokens + position
        return torch.cat([x[:, : self.num_class_tokens], tokens], 1)

    def _context(self, x: Tensor, regions: Regions, phi: Tensor, seen: Seen) -> AttentionContext:
        """What attention in token blocks knows of the regions."""
        config = self.config
        if config.trunk == "window":
            places = (raster_places if config.window_over == "raster" else plane_places)(regions, *config.image_size)
            return AttentionContext(window_bias(places, regions, config.window, config.readout))
        bias = self._key_bias(regions)
        if self.latent_start is None or self.reads is not None:
            return AttentionContext(bias)
        weights = self.latent_start(x[:, self.num_class_tokens :], phi, regions)
        _note(seen, latent_weights=weights)
        pool_bias = with_class_token(pooled_regions(weights, regions).log_relative_area(), config.readout)
        pool = nn.functional.pad(weights, (self.num_class_tokens, 0, self.num_class_tokens, 0))
        if self.num_class_tokens:
            # The class token stands for itself.
            pool = pool + nn.functional.pad(pool.new_ones(1, 1, 1), (0, weights.shape[2], 0, weights.shape[1]))
        return AttentionContext(bias, pool, pool_bias)

    def _key_bias(self, regions: Regions) -> Tensor | None:
        """What token blocks add to keys (B or 1, 1, 1, n): log area where asked for, a mask of empty slots, or None."""
        config = self.config
        if config.tokens is None:
            return None
        if config.area_bias or config.trunk == "gather":
            return with_class_token(regions.log_relative_area(), config.readout)
        if config.allow_empty:
            return with_class_token(torch.where(regions.area > 0, 0.0, EMPTY_BIAS), config.readout)
        return None

    def _latent_trunk(self, x: Tensor, regions: Regions, phi: Tensor, seen: Seen) -> tuple[Tensor, Tensor]:
        """Latents are pooled from the tokens, read them again and run through the remaining blocks: (B, first + M, D),
        and the weight of each in a mean (B, M).
        """
        assert self.latent_start is not None and self.reads is not None
        trace, reads = (None, None) if seen is None else (seen["attention"], seen["reads"])
        tokens = x[:, self.num_class_tokens :]
        weights = self.latent_start(tokens, phi, regions)
        latents = weights.to(tokens.dtype) @ tokens
        places = pooled_regions(weights, regions)
        latent_phi = self._beside_class_token(self.region_features(places)).to(x.dtype)
        key_bias = regions.log_relative_area()[:, None, None, :]
        z = torch.cat([x[:, : self.num_class_tokens], latents], 1)
        blocks = self.blocks[self._latents_from :]
        read_at = {i * len(blocks) // self.config.num_reads: read for i, read in enumerate(self.reads)}
        for i, block in enumerate(blocks):
            if i in read_at:
                z = read_at[i](z, latent_phi, tokens, phi.to(x.dtype), key_bias, reads)
            z = block(z, None, trace)
        _note(seen, latents=z, latent_weights=weights, latent_regions=places)
        return z, places.area

    @property
    def _latents_from(self) -> int:
        """The first block that runs on latents; the depth where none does."""
        return self.config.grid_depth + self.config.trunk_depths[0]

    def _beside_class_token(self, rows: Tensor) -> Tensor:
        """(B, rows, .) with a zero row for the class token before them."""
        return nn.functional.pad(rows, (0, 0, self.num_class_tokens, 0))


def _note(seen: Seen, **stages: Any) -> None:
    if seen is not None:
        seen.update(stages)


def _fill(model: nn.Module) -> None:
    """Initial weights: truncated normal 0.02, zero biases, then the quiet starts of new parts. The order of modules
    fixes the random numbers, so a seed fixes the model.
    """
    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            std = (
                0.02 if isinstance(module, nn.Linear) else (module.in_channels * math.prod(module.kernel_size)) ** -0.5
            )
            nn.init.trunc_normal_(module.weight, std=std)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for module in model.modules():
        reset = getattr(module, "reset_start", None)
        if callable(reset):
            reset()
