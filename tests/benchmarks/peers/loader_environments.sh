#!/bin/bash
# One pinned environment for each loader that `python -m tests.benchmarks loader` is measured beside. About 6 GB.
#
#   tests/benchmarks/peers/loader_environments.sh FOLDER [NAME ...]
#   python -m tests.benchmarks loader --peers FOLDER
#
# All of them get the same numpy-level packages as constraints.txt, so decoder, crop and fit are the same code. torch is
# that of constraints.txt too; torchvision 0.28.0 belongs to it (a CPU-only torch needs `loader_parts.load_torchvision`).
# ffcv compiles: `apt-get install --no-install-recommends g++ pkg-config libopencv-dev libturbojpeg0-dev` comes first.
set -e
folder=$1
shift
names=${*:-webdataset datasets streaming litdata ffcv}
python=${PYTHON:-python3}

work=(torch==2.13.0 albumentations==2.0.8 albucore==0.0.24 opencv-python-headless==5.0.0.93 numba==0.68.1 scipy==1.17.1
  pillow==13.0.0 psutil==7.2.2)
declare -A peer=(
  [webdataset]="webdataset==1.0.2 numpy==2.4.6"
  [datasets]="datasets==5.2.0 numpy==2.4.6"
  [streaming]="mosaicml-streaming==0.13.0 numpy==2.1.3"
  [litdata]="litdata==0.2.76 numpy==2.4.6"
  [ffcv]="ffcv==1.0.2 numpy==2.3.5"
)

for name in $names; do
  $python -m venv "$folder/$name"
  pip=("$folder/$name/bin/python" -m pip --disable-pip-version-check install -q)
  # torchvision without its dependencies: those of its wheel would replace a CPU-only torch by the CUDA build.
  "${pip[@]}" torchvision==0.28.0 --no-deps
  # shellcheck disable=SC2086
  "${pip[@]}" ${peer[$name]} "${work[@]}"
  "$folder/$name/bin/python" -m pip --disable-pip-version-check freeze --exclude-editable >"$folder/$name.txt"
  echo "$name: ready"
done
