#!/usr/bin/env bash
# Install the exact packages of constraints.txt into the Python that is active, without the code itself: jobs ship it.
# Run it in a folder that holds pyproject.toml and constraints.txt. PORTABLE=1 builds fast-slic without AVX2.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
python -m pip install -q -c constraints.txt -U setuptools wheel cython numpy
if [ "${PORTABLE:-0}" = 1 ]; then
  bash "$here/portable_fast_slic.sh"
fi
python - > /tmp/focusvit-requirements.txt <<'PYTHON'
import tomllib
from pathlib import Path

project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
print("\n".join([*project["dependencies"], *project["optional-dependencies"]["s3"]]))
PYTHON
python -m pip install -q -c constraints.txt --no-build-isolation -r /tmp/focusvit-requirements.txt
