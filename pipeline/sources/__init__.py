"""Where images come from: one module for each layout. `detect` looks at what is there and picks."""

from .detect import detect, resolve_source
from .source import Reader, Source, SourceImage

__all__ = ["Reader", "Source", "SourceImage", "detect", "resolve_source"]
