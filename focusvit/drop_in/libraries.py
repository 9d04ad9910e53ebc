"""A host built by its own library from plain values, without its folder and without a network."""

import inspect
import json
from typing import Any

from torch import nn

from pipeline.errors import UsageError

from .host_config import HostConfig, Library


def library(name: Library) -> Any:
    """The package. Raises UsageError where it is missing."""
    try:
        if name == "timm":
            import timm

            return timm
        import transformers

        return transformers
    except ImportError as error:
        raise UsageError(f"this model is of {name}, which cannot be loaded ({error}): pip install {name}") from None


def build_host(config: HostConfig) -> nn.Module:
    """The host without a classifier, in fresh weights. Raises UsageError for one that the installed library lacks."""
    package, settings = library(config.library), json.loads(config.settings)
    if config.library == "timm":
        own = settings.get("img_size")
        if config.image_px != own:
            settings["dynamic_img_size"] = True
        try:
            return package.create_model(config.architecture, pretrained=False, num_classes=0, **settings)
        except (RuntimeError, TypeError) as error:
            raise UsageError(f"timm {package.__version__} cannot build '{config.architecture}': {error}") from None
    made = transformers_class(config.architecture)
    return made(made.config_class(**settings), **without_pooler(made))


def transformers_class(name: str) -> Any:
    """A model class of transformers by its name. Raises UsageError for a name that is none."""
    package = library("transformers")
    found = getattr(package, name, None)
    if not (inspect.isclass(found) and issubclass(found, package.PreTrainedModel)):
        raise UsageError(f"transformers {package.__version__} has no model '{name}'; use a version that has it")
    return found


def without_pooler(made: Any) -> dict[str, bool]:
    """A pooler that libraries put behind the class token for text tasks is often untrained: it is left out."""
    return {"add_pooling_layer": False} if "add_pooling_layer" in inspect.signature(made).parameters else {}
