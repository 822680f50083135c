# Two commands for a new user: `make demo` and `make test`. Both make .venv first, from constraints.txt.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
# --use-pep517: seqeval has a setup.py alone, and the pip of Debian 12 would have setuptools fetch what it asks for.
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --use-pep517 -c constraints.txt

# Hundreds of commands are started by the tests: none compiles headrace again, whatever this environment says.
PYTEST := PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 3 --dist worksteal

.PHONY: demo test quick check bench soak sbom audit clean
MINUTES ?= 60

demo: .venv/.demo
	bash runs/quickstart.sh

test: .venv/.test check
	$(PYTEST)

quick: .venv/.test check
	$(PYTEST) -m "not slow"

check: .venv/.test
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

bench: .venv/.test
	$(BIN)/python -m bench

soak: .venv/.test
	$(BIN)/python -m bench.soak --minutes $(MINUTES)

# Tools that look at an installation are not part of it: they have an environment of their own.
sbom: .venv/.test .venv-audit/bin/cyclonedx-py
	PATH="$(CURDIR)/.venv-audit/bin:$$PATH" $(BIN)/python scripts/sbom.py --out sbom.json

audit: .venv-audit/bin/cyclonedx-py
	.venv-audit/bin/pip-audit --disable-pip --no-deps -r constraints.txt

.venv-audit/bin/cyclonedx-py:
	$(PYTHON) -m venv .venv-audit
	.venv-audit/bin/python -m pip install --quiet --disable-pip-version-check cyclonedx-bom==7.5.0 pip-audit==2.10.1

clean:
	rm -rf .venv .venv-audit demo-workspace

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
