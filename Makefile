# make quickstart, make test, make docs: each creates .venv, installs what it needs and runs.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help quickstart test fuzz crashes lint style docs sbom clean

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DOCS_STAMP := $(VENV)/.installed-docs
# Apart from the others, so that it does not list itself.
SBOM_VENV := $(VENV)-sbom
SBOM_STAMP := $(SBOM_VENV)/.installed
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# The first Python of version 3.11 or later; choose another with: make PYTHON=/path/to/python quickstart
find_python = for python in python3.11 python3.12 python3.13 python3.14 python3 python; do \
	  if $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' > /dev/null 2>&1; \
	  then command -v $$python; break; fi; done
PYTHON ?= $(shell $(find_python))

help: ## Show this list.
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' Makefile

quickstart: $(STAMP) ## Train, measure, search and export on the digits; 3 to 4 minutes after installation.
	@$(BIN)/python scripts/quickstart.py

test: style ## Check style, spelling and types, and run all tests: on all cores, and those that measure time alone.
	@$(BIN)/mypy & types=$$!; \
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --dist loadfile --no-loadscope-reorder -m "not timing" \
	  && wait $$types
	@$(BIN)/python -m pytest -q -m timing

fuzz: $(STAMP) ## Read 20,000 damaged files of every kind, on all cores; `make test` reads 600.
	@rm -f fuzz.jsonl
	@OMP_NUM_THREADS=1 OFA_FUZZ_CASES=20000 OFA_FUZZ_REPORT=fuzz.jsonl \
	  $(BIN)/python -m pytest -q -n auto --timeout 3600 tests/fuzz
	@cat fuzz.jsonl

crashes: $(STAMP) ## Kill every stage at each of its file operations and start it again; about 20 minutes.
	@OFA_CRASHES=0 $(BIN)/python -m pytest -q tests/commands/test_crashes.py

lint: style ## Check style, spelling and types only.
	@$(BIN)/mypy

style: $(STAMP)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/codespell

docs: $(DOCS_STAMP) ## Build the documentation site into site/; broken links and references fail.
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "The site is site/index.html."

sbom: $(SBOM_STAMP) ## List all that is installed, with versions and licences, in sbom.json (CycloneDX).
	@$(SBOM_VENV)/bin/cyclonedx-py environment --pyproject pyproject.toml --mc-type application \
	  --output-reproducible --of JSON -o sbom.json $(BIN)/python
	@echo "The list is sbom.json."

clean: ## Remove .venv, build files and caches; runs/ stays.
	@rm -rf $(VENV) $(SBOM_VENV) sbom.json fuzz.jsonl build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Where there is no GPU, PyTorch's build for processors alone, if the package index offers one: the other brings
# 4 GB of CUDA libraries. Mac and ARM builds have none anyway.
CPU_BUILD = $(shell sed -n 's/^\(torch\|torchvision\)==.*/&+cpu/p' constraints.txt)
install_cpu_build = if [ "$$(uname -sm)" = "Linux x86_64" ] && ! [ -e $(GPU) ] \
	  && ! $(BIN)/python -c 'import torch' > /dev/null 2>&1 \
	  && ! $(BIN)/python -m pip install --quiet --no-compile $(CPU_BUILD) > /dev/null 2>&1; \
	  then echo "There is no NVIDIA GPU, but the package index offers no PyTorch for processors alone: CUDA's" \
	  "libraries (4 GB) are installed, and not used. README, \"Install and try\", says how to do without."; fi
GPU ?= /dev/nvidiactl

# Installs again exactly when the dependencies or their versions are newer than the last installation.
$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 or later is needed; found none. Install it, or give its" \
	  "path: make PYTHON=/path/to/python $(MAKECMDGOALS)" >&2; exit 2; }
	@$(BIN)/python -m pip --version > /dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@echo "Installing into $(VENV); the first time this downloads PyTorch and takes some minutes."
	@$(install_cpu_build)
	@# Modules are compiled when they are first imported; compiling all of them takes longer than downloading.
	@$(BIN)/python -m pip install --quiet --no-compile -c constraints.txt -e '.[dev,onnx,openvino,detection]'
	@touch $@

$(SBOM_STAMP): $(STAMP)
	@$(BIN)/python -m venv --clear $(SBOM_VENV)
	@$(SBOM_VENV)/bin/python -m pip install --quiet 'cyclonedx-bom>=7.5,<8'
	@touch $@

# The documentation's tools on top of the others.
$(DOCS_STAMP): $(STAMP)
	@$(BIN)/python -m pip install --quiet --no-compile -c constraints.txt -e '.[docs]'
	@touch $@
