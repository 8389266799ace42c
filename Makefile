# Riverrun. `make` alone tells what there is.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help install up test check bench compare soak faults proof

help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(VENV)/.installed ## Make .venv and install the locked dependencies in it

up: $(VENV)/.installed ## Run everything here; ARGS="--port 9000" is passed on
	@exec $(BIN)/riverrun up $(ARGS)

# All of it by two workers, each with servers of its own, a file of tests at a time: most tests wait for something.
# With ARGS by one process, so that `-x`, `-s` and a debugger are as one expects. Processes are started some hundred times,
# and are to find their modules compiled.
ALL_TESTS := --numprocesses 2 --dist loadfile --no-loadscope-reorder

test: $(VENV)/.installed-dev ## Run the test suite against servers it starts itself; ARGS="tests/domain -x" go to pytest
	@exec env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -m pytest $(or $(strip $(ARGS)),$(ALL_TESTS))

check: $(VENV)/.installed-dev ## Layout, lint, types and the direction of imports
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.installed-dev ## Run the benchmarks with their floors
	@exec $(BIN)/python -m benchmarks $(ARGS)

compare: $(VENV)/.installed-dev ## Riverrun, its nats-server and ejabberd under the same load; ARGS="--rate 100 --rounds 5"
	@exec $(BIN)/python -m benchmarks.compare $(ARGS)

soak: $(VENV)/.installed-dev ## 2,000 clients for 3 minutes, gateways killed; ARGS="--seconds 60 --seed 2" is passed on
	@exec $(BIN)/python -m tests.soak $(ARGS)

faults: $(VENV)/.installed-dev ## Faults into a cluster under load, every message accounted for; ARGS="--seed 2 --only power-lost"
	@exec $(BIN)/python -m tests.faults $(ARGS)

proof: $(VENV)/.installed-dev ## 5 million messages through all tiers, processes killed on the way; ARGS="--messages 200000" is passed on
	@exec $(BIN)/python -m tests.proof $(ARGS)

# Each stamp is newer than what it was made from, so that installing is done once. `-e` needs no build isolation:
# the build's own requirements are in the lock as well, and nothing unlocked is fetched. The locks are complete, so there
# is nothing to resolve.

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Riverrun needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1). Try: make PYTHON=python3.12" >&2; \
	  exit 1; }
	@$(PYTHON) -m venv $(VENV) || { \
	  rm -rf $(VENV); echo "$(PYTHON) could not make $(VENV) (on Debian: apt install python3-venv)" >&2; exit 1; }

$(VENV)/.installed: requirements.lock pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.installed-dev: requirements-dev.lock $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements-dev.lock
	@touch $@
