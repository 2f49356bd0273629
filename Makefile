# Everything a contributor needs. `make demo` and `make test` work on a fresh machine with Python 3.11 or newer.
# Variables: PYTHON=python3.12, TESTS=tests/engine, WORKERS=0 (tests in one process), PYTEST_FLAGS=…, PIP_FLAGS=…

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
TESTS ?= tests
WORKERS ?= 3
PIP_FLAGS ?= --quiet --disable-pip-version-check
PYTEST_FLAGS ?=
PYTEST := $(BIN)/pytest $(PYTEST_FLAGS)
CODE := engine alerts dashboard tests setup.py

.PHONY: help
help: ## say what there is
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):[^#]*## /\1\t/' | expand -t 14

.PHONY: demo
demo: $(STAMP) ## everything on simulated models with a scripted incident; Ctrl-C stops it
	@exec $(BIN)/switchgear up --demo

.PHONY: test
test: $(STAMP) ## all tests but the long ones
	$(PYTEST) -n $(WORKERS) -m "not soak and not bench and not screenshots" $(TESTS)

.PHONY: check
check: $(STAMP) ## format, lint, types, import rules, and the tests of the core and of the documents
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/ruff check $(CODE)
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(PYTEST) -n $(WORKERS) -m "not soak and not bench and not screenshots" tests/engine/core tests/test_docs.py

.PHONY: soak
soak: $(STAMP) ## the long tests: kill loops, millions of rows, hundreds of seeds
	$(PYTEST) -m soak --timeout=600 $(TESTS)

.PHONY: bench
bench: $(STAMP) ## the benchmarks
	$(PYTEST) -m bench -s --timeout=1200 $(TESTS)

.PHONY: screenshots
screenshots: $(STAMP) ## the pictures in docs/, taken with Chromium
	$(PYTEST) -m screenshots --timeout=600 $(TESTS)

.PHONY: format
format: $(STAMP) ## lay the code out and correct what can be corrected
	$(BIN)/ruff check --fix $(CODE)
	$(BIN)/ruff format $(CODE)

.PHONY: schema
schema: $(STAMP) ## write data/switchgear.schema.json anew
	$(BIN)/python -m engine.config.schema

.PHONY: clean
clean: ## remove the environment, caches and builds; recorded data stays
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find engine alerts dashboard tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMP): pyproject.toml setup.py constraints.txt
	@python="$(PYTHON)"; \
	for candidate in python3 python3.13 python3.12 python3.11; do \
	  [ -n "$$python" ] || ! $$candidate -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || python=$$candidate; \
	done; \
	[ -n "$$python" ] || { echo "Python 3.11 or newer is needed: install it, or say make PYTHON=/path/to/python3" >&2; exit 2; }; \
	[ -x $(BIN)/python ] || "$$python" -m venv $(VENV)
	$(BIN)/python -m pip install $(PIP_FLAGS) --constraint constraints.txt --editable ".[apprise,dev,oidc,redis,zookeeper]"
	@touch $@
