"""JSON as every reader takes it, also for what a script reads from `--json`."""

import json
import math
from typing import Any


def json_text(value: Any, **options: Any) -> str:
    """`json.dumps` whose NaN and infinities are null: the standard knows no such numbers, and `jq` refuses them."""
    return json.dumps(_finite(value), allow_nan=False, **options)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, (list, tuple)) else value
