# make demo, make test: both set everything up first, and work offline the second time.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Extra options for pip, such as an index of CPU or CUDA builds of torch (see README).
PIP_OPTIONS ?=
READY := $(VENV)/.ready
DEV := $(VENV)/.ready-dev

.PHONY: demo test lint setup clean

demo: $(READY)
	$(BIN)/phystrain demo --output phystrain-demo

test: $(DEV)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m "not slow"

lint: $(DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

setup: $(DEV)

# torch first, and alone: what follows finds it in place and pulls no other build.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "phystrain needs Python 3.11 or newer; say which with: make PYTHON=/path/to/python3.11"; exit 2; }
	@$(PYTHON) -m venv $(VENV) || \
	  { echo "Python cannot make a virtual environment; on Debian: apt-get install python3-venv"; exit 2; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_OPTIONS) -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_OPTIONS) -c constraints.txt -e .
	@touch $(READY)

$(DEV): $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_OPTIONS) -c constraints.txt -e '.[dev]'
	@touch $(DEV)

clean:
	rm -rf $(VENV) build dist phystrain-demo .pytest_cache .mypy_cache .ruff_cache
