# FlowStack: every command a developer needs. `make help` lists them.
.DEFAULT_GOAL := help
SHELL := /bin/sh

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
IMAGE  := $(VENV)/protos.binpb
FIGURES := $(CURDIR)/$(VENV)/figures.jsonl

export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: help setup run demo migrate test test-long check format gen baseline bench lock clean

help: ## Lists the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## Makes the virtual environment; every other target does so by itself

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "FlowStack needs Python 3.11 or newer; '$(PYTHON)' is older. Set PYTHON=python3.11 or the like."; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' || \
		{ echo "This Python has no venv module. Install it (Debian: apt install python3-venv)."; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

run: $(READY) ## Starts all services, streams one session, and serves until Ctrl-C
	@exec $(BIN)/python -m services --demo

demo: $(READY) ## The same, then exits
	@exec $(BIN)/python -m services --demo --once

migrate: $(READY) ## Brings the schemas of billing's and the vault's databases to their newest revisions
	@$(BIN)/python -m services.billing.migrate
	@$(BIN)/python -m services.vault.migrate

test: $(READY) ## Runs every test
	$(BIN)/python -m pytest -m "not long" -n 3 --dist loadgroup

test-long: $(READY) ## Runs every test, the long ones included, and writes README's table of figures
	@rm -f $(FIGURES)
	FLOWSTACK_FIGURES=$(FIGURES) $(BIN)/python -m pytest
	$(BIN)/python -m tests.figures $(FIGURES)

check: $(READY) ## Format, lint, types, layers, protos, breaking changes, stub drift
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --config pyproject.toml --no-cache
	$(BIN)/python gen/generate.py --image $(IMAGE)
	$(BIN)/buf format --diff --exit-code protos
	$(BIN)/buf lint $(IMAGE) --config buf.yaml --path flowstack
	$(BIN)/buf breaking $(IMAGE) --config buf.yaml --against protos/baseline.binpb --path flowstack
	$(BIN)/python gen/generate.py --check

format: $(READY) ## Formats Python and protos
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/buf format -w protos

gen: $(READY) ## Generates the stubs from protos/
	$(BIN)/python gen/generate.py

baseline: $(READY) ## Takes the present protos as what later ones must be compatible with; at a release
	$(BIN)/python gen/generate.py --baseline protos/baseline.binpb

bench: $(READY) ## Measures, each figure beside its reference in the same run
	$(BIN)/python -m bench

lock: $(READY) ## Resolves requirements.lock anew
	$(BIN)/uv pip compile pyproject.toml --extra services --extra dev --universal --generate-hashes \
		--python-version 3.11 --quiet --output-file requirements.lock

clean: ## Removes the virtual environment and caches; the data folder stays
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
