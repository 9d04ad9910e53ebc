"""Everything that defines one training. A recipe fills it, options override it, the run directory keeps it."""

import re
from dataclasses import dataclass, field
from typing import Literal

from focusvit.data.config import DataConfig
from focusvit.distill.config import DistillConfig
from focusvit.drop_in.host_config import HostConfig, ModelConfig
from focusvit.model.config import FocusViTConfig
from focusvit.precision import Precision


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """How the weights move. All learning rates are for the whole global batch: nothing is scaled behind the user."""

    name: Literal["adamw", "sgd"] = "adamw"
    lr: float = 1e-3
    """peak learning rate, reached at the end of the warm-up"""
    weight_decay: float = 0.05
    """decoupled decay of the matrices of linear maps and convolutions; biases, norms, learned tokens have none"""
    betas: tuple[float, float] = (0.9, 0.999)
    momentum: float = 0.9
    """for sgd (with Nesterov)"""
    warmup_epochs: float = 5.0
    """linear rise from 0"""
    final_lr_share: float = 0.01
    """the cosine ends at lr times this"""
    clip_norm: float = 1.0
    """largest norm of the whole gradient; 0 = no clipping"""
    layer_decay: float = 1.0
    """each layer below the head gets its lr times this once more; 1 = off (0.65 to 0.9 is usual in fine-tuning)"""
    lr_scales: tuple[str, ...] = ()
    """multiples of the learning rate for parts of the model: head=10 or blocks.*.attn=0.5; the last match counts"""
    spike_factor: float = 0.0
    """skip a step whose gradient norm is more than this times their running mean; 0 = never (non-finite ones always)"""

    def __post_init__(self) -> None:
        if self.lr <= 0:
            raise ValueError(f"optim.lr must be positive, not {self.lr}")
        if not 0 < self.layer_decay <= 1:
            raise ValueError(f"optim.layer_decay must be in (0, 1], not {self.layer_decay}")
        self.scales()
        if 0 < self.spike_factor <= 1 or self.spike_factor < 0:
            raise ValueError(f"optim.spike_factor must be 0 or above 1, not {self.spike_factor}")
        if self.warmup_epochs < 0 or self.clip_norm < 0 or self.weight_decay < 0:
            raise ValueError("optim.warmup_epochs, optim.clip_norm and optim.weight_decay must not be negative")

    def scales(self) -> dict[str, float]:
        """`lr_scales` as pattern -> multiple. Raises ValueError for text of another form."""
        found = {}
        for text in self.lr_scales:
            pattern, _, scale = text.partition("=")
            if not pattern or not re.fullmatch(r"\d+(\.\d+)?(e-?\d+)?", scale) or float(scale) <= 0:
                raise ValueError(
                    f"optim.lr_scales holds '{text}'; write a part of the model, '=' and a positive multiple: head=10. "
                    "Use freeze for parts that must not move"
                )
            found[pattern] = float(scale)
        return found


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One training. The same config on the same data gives the same run, on any number of workers (with drop path or
    dropout in distribution: their draws belong to a rank and its micro-batches)."""

    model: ModelConfig
    data: DataConfig = field(default_factory=DataConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    epochs: float = 90.0
    """passes over the training split; the run ends at the nearest whole step"""
    global_batch: int = 1024
    """samples per optimizer step, over all workers"""
    micro_batch: int | None = None
    """most samples per forward on one worker (gradient accumulation); lower it when memory runs out"""
    seed: int = 0
    """weights, order, augmentation, drop path"""
    precision: Precision = "auto"
    """fp32, tf32 (a GPU rounds products of float32) or bf16; auto = bf16 on a GPU that has it (from compute capability
    8.0 on), else fp32. Scoring and prediction follow it"""
    compile: bool | None = None
    """torch.compile the model; None = on a GPU"""
    loss: Literal["softmax", "bce"] = "softmax"
    """cross-entropy, or binary cross-entropy for each class"""
    label_smoothing: float = 0.1
    """share of the target spread evenly over all classes"""
    ema_decay: float | None = None
    """keep a moving average of the weights and score that; 0.9999 is usual"""
    token_budgets: tuple[int, ...] = ()
    """draw each batch's number of tokens from these, so that one checkpoint serves many budgets; () = model.tokens"""
    eval_every_epochs: float = 1.0
    """score the eval split this often, and at the end"""
    checkpoint_every_epochs: float = 1.0
    """also checkpoint this often; every scoring and the end checkpoint as well"""
    log_every_steps: int | None = None
    """one point of the curves for each so many steps; None = every 10 seconds, and at least a hundred in a run"""
    distill: DistillConfig = field(default_factory=DistillConfig)
    """learn from a teacher as well"""
    init_from: str | None = None
    """start from the weights of this checkpoint or run (the head is new), or of a ViT of timm, Hugging Face or
    torchvision: a file .safetensors, .pt, .pth or .bin"""
    head_start: Literal["random", "probe"] = "random"
    """the head of a training with init_from: random, or the linear probe on the frozen features (LP-FT)"""
    freeze: tuple[str, ...] = ()
    """parts of the model that do not move: blocks, patch_embed, blocks.*.attn, ..."""

    def __post_init__(self) -> None:
        if self.epochs <= 0 or self.eval_every_epochs <= 0 or self.checkpoint_every_epochs <= 0:
            raise ValueError("epochs, eval_every_epochs and checkpoint_every_epochs must be positive")
        if self.global_batch < 1 or (self.log_every_steps is not None and self.log_every_steps < 1):
            raise ValueError("global_batch and log_every_steps must be at least 1")
        if self.micro_batch is not None and self.micro_batch < 1:
            raise ValueError(f"micro_batch must be at least 1, not {self.micro_batch}")
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"label_smoothing must be in [0, 1), not {self.label_smoothing}")
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            raise ValueError(f"ema_decay must be between 0 and 1, not {self.ema_decay}")
        if self.model.image_size != (self.data.image_px, self.data.image_px):
            raise ValueError(
                f"model.image_px is {self.model.image_px} and data.image_px is {self.data.image_px}; they must agree"
            )
        if self.data.views and self.data.mix.on:
            raise ValueError("data.views repeats views and data.mix mixes each with another neighbour; turn one off")
        if self.token_budgets and (not self.model.needs_maps or min(self.token_budgets) < 1):
            raise ValueError(
                f"token_budgets {self.token_budgets} needs a model with superpixels and budgets of at least 1"
            )
        if self.model.needs_maps:
            asked = max(self.model.tokens or 1, *self.token_budgets, 1)
            if asked > self.data.most_tokens:
                raise ValueError(
                    f"{asked} tokens cannot be cut from maps of {self.data.map_side} x {self.data.map_side} pixels; "
                    f"choose 1 to {self.data.most_tokens}"
                )
            for side, cells in zip(("height", "width"), self.model.grid):
                if self.data.map_side % cells:
                    raise ValueError(
                        f"data.map_px gives maps of {self.data.map_side} px, not a multiple of the patch grid's "
                        f"{side} ({cells}); take {cells} times a whole number"
                    )
        if self.head_start == "probe" and (self.init_from is None or self.label_free):
            raise ValueError("head_start probe fits a head of classes on the features of init_from; name a checkpoint")
        self._check_distill()
        if isinstance(self.model, HostConfig):
            if self.label_free:
                raise ValueError("the student of a label-free training is a FocusViT; a host is trained on labels")
            return
        ends_in_latents = self.model.trunk_depths[1] > 0 or self.model.merges
        pools_cells = self.model.pools and not self.model.needs_maps
        if self.label_free and self.distill.regions and (ends_in_latents or pools_cells):
            raise ValueError("this model has no token of each superpixel at its end; set distill.regions to 0")

    @property
    def label_free(self) -> bool:
        """Whether nothing but a teacher's features is learned."""
        return self.distill.target == "features"

    def _check_distill(self) -> None:
        """ValueError for settings of a teacher that differ from their default and that nothing would read."""
        of_logits, of_features, default = ("weight", "temperature", "hard"), ("regions", "cache_dir"), DistillConfig()
        unread: tuple[str, ...] = of_logits if self.label_free else of_features
        why = f"distill.target is {self.distill.target}"
        if self.distill.teacher is None and not self.label_free:
            unread, why = of_logits + of_features, "set distill.teacher as well"
        ignored = [f"distill.{name}" for name in unread if getattr(self.distill, name) != getattr(default, name)]
        if ignored:
            raise ValueError(f"{', '.join(ignored)} would do nothing: {why}")

    def num_steps(self, num_samples: int) -> int:
        """Optimizer steps of the whole run on a split of `num_samples`."""
        return max(1, round(self.epochs * num_samples / self.global_batch))

    def milestones(self, num_samples: int, every_epochs: float) -> set[int]:
        """Steps at which something due every `every_epochs` happens; always the last step as well."""
        last = self.num_steps(num_samples)
        count = int(self.epochs / every_epochs + 1e-9)
        steps = {round(k * every_epochs * num_samples / self.global_batch) for k in range(1, count + 1)}
        return {step for step in steps if 0 < step < last} | {last}


DEFAULTS = TrainConfig(model=FocusViTConfig())
"""What a key had in a run that was started before the key existed."""
