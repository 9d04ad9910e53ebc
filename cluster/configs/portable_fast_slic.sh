#!/usr/bin/env bash
# Build fast-slic without AVX2, for images and clusters whose nodes differ: its setup script otherwise compiles for
# the CPU of the builder, and an older CPU then ends the process that imports it. Same labels, about half the speed.
# Needs a C++ compiler, Python's headers, and setuptools, wheel, cython, numpy in the active Python.
set -euo pipefail
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
python -m pip download -q --no-deps --no-binary :all: --no-build-isolation -d "$work" fast-slic==0.4.0
tar -xzf "$work"/fast*slic-0.4.0.tar.gz -C "$work"
folder="$(dirname "$(find "$work" -mindepth 2 -maxdepth 2 -name setup.py)")"
python - "$folder/setup.py" <<'PYTHON'
import re
import sys
from pathlib import Path

path = Path(sys.argv[1])
text, count = re.subn(r"(def _check_avx2\([^)]*\):\n)", r"\1    return False\n", path.read_text())
if count != 1:
    raise SystemExit(f"{path}: expected one _check_avx2, found {count}")
path.write_text(text)
PYTHON
python -m pip install -q --no-deps --no-build-isolation --no-cache-dir --force-reinstall "$folder"
