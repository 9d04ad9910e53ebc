"""Initial weights of every variant: truncated normal 0.02, zero biases, and the quiet starts of new parts."""

from torch import nn


def initialize(model: nn.Module) -> None:
    """Fill all weights in place. The order of modules fixes the random numbers, so a seed fixes the model."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Conv2d):
            fan_in = module.in_channels * module.kernel_size[0] * module.kernel_size[1]
            nn.init.trunc_normal_(module.weight, std=fan_in**-0.5)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for module in model.modules():
        reset = getattr(module, "reset_start", None)
        if callable(reset):
            reset()
