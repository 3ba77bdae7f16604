# Two commands for a fresh machine: `make demo` and `make test`. Python 3.11 or newer is all they need.
PYTHON ?= python3
OUT ?= gpu-results
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt

.PHONY: demo test test-slow gpu bundle lint audit clean

demo: $(VENV)/ready  ## five minutes on two cores: runs/demo with samples.png in it; stopped, it goes on where it was
	$(BIN)/sagan train $(if $(wildcard runs/demo/config.json),--resume runs/demo,--preset demo --out runs/demo)

test: $(VENV)/ready-dev  ## every test, on all cores
	$(BIN)/python -m pytest -n auto

test-slow: $(VENV)/ready-dev  ## the tests that take minutes: hundreds of SIGKILLs, thousands of damaged files
	$(BIN)/python -m pytest -n auto -m slow

# Without a bundle the packages come from the network, as for the tests.
gpu: $(if $(wildcard gpu-bundle/wheels),,$(VENV)/ready-dev)  ## on a CUDA GPU, eleven minutes: is it right there, how fast, what does it train to? (docs/gpu.md)
	OUT=$(OUT) PYTHON=$(if $(wildcard gpu-bundle/wheels),$(PYTHON),$(BIN)/python) sh benchmarks/gpu/start.sh

bundle: $(VENV)/ready-dev  ## what a GPU machine without a network lacks, into gpu-bundle/; PEERS: folder of checkouts
	$(BIN)/python benchmarks/gpu/bundle.py $(if $(PEERS),--peers $(PEERS)) $(BUNDLE)

lint: $(VENV)/ready-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# --strict: a package that could not be looked up, as all are without a network, is no package without known holes.
audit: $(VENV)/ready  ## the pinned packages against the advisories that PyPI publishes
	$(PYTHON) -m venv $(VENV)/audit
	$(VENV)/audit/bin/python -m pip install -q --disable-pip-version-check pip-audit==2.10.1
	$(VENV)/audit/bin/pip-audit --strict --no-deps --disable-pip -r constraints.txt

# torch first and by its pin: left to itself, pip would fetch the newest build with gigabytes of CUDA libraries.
$(VENV)/ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "sagan needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)
	$(PIP) torch
	$(PIP) -e '.[metrics]'
	touch $@

$(VENV)/ready-dev: $(VENV)/ready
	$(PIP) -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache
