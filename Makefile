# Everything runs in .venv, which `make setup` makes; every target is safe to run twice.
# Another Python: make setup PYTHON=python3.12

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
VIEWER_TOOLS := $(VENV)/.viewer-tools
PIP_INSTALL := $(BIN)/python -m pip install --disable-pip-version-check

.PHONY: setup demo test coverage lint types fmt wheel sbom docs ci
.DELETE_ON_ERROR:

setup: $(INSTALLED) $(VIEWER_TOOLS)

demo: setup
	$(BIN)/clickvol demo

# Compiled modules are kept, whatever the shell says: compiling all tests takes each worker ten seconds.
test: setup
	PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --durations=20

# Lines of the package that its tests run, by folder, those of other processes too; fails below 90 % of what users touch.
coverage: setup
	OMP_NUM_THREADS=1 $(BIN)/python .ci/coverage

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# The package, and a program of a user of it from outside, by two judges.
types: setup
	$(BIN)/mypy
	$(BIN)/mypy --config-file= --cache-dir .mypy_cache/user --strict --follow-imports=silent tests/user_types/user_program.py
	@[ ! -d node_modules/pyright ] || node_modules/.bin/pyright -p tests/user_types --pythonpath $(BIN)/python

fmt: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# dist/clickvol-VERSION-py3-none-any.whl and the sdist, equal byte for byte whoever makes them.
wheel: setup
	.ci/wheel

# What an installation with every extra consists of, and by which licences: dist/clickvol.cdx.json, dist/licences.json.
sbom: setup
	$(BIN)/python .ci/sbom

# The site of docs/, made offline: open build/site/index.html.
docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

ci:
	.ci/run

# pip is the last thing that venv makes: without it the folder is unfinished and made anew.
$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: clickvol needs Python 3.11 or newer; install it, then: make setup PYTHON=python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "error: this Python cannot make virtual environments; on Debian: apt-get install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)

# A browser and Node's tools; where they cannot be had it says so, and what needs them is skipped.
$(VIEWER_TOOLS): package-lock.json .ci/viewer-tools | $(BIN)/pip
	@.ci/viewer-tools
	@touch $@

# The stamp is older than these two files as soon as one of them changes.
$(INSTALLED): pyproject.toml constraints.txt | $(BIN)/pip
	$(PIP_INSTALL) -c constraints.txt -e ".[dev]"
	@touch $@
