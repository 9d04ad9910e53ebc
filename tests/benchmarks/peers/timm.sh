#!/bin/bash
# timm and torchvision next to the packages that are here, without what needs CUDA. About 20 MB.
#
#   tests/benchmarks/peers/timm.sh FOLDER
#   PYTHONPATH=FOLDER python -m tests.benchmarks model
#
# timm imports torchvision, whose wheel belongs to the CUDA build of torch: its compiled operators do not load beside a
# CPU-only torch, and no ViT needs them. So their declaration is left out, in every Python that has FOLDER on its path.
set -e
folder=$1
python=${PYTHON:-python3}

"$python" -m pip --disable-pip-version-check install -q --no-deps --target "$folder" timm==1.0.31 torchvision==0.28.0 \
  pillow==13.0.0
cat >"$folder/sitecustomize.py" <<'END'
import sys
import types

sys.modules["torchvision._meta_registrations"] = types.ModuleType("torchvision._meta_registrations")
END
