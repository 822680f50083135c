# Two commands for a new user: `make demo` and `make test`. Both make .venv first, from constraints.txt.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo test quick check bench soak clean
MINUTES ?= 60

demo: .venv/.demo
	bash runs/quickstart.sh

test: .venv/.test check
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

quick: .venv/.test check
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m "not slow"

check: .venv/.test
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

bench: .venv/.test
	$(BIN)/python -m bench

soak: .venv/.test
	$(BIN)/python -m bench.soak --minutes $(MINUTES)

clean:
	rm -rf .venv demo-workspace

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/.demo: .venv/bin/python pyproject.toml constraints.txt
	@echo "Installing headrace with training and demo parts into .venv (about 2 GB, a few minutes)"
	$(PIP) -e '.[demo]'
	touch $@

.venv/.test: .venv/bin/python pyproject.toml constraints.txt
	@echo "Installing headrace with its tests into .venv (about 2 GB, a few minutes)"
	$(PIP) -e '.[test,protocols]'
	touch $@ .venv/.demo
