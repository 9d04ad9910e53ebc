"""Every layout of the table is read right or refused in one sentence, and the table says what is true."""

import re
from pathlib import Path

import pytest

from pipeline.errors import DataError, UsageError
from testkit.layout_table import BEGIN, END, LAYOUTS, TABLE, table
from testkit.layout_trees import Layout, read_as_text

CASES = [(layout, split) for layout in LAYOUTS for split in layout.reads]


@pytest.mark.parametrize(("layout", "split"), CASES, ids=[f"{layout.title}, {split}" for layout, split in CASES])
def test_a_layout_is_read_as_it_must_be(tmp_path: Path, layout: Layout, split: str) -> None:
    root, expected = layout.write(tmp_path), layout.reads[split]
    if expected.startswith("refused: "):
        with pytest.raises((UsageError, DataError), match=re.escape(expected.removeprefix("refused: "))) as refusal:
            read_as_text(root, split)
        assert "\n" not in str(refusal.value)
    else:
        assert read_as_text(root, split) == expected


def test_the_table_is_current() -> None:
    written = TABLE.read_text().partition(BEGIN)[2].partition(END)[0]
    assert written == table(), "write it anew: cd tests && python -m testkit.layout_table"
