"""`focusvit.patch`: superpixels inside a ViT of Hugging Face, timm or torchvision; `focusvit.unpatch` undoes it.

Nothing of the model is replaced: hooks pool patches into tokens before a block, tell the attention how large each token
is, and give every patch its token back behind the last block. So weights, their names, the library's trainer, its
saving and every head stay as they are, and outputs have the host's own shapes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from focusvit.segment.torch_slic import to_unit_range
from focusvit.segment.ward import slic_levels

from .attention import Told, keys_of, restore, use_latents
from .hosts import Host, arguments, find_host, first_norm, implementation, mask_of, pixel_statistics
from .levels import Budget, levels_of
from .pooling import Level, check_maps, from_features, from_maps, grid_cells
from .slicing import Sliced

Segmenter = Callable[[Tensor, tuple[int, ...]], Sequence[Tensor]]
"""(pixels, budgets) -> one map (B, Hm, Wm) for each of the falling budgets, ids 0..budget-1"""
Merger = Callable[[Tensor, Level | None, tuple[int, int], int], Level]
_ATTRIBUTE = "_focusvit_patch"
_CALL, _TOKENS = "_focusvit_call", "_focusvit_tokens"


def patch(
    model: nn.Module, tokens: Budget | Mapping[int, Budget] = 0.5, depth: int | None = None, *,
    merge: Literal["keys", "colour"] | Merger = "keys", latents: int | None = None, feature_maps: bool = False,
    segmenter: Segmenter | None = None, mean: Sequence[float] | None = None, std: Sequence[float] | None = None,
) -> nn.Module:  # fmt: skip
    """Pool the patches of `model` into superpixels before block `depth`, in place; returns `model`.

    Args:
        tokens: how many superpixels: a number, or a share of the patches (0.5 = half of them). Several levels of one
            hierarchy are {depth: tokens}, such as {2: 196, 5: 100, 8: 64}: each is a union of the one before.
        depth: the block before which patches are pooled; None = after half of the blocks.
        merge: "keys" for a model that stays as it is: neighbours merge by the likeness of the model's own keys (token
            merging, held to regions that touch), no map is needed. "colour" for a model that is trained on, and for
            exact borders: superpixels of the image come from the keyword `maps` of a call, `model(pixels, maps=maps)`,
            integers (B, Hm, Wm) whose sides are multiples of the patch grid (a sequence of them for several levels),
            else from `segmenter(pixels, budgets)`, by default SLIC on the pixels' own device. A function
            (keys (B, R, D), level before, patch grid, tokens) -> level makes other controls.
        latents: the blocks after pooling attend lightly (LLA): every token asks, keys and values come from the class
            token and so many cells of a uniform grid, each the mean of the tokens painted on its pixels.
        feature_maps: every block after pooling returns features of all patches, for backbones and heads that read
            intermediate layers; else only the last one does.
        mean, std: for "colour", of the pixels' normalisation, which the default segmenter undoes; taken from the
            model's own record (timm's pretrained_cfg, Hugging Face's preprocessor_config.json) unless given.

    Keys of a token carry the log of its area, so a mean of n equal patches draws the attention of n patches. Exact: one
    region a patch gives the model's own output, and without positions so does any pooling of equal patches. Rotary
    positions stand at a region's centre.

    What a ViT-S/14 of DINOv2's kind keeps (tests/benchmarks/results/PRETRAINED.md; CPU time with superpixels):

        flowers17, kNN, frozen: all 256 patches 87.9 %; the default 86.4 % at 1.35x, 64 by keys 83.8 % at 1.63x; 128
            and 64 by colour 83.1 % at 1.40x and 76.1 % at 1.66x; token merging, 16 a block, 83.5 % at 1.50x; 168 px
            images 84.9 % at 1.98x
        Imagenette, the same: 75.7 %; 74.6 % at 1.42x, 73.9 % at 1.71x; 72.4 % at 1.39x and 69.5 % at 1.65x; 74.4 % at
            1.59x; 74.8 % at 2.02x
        CamVid by drives, mIoU, frozen: all 432 patches 38.7 %; 196 by keys 37.7 % at 1.37x, by colour 36.3 % at 1.38x;
            token merging 37.6 % at 1.35x; 210x280 px 37.6 % at 1.52x
        the same, fine-tuned for three epochs, mean of three seeds: all patches 38.1 %; 196 by colour 37.8 % at 1.36x,
            132 37.2 % at 1.44x to 1.51x; 210x280 px 38.2 % at 1.53x; a grid of 196 36.5 % at 1.33x

    The default is the fastest setting that loses at most two points of kNN in a frozen model on either set.

    A copy of a patched model is patched on its own. The hooks keep state during a call, so one model serves one call at
    a time: DistributedDataParallel, not DataParallel.

    Raises:
        TypeError: a model that cannot be patched (windows, relative positions, dropped patches), or not with latents.
        ValueError: a model that is patched already, levels that grow, a depth without a block, or what only "colour"
            uses (`segmenter`, `mean`, `std`) with another `merge`.
    """
    if hasattr(model, _ATTRIBUTE):
        raise ValueError(f"this {type(model).__name__} is patched already; call focusvit.unpatch(model) first")
    host = find_host(model)
    levels = levels_of(tokens, depth, len(host.blocks))
    if latents is not None and latents < 1:
        raise ValueError(f"latents is {latents}: use at least 1, or None")
    if merge not in ("keys", "colour") and not callable(merge):
        raise ValueError(f"merge is '{merge}': use 'keys', 'colour' or a function")
    if merge != "colour" and not (segmenter is mean is std is None):
        raise ValueError("segmenter, mean and std make superpixels of the pixels: give merge='colour' with them")
    merger: Merger | None = None if merge == "colour" else from_features if merge == "keys" else merge  # type: ignore
    known = (tuple(mean), tuple(std)) if mean is not None and std is not None else pixel_statistics(model)
    state = Patch(
        levels, latents, merger, feature_maps, _pair(host.patches.stride), segmenter or DefaultSegmenter(known)
    )
    try:
        state.attach(model, host)
    except TypeError:  # an attention that is not known: all or nothing
        state.detach(host)
        raise
    setattr(model, _ATTRIBUTE, state)
    return model


def unpatch(model: nn.Module) -> nn.Module:
    """Undo `patch`; a model that is not patched stays as it is. Returns `model`."""
    state = getattr(model, _ATTRIBUTE, None)
    if state is not None:
        state.detach(find_host(model))
        delattr(model, _ATTRIBUTE)
    return model


@dataclass(frozen=True)
class DefaultSegmenter:
    """SLIC on the pixels that the model gets, their normalisation undone. A class, so that patched models pickle."""

    statistics: tuple[tuple[float, ...], tuple[float, ...]] | None

    def __call__(self, pixels: Tensor, budgets: tuple[int, ...]) -> list[Tensor]:
        if self.statistics is None:
            raise ValueError(
                "superpixels are made from the pixels, and nothing states how these are normalised: give `mean` and "
                "`std` to focusvit.patch, or maps to the call"
            )
        return slic_levels(to_unit_range(pixels, *self.statistics), budgets)


@dataclass
class Call:
    """What one forward knows."""

    grid: tuple[int, int]
    budgets: tuple[int, ...]
    levels: list[Level]
    tokens: Tensor | None = None
    """the tokens behind the latest block, where that returned features of patches"""


@dataclass
class Patch:
    """The hooks of one model and the state that they share."""

    levels: tuple[tuple[int, Budget], ...]
    latents: int | None
    merger: Merger | None
    feature_maps: bool
    patch_px: tuple[int, int]
    segmenter: Segmenter
    maps: Any = None
    """maps of the coming call, when the caller gave them"""
    keep_tokens: bool = False
    """the last block returns tokens as they are, not features of patches"""
    call: Call | None = None
    handles: list[RemovableHandle] = field(default_factory=list)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"maps": None, "call": None}  # a copy or a file carries no batch

    def attach(self, model: nn.Module, host: Host) -> None:
        self.handles = [
            model.register_forward_pre_hook(self.take_maps, with_kwargs=True),
            host.patches.register_forward_pre_hook(self.segment),
        ]
        first, last = self.levels[0][0], len(host.blocks) - 1
        for block, attention in zip(host.blocks[:first], host.attentions):
            if implementation(attention) != "eager":  # that one shows its weights, one call a block
                block.forward = Sliced(block, self.first_budget)  # type: ignore[assignment]
        for number in range(first, len(host.blocks)):
            block, attention = host.blocks[number], host.attentions[number]
            stage = Stage(self, number, self.level_at(number), attention)
            told = Told(
                stage.now, arguments(attention), mask_of(attention), implementation(attention), self.latents is not None
            )
            self.handles += [
                block.register_forward_pre_hook(stage.enter, with_kwargs=True),
                first_norm(block).register_forward_pre_hook(self.recall),
                attention.register_forward_pre_hook(told, with_kwargs=True),
            ]
            if self.feature_maps or number == last:
                self.handles.append(block.register_forward_hook(stage.leave, prepend=True))
            if self.latents is not None:
                use_latents(attention, stage.now)

    def detach(self, host: Host) -> None:
        for handle in self.handles:
            handle.remove()
        for changed in (*host.attentions, *host.blocks):
            restore(changed)

    def first_budget(self) -> int:
        """Tokens of an image behind the first pooling of the present call."""
        assert self.call is not None
        return self.call.budgets[0]

    def level_at(self, number: int) -> int:
        """Which level the tokens of block `number` belong to."""
        return sum(depth <= number for depth, _ in self.levels) - 1

    def take_maps(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        rest = dict(kwargs)
        self.maps = rest.pop("maps", None)
        return args, rest

    def segment(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        pixels = args[0]
        rows, columns = grid = pixels.shape[-2] // self.patch_px[0], pixels.shape[-1] // self.patch_px[1]
        budgets = tuple(n if isinstance(n, int) else max(1, round(n * rows * columns)) for _, n in self.levels)
        maps, self.maps = self.maps, None
        self.call = Call(grid, budgets, [])
        if self.merger is not None:
            if maps is not None:
                raise ValueError(
                    "this model is patched to merge by its own features and takes no maps: leave them out, or patch it "
                    "with merge='colour'"
                )
            return
        if maps is None:
            maps = self.segmenter(pixels[..., : rows * self.patch_px[0], : columns * self.patch_px[1]], budgets)
        maps = [maps] if isinstance(maps, Tensor) else list(maps)
        check_maps(maps, budgets, len(pixels))
        self.call.levels = [self.with_latents(level, grid) for level in from_maps(maps, budgets, grid)]

    def with_latents(self, level: Level, grid: tuple[int, int]) -> Level:
        if self.latents is None:
            return level
        if self.latents > grid[0] * grid[1]:
            raise ValueError(f"latents is {self.latents}, and this image has {grid[0] * grid[1]} patches: use fewer")
        return Level(level.weights, level.overlap, *grid_cells(level.overlap, grid, self.latents))

    def recall(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        """A block that is computed again in the backward pass gets the call of its own forward, not the latest: the
        checkpoint hands it the very tensor that it had then. Some libraries checkpoint a block without its hooks, so
        this stands on its first norm too.
        """
        if not args or not torch.is_grad_enabled() or torch.compiler.is_compiling():
            return
        known = getattr(args[0], _CALL, None)
        if known is None:
            setattr(args[0], _CALL, self.call)
        else:
            self.call = known


@dataclass
class Stage:
    """The hooks of one block."""

    patch: Patch
    number: int
    level: int
    attention: nn.Module

    def now(self) -> tuple[Level, tuple[int, int]]:
        assert self.patch.call is not None
        return self.patch.call.levels[self.level], self.patch.call.grid

    def enter(self, block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        """Pool where a level begins; go on with the tokens where the block before gave patches back."""
        rest = dict(kwargs)
        x = args[0] if args else rest.pop("hidden_states")
        self.patch.recall(block, (x,))
        call = self.patch.call
        assert call is not None
        depths = [depth for depth, _ in self.patch.levels]
        if self.number != depths[0] and self.patch.feature_maps:
            x = call.tokens if torch.compiler.is_compiling() else getattr(x, _TOKENS, call.tokens)
        if self.number in depths:
            before = call.levels[self.level - 1] if self.level else None
            count = before.overlap.shape[1] if before else call.grid[0] * call.grid[1]
            if x.shape[1] < count:
                raise ValueError(
                    f"block {self.number} got {x.shape[1]} tokens and expected at least {count}: a model that drops "
                    f"patches cannot be patched"
                )
            if self.patch.merger is not None and len(call.levels) == self.level:
                keys = keys_of(first_norm(block), self.attention, x)[:, x.shape[1] - count :]
                found = self.patch.merger(keys, before, call.grid, call.budgets[self.level])
                call.levels.append(self.patch.with_latents(found, call.grid))
            x = call.levels[self.level].pool(x)
            self.patch.recall(block, (x,))
        return (x, *args[1:]), rest

    def leave(self, block: nn.Module, args: tuple[Any, ...], out: Any) -> Any:
        """Features of patches for whoever reads this block's output; the next block goes on with the tokens."""
        if self.patch.keep_tokens:
            return out
        tokens = out[0] if isinstance(out, tuple) else out
        level, _ = self.now()
        whole = level.unpool(tokens)
        assert self.patch.call is not None
        self.patch.call.tokens = tokens
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            setattr(whole, _TOKENS, tokens)
        return (whole, *out[1:]) if isinstance(out, tuple) else whole


def _pair(side: Any) -> tuple[int, int]:
    return (side, side) if isinstance(side, int) else (side[0], side[1])
