# SPDX-License-Identifier: GPL-2.0-only
# make demo: set up, and the main job on a bundled recording; make test: all tests.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test lint types bench golden clean

demo: $(VENV)/.installed
	$(BIN)/rmaplab compare

test: $(VENV)/.installed-dev
	$(BIN)/pytest -n auto tests

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check src tests tools
	$(BIN)/ruff format --check src tests tools

types: $(VENV)/.installed-dev
	$(BIN)/mypy

bench: $(VENV)/.installed-dev
	$(BIN)/python tools/bench.py

# accept the CLI output of now as what the golden tests expect; read the diff before you commit it
golden: $(VENV)/.installed-dev
	$(BIN)/pytest -q tests/test_golden.py tests/check/test_check_command.py --accept-golden
	git diff --stat -- tests/golden

clean:
	rm -rf $(VENV) build src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

# Debian's python3 makes virtual environments only with python3-venv; root gets it here, others are told.
$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "rmaplab needs Python 3.11 or newer; $(PYTHON) is older" >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || [ "$$(id -u)" -ne 0 ] || apt-get install -qq -y python3-venv
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
		echo "cannot make a virtual environment; on Debian: apt-get install python3-venv" >&2; exit 2; }

$(VENV)/.installed: $(VENV)/bin/python pyproject.toml
	$(BIN)/pip install -q --disable-pip-version-check -e .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/pip install -q --disable-pip-version-check -e '.[dev]'
	touch $@
