# Each environment under .venvs/ is made from one hash-locked file in configs/locks/, each model under models/
# from its card. Stamps remember what is done, so that only what changed is done again.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help

# Settings of the caller's own pip and Python that would misplace what is installed here.
unexport PIP_USER PIP_TARGET PIP_PREFIX PIP_REQUIRE_VIRTUALENV PYTHONPATH PYTHONHOME VIRTUAL_ENV CONDA_PREFIX
export UV_PYTHON_DOWNLOADS := never

# In an unpacked bundle (docs/offline.md) everything comes from it, and nothing is looked for anywhere else.
BUNDLE := $(wildcard offline/bundle.json)
ifdef BUNDLE
unexport PIP_INDEX_URL PIP_EXTRA_INDEX_URL UV_INDEX_URL UV_EXTRA_INDEX_URL UV_DEFAULT_INDEX UV_INDEX UV_TORCH_BACKEND
export PIP_CONFIG_FILE := /dev/null
export PIP_NO_INDEX := 1
export PIP_FIND_LINKS := offline/wheels
export UV_NO_CONFIG := 1
export UV_NO_INDEX := 1
export UV_OFFLINE := 1
export UV_FIND_LINKS := offline/wheels
export UV_CACHE_DIR := .venvs/.cache
AUDIT ?= offline
# An index of your own that pip knows serves uv too, which doesn't read pip's settings.
else ifdef PIP_INDEX_URL
export UV_DEFAULT_INDEX ?= $(PIP_INDEX_URL)
endif

GPU := $(or $(wildcard /proc/driver/nvidia/version),$(shell nvidia-smi -L 2>/dev/null))
DEVICE ?= $(if $(GPU),cuda,cpu)

GPU_MODEL := qwen3-8b-awq
ifeq ($(DEVICE) $(wildcard models/$(GPU_MODEL)/weights/manifest.json),cuda models/$(GPU_MODEL)/weights/manifest.json)
CONFIG ?= configs/appliance.gpu.yaml
else
CONFIG ?= configs/appliance.yaml
endif

# 3.11 is what the locks were made for: torch's CPU build is one file for each Python.
PYTHON ?= $(shell for python in python3 python3.11; do \
	"$$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null && echo "$$python" && break; done)

LOCKS := configs/locks
SETS := $(if $(and $(BUNDLE),$(PYTHON)),$(shell $(PYTHON) -c 'import json; print(*json.load(open("$(BUNDLE)"))["sets"])'))
UV := .venvs/uv/bin/uv
RUN := .venvs/dev/bin/python -m
APPLIANCE := .venvs/gateway/bin/appliance

# The cards that the config names, and those that tests need.
CARDS := $(patsubst models/%/card.yaml,%,$(wildcard models/*/card.yaml))
SERVED = $(filter $(CARDS),$(shell sed -nE 's/^ *card: *([A-Za-z0-9._-]+).*/\1/p' $(CONFIG) 2>/dev/null))
TESTED := smollm2-135m-int8 smollm2-135m-bnb4 minilm-l6
weights = $(foreach model,$(1),models/$(model)/weights/manifest.json)

## serve       set up what is missing, then serve CONFIG
.PHONY: serve
serve: .venvs/gateway/.ready .venvs/engine/.ready-$(DEVICE) $(call weights,$(SERVED))
	@$(if $(filter cuda,$(DEVICE)),$(if $(filter %.gpu.yaml,$(CONFIG)),,echo "This machine has a GPU. For the 8B model: put Qwen3-8B-AWQ into models/$(GPU_MODEL)/incoming, run '$(APPLIANCE) models prepare $(GPU_MODEL)', then 'make serve' again."))
	@exec $(APPLIANCE) serve --config $(CONFIG)

# Most tests wait for processes, so that two at once take little more than half the time.
PYTEST := pytest -n 2

## test        every test but the long ones, with the real engine and real models
.PHONY: test test-long check bench
test: tested
	@$(RUN) $(PYTEST) -m "not long" $(ARGS)

## test-long   soak, fuzz and fault series
test-long: tested
	@$(RUN) pytest -m long $(ARGS)

## check       what a reviewer would: advisories, format, lint, types, imports, then the tests
check: tested audit
	@$(RUN) ruff format --check
	@$(RUN) ruff check
	@$(RUN) mypy
	@.venvs/dev/bin/lint-imports
	@$(RUN) $(PYTEST) -m "not long" $(ARGS)

## audit       ask an advisory service about every locked package (OSV_URL=: your own; AUDIT=offline: don't)
.PHONY: audit
audit: .venvs/dev/.ready
	@.venvs/dev/bin/python .ci/audit.py $(if $(filter offline,$(AUDIT)),--offline) $(if $(OSV_URL),--osv-url $(OSV_URL)) \
		$(addprefix $(LOCKS)/,uv.txt gateway.txt dev.txt engine-cpu.txt engine-cuda.txt prepare.txt evaluate.txt)

## bench       measure CONFIG against its objectives
bench: tested $(call weights,$(SERVED))
	@$(RUN) benchmarks.bench --config $(CONFIG) $(ARGS)

.PHONY: tested
tested: .venvs/prepare/.ready .venvs/evaluate/.ready .venvs/dev/.ready .venvs/gateway/.ready .venvs/engine/.ready-$(DEVICE) $(call weights,$(TESTED))

## reference   rewrite the pages that are derived from the code
.PHONY: reference
reference: .venvs/dev/.ready
	@$(RUN) appliance.reference

## lock        record versions and hashes of what pyproject.toml and configs/locks/*.in name (UPGRADE=1: newest)
# $(call compile,name,sources and further arguments): a lock that stays as it is, keeps its time stamp.
define compile
cp $(LOCKS)/$(1).txt .venvs/$(1).lock 2>/dev/null || true; \
$(UV) pip compile --quiet $(if $(UPGRADE),--upgrade) --generate-hashes --no-header --no-emit-index-url \
	--no-emit-find-links --python-version 3.11 --python-platform x86_64-manylinux_2_28 \
	--output-file .venvs/$(1).lock $(2); \
cmp --silent .venvs/$(1).lock $(LOCKS)/$(1).txt || { mv .venvs/$(1).lock $(LOCKS)/$(1).txt; echo "  $(1) has changed"; }; \
rm -f .venvs/$(1).lock
endef
.PHONY: lock
lock: $(UV)
	@echo "Resolving seven sets of packages: about 15 seconds ..."
	@$(call compile,uv,$(LOCKS)/uv.in)
	@$(call compile,gateway,pyproject.toml --override $(LOCKS)/without-sdk.txt)
	@$(call compile,dev,pyproject.toml $(LOCKS)/dev.in --constraint $(LOCKS)/gateway.txt --override $(LOCKS)/without-sdk.txt)
	@$(call compile,engine-cpu,$(LOCKS)/engine-cpu.in --override $(LOCKS)/without-gpu.txt $(TORCH_CPU))
	@$(call compile,engine-cuda,$(LOCKS)/engine-cuda.in --override $(LOCKS)/with-gpu.txt)
	@$(call compile,prepare,$(LOCKS)/prepare.in --override $(LOCKS)/without-gpu.txt $(TORCH_CPU))
	@$(call compile,evaluate,$(LOCKS)/evaluate.in --override $(LOCKS)/without-clouds.txt)

## install-offline  set everything up from this unpacked bundle, without a network (docs/offline.md)
# Checked anew each time, and what was installed before goes first: what stands then came out of the bundle.
.PHONY: install-offline
install-offline:
	@$(if $(BUNDLE),,echo "This is no unpacked bundle. On a machine with a network, '$(APPLIANCE) bundle --output FOLDER' makes one: docs/offline.md" >&2; exit 1)
	@$(needs_python)
	@rm -f .venvs/.checked
	@$(MAKE) .venvs/.checked
	@rm -rf .venvs/*/
	@$(MAKE) gateway engine $(filter prepare evaluate dev,$(SETS))
	@rm -rf .venvs/.cache
	@echo "Installed. Next: make serve"

.venvs/.checked: SHA256SUMS
	@find . -path ./.venvs -prune -o -name __pycache__ -prune -exec rm -rf {} +
	@$(PYTHON) -B -m appliance.bundle.check --device $(DEVICE)
	@mkdir -p .venvs && touch $@ $(wildcard models/*/weights/manifest.json)

SHA256SUMS:
	@echo "SHA256SUMS is missing: this is no whole bundle. Copy or unpack it again." >&2; exit 1

## clean       remove environments and caches; prepared models and state stay
.PHONY: clean
clean:
	rm -rf .venvs .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find appliance benchmarks tests -name __pycache__ -prune -exec rm -rf {} +

.PHONY: help
help:
	@echo "An inference appliance. Start here:  make serve"
	@echo
	@sed -n 's/^## /  make /p' $(MAKEFILE_LIST)
	@echo
	@echo "CONFIG=$(CONFIG)  DEVICE=$(DEVICE)$(if $(GPU),, (no NVIDIA GPU found))   both can be set: make serve CONFIG=my.yaml"

# --- Environments ---------------------------------------------------------------------------------------------

# torch for the CPU isn't on the common index: from a folder that pip has been told of, else from PyTorch's own.
TORCH_CPU := $(if $(PIP_FIND_LINKS),$(addprefix --find-links ,$(PIP_FIND_LINKS)),--torch-backend cpu)

needs_python = $(if $(PYTHON),,echo "Python 3.11 is needed (Debian 12: apt install python3 python3-venv). If it is elsewhere: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)" >&2; exit 1)

$(UV): $(LOCKS)/uv.txt $(if $(BUNDLE),| .venvs/.checked)
	@$(needs_python)
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "Python can't make environments. Install its venv package: apt install python3-venv" >&2; exit 1; }
	@echo "Setting up uv, the installer: a few seconds ..."
	@$(PYTHON) -m venv --clear .venvs/uv
	@.venvs/uv/bin/python -m pip install -qq --disable-pip-version-check --require-hashes -r $<
	@touch $@

# $(call environment,name,lock,further arguments): a fresh environment that holds exactly what is locked.
# One at a time: a second make waits here, and then finds the work done. The engine's bytecode is written now,
# because later, sealed, it can't write its own.
define environment
$(if $(and $(BUNDLE),$(filter-out $(SETS),$(2))),echo "This bundle was made without $(1): docs/offline.md" >&2; exit 1;) \
exec 9> .venvs/.lock; flock 9; [[ $@ -nt $< ]] && exit; \
$(UV) venv --quiet --clear --relocatable --python $(PYTHON) .venvs/$(1); \
$(UV) pip sync $$([ -t 2 ] || echo --quiet) --require-hashes $(if $(filter engine,$(1)),--compile-bytecode) \
	--python .venvs/$(1)/bin/python $(3) $(LOCKS)/$(2).txt; \
$(if $(filter gateway dev,$(1)),$(link);) touch $@
endef

# The project itself, found from an environment by a relative path, so that the checkout can be moved.
define link
echo ../../../../.. > .venvs/$(1)/lib/python3.11/site-packages/appliance.pth; \
printf '#!/bin/sh\nexec "$$(dirname "$$0")/python" -P -m appliance "$$@"\n' > .venvs/$(1)/bin/appliance; \
chmod +x .venvs/$(1)/bin/appliance
endef

# vLLM for the CPU wants one small library that not every host has. On Debian and Ubuntu its package is fetched and
# unpacked beside the engine: nothing on the host changes, and no root is needed.
define libnuma
.venvs/engine/bin/python -c 'import ctypes; ctypes.CDLL("libnuma.so.1")' 2>/dev/null && exit; \
rm -rf .venvs/engine/.libnuma; mkdir .venvs/engine/.libnuma; cd .venvs/engine/.libnuma; \
if $(if $(BUNDLE),cp ../../../offline/packages/libnuma1*.deb .,apt-get -qq download libnuma1) 2>/dev/null && dpkg-deb --extract libnuma1*.deb . ; \
then cp -P usr/lib/*/libnuma.so.1* ../lib/; \
else rm -f ../.ready-cpu; echo "The engine needs the library libnuma.so.1. Install it: apt install libnuma1" >&2; exit 1; fi
endef

.venvs/gateway/.ready: $(LOCKS)/gateway.txt | $(UV)
	@echo "Setting up the gateway: a few seconds ..."
	@$(call environment,gateway,gateway)

.venvs/dev/.ready: $(LOCKS)/dev.txt | $(UV)
	@echo "Setting up the test tools: about 10 seconds ..."
	@$(call environment,dev,dev)

.venvs/engine/.ready-cpu: $(LOCKS)/engine-cpu.txt | $(UV)
	@echo "Setting up the engine, vLLM for the CPU (2 GB): half a minute to a few minutes ..."
	@$(call environment,engine,engine-cpu,$(TORCH_CPU))
	@$(libnuma)

.venvs/engine/.ready-cuda: $(LOCKS)/engine-cuda.txt | $(UV)
	@echo "Setting up the engine, vLLM for NVIDIA GPUs (10 GB): a few minutes ..."
	@$(call environment,engine,engine-cuda)

.venvs/prepare/.ready: $(LOCKS)/prepare.txt | $(UV)
	@echo "Setting up the tools that prepare models, with two small models inside (1 GB): up to a minute ..."
	@$(call environment,prepare,prepare,$(TORCH_CPU))

.venvs/evaluate/.ready: $(LOCKS)/evaluate.txt | $(UV)
	@echo "Setting up the tools that evaluate models: a few seconds ..."
	@$(call environment,evaluate,evaluate)

.PHONY: gateway dev engine prepare evaluate
gateway dev prepare evaluate: %: .venvs/%/.ready
engine: .venvs/engine/.ready-$(DEVICE)

# --- Models ---------------------------------------------------------------------------------------------------

# A bundle may have left the tools behind; what it brought prepared needs none.
models/%/weights/manifest.json: models/%/card.yaml | .venvs/gateway/.ready $(if $(and $(BUNDLE),$(filter-out $(SETS),prepare)),,.venvs/prepare/.ready)
	@echo "Preparing the model $*: up to a minute ..."
	@$(APPLIANCE) models prepare $*
	@touch $@
