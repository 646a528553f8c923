# make train: install into .venv and train the default run.   make test: what .ci/run runs.   make help
PYTHON ?= python3
BIN := .venv/bin
# A process per core, so one thread each.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --dist loadfile

.PHONY: help train test test-all lint format docs clean

help:
	@grep -hE '^[a-z-]+:.*#' Makefile | sed -E 's/:[^#]*#/\t/'

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

.venv/installed-dev: .venv/installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

train: .venv/installed  # install, then train the default run (a tiny model on synthetic preferences)
	$(BIN)/rmlab

test: .venv/installed-dev lint  # lint, types and the tests, but not the slow ones
	$(PYTEST) -m "not slow"

test-all: .venv/installed-dev lint  # the slow tests too
	$(PYTEST)

lint: .venv/installed-dev  # ruff, mypy, and imports that only go down
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: .venv/installed-dev  # format and mend what ruff can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: .venv/installed-dev  # the documentation, into site/
	$(BIN)/python docs/generate_config.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

clean:  # remove the environment and caches; runs/ stays
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache dist site
