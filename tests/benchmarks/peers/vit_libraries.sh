#!/bin/bash
# The tests of `focusvit.patch` and of loading weights with the real timm, torchvision and transformers, in an
# environment of its own (torchvision belongs to the CUDA build of torch; no GPU is needed). About 6 GB.
#
#   tests/benchmarks/peers/vit_libraries.sh FOLDER
set -e
folder=$1
python=${PYTHON:-python3}
root=$(cd "$(dirname "$0")/../../.." && pwd)

$python -m venv "$folder"
"$folder/bin/python" -m pip --disable-pip-version-check install -q torch==2.13.0 torchvision==0.28.0 timm==1.0.31 \
  transformers==5.23.0 accelerate==1.15.0 safetensors numpy opencv-python-headless fsspec tqdm scipy numba pytest \
  pytest-timeout
cd "$root"
"$folder/bin/python" -m pytest -rs -p no:cacheprovider tests/unit/focusvit/drop_in/test_patch.py \
  tests/unit/focusvit/drop_in/test_use.py tests/unit/focusvit/runs/test_pretrained.py \
  tests/unit/focusvit/runs/test_pretrained_files.py
