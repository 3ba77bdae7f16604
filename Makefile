# Two commands for a fresh machine: `make demo` and `make test`. They require only Python 3.11 or newer.
PYTHON ?= python3
OUT ?= gpu-results
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt

.PHONY: demo test test-slow gpu bundle lint docs package audit clean

# The modules that docs/ names, with what their __all__ lists, or else with all that has no underscore. Two functions of
# sagan have the names of their modules, which are excluded.
API := sagan sagan.config sagan.data sagan.explorer sagan.figures.attention sagan.figures.interpolation \
	sagan.metrics.grid_power sagan.metrics.twins sagan.pixels sagan.render.attention sagan.run

demo: $(VENV)/ready  ## five minutes on two cores: writes runs/demo/samples.png; run it again to resume
	$(BIN)/sagan train $(if $(wildcard runs/demo/config.json),--resume runs/demo,--preset demo --out runs/demo)

test: $(VENV)/ready-dev  ## every test, on all cores
	$(BIN)/python -m pytest -n auto

test-slow: $(VENV)/ready-dev  ## the tests that take minutes: hundreds of SIGKILLs, thousands of damaged files
	$(BIN)/python -m pytest -n auto -m slow

# Without a bundle the packages are downloaded, as for the tests.
gpu: $(if $(wildcard gpu-bundle/wheels),,$(VENV)/ready-dev)  ## on a CUDA GPU, thirteen minutes: correctness, speed, a short training run (docs/gpu.md)
	OUT=$(OUT) PYTHON=$(if $(wildcard gpu-bundle/wheels),$(PYTHON),$(BIN)/python) sh benchmarks/gpu/start.sh

bundle: $(VENV)/ready-dev  ## pack what a GPU machine without a network needs into gpu-bundle/; PEERS: folder of checkouts
	$(BIN)/python benchmarks/gpu/bundle.py $(if $(PEERS),--peers $(PEERS)) $(BUNDLE)

lint: $(VENV)/ready-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/ready-dev  ## the API reference, from the docstrings: build/docs/index.html
	$(BIN)/python -W error -m pdoc --docformat google --no-show-source -o build/docs \
		--footer-text 'Public is what sagan exports; other modules may move in any version.' $(API) '!sagan.attention_maps' '!sagan.attention_effect'

package: $(VENV)/ready-dev  ## the wheel and the sdist: dist/ (tests/test_package.py tries both, in make test-slow)
	$(BIN)/python -m build -q

# --strict: fail if a package could not be looked up, for example without a network.
audit: $(VENV)/ready  ## look up the pinned packages in PyPI's advisories
	$(PYTHON) -m venv $(VENV)/audit
	$(VENV)/audit/bin/python -m pip install -q --disable-pip-version-check pip-audit==2.10.1
	$(VENV)/audit/bin/pip-audit --strict --no-deps --disable-pip -r constraints.txt

# torch first and by its pin: by default pip would download the newest build with gigabytes of CUDA libraries.
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
