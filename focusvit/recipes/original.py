"""The rows of the original repository as recipes: `original_sppp`, `original_sppp_window_pretrained`, ...

`focusvit pretrain original_NAME --data DIR --run-dir DIR`. Its settings where it had any: AdamW at 1e-4, decay 0.05, no
warm-up, batches of 64, a head that learns ten times as fast as pretrained weights. A cosine ends every run, and scores
come from a split of their own: the original kept its rate and chose on the test set. Rows called `_pretrained` and
`_frozen` start from a ViT-B/16 of timm, Hugging Face or torchvision: `--init-from FILE`, by default
vit_b_16.safetensors in the current folder. Hardware: one GPU for ViT-B. None has been run here to the end; `focusvit
cost original_NAME` says what each costs.
"""

from collections.abc import Callable
from functools import partial

from focusvit.data.config import DataConfig
from focusvit.train.config import OptimConfig, TrainConfig

from .original_models import original_models

WEIGHTS_FILE = "vit_b_16.safetensors"


def original(name: str) -> TrainConfig:
    """The recipe of one row of `original_models.original_models`. Raises KeyError for a name that is no row."""
    row = original_models()[name]
    return TrainConfig(
        model=row.model,
        data=DataConfig(map_px=112, crop_scale=(0.6, 1.0), eval_crop_fraction=1.0, loader_workers=8),
        optim=OptimConfig(
            lr=row.lr, weight_decay=row.weight_decay, warmup_epochs=0.0, clip_norm=0.0,
            lr_scales=tuple(f"{part}={scale:g}" for part, scale in row.lr_scales.items()),
        ),
        epochs=10,
        global_batch=64,
        label_smoothing=0.0,
        init_from=WEIGHTS_FILE if row.pretrained else None,
        freeze=row.freeze,
    )  # fmt: skip


RECIPES: dict[str, Callable[[], TrainConfig]] = {
    f"original_{name}": partial(original, name) for name in original_models()
}
