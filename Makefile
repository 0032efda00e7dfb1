# SPDX-License-Identifier: Apache-2.0
# Every target makes the environment first, if need be: CPython 3.11 is all that has to be there.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# The first of these that is a CPython 3.11 (a version manager's shim may be there and not work).
PYTHON ?= $(firstword $(foreach p,python3.11 python3 python,$(shell \
	command -v $(p) >/dev/null && $(p) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null && echo $(p))))
VENV := .venv
BIN := $(VENV)/bin
MADE := $(VENV)/.made
UNFINISHED := $(VENV)/.unfinished
# One set-up at a time, where there is flock: a second `make` waits, and finds it done.
LOCK := $(shell command -v flock >/dev/null && echo "flock Makefile")

# Processes that run tests side by side. Each takes up to 3 GB.
WORKERS ?= 2

.PHONY: help setup port test test-all lint docs format bench doctor constraints clean

help:  ## show this
	@grep -hE '^[a-z-]+:.*##' Makefile | sed -E 's/:[^#]*## /\t/' | awk -F'\t' '{printf "  make %-12s %s\n", $$1, $$2}'

port: $(MADE)  ## the main job: a real checkpoint on every engine and precision, with proof; leaves it in ports/
	@$(BIN)/paritas demo --out ports

test: $(MADE)  ## the tests
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "not slow"

test-all: $(MADE)  ## the tests, the long ones at real sizes too
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

lint: $(MADE)  ## style and types
	$(BIN)/ruff check src tests benchmarks examples docs/generate.py hatch_build.py
	$(BIN)/ruff format --check src tests benchmarks examples docs/generate.py hatch_build.py
	$(BIN)/mypy

docs: $(MADE)  ## write the generated parts of README.md and docs/ again
	$(BIN)/python docs/generate.py
	$(BIN)/python docs/stubs.py

format: $(MADE)  ## put style right where a machine can
	$(BIN)/ruff check --fix src tests benchmarks examples docs/generate.py hatch_build.py
	$(BIN)/ruff format src tests benchmarks examples docs/generate.py hatch_build.py

bench: $(MADE)  ## measure speed and parity at real sizes: the tables of docs/benchmarks.md, by make docs
	@for file in benchmarks/[a-z]*.py; do if grep -q __main__ "$$file"; then $(BIN)/python "$$file"; fi; done

doctor: $(MADE)  ## which engines work here
	@$(BIN)/paritas doctor

setup: $(MADE)  ## make the environment in .venv, and nothing else

# A set-up that was interrupted leaves $(UNFINISHED), and is begun anew: pip would take a half-written package for
# a whole one. A .venv without that mark is completed, never emptied.
$(MADE): pyproject.toml constraints.txt tests/clip/requirements.txt tests/training/requirements.txt tests/training/requirements-zero.txt
	@test -n "$(PYTHON)" || { echo "Paritas is built with Python 3.11, and none is here. Install it, or: make PYTHON=/path/to/python3.11" >&2; exit 2; }
	@$(LOCK) $(SHELL) -euo pipefail -c '\
		if [ $(MADE) -nt pyproject.toml ] && [ $(MADE) -nt constraints.txt ] && [ $(MADE) -nt tests/clip/requirements.txt ] && [ $(MADE) -nt tests/training/requirements.txt ] && [ $(MADE) -nt tests/training/requirements-zero.txt ]; then exit 0; fi; \
		if [ -e $(UNFINISHED) ] || ! $(BIN)/python -m pip --version >/dev/null 2>&1; then \
			echo "making $(VENV) with $(PYTHON): a few minutes, about 3 GB"; \
			$(PYTHON) -m venv --clear $(VENV); \
			touch $(UNFINISHED); \
		else echo "bringing $(VENV) up to date"; fi; \
		touch $(UNFINISHED); \
		export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1; \
		$(BIN)/python -m pip install -q -c constraints.txt pip; \
		$(BIN)/python -m pip install -q -c constraints.txt --build-constraint constraints.txt -e ".[all]"; \
		$(BIN)/python -m pip install -q --no-deps --upgrade --target $(VENV)/apart -r tests/clip/requirements.txt; \
		$(BIN)/python -m pip install -q --no-deps --upgrade --target $(VENV)/trainer -r tests/training/requirements.txt; \
		$(BIN)/python -m pip install -q --no-deps --upgrade --target $(VENV)/zero -r tests/training/requirements-zero.txt; \
		rm $(UNFINISHED); \
		touch $(MADE)'

constraints:  ## find the newest versions that fit, and write them to constraints.txt
	@folder=$$(mktemp -d); trap 'rm -rf "$$folder"' EXIT; \
	$(PYTHON) -m venv "$$folder/venv"; \
	"$$folder/venv/bin/pip" install -q -U pip; \
	"$$folder/venv/bin/pip" install -q "torch>=2.13,<2.14" ".[all]" hatchling editables; \
	{ sed -n '/^#/p' constraints.txt; \
	  "$$folder/venv/bin/pip" freeze --all | grep -v -i '^paritas' | sed -E 's/\+[a-z0-9.]+$$//'; } > "$$folder/new"; \
	mv "$$folder/new" constraints.txt

clean:  ## remove the environment, caches and ports
	rm -rf $(VENV) ports .pytest_cache .ruff_cache .mypy_cache .hypothesis
