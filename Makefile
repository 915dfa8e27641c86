# `make report` and `make test` are all a fresh clone needs: Python 3.11 or newer, with venv and pip, and make.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# One thread per process, set before numpy and torch load: parallelism comes from processes.
export OMP_NUM_THREADS := 1
export MKL_NUM_THREADS := 1
export OPENBLAS_NUM_THREADS := 1

.DEFAULT_GOAL := help
.PHONY: help report test notebook lint benchmarks gate clean

help:
	@echo "make report      do the whole homework on embedded data and write its page (two or three minutes)"
	@echo "make test        run the tests"
	@echo "make notebook    run notebooks/homework4.ipynb on embedded data and save it with its outputs"
	@echo "make benchmarks  time the fast code against plain PyTorch, side by side"
	@echo "make gate        judge whether the code became slower or worse than the committed baseline (one to two minutes)"
	@echo "make lint        formatter, linter, type checker"
	@echo "make clean       remove the virtual environment and caches; reports stay"

$(VENV)/ready: pyproject.toml
	@echo "== Setting up $(VENV): torch and friends are installed once, which takes a minute or more"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "hw4 needs Python 3.11 or newer, found %d.%d; name one with make PYTHON=..." % sys.version_info[:2])'
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

report: $(VENV)/ready
	@echo "== Doing the whole homework on the embedded data"
	$(BIN)/hw4 run --data embedded

test: $(VENV)/ready
	@echo "== Running the tests; those on FashionMNIST need HW4_DATA or 'hw4 fetch' and say so when they skip"
	$(BIN)/python -m pytest tests --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

notebook: $(VENV)/ready
	$(BIN)/python -m tests.test_course

lint: $(VENV)/ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

benchmarks: $(VENV)/ready
	$(BIN)/python -m pytest benchmarks

gate: $(VENV)/ready
	$(BIN)/hw4 gate

clean:
	rm -rf $(VENV) .tox .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
