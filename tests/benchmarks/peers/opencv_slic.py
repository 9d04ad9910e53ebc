"""OpenCV's SLIC (opencv-contrib), for `python -m tests.benchmarks superpixels --opencv-python PYTHON`.

Its wheel replaces the one that FocusViT uses, so it runs in an environment of its own:
    python3 -m venv cv && cv/bin/pip install opencv-contrib-python-headless==4.12.0.88 numpy==2.2.6
Reads an .npz of images (uint8 RGB) and `budgets`, writes an .npz of labels named `{image}-{k}` and `seconds` per call.
"""

import sys
import time

import cv2
import numpy as np

cv2.setNumThreads(1)
source = np.load(sys.argv[1])
found, seconds = {}, []
for name in source.files:
    if name == "budgets":
        continue
    rgb = source[name]
    for k in source["budgets"].tolist():
        started = time.perf_counter()
        lab = cv2.cvtColor(rgb, cv2.COLOR_RGB2LAB)
        side = max(2, round((rgb.shape[0] * rgb.shape[1] / k) ** 0.5))
        segmenter = cv2.ximgproc.createSuperpixelSLIC(lab, cv2.ximgproc.SLIC, side, 10.0)
        segmenter.iterate(10)
        segmenter.enforceLabelConnectivity(25)
        found[f"{name}-{k}"] = segmenter.getLabels().astype(np.int32)
        seconds.append(time.perf_counter() - started)
np.savez(sys.argv[2], seconds=np.array(seconds), **found)
