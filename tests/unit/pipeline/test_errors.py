"""The words of other libraries' errors fit into a sentence of ours, whatever these errors hold."""

import pytest

from pipeline.errors import first_line, last_line


@pytest.mark.parametrize(
    ("error", "first", "last"),
    [
        (ValueError("no room.\n  at disk 3.\n\n"), "no room", "at disk 3"),
        (ValueError("one"), "one", "one"),
        (OSError(), "OSError", "OSError"),
        (RuntimeError(" \n "), "RuntimeError", "RuntimeError"),
        (KeyError("x" * 999), "'" + "x" * 299, "'" + "x" * 299),
    ],
)
def test_an_error_in_one_line(error, first, last):
    assert (first_line(error), last_line(error)) == (first, last)
