"""The ledger of the study: one JSON file a finished training."""

import json
from pathlib import Path
from typing import Any


def read_ledger(ledger: Path) -> list[dict[str, Any]]:
    """All complete records, in the order of their names."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(ledger.glob("*.json"))]
