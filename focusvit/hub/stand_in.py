"""What takes the place of huggingface_hub's mixin where that package is not installed: the rest of a model works."""

from typing import Any, NoReturn

from pipeline.errors import UsageError

MISSING = "this needs huggingface_hub: pip install 'focusvit[hub]'"


class PyTorchModelHubMixin:
    def __init_subclass__(cls, **_: Any) -> None:
        super().__init_subclass__()

    def save_pretrained(self, *_: Any, **__: Any) -> NoReturn:
        raise UsageError(f"save_pretrained writes a folder for the Hugging Face hub, and {MISSING}.")

    def push_to_hub(self, *_: Any, **__: Any) -> NoReturn:
        raise UsageError(f"push_to_hub sends to the Hugging Face hub, and {MISSING}.")
