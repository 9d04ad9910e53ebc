"""`preprocess`, `verify` and `remap` on a cluster that they join by `--ray-address`: its nodes get our code.

The verbs themselves know Ray and nothing of code that travels; without an address they run as they are.
"""

import contextlib
import importlib
from typing import Any

from pipeline.commandline import parse
from pipeline.options import PreprocessConfig, RemapConfig, VerifyConfig

from .ray_session import ray_session


def preprocess_main(argv: list[str]) -> int:
    return _run("pipeline.preprocess", PreprocessConfig, argv)


def verify_main(argv: list[str]) -> int:
    return _run("pipeline.care.verify", VerifyConfig, argv)


def remap_main(argv: list[str]) -> int:
    return _run("pipeline.care.remap", RemapConfig, argv)


def _run(module: str, options: type, argv: list[str]) -> int:
    asked: Any = parse(options, argv, prog=f"focusvit {module.rpartition('.')[2]}")
    joins = asked.ray_address and not getattr(asked, "dry_run", False)
    # A Ray that is up already is what the verb uses.
    with ray_session(asked.ray_address) if joins else contextlib.nullcontext():
        return importlib.import_module(module).main(argv)
