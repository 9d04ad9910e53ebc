"""The one recipe of the study."""

from focusvit.data.config import DataConfig
from focusvit.model.config import FocusViTConfig
from focusvit.precision import Precision
from focusvit.train.config import TrainConfig
from focusvit.train.optim import OptimConfig
from tests.benchmarks.study.matrix import StudySet

RATES = (7.5e-4, 1.5e-3, 3e-3)
"""the learning rates that every row may choose from"""


def train_config(
    model: FocusViTConfig, of: StudySet, seed: int, lr: float = RATES[1], precision: Precision = "fp32"
) -> TrainConfig:
    """The one recipe of the study. A model for smaller images gets smaller images, nothing else differs."""
    height, _ = model.image_size
    data = DataConfig(image_px=height, map_px=of.map_px, eval_crop_fraction=1.0, eval_split=of.test_split)
    optim = OptimConfig(lr=lr, warmup_epochs=0.0, weight_decay=0.05)
    return TrainConfig(
        model=model, data=data, optim=optim, global_batch=128, seed=seed, label_smoothing=0.1, precision=precision
    )
