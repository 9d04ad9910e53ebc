"""One HTML file that shows what a command made: pictures, tables, commands. Self-contained, dark and light."""

import base64
import html
import io
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from focusvit.predict.pictures import figure_pixels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_STYLE = """
:root { color-scheme: light dark; --text: #1a202c; --ground: #ffffff; --soft: #f1f5f9; --line: #cbd5e0; --dim: #4a5568 }
@media (prefers-color-scheme: dark) {
  :root { --text: #e2e8f0; --ground: #11161d; --soft: #1d2530; --line: #3b4657; --dim: #a0aec0 }
}
body { margin: 0 auto; max-width: 60rem; padding: 1.5rem 1rem 4rem; color: var(--text); background: var(--ground);
       font: 16px/1.5 system-ui, sans-serif }
h1 { font-size: 1.7rem; margin: 0 0 .5rem } h2 { font-size: 1.2rem; margin: 2.2rem 0 .4rem }
p { margin: .4rem 0 } .dim, figcaption { color: var(--dim); font-size: .9rem }
figure { margin: .8rem 0 } img { max-width: 100%; height: auto; border-radius: 4px; background: #fff }
.wide { overflow-x: auto } table { border-collapse: collapse; margin: .6rem 0; font-variant-numeric: tabular-nums }
th, td { border-bottom: 1px solid var(--line); padding: .3rem .8rem .3rem 0; text-align: left; white-space: nowrap }
pre { background: var(--soft); padding: .7rem .9rem; border-radius: 4px; overflow-x: auto; font-size: .88rem }
"""


class Page:
    """Parts are added from top to bottom; `html` is the whole file. All text is escaped."""

    def __init__(self, title: str, lead: str) -> None:
        self._title = title
        self._parts = [f"<h1>{html.escape(title)}</h1>", f"<p>{html.escape(lead)}</p>"]

    def heading(self, text: str) -> None:
        self._parts.append(f"<h2>{html.escape(text)}</h2>")

    def text(self, text: str, *, dim: bool = False) -> None:
        self._parts.append(f"<p{' class=dim' if dim else ''}>{html.escape(text)}</p>")

    def picture(self, rgb: np.ndarray, caption: str) -> None:
        """An image uint8 (H, W, 3); photographs are stored as JPEG, the rest as PNG, whichever is smaller."""
        stored = []
        for form, options in (("png", {"optimize": True}), ("jpeg", {"quality": 85})):
            buffer = io.BytesIO()
            Image.fromarray(rgb).save(buffer, form, **options)
            stored.append((len(buffer.getvalue()), form, buffer.getvalue()))
        _, form, data = min(stored)
        source = f"data:image/{form};base64,{base64.b64encode(data).decode()}"
        said = html.escape(caption)
        self._parts.append(
            f'<figure><img alt="{said}" width="{rgb.shape[1]}" src="{source}"><figcaption>{said}</figcaption></figure>'
        )

    def figure(self, figure: "Figure", caption: str) -> None:
        self.picture(figure_pixels(figure), caption)

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        head = "".join(f"<th>{html.escape(name)}</th>" for name in columns)
        body = "".join("<tr>" + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows)
        self._parts.append(f"<div class=wide><table><tr>{head}</tr>{body}</table></div>")

    def code(self, text: str) -> None:
        self._parts.append(f"<pre>{html.escape(text)}</pre>")

    def html(self) -> str:
        return (
            '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" '
            f'content="width=device-width, initial-scale=1"><title>{html.escape(self._title)}</title>'
            f"<style>{_STYLE}</style></head><body>\n" + "\n".join(self._parts) + "\n</body></html>\n"
        )
