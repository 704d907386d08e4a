# Needs Python 3.10 or newer and make; uses uv when it is on PATH, else venv and pip.
#
#   make plan ARGS="--model llama-3.1-8b --hardware h100-sxm-80gb --tp 8 --context 32k --batch-size 64"
#   make test        the tests, with everything they need
#   make check       lint, types, layers and test, each of which can be run alone
#   make slow        the tests that take longer
#   make fuzz        20,000 damaged files, special files and command lines
#   make nightly     the laws of numbers, with a thousand random examples each and a second implementation
#   make bench       how fast everything is, to bench.json: machine, versions and figures
#   make bench-compare WITH=before.json      the same, as ratios to a saved one, or to another version's folder
#   make versions    which engines are newer on the package index than those that were checked
#   make golden      ask the questions of tests/golden again, show what changed and hold it
#   make docs        the documentation as a site in build/site, which needs no network to be read
#   make docs-record today's answers and figures into README and docs; DOCS_ARGS=--check only compares
#   make wheel       the wheel and the source distribution in dist/, the same bytes for the same commit
#   make sbom        dist/draftplan.cdx.json, a CycloneDX bill of materials of the core and the runtime extras
#   make licences    the table of docs/licences.md, from what is installed
#   make audit       known weaknesses of the pinned versions; Error 3 where the service has no answer
#   make matrix      the tests on every supported Python, PYTHONS="3.10 3.14" for some; with uv where present
#   make clean       remove what the others made

PYTHON ?= python3
ARGS ?= --model llama-3.1-8b --hardware h100-sxm-80gb --tp 8 --context 32k --batch-size 32,64,128

# PyTorch is installed first and alone, from its index of CPU builds. Where that cannot be reached, or TORCH_INDEX is
# empty, it comes from the usual index, whose Linux builds bring the GPU libraries.
TORCH := torch==2.13.0
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu

# What someone who uses the product may install; PyTorch is left to them.
RUNTIME := all

VENV := .venv
BIN := $(VENV)/bin
UV := $(shell command -v uv 2>/dev/null)
ifeq ($(UV),)
CREATE = $(PYTHON) -m venv $(VENV)
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check
ONE_TRY := --retries 1 --timeout 30
else
CREATE = $(UV) venv --quiet --allow-existing --python $(PYTHON) $(VENV)
INSTALL := $(UV) pip install --quiet --python $(BIN)/python
ONE_TRY :=
endif

INPUTS := setup.cfg pyproject.toml constraints.txt perfmodel/_version.py
PLAN_READY := $(VENV)/.ready-to-plan
TEST_READY := $(VENV)/.ready-to-test
DOCS_READY := $(VENV)/.ready-for-docs

.PHONY: plan test check lint types layers slow nightly fuzz bench bench-compare golden versions coverage constraints wheel sbom \
    licences audit matrix docs docs-record clean

plan: $(PLAN_READY)
	@$(BIN)/draftplan plan $(ARGS)

test: $(TEST_READY)
	$(BIN)/python -m pytest -n 2 --dist worksteal

check: lint types layers test

lint: $(TEST_READY)
	$(BIN)/ruff check

types: $(TEST_READY)
	$(BIN)/mypy
	$(BIN)/mypy --python-version 3.10

layers: $(TEST_READY)
	$(BIN)/lint-imports --no-cache --no-logo

slow: $(TEST_READY)
	$(BIN)/python -m pytest -m slow

nightly: $(TEST_READY)
	$(BIN)/python -m pytest --hypothesis-profile=deep -m "not bench" -n 2 --dist worksteal \
	    tests/test_oracle.py tests/properties tests/test_speculation.py tests/test_memory.py tests/latency

fuzz: $(TEST_READY)
	cd tests && ../$(BIN)/python -m fuzz

bench: $(TEST_READY)
	cd tests && ../$(BIN)/python -m speed --output ../bench.json
	$(BIN)/python -m pytest -m bench

WITH ?= bench.json
bench-compare: $(TEST_READY)
	cd tests && ../$(BIN)/python -m speed --beside $(abspath $(WITH))

golden: $(TEST_READY)
	cd tests && ../$(BIN)/python -m golden

versions: $(PLAN_READY)
	@$(BIN)/python -m perfmodel.software.checked

coverage: $(TEST_READY)
	$(INSTALL) --constraint constraints.txt coverage
	$(BIN)/coverage run -m pytest
	$(BIN)/coverage report

docs: $(DOCS_READY)
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --clean \
	    --config-file docs/site/mkdocs.yml
	@echo "The site is at build/site/index.html"

docs-record: $(TEST_READY)
	cd tests && ../$(BIN)/python -m pages $(DOCS_ARGS)

wheel: $(TEST_READY)
	cd tests && ../$(BIN)/python -m supply.wheel

# In an environment of its own, which has what a user installs and nothing else.
sbom:
	rm -rf build/sbom && $(PYTHON) -m venv --without-pip build/sbom
	$(PYTHON) -m venv build/tools && build/tools/bin/python -m pip install --quiet 'cyclonedx-bom>=7,<8'
	build/tools/bin/python -m pip --python build/sbom/bin/python install --quiet --constraint constraints.txt \
	    ".[$(RUNTIME)]"
	mkdir -p dist && build/tools/bin/cyclonedx-py environment --output-reproducible --output-format JSON \
	    --output-file dist/draftplan.cdx.json build/sbom/bin/python
	cd tests && $(PYTHON) -m supply.sbom ../dist/draftplan.cdx.json

licences: $(TEST_READY)
	$(INSTALL) --constraint constraints.txt --editable ".[$(RUNTIME)]"
	cd tests && ../$(BIN)/python -m supply.licences

audit:
	@$(PYTHON) -m venv build/tools && build/tools/bin/python -m pip install --quiet 'pip-audit>=2.10,<3'
	@cd tests && ../build/tools/bin/python -m supply.audit

matrix:
	@cd tests && $(PYTHON) -m supply.matrix $(PYTHONS)

# The latest versions that go together, for every supported Python and platform; needs uv.
constraints:
	printf '%s\n' filelock fsspec jinja2 networkx 'sympy>=1.13.3' | uv pip compile --quiet --upgrade \
	    --universal --python-version 3.10 --no-annotate --no-emit-index-url \
	    --custom-compile-command 'make constraints' --output-file constraints.txt \
	    --extra dev --extra notebooks --extra all --extra docs setup.cfg -

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .hypothesis .benchmarks .mypy_cache .ruff_cache \
	    .import_linter_cache .coverage htmlcov
	find perfmodel strategies hardware_profiles tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(CREATE) || { echo "make: $(PYTHON) could not make $(VENV); on Debian and Ubuntu: apt install python3-venv, or set PYTHON" >&2; \
	    rm -rf $(VENV); exit 1; }
	@$@ -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { rm -rf $(VENV); \
	    echo "make: $(PYTHON) is older than 3.10; name a newer one: make PYTHON=python3.12" >&2; exit 1; }

$(PLAN_READY): $(INPUTS) | $(BIN)/python
	@echo "Installing draftplan into $(VENV) ..." >&2
	@$(INSTALL) --constraint constraints.txt --editable ".[report,explore]"
	@touch $@

$(DOCS_READY): $(INPUTS) | $(BIN)/python
	@echo "Installing what the site needs into $(VENV) ..." >&2
	@$(INSTALL) --constraint constraints.txt --editable ".[docs]"
	@touch $@

$(TEST_READY): $(INPUTS) | $(BIN)/python
	@echo "Installing what the tests need into $(VENV) ..." >&2
	@{ [ -n "$(TORCH_INDEX)" ] && $(INSTALL) $(ONE_TRY) --no-deps --index-url "$(TORCH_INDEX)" $(TORCH); } \
	    || $(INSTALL) --no-deps $(TORCH) \
	    || echo "No $(TORCH) for this machine: the tests that need it will be skipped." >&2
	@if $(BIN)/python -c 'import importlib.metadata as m; m.version("torch")' 2>/dev/null; then extra=,reference; fi; \
	    $(INSTALL) --constraint constraints.txt --editable ".[test$$extra]"
	@touch $(PLAN_READY) $@
