"""Every layout that people have in one table: LAYOUTS.md of the pipeline is made of it.

`python -m testkit.layout_table` in tests/ writes the table anew.
"""

import tempfile
from pathlib import Path

from pipeline.errors import DataError, UsageError
from pipeline.sources.detect import Reading, look
from testkit.layout_trees import CLASSES, MASKS
from testkit.table_trees import ARCHIVES, TABLES

TABLE = Path(__file__).parents[2] / "pipeline" / "LAYOUTS.md"
BEGIN, END = "<!-- layouts: begin -->\n", "<!-- layouts: end -->"
LAYOUTS = [*CLASSES, *MASKS, *ARCHIVES, *TABLES]


def table() -> str:
    """A Markdown row for each layout: its tree, and by split what becomes of it or the sentence of the refusal."""
    lines = ["| layout | tree | what becomes of it |", "|---|---|---|"]
    for layout in LAYOUTS:
        with tempfile.TemporaryDirectory() as folder:
            root = layout.write(Path(folder, "SRC"))
            cells = [f"`{split}`: {_becomes(root, split).replace(folder + '/', '')}" for split in layout.reads]
        tree = layout.shown or "<br>".join(f"`{name}`" for name in layout.tree.split())
        lines.append(f"| {layout.title} | {tree} | {'<br>'.join(cells)} |")
    return "\n".join(lines).replace("<class>", "&lt;class&gt;").replace("<image>", "&lt;image&gt;") + "\n"


def _becomes(root: Path, split: str) -> str:
    try:
        reading = look(str(root), split)
        return _facts(reading)
    except (UsageError, DataError) as error:
        return f"refused: {error}"


def _facts(reading: Reading) -> str:
    rows = list(reading.source.images())
    classes = sorted({row.class_name for row in rows if row.class_name})
    what = "label maps" if any(row.label_file for row in rows) else f"classes {', '.join(classes)}" if classes else ""
    images = f"{len(rows)} image{'s' * (len(rows) > 1)}, {what or 'no classes'}"
    return "; ".join(
        [
            images,
            *(
                note
                for note in reading.notes()
                if note.startswith(("columns", "classes", "labels", "missing", "left out"))
            ),
        ]
    )


if __name__ == "__main__":
    head, _, rest = TABLE.read_text().partition(BEGIN)
    TABLE.write_text(head + BEGIN + table() + END + rest.partition(END)[2])
