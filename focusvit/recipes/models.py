"""`focusvit models`: the models that come with the package, told by their own files."""

import dataclasses
import math
import sys
from dataclasses import dataclass
from typing import Any

from safetensors import safe_open

from focusvit.box.names import BOX, about, names
from focusvit.runs.checkpoint_record import MODEL, record_at
from pipeline.commandline import parse
from pipeline.io.json_text import json_text


@dataclass(frozen=True, kw_only=True)
class ModelsConfig:
    """The models that come with the package; every option that takes a checkpoint takes their names."""

    json: bool = False
    """print one JSON list"""


def describe(name: str) -> dict[str, Any]:
    """Size and record of one model. Raises `DataError` when it is damaged."""
    place = BOX / name
    record = record_at(str(place))
    with safe_open(place / MODEL, framework="np") as file:
        parameters = sum(math.prod(file.get_slice(key).get_shape()) for key in file.keys())
    return {
        "name": name,
        "parameters": parameters,
        "bytes": (place / MODEL).stat().st_size,
        "image_px": record.model.get("image_px"),
        "tokens": record.model.get("tokens"),
        "classes": len(record.classes),
        **dataclasses.asdict(about(name)),
    }


def lines_of(found: dict[str, Any]) -> list[str]:
    """What a person needs to know of one model."""
    size = f"{found['parameters'] / 1e6:.2f} M parameters, {found['bytes'] / 1e6:.1f} MB"
    looks = f"{found['image_px']} px, {found['tokens']} superpixels" if found["tokens"] else f"{found['image_px']} px"
    return [
        f"{found['name']}: {size}, {looks}",
        f"  made     {found['made']}",
        f"  data     {'; '.join(found['data'])}",
        *(f"  score    {what}: {value}" for what, value in found["scores"].items()),
        *(f"  command  {command}" for command in found["commands"]),
        f"  licence  {found['licence']}",
        f"  use      focusvit finetune --checkpoint {found['name']} --data DIR --run-dir DIR",
    ]


def main(argv: list[str]) -> int:
    config = parse(ModelsConfig, argv, prog="focusvit models")
    found = [describe(name) for name in names()]
    lines = [line for one in found for line in lines_of(one)] or ["no model comes with this version"]
    sys.stdout.write((json_text(found) if config.json else "\n".join(lines)) + "\n")
    return 0
