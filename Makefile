# Everything a checkout can do. Paths are relative, so a folder with a space in its name works.
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
SHELL := /bin/bash

# Why each: no usage reports; idle threads must sleep (two busy cores otherwise make torch six times slower);
# a quick controller poll, so that a training report is seen at once; albumentations must not ask the network.
export RAY_USAGE_STATS_ENABLED := 0
export MLFLOW_DISABLE_TELEMETRY := true
export OMP_WAIT_POLICY := PASSIVE
export RAY_TRAIN_HEALTH_CHECK_INTERVAL_S := 0.2
export NO_ALBUMENTATIONS_UPDATE := 1

.PHONY: gpu gpu-rehearsal demo test lint triton soak peers bench study transfer-box transfer-study clean
demo: $(VENV)/.ok
	$(BIN)/focusvit demo

test: $(VENV)/.ok-test
	$(BIN)/python -m pytest -m "not soak"

lint: $(VENV)/.ok-test
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy

# fast-slic's setup script needs numpy and cython while it is read, so they come first and isolation is off.
$(VENV)/.ok: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) install -q -c constraints.txt -U setuptools wheel cython numpy
	$(PIP) install -q -c constraints.txt --no-build-isolation -e .
	touch $@

$(VENV)/.ok-test: $(VENV)/.ok
	$(PIP) install -q -c constraints.txt --no-build-isolation -e '.[test]'
	touch $@

$(VENV)/.ok-triton: $(VENV)/.ok-test
	$(PIP) install -q -c constraints.txt --no-build-isolation -e '.[test,triton]'
	touch $@

# The Triton kernels without a GPU: their arithmetic by Triton's interpreter, then their translation for GPUs.
triton: $(VENV)/.ok-triton
	TRITON_INTERPRET=1 $(BIN)/python -m pytest tests/unit/focusvit/segment/test_triton_slic.py
	$(BIN)/python -m pytest tests/unit/focusvit/segment/test_triton_build.py

$(VENV)/.ok-soak: $(VENV)/.ok-test
	$(PIP) install -q -c constraints.txt --no-build-isolation -e '.[test,soak]'
	touch $@

# Kills, outages, peers' readers, a browser. The browser tests need Debian's chromium.
soak: $(VENV)/.ok-soak
	$(BIN)/python -m pytest -m soak

# Speed tables into tests/benchmarks/results, in under an hour. FOCUSVIT_DATA names the folder that holds bsds500/ and the
# photos, PEERS what `make peers` filled. CPU seconds, so that other work on the machine matters little.
PEERS ?=
peers: $(VENV)/.ok-soak
	@test -n "$(PEERS)" || { echo "make peers: set PEERS to a folder for their environments (7 GB)"; exit 2; }
	$(PYTHON) -m venv $(PEERS)/opencv
	$(PEERS)/opencv/bin/python -m pip --disable-pip-version-check install -q opencv-contrib-python-headless==4.12.0.88 numpy==2.2.6
	PYTHON=$(BIN)/python tests/benchmarks/peers/timm.sh $(PEERS)/timm
	PYTHON=$(PYTHON) tests/benchmarks/peers/loader_environments.sh $(PEERS)/loader

bench: $(VENV)/.ok-soak
	$(BIN)/python -m tests.benchmarks preprocess --rounds 3
	$(BIN)/python -m tests.benchmarks superpixels $(if $(PEERS),--opencv-python $(PEERS)/opencv/bin/python)
	$(BIN)/python -m tests.benchmarks scale --sleep-s 4
	$(if $(PEERS),PYTHONPATH=$(PEERS)/timm) $(BIN)/python -m tests.benchmarks model --clock cpu --rounds 2
	$(BIN)/python -m tests.benchmarks original --clock cpu --rounds 2
	$(BIN)/python -m tests.benchmarks train --clock cpu --rounds 3 --steps 8
	$(BIN)/python -m tests.benchmarks transfer --clock cpu --samples 1000 --width 96 --classes 10 --repeats 1 --batches 5
	$(BIN)/python -m tests.benchmarks loader --rounds 3 $(if $(PEERS),--peers $(PEERS)/loader)
	$(BIN)/python -m tests.benchmarks energy --rounds 2
	$(BIN)/python -m tests.benchmarks growth --rounds 2
	$(BIN)/python -m tests.benchmarks slic --clock cpu --rounds 1 --images 25 --batch-sizes 1 64
	$(BIN)/python -m tests.benchmarks edge --batch-sizes 1 --threads 1 --clock cpu --rounds 5

# Every figure that needs a GPU, where torch, NumPy, timm and transformers are; OUT/README.md has all tables. The rehearsal
# runs all of it at toy size on a CPU. GPU_PYTHON is the interpreter that has them; GPU_INPUTS a folder of `bench gpu-inputs`.
OUT ?= tests/benchmarks/results/gpu
GPU_PYTHON ?= python3
GPU_INPUTS ?=
gpu:
	$(GPU_PYTHON) -m tests.benchmarks gpu --out $(OUT) --minutes 9 $(if $(GPU_INPUTS),--inputs $(GPU_INPUTS))

ifeq ($(GPU_PYTHON),python3)
gpu-rehearsal: $(VENV)/.ok-test
gpu-rehearsal: GPU_PYTHON := $(BIN)/python
endif
gpu-rehearsal:
	$(GPU_PYTHON) -m tests.benchmarks gpu --rehearsal --minutes 3 --out build/gpu-rehearsal

# Accuracy beside a plain ViT and the controls; fills what the ledger lacks and goes on with what was stopped, so several
# sittings add up. Each set is made once. Then attention beside the masks of objects.
SETS ?= build/sets
STUDY_SETS := cifar10 tiny-imagenet-40 imagenette
STUDY := tests.benchmarks study --data $(SETS) --sets $(STUDY_SETS) --minutes 6000
study: $(VENV)/.ok-test $(foreach set,$(STUDY_SETS) camvid,$(SETS)/.ok-$(set))
	$(BIN)/python -m $(STUDY) --stage speed
	$(BIN)/python -m $(STUDY) --stage rates
	$(BIN)/python -m $(STUDY)
	$(BIN)/python -m tests.benchmarks objects
	$(BIN)/python -m tests.benchmarks objects --data $(SETS)

# The model in the box in the quick suite and on CamVid; MODELS names more, such as the plain ViT that learned the same.
MODELS ?= focusvit-tiny
TASKS_quick := flowers17 cifar10 tiny-imagenet-40 digits
TASKS_dense := camvid
transfer-box: transfer-box-quick transfer-box-dense
transfer-box-%: $(VENV)/.ok-test $(foreach set,$(TASKS_quick) $(TASKS_dense),$(SETS)/.ok-$(set))
	for model in $(MODELS); do \
	  $(BIN)/focusvit transfer --checkpoint "$$model" --suite $* $(foreach task,$(TASKS_$*),--task $(task)=$(SETS)/$(task)) \
	    --max-samples 2000 --precision bf16 --out build/transfer-box/$*/$$(basename "$$model") \
	    --tracking-uri sqlite:///build/transfer-box.db || exit; \
	done
	$(BIN)/focusvit report build/transfer-box/$* --out tests/benchmarks/results/transfer-box/$*

# Models of CIFAR-10 that the study kept (`study --checkpoints build/study-models`), frozen, on sets that they did not see.
STUDIED ?= build/study-models
transfer-study: $(VENV)/.ok-test $(foreach set,flowers17 tiny-imagenet-40 digits,$(SETS)/.ok-$(set))
	@test -d $(STUDIED)/cifar10 || { echo "make transfer-study: $(STUDIED) holds no models; STUDIED=FOLDER names another"; exit 2; }
	for model in $(STUDIED)/cifar10/*; do \
	  $(BIN)/focusvit transfer --checkpoint "$$model" --suite quick \
	    $(foreach task,flowers17 tiny-imagenet-40 digits,--task $(task)=$(SETS)/$(task)) \
	    --max-samples 2000 --precision bf16 --out build/transfer-study/$$(basename "$$model") \
	    --tracking-uri sqlite:///build/transfer-study.db || exit; \
	done
	$(BIN)/focusvit report build/transfer-study --out tests/benchmarks/results/transfer-study

$(SETS)/.ok-digits: $(VENV)/.ok-test
	$(BIN)/python -c 'import pathlib, pipeline.sources.embedded; pipeline.sources.embedded.write_digits(pathlib.Path("$(SETS)/digits-images"))'
	for split in train val; do \
	  $(BIN)/focusvit preprocess --source $(SETS)/digits-images --out $(SETS)/digits --split $$split || exit; done
	touch $@

$(SETS)/.ok-%: $(VENV)/.ok-test
	@test -n "$(FOCUSVIT_DATA)" || { echo "make: set FOCUSVIT_DATA to the folder that holds $*$(if $(filter imagenette,$*),-224)"; exit 2; }
	for split in train $(if $(filter cifar10,$*),test,val); do \
	  $(BIN)/focusvit preprocess --source "$(FOCUSVIT_DATA)/$*$(if $(filter imagenette,$*),-224)" --out $(SETS)/$* \
	    --split $$split || exit; done
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info demo
