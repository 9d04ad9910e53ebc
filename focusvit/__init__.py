"""FocusViT: a vision transformer over superpixels. Names load when they are used, so importing costs nothing."""

import importlib

__version__ = "0.1.0"

_HOME = {
    "FocusViT": "hub.model",
    "Answer": "hub.model",
    "load": "hub.model",
    "FocusViTConfig": "model.config",
    "Batch": "data.batch",
    "ShardDataset": "data.samples",
    "TrainConfig": "train.config",
    "load_model": "runs.checkpoint",
    "load_checkpoint": "runs.checkpoint",
    "patch": "drop_in.patch",
    "unpatch": "drop_in.patch",
    "superpixel_means": "drop_in.readout",
    "superpixel_readout": "drop_in.readout",
    "unpool": "drop_in.readout",
    "superpixels": "predict.photo",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> object:
    if name in _HOME:
        return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    raise AttributeError(f"module 'focusvit' has no attribute '{name}'")
