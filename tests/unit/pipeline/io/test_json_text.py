"""What a script reads is JSON: null for what is no finite number, printed by one function."""

import json
import re

import pytest

from pipeline.io.json_text import json_text
from testkit.checkout import ROOT


def test_numbers_that_json_does_not_know_become_null() -> None:
    value = {"a": float("nan"), "b": [float("inf"), (-float("inf"), 1.5)], "c": {"d": None, "e": "NaN"}}
    assert json.loads(json_text(value)) == {"a": None, "b": [None, [None, 1.5]], "c": {"d": None, "e": "NaN"}}
    assert json_text({"b": 1, "a": True}, sort_keys=True) == '{"a": true, "b": 1}'
    with pytest.raises(TypeError):
        json_text({"a": object()})


def test_nobody_prints_json_in_another_way() -> None:
    files = [path for room in ("pipeline", "focusvit", "transfer", "cluster") for path in (ROOT / room).rglob("*.py")]
    printing = re.compile(r"(stdout\.write|print)\W*json\.dumps")
    found = {str(path.relative_to(ROOT)) for path in files if printing.search(path.read_text())}
    assert len(files) > 100 and found <= {"cluster/doctor/machine.py"}, found  # it speaks to its parent alone
