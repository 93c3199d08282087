# make demo    set up, train a ResNet-18 on RGB photos, carry it over to 24 channels and to the 12 that it needs, export
# make demo-scratch      train the network of the paper on 24 channels of these photos, compare with RGB
# make demo-detection    the same with Mask R-CNN on real photos with pasted objects
# make test    set up, run the test suite
# make test-openmmlab     the suite's core with the originals: current torch, then torch 2.1 (PYTHON311=python3.11)
# make lint    set up, run the linter
# make docs    set up, build the documentation (work_dirs/site), checking its links
# make clean   remove the demo's data and runs
# VENV=DIR     where the virtual environment is (default .venv);  PYTHON=python3.x  what makes it
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.PHONY: help install demo demo-scratch demo-detection test test-openmmlab lint docs clean

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
$(if $(word 2,$(VENV)),$(error VENV: a path without spaces is needed, got "$(VENV)"))
WORK ?= work_dirs
DEMO_DATA := data/demo/manifest.json
DETECTION_DATA := data/demo_detection/manifest.json
SCRATCH_RUNS := resnet18_demo resnet18-dct24s_demo
DETECTION_RUNS := mask-rcnn_r18_demo mask-rcnn_r18-dct24s_demo
RGB := $(WORK)/resnet18_demo
NATIVE := $(WORK)/demo/24n/resnet18-dct24n_demo
LEARNED := $(WORK)/demo/gate/resnet18-dct12-learned_demo

help:
	@sed -n '/^SHELL/q; s/^# //p' Makefile

install: $(VENV)/.installed

# opencv-python and opencv-python-headless both arrive and share their files: the headless one stays, since it needs no
# system library for windows.
$(VENV)/.installed: setup.py requirements/constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --upgrade pip
	$(BIN)/python -m pip install -c requirements/constraints.txt -e '.[hosts,segmentation,demo,export,turbojpeg,test,docs]'
	$(BIN)/python -m pip uninstall -y opencv-python
	$(BIN)/python -m pip install -c requirements/constraints.txt --force-reinstall --no-deps opencv-python-headless
	$(BIN)/python -c 'import mmfreq, mmpretrain, mmdet; print("mmfreq", mmfreq.__version__, "is ready")'
	touch $@

$(DEMO_DATA): | $(VENV)/.installed
	$(BIN)/python -m demo --out data/demo

$(DETECTION_DATA): | $(VENV)/.installed
	$(BIN)/python -m demo --task detection --out data/demo_detection

# An interrupted training goes on from its last checkpoint (--resume); metrics.json is written last. What is there is
# used as it is, also after a change to a config: "make clean" starts over.
$(SCRATCH_RUNS:%=$(WORK)/%/metrics.json): | $(DEMO_DATA)
$(DETECTION_RUNS:%=$(WORK)/%/metrics.json): | $(DETECTION_DATA)
$(WORK)/%/metrics.json: | configs/demo/%.py
	$(BIN)/python tools/train.py configs/demo/$*.py --work-dir $(WORK)/$* --resume
	$(BIN)/python tools/test.py configs/demo/$*.py $(WORK)/$* --work-dir $(WORK)/$*/test --out $@

$(NATIVE).py: | $(RGB)/metrics.json
	$(BIN)/python tools/freqify.py configs/demo/resnet18_demo.py --channels 24N --weights $(RGB) -o $(NATIVE).py --force

$(LEARNED).pth: | $(RGB)/metrics.json
	$(BIN)/python tools/gate.py configs/demo/resnet18_demo.py $(RGB) --target 12 --steps 100 -o $(@D)

$(NATIVE).json: | $(NATIVE).py
$(LEARNED).json: | $(LEARNED).pth
$(NATIVE).json $(LEARNED).json:
	$(BIN)/python tools/test.py $(@:json=py) $(@:json=pth) --out $@

$(LEARNED).onnx.txt: | $(LEARNED).json
	$(BIN)/python tools/export.py $(LEARNED).py $(LEARNED).pth $(LEARNED).onnx | grep ^export | tee $@

demo: $(NATIVE).json $(LEARNED).onnx.txt
	$(BIN)/python tools/compare.py $(RGB) $(dir $(NATIVE)) $(dir $(LEARNED)) --out $(WORK)/demo/comparison > /dev/null
	@echo; cut -s -d'|' -f1-3,6,7,10,13- $(WORK)/demo/comparison.md; echo; cat $(LEARNED).onnx.txt
	@echo 'the channels that the network needs: $(dir $(LEARNED))gate_heatmap.png'
	@echo 'next, your own network: $(BIN)/mmfreq freqify CONFIG --channels 24N --weights CHECKPOINT'

demo-scratch: $(SCRATCH_RUNS:%=$(WORK)/%/metrics.json)
	$(BIN)/python tools/compare.py $(SCRATCH_RUNS:%=$(WORK)/%) --out $(WORK)/demo-scratch

demo-detection: $(DETECTION_RUNS:%=$(WORK)/%/metrics.json)
	$(BIN)/python tools/compare.py $(DETECTION_RUNS:%=$(WORK)/%) --out $(WORK)/demo-detection

test: $(VENV)/.installed
	$(BIN)/python -m pytest

# The originals, with current torch and with torch 2.1 (which needs Python 3.11 or older). Their setup.py files import
# pkg_resources, which setuptools 81 took out, so they are built without isolation.
PYTHON311 ?= $(PYTHON)
OPENMMLAB := $(VENV)-openmmlab
OPENMMLAB_TORCH21 := $(VENV)-openmmlab-torch21
CORE := tests/dct tests/test_transforms.py tests/test_lazy_resize.py tests/models tests/selection tests/config \
    tests/engine tests/test_hosts.py tests/test_input_spec.py tests/test_training.py tests/test_training_det.py

define set-up-openmmlab
$(1) -m venv $(@D)
$(@D)/bin/python -m pip install -c $(2) torch torchvision numpy 'setuptools<81' wheel
$(@D)/bin/python -m pip install -c $(2) --no-build-isolation mmengine mmcv-lite mmpretrain mmdet
$(@D)/bin/python -m pip install -c $(2) --no-build-isolation -e '.[test]'
touch $@
endef

$(OPENMMLAB)/.installed: setup.py requirements/openmmlab.txt
	$(call set-up-openmmlab,$(PYTHON),requirements/openmmlab.txt)

$(OPENMMLAB_TORCH21)/.installed: setup.py requirements/openmmlab-torch21.txt
	$(call set-up-openmmlab,$(PYTHON311),requirements/openmmlab-torch21.txt)

test-openmmlab: $(OPENMMLAB)/.installed $(OPENMMLAB_TORCH21)/.installed
	$(OPENMMLAB)/bin/python -m pytest $(CORE)
	$(OPENMMLAB_TORCH21)/bin/python -m pytest $(CORE)

lint: $(VENV)/.installed
	$(BIN)/python -m ruff check .

docs: $(VENV)/.installed
	$(BIN)/python -m mkdocs build

clean:
	rm -rf data/demo data/demo_detection $(WORK)/demo $(SCRATCH_RUNS:%=$(WORK)/%) $(DETECTION_RUNS:%=$(WORK)/%)
	rm -f $(foreach suffix,md png json,$(WORK)/demo-scratch.$(suffix) $(WORK)/demo-detection.$(suffix))
