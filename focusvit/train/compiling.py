"""torch.compile as a training needs it: on a GPU unless told otherwise, a graph for each shape, never a silent stop."""

import atexit
import logging
import os
import shutil
import tempfile
from pathlib import Path

import torch
from torch import nn

from .config import TrainConfig

log = logging.getLogger(__name__)
_SHAPES = 4  # of one token budget: the whole micro-batch, the last and smaller one, and room to spare


def compiles(config: TrainConfig, device: torch.device) -> bool:
    """Whether the model is compiled: as `config.compile` says; by default on a GPU where its compilers are there."""
    if config.compile is not None or device.type != "cuda":
        return bool(config.compile)
    lacking = _lacking()
    if lacking:
        log.warning("the model runs eagerly, which is slower: torch.compile needs %s (or --compile False)", lacking)
    return not lacking


def _lacking() -> str:
    from torch.utils._triton import has_triton

    if not has_triton():
        return "Triton and a GPU that it knows"
    if not any(shutil.which(name) for name in (os.environ.get("CC") or "cc", "gcc", "clang")):
        return "a C compiler, such as gcc"
    return ""


def compiled(model: nn.Module, config: TrainConfig) -> nn.Module:
    """The model, compiled at its first call for each number of tokens. Shapes are static: with drawn budgets the second
    one would make a slower graph for any number, and after eight torch would go on eagerly without a word."""
    import torch._dynamo.config as dynamo

    graphs = _SHAPES * max(1, len(config.token_budgets)) + 8
    dynamo.recompile_limit = max(dynamo.recompile_limit, graphs)
    dynamo.accumulated_recompile_limit = max(dynamo.accumulated_recompile_limit, 4 * graphs)
    lead_around_spaces()
    return torch.compile(model, dynamic=False)  # type: ignore[return-value]


def lead_around_spaces() -> None:
    """torch writes the folder of its headers and libraries unquoted into the compiler's command (2.13): where that has
    a space, the command gets a link without one."""
    from torch.utils import cpp_extension

    folder = Path(cpp_extension.TORCH_LIB_PATH).parent
    if " " not in str(folder):
        return
    link = Path(tempfile.mkdtemp(prefix="focusvit-torch-"), "torch")
    atexit.register(shutil.rmtree, link.parent, ignore_errors=True)  # the link, not what it leads to
    link.symlink_to(folder, target_is_directory=True)
    cpp_extension._TORCH_PATH, cpp_extension.TORCH_LIB_PATH = str(link), str(link / "lib")
