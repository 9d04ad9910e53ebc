"""Where images come from: one module for each layout. `detect` looks at what is there and picks."""

from .detect import detect, resolve_source
from .row import Reader, Row, Source

__all__ = ["Reader", "Row", "Source", "detect", "resolve_source"]
