# make run    every notebook on what this machine has, then build/site/index.html
# make test   the whole test suite, notebooks included          make lint   style of code and notebooks
# make lab    JupyterLab                                        make site   the site from what was run
# make system-deps   what only the system's package manager has (Debian and Ubuntu)
#
# PYTHON=python3.12   the Python to build with        VENV=/path   where the environment goes
# PIP_ARGS="…"        passed to pip, e.g. the index of CPU-only torch builds (see the README)
# ARGS="…"            passed to the command: make run ARGS="01_roofline --profile cpu"
# STRICT=1            make test counts skips as failures
# JOBS=4              processes that make test uses for all but notebooks, which measure and run alone

PYTHON ?= python3
VENV ?= .venv
PIP_ARGS ?=
ARGS ?=
JOBS ?= 2
BIN := $(VENV)/bin
READY := $(VENV)/ready
PYTEST := $(BIN)/python -m pytest $(if $(STRICT),--strict-skips)

.PHONY: run test lint lab site doctor format venv system-deps clean

run: venv
	$(BIN)/smml run $(ARGS)

test: venv
	$(PYTEST) --numprocesses=$(JOBS) -m "not notebook" $(ARGS); \
	  first=$$?; [ $$first -le 1 ] || exit $$first; $(PYTEST) -m notebook $(ARGS) && exit $$first

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/smml format --check

format: venv
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/smml format

lab: venv
	$(BIN)/smml lab

site: venv
	$(BIN)/smml site

doctor: venv
	$(BIN)/smml doctor

venv: $(READY)

# The stamp is written last: an interrupted installation starts over, a finished one costs nothing.
$(READY): constraints.txt pyproject.toml
	@test -w . || { echo "make: this checkout is read-only; clone it into a folder you can write: git clone $(CURDIR) ~/smml"; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "make: $(PYTHON) is $$($(PYTHON) -V 2>&1), Python 3.11 or newer is needed: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 2; }
	@echo "Setting up $(VENV) (once; a few minutes, about 3 GB) …"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet $(PIP_ARGS) --constraint constraints.txt --editable '.[dev]'
	@touch $(READY)

# Debian and Ubuntu; elsewhere install the named programs with your own package manager.
SYSTEM_PACKAGES := chromium fonts-dejavu-core
system-deps:
	@command -v apt-get >/dev/null || { echo "make system-deps: needs apt-get; install yourself: $(SYSTEM_PACKAGES)"; exit 2; }
	@if dpkg -s $(SYSTEM_PACKAGES) >/dev/null 2>&1; then echo "system packages are there: $(SYSTEM_PACKAGES)"; else \
	  as_root=$$([ "$$(id -u)" = 0 ] || echo sudo); \
	  $$as_root apt-get update -qq && $$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(SYSTEM_PACKAGES); fi

clean:
	rm -rf build
