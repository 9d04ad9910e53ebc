#!/bin/bash
# The tests of `focusvit.patch` and of loading weights with the real timm and torchvision, without a GPU. About 20 MB.
#
#   tests/benchmarks/peers/vit_libraries.sh FOLDER
set -e
folder=$1
python=${PYTHON:-.venv/bin/python}
root=$(cd "$(dirname "$0")/../../.." && pwd)

cd "$root"
PYTHON="$python" tests/benchmarks/peers/timm.sh "$folder"
PYTHONPATH="$folder" "$python" -m pytest -rs -p no:cacheprovider tests/unit/focusvit/drop_in \
  tests/unit/focusvit/runs/test_pretrained.py tests/unit/focusvit/runs/test_pretrained_files.py
