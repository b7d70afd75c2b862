# Needs python3 >= 3.10 with pip, and make. Each target sets up the virtual environment that it uses.
#   make PYTHON=python3.12 test            another interpreter
#   make test PYTEST_ARGS="-k tiling -x"   a part of the tests

PYTHON ?= python3
WORKERS ?= 2
PYTEST_ARGS ?=

DEMO := .venv/.installed
DEV := .venv-dev/.installed
DEMO_VENV_LIMIT_MB := 300

.PHONY: help demo test test-all test-page screenshots lint format accuracy newcomer arm64-check gpu-check bench fuzz crashes sbom clean
.DEFAULT_GOAL := help

help:
	@echo "make demo      ask three questions about a picture at four budgets, with the CPU engine (.venv, no torch)"
	@echo "make test      run the tests (.venv-dev, with torch)"
	@echo "make test-all  run the slow tests too"
	@echo "make test-page run the page's tests in a headless Chromium"
	@echo "make screenshots  draw the page's pictures for the documentation again"
	@echo "make lint      ruff, pyright and import-linter"
	@echo "make format    rewrite the sources as ruff formats them"
	@echo "make accuracy  measure the demonstration model again: docs/accuracy.md (an hour; goes on where it was stopped)"
	@echo "make newcomer  make demo and make test on a fresh clone of HEAD, timed"
	@echo "make arm64-check  install and test in an arm64 userland under qemu (docs/arm64.md; root, half an hour)"
	@echo "make gpu-check on a machine with an NVIDIA GPU: its tests, doctor, a comparison with PyTorch (docs/gpu.md)"
	@echo "make bench     this runtime beside llama.cpp and PyTorch on this CPU (docs/performance.md; MINUTES=30)"
	@echo "make fuzz      100,000 hostile inputs for every reader (docs/reliability.md; FUZZ_ARGS=manifest)"
	@echo "make crashes   kills commands at random moments, and fills their disk (docs/reliability.md; 50 minutes)"
	@echo "make sbom      the bill of materials of a board's environment (SYSTEM=jp7; docs/reliability.md)"
	@echo "make clean     remove what these targets have made"

demo: $(DEMO)
	@.venv/bin/python -m demo.run

# The worker processes share the cores, so each keeps to one thread.
test: $(DEV)
	OMP_NUM_THREADS=1 .venv-dev/bin/python -m pytest -n $(WORKERS) --dist worksteal $(PYTEST_ARGS)

test-all: $(DEV)
	OMP_NUM_THREADS=1 .venv-dev/bin/python -m pytest -n $(WORKERS) --dist worksteal -m "not gpu" $(PYTEST_ARGS)
	@if nvidia-smi -L >/dev/null 2>&1; then \
	    .venv-dev/bin/python -m pytest -m gpu $(PYTEST_ARGS) || [ $$? -eq 5 ]; \
	else \
	    echo "not run: the tests marked gpu (nvidia-smi finds no NVIDIA GPU here)"; \
	fi

# The page in a headless Chromium, which is found as CHROMIUM or on the PATH (Debian: apt install chromium).
test-page: $(DEV)
	.venv-dev/bin/python -m pytest -m browser $(PYTEST_ARGS)

screenshots: $(DEV)
	.venv-dev/bin/python -m demo.screenshots

lint: $(DEV)
	.venv-dev/bin/ruff check .
	.venv-dev/bin/ruff format --check .
	.venv-dev/bin/pyright --pythonpath .venv-dev/bin/python
	.venv-dev/bin/lint-imports

format: $(DEV)
	.venv-dev/bin/ruff check --fix .
	.venv-dev/bin/ruff format .

# Every report that README.md, demo/README.md and docs/accuracy.md quote, and those pages' tables and plots. Goes on where
# it was stopped. ACCURACY_ARGS="--only policies,alpha --no-cost" measures a part.
ACCURACY_ARGS ?=

accuracy: $(DEV)
	.venv-dev/bin/python -m demo.measuring $(ACCURACY_ARGS)

newcomer:
	@set -e; \
	folder=$$(mktemp -d); trap 'rm -rf "$$folder"' EXIT; trap 'exit 130' INT TERM; \
	git clone -q . "$$folder/hired-edge"; cd "$$folder/hired-edge"; \
	start=$$(date +%s); $(MAKE) --no-print-directory demo; \
	demo=$$(date +%s); $(MAKE) --no-print-directory test; \
	test=$$(date +%s); size=$$(du -sm .venv | cut -f1); \
	echo "make demo: $$((demo - start)) s; make test: $$((test - demo)) s; .venv: $$size MB (limit $(DEMO_VENV_LIMIT_MB))"; \
	[ "$$size" -le $(DEMO_VENV_LIMIT_MB) ]

arm64-check:
	@PYTHON=$(PYTHON) jetson/arm64-check.sh

gpu-check:
	@PYTHON=$(PYTHON) benchmarks/gpu_check.sh

# The peers' environment, .venv-peers, is made by the program: llama.cpp is compiled, ten minutes on two cores.
MINUTES ?= 30
BENCH_ARGS ?=

bench: $(DEV)
	@PYTHONPATH=.:export:runtime .venv-dev/bin/python -m benchmarks.cpu --minutes $(MINUTES) $(BENCH_ARGS)

FUZZ_ARGS ?=

fuzz: $(DEV)
	@.venv-dev/bin/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[fuzz]'
	.venv-dev/bin/python -m tests.fuzz $(FUZZ_ARGS)

crashes: $(DEV)
	.venv-dev/bin/python -m tests.crashes
	.venv-dev/bin/python -m tests.crashes --disk-full

# Beside the wheels that it lists, which are fetched where they are not there.
SYSTEM ?= jp7

sbom: $(DEV)
	@[ -n "$$(ls jetson/wheels/$(SYSTEM)/hired_edge-*.whl 2>/dev/null)" ] || .venv-dev/bin/python jetson/wheels.py $(SYSTEM)
	.venv-dev/bin/python jetson/sbom.py $(SYSTEM)

clean:
	rm -rf .venv .venv-dev .venv-tests .venv-peers build dist .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Debian ships python3 without ensurepip; there the interpreter's own pip fills the environment.
define make_venv
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	    { echo "$(PYTHON) is older than 3.10; run: make PYTHON=python3.x $(MAKECMDGOALS)"; exit 1; }
	@[ -x $(1)/bin/pip ] || $(PYTHON) -m venv --clear $(1) >/dev/null 2>&1 || \
	    { $(PYTHON) -m venv --clear --without-pip $(1) && $(PYTHON) -m pip --python $(1)/bin/python install -q pip; } || \
	    { echo "no virtual environment could be made; on Debian or Ubuntu run: apt install python3-venv"; exit 1; }
endef

$(DEMO): pyproject.toml constraints.txt
	$(call make_venv,.venv)
	@echo "Installing hired-edge and the CPU engine into .venv (a download of about 50 MB) ..."
	@.venv/bin/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[cpu]'
	@touch $@

$(DEV): pyproject.toml constraints.txt
	$(call make_venv,.venv-dev)
	@echo "Installing the development environment into .venv-dev (with torch: several hundred MB) ..."
	.venv-dev/bin/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[cpu,export,eval,serve,sign,ray,tensorrt-rtx,dev]'
	@touch $@
