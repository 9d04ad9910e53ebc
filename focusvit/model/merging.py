"""Token merging, the control without superpixels: similar tokens are averaged a few at a time inside every block.

Written from the idea of the paper (Bolya et al., "Token Merging: Your ViT But Faster"): split the tokens in two sets by
turns, link each token of the first set to its most similar one of the second (cosine of mean keys), merge the strongest
links as size-weighted means, and let attention count a token by its size.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from .attention import Trace, attend
from .blocks import Block


def merge_schedule(num_patches: int, tokens: int, depth: int) -> tuple[int, ...]:
    """How many tokens each of `depth` blocks merges away, as equal as possible, so that `tokens` remain.

    A block can at most halve its tokens, so for a small budget the first blocks merge more.
    """
    left, schedule = num_patches, []
    for i in range(depth):
        equal = -(-(left - tokens) // (depth - i))
        needed = left - tokens * 2 ** (depth - i - 1)
        schedule.append(max(0, min(max(equal, needed), left // 2)))
        left -= schedule[-1]
    if left != tokens:
        raise ValueError(f"{depth} blocks cannot merge {num_patches} tokens down to {tokens}; {left} would remain")
    return tuple(schedule)


def merge_most_similar(x: Tensor, size: Tensor, keys: Tensor, num_merged: int, first: int) -> tuple[Tensor, Tensor]:
    """(B, n, D), (B, n, 1) sizes -> (B, n - num_merged, D) and sizes. The first `first` tokens (class) are kept.

    `keys` (B, n, d) say what is similar. The order of the surviving tokens changes; the size-weighted mean does not.
    """
    if num_merged == 0:
        return x, size
    keys = functional.normalize(keys[:, first:], dim=-1)
    score, target = (keys[:, ::2] @ keys[:, 1::2].transpose(1, 2)).max(-1)
    if torch.compiler.is_exporting():  # ONNX has no stable sort; its TopK puts the lower index first on a tie too
        order = score.topk(score.shape[1], dim=1).indices
    else:
        order = score.argsort(dim=1, descending=True, stable=True)
    merged, kept = order[:, :num_merged], order[:, num_merged:]
    target = target.gather(1, merged)

    def reduce(values: Tensor) -> Tensor:
        """Sums of the merged groups: kept tokens of the first set, then the second set with what joined it."""
        even, odd = values[:, first::2], values[:, first + 1 :: 2]
        width = values.shape[-1]
        joined = even.gather(1, merged[..., None].expand(-1, -1, width))
        if torch.compiler.is_exporting():  # the same sums without a scatter, as in `regions`
            links = target[:, None] == torch.arange(odd.shape[1], device=odd.device)[:, None]
            odd = odd + links.to(values.dtype) @ joined
        else:
            odd = odd.scatter_add(1, target[..., None].expand(-1, -1, width), joined)
        rest = even.gather(1, kept[..., None].expand(-1, -1, width))
        return torch.cat([values[:, :first], rest, odd], 1)

    new_size = reduce(size)
    return reduce(x * size) / new_size, new_size


def merging_block(
    block: nn.Module, x: Tensor, size: Tensor, num_merged: int, first: int, trace: Trace = None
) -> tuple[Tensor, Tensor]:
    """One transformer block that merges `num_merged` tokens between its attention and its MLP."""
    if not isinstance(block, Block):
        raise TypeError(f"merging needs a Block, got {type(block).__name__}")
    q, k, v = block.attn.split(block.attn.qkv(block.norm1(x)))
    bias = size.log().transpose(1, 2)[:, None].to(q.dtype)
    x = x + block.drop_path(block.attn.merge(attend(q, k, v, bias, trace)))
    x, size = merge_most_similar(x, size, k.mean(1), num_merged, first)
    return x + block.drop_path(block.mlp(block.norm2(x))), size


def merging_trunk(
    blocks: nn.ModuleList, x: Tensor, tokens: int, first: int, trace: Trace = None
) -> tuple[Tensor, Tensor]:
    """Blocks that merge N down to `tokens`: (B, first + tokens, D) and each token's share of patches (B, tokens)."""
    size = x.new_ones(x.shape[0], x.shape[1], 1)
    for block, num_merged in zip(blocks, merge_schedule(x.shape[1] - first, tokens, len(blocks))):
        x, size = merging_block(block, x, size, num_merged, first, trace)
    weight = size[:, first:, 0]
    return x, weight / weight.sum(1, keepdim=True)
