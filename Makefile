# make demo | test | test-ci | check | docs | wheel-check | bench | install; everything happens in .venv
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEV_STAMP := $(VENV)/.installed-dev
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
export HF_HUB_DISABLE_TELEMETRY := 1
# The tests start hundreds of processes, each of which would compile every module again where an image sets this.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: install demo test test-ci test-slow torture bench docs wheel wheel-check check lint types clean

install: $(STAMP)

$(BIN)/python:
	$(PYTHON) -m venv $(VENV) || python3 -m venv $(VENV)

$(STAMP): pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing gapless into $(VENV) (torch is large: a minute or two)"
	$(PIP) -e .
	@touch $@

$(DEV_STAMP): $(STAMP)
	$(PIP) -e '.[all,dev,docs,release]'
	@touch $@

demo: $(STAMP)
	$(BIN)/gapless demo --out runs/demo

test: $(DEV_STAMP)
	$(BIN)/python -m pytest -n 3

test-ci: $(DEV_STAMP)
	$(BIN)/python -m pytest -n 2 -m ci --timeout=600

test-slow: $(DEV_STAMP)
	$(BIN)/python -m pytest -n 2 -m slow --timeout=1800

torture: $(DEV_STAMP)
	$(BIN)/python -m pytest -n 2 -m torture -s --timeout=1800 tests/torture

bench: $(DEV_STAMP)
	$(BIN)/python benchmarks/run_all.py --json runs/bench.json

docs: $(DEV_STAMP)
	PYTHONPATH=src $(BIN)/python scripts/build_site.py

wheel: docs
	$(BIN)/python scripts/build_wheel.py

wheel-check: wheel
	$(BIN)/python scripts/check_install.py

check: docs test lint types

lint: $(DEV_STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(DEV_STAMP)
	$(BIN)/mypy

clean:
	rm -rf $(VENV) build dist src/gapless/pages/site *.egg-info src/*.egg-info .pytest_cache .mypy_cache .ruff_cache
