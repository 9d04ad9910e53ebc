"""Connected regions of a label image."""

import numba
import numpy as np


@numba.njit(cache=True, nogil=True)
def connected_regions(labels: np.ndarray) -> np.ndarray:
    """uint32 (h, w): an own id for each 4-connected region of equal labels, 0..n-1 in raster order of first pixel.

    SLIC promises connected regions and a first pass confirms it in nearly every image; here it becomes a fact.
    """
    height, width = labels.shape
    regions = np.empty((height, width), np.uint32)
    parent = np.empty(height * width, np.uint32)  # union-find: a parent is never larger than its child
    num_parts = 0
    for y in range(height):
        for x in range(width):
            label = labels[y, x]
            left = x > 0 and labels[y, x - 1] == label
            up = y > 0 and labels[y - 1, x] == label
            if left:
                part = regions[y, x - 1]
                if up and regions[y - 1, x] != part:
                    part = _join(parent, part, regions[y - 1, x])
            elif up:
                part = regions[y - 1, x]
            else:
                part = num_parts
                parent[part] = part
                num_parts += 1
            regions[y, x] = part
    ids = np.empty(num_parts, np.uint32)
    num_regions = 0
    for part in range(num_parts):  # parts are numbered in raster order, and so are their smallest members
        if parent[part] == part:
            ids[part] = num_regions
            num_regions += 1
        else:
            ids[part] = ids[parent[part]]
    for y in range(height):
        for x in range(width):
            regions[y, x] = ids[regions[y, x]]
    return regions


@numba.njit(cache=True, nogil=True, forceinline=True)
def _join(parent: np.ndarray, a: int, b: int) -> int:
    while parent[a] != a:
        a = parent[a]
    while parent[b] != b:
        b = parent[b]
    root = min(a, b)
    parent[a] = root
    parent[b] = root
    return root
