"""fast-slic, called so that it can neither kill the process nor remember the image before."""

import functools
import subprocess
import sys
from typing import Any

import numpy as np

from pipeline.errors import UsageError
from pipeline.io.machine import cpu_flags

from .config import MIN_PIXELS_PER_REGION

_IMPORT = "import cfast_slic"


def slic(rgb: np.ndarray, regions: int, compactness: float, iterations: int) -> np.ndarray:
    """SLIC labels, int16 (h, w), of `rgb`, uint8 (h, w, 3): about `regions` labels, often fewer.

    fast-slic's own conversion to Lab keeps the CIE balance of lightness and colour, which OpenCV's 8-bit Lab does not:
    on BSDS500 it is better by 0.002 to 0.004 in segmentation accuracy at the best compactness of each.

    One thread (the default takes every core), and a fresh object per image: a used one starts from the clusters of
    its last image, so results would depend on what came before. Fewer regions are asked of an image too small for them.
    """
    regions = max(1, min(regions, rgb.shape[0] * rgb.shape[1] // MIN_PIXELS_PER_REGION))
    segmenter = slic_class()(num_components=regions, compactness=compactness, num_threads=1)
    return segmenter.iterate(np.ascontiguousarray(rgb), iterations)


@functools.cache
def slic_class() -> Any:
    """fast-slic's fastest class on this CPU; all of them give the same labels.

    Raises UsageError, before the import would end the process, when fast-slic was built for another CPU.
    """
    if not {"avx2", "fma"} <= cpu_flags() and not _import_survives():
        raise UsageError(
            "fast-slic was built for a CPU with AVX2 and this one has none, so importing it would end the process. "
            "Rebuild it without AVX2 (same labels, slower): see 'Portable build' in pipeline/SUPERPIXELS.md."
        )
    import cfast_slic
    from fast_slic import Slic

    if not cfast_slic.is_supported_arch("x64/avx2"):
        return Slic
    from fast_slic.avx2 import SlicAvx2

    return SlicAvx2


def _import_survives() -> bool:
    """Import fast-slic in a child process: an illegal instruction cannot be caught, only watched."""
    return subprocess.run([sys.executable, "-c", _IMPORT], capture_output=True).returncode >= 0
