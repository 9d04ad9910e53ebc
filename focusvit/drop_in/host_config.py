"""HostConfig: a vision transformer of Hugging Face or timm as a model of this project, patched or not, as plain values.

It says all that a checkpoint needs to build the host again: no folder of the library's and no network.
"""

from dataclasses import dataclass
from typing import Literal, get_args

from focusvit.model.config import FocusViTConfig

from .levels import levels_of

Merge = Literal["colour", "keys", "grid", "tome", "readout"]
Library = Literal["transformers", "timm"]


@dataclass(frozen=True, kw_only=True)
class HostConfig:
    """One host. `tokens=None` leaves it as its library made it."""

    library: Library
    architecture: str
    """the class in transformers, or timm's name of the model"""
    settings: str
    """JSON of what its library builds it from"""
    image_px: int
    """side of the square input; positions are interpolated where it is not the side that the host was trained at"""
    patch_px: int
    width: int
    depth: int
    """number of blocks"""
    num_classes: int = 0
    """of the linear head on the host's features; 0 = no head yet: features alone"""
    mean: tuple[float, float, float]
    """RGB mean in 0..1 units, subtracted from uint8 images inside the model"""
    std: tuple[float, float, float]
    tokens: int | None = None
    """tokens that patches are pooled into, an image; None = all patches go on"""
    pool_before: int = 0
    """the block before which patches are pooled"""
    then: tuple[tuple[int, int], ...] = ()
    """further levels of the same hierarchy: (block, tokens), falling"""
    merge: Merge = "colour"  # of folders written before there was a choice; `--patch` and `patch` start from keys
    """colour: the superpixels of the shards. keys: neighbours alike in the host's own keys. Controls: grid (uniform
    cells), tome (token merging, evenly over all blocks), readout (pools nothing: superpixels only average the last
    features for dense tasks)"""
    latents: int | None = None
    """keys and values behind the pooling come from so many cells (LLA)"""

    allow_empty = False
    """of maps: each superpixel is there"""

    def __post_init__(self) -> None:
        for name in ("mean", "std"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        object.__setattr__(self, "then", tuple((int(block), int(tokens)) for block, tokens in self.then))
        if self.image_px < 1 or self.image_px % self.patch_px:
            raise ValueError(
                f"image_px is {self.image_px}; it must be a multiple of the host's patches, {self.patch_px}"
            )
        if self.merge not in get_args(Merge):
            raise ValueError(f"merge is '{self.merge}'; it must be one of {', '.join(get_args(Merge))}")
        if self.tokens is None:
            if self.then or self.latents:
                raise ValueError("further levels and latents need tokens")
            return
        levels_of(dict(self.levels), None, self.depth)
        if self.merge != "colour" and self.tokens > self.num_patches:
            raise ValueError(f"tokens is {self.tokens} and merge '{self.merge}' starts from {self.num_patches} patches")
        if self.merge in ("tome", "readout") and self.then:
            raise ValueError(f"merge '{self.merge}' takes one number of tokens, not levels")

    @property
    def levels(self) -> tuple[tuple[int, int], ...]:
        """(block, tokens) of each level."""
        return () if self.tokens is None else ((self.pool_before, self.tokens), *self.then)

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) of the input in pixels."""
        return self.image_px, self.image_px

    @property
    def grid(self) -> tuple[int, int]:
        """(rows, columns) of the patch grid."""
        return self.image_px // self.patch_px, self.image_px // self.patch_px

    @property
    def num_patches(self) -> int:
        return self.grid[0] * self.grid[1]

    @property
    def needs_maps(self) -> bool:
        """Whether forward takes superpixel maps."""
        return self.tokens is not None and self.merge in ("colour", "readout")

    @property
    def partition(self) -> str:
        """What is pooled, in words of `FocusViTConfig`; 'patch' where features of patches come out all the same."""
        return "superpixel" if self.needs_maps else "patch"

    @property
    def mean_tokens(self) -> float:
        """Tokens of a block, averaged over the blocks: what speed follows."""
        if self.tokens is None or self.merge == "readout":
            return float(self.num_patches)
        if self.merge == "tome":
            each = (self.num_patches - self.tokens) / self.depth
            return self.num_patches - each * (self.depth + 1) / 2
        starts = [*(block for block, _ in self.levels), self.depth]
        pooled = sum(tokens * (end - start) for (start, tokens), end in zip(self.levels, starts[1:]))
        return (self.num_patches * starts[0] + pooled) / self.depth


ModelConfig = FocusViTConfig | HostConfig
