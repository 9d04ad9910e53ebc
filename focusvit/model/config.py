"""FocusViTConfig: every variant of the family, its controls and the plain ViT, as one set of values."""

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, Literal, get_args, get_origin, get_type_hints

Stem = Literal["linear", "conv"]
Partition = Literal["superpixel", "grid", "random", "merge"]
Overlap = Literal["soft", "hard"]
Pooling = Literal["mean", "max", "mean_std", "attention"]
Position = Literal["descriptor", "pooled", "both"]
Trunk = Literal["full", "latent", "hybrid", "kv_pool", "gather", "window"]
WindowOver = Literal["centres", "raster"]
LatentStart = Literal["seeds", "learned"]
Readout = Literal["cls", "mean"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True, kw_only=True)
class FocusViTConfig:
    """One model. `tokens=None` is a plain ViT: no pooling, the patches are the tokens."""

    # What changes the result.
    image_px: int | tuple[int, int] = 224
    """Side of the square input, or (height, width); a multiple of patch_px."""
    patch_px: int = 16
    """Side of a patch; a power of two for the conv stem."""
    width: int = 384
    """D, the width of tokens and latents."""
    depth: int = 12
    """Number of transformer blocks: grid blocks, token blocks and latent blocks together."""
    heads: int = 6
    mlp_ratio: float = 4.0
    num_classes: int = 1000
    stem: Stem = "conv"
    """linear: the ViT's patch embedding. conv: 3x3 convolutions of stride 2 with LayerNorm."""
    grid_depth: int = 1
    """d0, the number of blocks that run on all patches, before pooling."""
    tokens: int | None = 64
    """K, the number of pooled tokens (superpixels) an image; None pools nothing."""
    then: tuple[tuple[int, int], ...] = ()
    """Further levels of the same hierarchy, (block, tokens): before that block touching tokens merge, by the likeness
    of its own keys, until so many are left. A call with no more tokens than a level has skips it."""
    partition: Partition = "superpixel"
    """What is pooled: the batch's superpixel maps, or a control: grid cells, random regions, token merging (ToMe)."""
    overlap: Overlap = "soft"
    """soft: a patch counts for each region by the share it holds. hard: by its largest region only."""
    pooling: Pooling = "mean_std"
    position: Position = "both"
    """pooled: a learned embedding per patch, pooled with the tokens. descriptor: centre, area, shape of the region."""
    trunk: Trunk = "full"
    num_latents: int = 32
    """M, the number of latents of the trunks latent, hybrid, kv_pool and gather."""
    latent_start: LatentStart = "seeds"
    """What pools tokens into latents: a grid of seed positions, or learned queries."""
    token_depth: int | None = None
    """Token blocks before the latents take over in trunk hybrid; None is a third of the blocks after pooling."""
    num_reads: int = 2
    """Cross-attentions from latents to tokens in trunks latent and hybrid."""
    window: int = 9
    """Trunk window: a token attends to this many nearest tokens, itself included."""
    window_over: WindowOver = "centres"
    """Trunk window: nearest centres in the image plane, or in their raster order, as the original repository has it."""
    window_projection: bool = False
    """Trunk window: one extra head_dim x head_dim map on keys and on values, shared by the heads, identity at start."""
    area_bias: bool = False
    """Adds log(area / mean area) to the keys of full attention. Latents always read with it."""
    readout: Readout = "cls"
    """What the head reads: the class token, or the mean of tokens weighted by area."""
    drop_path: float = 0.0
    """Stochastic depth of the last block; earlier blocks get a linear share."""
    dropout: float = 0.0
    norm_eps: float = 1e-6
    mean: tuple[float, float, float] = IMAGENET_MEAN
    """RGB mean in 0..1 units, subtracted from uint8 images inside the model."""
    std: tuple[float, float, float] = IMAGENET_STD
    allow_empty: bool = False
    """Accept maps with fewer regions than tokens: empty slots are masked. Costs a mask in every attention."""

    # What changes only speed and memory.
    checkpoint_blocks: bool = False
    """In training, recompute each block in the backward pass instead of keeping its activations."""

    RETIRED: ClassVar[frozenset[str]] = frozenset({"micro_batches"})
    """fields of older checkpoints that say nothing about the model any more"""

    def __post_init__(self) -> None:
        for name in ("mean", "std"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        object.__setattr__(self, "then", tuple((int(block), int(tokens)) for block, tokens in self.then))
        if not isinstance(self.image_px, int):
            object.__setattr__(self, "image_px", tuple(self.image_px))
        _check_choices(self)
        _check_numbers(self)
        _check_combinations(self)

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) of the input in pixels."""
        return (self.image_px, self.image_px) if isinstance(self.image_px, int) else self.image_px

    @property
    def grid(self) -> tuple[int, int]:
        """(rows, columns) of the patch grid."""
        height, width = self.image_size
        return height // self.patch_px, width // self.patch_px

    @property
    def num_patches(self) -> int:
        return self.grid[0] * self.grid[1]

    @property
    def needs_maps(self) -> bool:
        """Whether forward takes superpixel maps."""
        return self.tokens is not None and self.partition == "superpixel"

    @property
    def pools(self) -> bool:
        """Whether patches are pooled into tokens by regions."""
        return self.tokens is not None and self.partition != "merge"

    @property
    def merges(self) -> bool:
        """Whether tokens are merged inside the blocks (the control without regions)."""
        return self.tokens is not None and self.partition == "merge"

    @property
    def has_latents(self) -> bool:
        return self.trunk in ("latent", "hybrid", "kv_pool", "gather")

    @property
    def trunk_depths(self) -> tuple[int, int]:
        """(blocks on tokens, blocks on latents) after pooling."""
        depth = self.depth - self.grid_depth
        if self.trunk == "latent":
            return 0, depth
        if self.trunk == "hybrid":
            on_tokens = max(1, depth // 3) if self.token_depth is None else self.token_depth
            return on_tokens, depth - on_tokens
        return depth, 0


def _check_choices(config: FocusViTConfig) -> None:
    for name, kind in get_type_hints(FocusViTConfig).items():
        value = getattr(config, name)
        if get_origin(kind) is Literal and value not in get_args(kind):
            raise ValueError(f"model.{name} is '{value}'; it must be one of {', '.join(get_args(kind))}")


def _check_numbers(config: FocusViTConfig) -> None:
    for name in ("patch_px", "width", "depth", "heads", "num_classes", "num_latents", "window"):
        if getattr(config, name) < 1:
            raise ValueError(f"model.{name} is {getattr(config, name)}; it must be at least 1")
    if config.width % config.heads:
        raise ValueError(
            f"model.width {config.width} is not a multiple of model.heads {config.heads}; change one of them"
        )
    if min(config.image_size) < 1 or any(side % config.patch_px for side in config.image_size):
        raise ValueError(
            f"model.image_px is {config.image_px}, model.patch_px {config.patch_px}: each side of the image must be a "
            f"multiple of the patch; change one of them"
        )
    if config.stem == "conv" and config.patch_px & (config.patch_px - 1):
        raise ValueError(
            f"model.patch_px is {config.patch_px}; the conv stem halves the image: use a power of two, or stem linear"
        )
    if not 0 <= config.grid_depth <= config.depth:
        raise ValueError(f"model.grid_depth is {config.grid_depth}; it must lie in 0..depth ({config.depth})")
    if config.tokens is not None and config.tokens < 1:
        raise ValueError(f"model.tokens is {config.tokens}; use at least 1, or None for a plain ViT")
    for name in ("drop_path", "dropout"):
        if not 0 <= getattr(config, name) < 1:
            raise ValueError(f"model.{name} is {getattr(config, name)}; it is a probability below 1")
    if len(config.mean) != 3 or len(config.std) != 3 or min(config.std) <= 0:
        raise ValueError(f"model.mean {config.mean} and model.std {config.std} need three numbers each, std above 0")


def _check_levels(config: FocusViTConfig) -> None:
    if not config.then:
        return
    if not config.needs_maps or config.trunk != "full" or config.allow_empty:
        raise ValueError(
            f"model.then merges superpixels between blocks of full attention; model.trunk is '{config.trunk}', tokens "
            f"{config.tokens}, partition '{config.partition}' and allow_empty {config.allow_empty}: leave then empty"
        )
    blocks, counts = zip((config.grid_depth, config.tokens or 0), *config.then)
    rises, falls = (all(a < b for a, b in pairwise(numbers)) for numbers in (blocks, counts[::-1]))
    if not rises or not falls or blocks[-1] >= config.depth or counts[-1] < 1:
        raise ValueError(
            f"model.then is {config.then}: blocks must rise from {config.grid_depth + 1} to {config.depth - 1} at most "
            f"and tokens fall from {(config.tokens or 0) - 1} to 1 at least"
        )


def _check_combinations(config: FocusViTConfig) -> None:
    _check_levels(config)
    if config.merges:
        if config.trunk != "full" or config.grid_depth == config.depth:
            raise ValueError(
                f"model.partition merge works inside full attention blocks; model.trunk is '{config.trunk}' and "
                f"{config.depth - config.grid_depth} blocks follow the grid: use trunk full and a smaller grid_depth"
            )
        if (config.tokens or 0) > config.num_patches:
            raise ValueError(
                f"model.tokens {config.tokens} exceeds the {config.num_patches} patches; merging only lowers it"
            )
    if config.trunk in ("latent", "hybrid"):
        on_tokens, on_latents = config.trunk_depths
        if on_latents < 1 or on_tokens < 0:
            raise ValueError(
                f"model.trunk {config.trunk} has no block left for the latents: depth {config.depth}, grid_depth "
                f"{config.grid_depth}, token_depth {config.token_depth}; raise depth or lower the others"
            )
        if not 1 <= config.num_reads <= on_latents:
            raise ValueError(
                f"model.num_reads is {config.num_reads}; the {on_latents} latent blocks allow 1..{on_latents}"
            )
    if config.area_bias and not (config.pools and config.trunk in ("full", "hybrid")):
        raise ValueError(
            f"model.area_bias acts on full attention of tokens; model.trunk is '{config.trunk}', partition "
            f"'{config.partition}' and tokens {config.tokens}: set it to False (latents always count areas)"
        )
    for name, off in (("window_projection", False), ("window_over", "centres")):
        if getattr(config, name) != off and config.trunk != "window":
            raise ValueError(f"model.{name} belongs to trunk window and model.trunk is '{config.trunk}'")
    if config.allow_empty and config.trunk == "full" and config.partition == "merge":
        raise ValueError("model.allow_empty has no meaning with partition merge; set it to False")
