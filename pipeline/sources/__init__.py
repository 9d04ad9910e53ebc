"""Where images come from: one module for each layout. `detect` looks at what is there and picks."""

from .detect import detect, resolve_source
from .readers import Reader
from .source import Source, SourceImage

__all__ = ["Reader", "Source", "SourceImage", "detect", "resolve_source"]
