"""The named shell blocks of a README: ```sh NAME ... ``` -> {NAME: text}."""

import re
from pathlib import Path


def blocks(path: Path) -> dict[str, str]:
    found = re.findall(r"^```sh (\S+)\n(.*?)^```$", path.read_text(), re.DOTALL | re.MULTILINE)
    assert len(found) == len(dict(found)), f"{path} names two blocks alike"
    return dict(found)
