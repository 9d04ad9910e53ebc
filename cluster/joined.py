"""`preprocess`, `verify` and `remap` on a cluster that they join by `--ray-address`: its nodes get our code.

The verbs themselves know Ray and nothing of code that travels; without an address they run as they are.
"""

import importlib
from collections.abc import Callable
from typing import Any

from pipeline.commandline import parse
from pipeline.options import PreprocessConfig, RemapConfig, VerifyConfig

from .ray_session import ray_session


def preprocess_main(argv: list[str]) -> int:
    config = parse(PreprocessConfig, argv, prog="focusvit preprocess")
    return _run("pipeline.preprocess", argv, None if config.dry_run else config.ray_address)


def verify_main(argv: list[str]) -> int:
    return _run("pipeline.care.verify", argv, parse(VerifyConfig, argv, prog="focusvit verify").ray_address)


def remap_main(argv: list[str]) -> int:
    return _run("pipeline.care.remap", argv, parse(RemapConfig, argv, prog="focusvit remap").ray_address)


def _run(module: str, argv: list[str], address: str | None) -> int:
    main: Callable[[list[str]], Any] = importlib.import_module(module).main
    if address is None:
        return main(argv)
    with ray_session(address):  # a Ray that is up already is what the verb uses
        return main(argv)
