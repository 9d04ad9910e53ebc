"""Unit tests hold tiny tensors: one thread each. A second one only waits, on a busy machine ten times longer."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
