# SPDX-License-Identifier: Apache-2.0
# On a fresh machine `make test` and `make bench` set everything up, in .venv, and then run.

PYTHON ?= $(firstword $(foreach name,python3.11 python3.12 python3.13 python3,$(shell command -v $(name))))
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: help setup test bench docs check format clean

help:
	@echo "make setup    install npusim and all it needs into $(VENV) (PYTHON=... chooses the interpreter)"
	@echo "make test     run the tests"
	@echo "make bench    compare the search strategies; results and report.html in runs/bench"
	@echo "make docs     the texts and the API reference as web pages in build/docs"
	@echo "make check    formatting, lint and types"
	@echo "make clean    remove $(VENV) and caches"

setup: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "npusim: Python must be 3.11 or later, got '$(PYTHON)'; set PYTHON=..." >&2; exit 2; }
	"$(PYTHON)" -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --no-input --constraint constraints.txt --editable '.[dev,search,tensorboard,searchers,bench,plot,report,schemes,rtl,deploy,onnx,tflm,examples]'
	@touch $@

test: setup
	$(BIN)/python -m pytest

bench: setup
	$(BIN)/npusim bench --out runs/bench
	$(BIN)/npusim report runs/bench --out runs/bench/report.html

docs: setup
	$(BIN)/python -m pip install --quiet --no-input --constraint constraints.txt --editable '.[docs]'
	$(BIN)/python docs/build.py

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) build .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
	find benches npusim searchers spaces tests -name __pycache__ -prune -exec rm -rf {} +
