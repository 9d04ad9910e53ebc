"""The transformer block: pre-norm attention and MLP with stochastic depth. Names are timm's."""

from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from .attention import Attention, AttentionContext, Trace
from .config import FocusViTConfig


class Mlp(nn.Module):
    def __init__(self, config: FocusViTConfig) -> None:
        super().__init__()
        hidden = int(config.width * config.mlp_ratio)
        self.fc1 = nn.Linear(config.width, hidden)
        self.fc2 = nn.Linear(hidden, config.width)
        self.drop = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(self.fc2(self.drop(functional.gelu(self.fc1(x)))))


class DropPath(nn.Module):
    """Stochastic depth: in training, the branch of a whole sample is dropped with probability `rate`."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return x
        keep = 1 - self.rate
        return x * (x.new_empty(x.shape[0], 1, 1).bernoulli_(keep) / keep)


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)): (B, n, D) -> (B, n, D)."""

    def __init__(self, config: FocusViTConfig, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.width, config.norm_eps)
        self.attn = Attention(config)
        self.norm2 = nn.LayerNorm(config.width, config.norm_eps)
        self.mlp = Mlp(config)
        self.drop_path = DropPath(drop_path)
        self.checkpoint = config.checkpoint_blocks

    def forward(self, x: Tensor, context: AttentionContext | None = None, trace: Trace = None) -> Tensor:
        if self.checkpoint and self.training and trace is None:
            return checkpoint(self._run, x, context, None, use_reentrant=False)
        return self._run(x, context, trace)

    def _run(self, x: Tensor, context: AttentionContext | None, trace: Trace) -> Tensor:
        x = x + self.drop_path(self.attn(self.norm1(x), context, trace))
        return x + self.drop_path(self.mlp(self.norm2(x)))
