# `make` alone prints this help. Everything runs in .venv, made from hashed pins.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Parallel test processes: they wait for others more than they work.
WORKERS ?= 4
# Which markets `make sim` plays.
SEEDS ?= 100
FIRST ?= 1
# How long `make chaos` and `make soak` go on.
MINUTES ?= 15
HOURS ?= 2
# QUICK=1: `make bench` in some minutes, with figures that say little.
QUICK ?=
# How many requests `make fuzz` sends, and by which dice it and `make chaos` play.
REQUESTS ?= 100000
SEED ?= 1
PROTOS := $(sort $(wildcard proto/usance/v1/*.proto))

help:  ## print this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(VENV)/.ready: requirements/dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "Usance needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

setup: $(VENV)/.ready  ## make the environment (the other targets do it when needed)

lint: setup  ## style, types, imports, the contract's rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy
	proto/check.sh

check: lint  ## the fast subset: lint, types, imports, unit tests
	$(BIN)/pytest tests/unit tests/docs -m "not slow"

# In the folders' own order: the long files, of few tests, come before the many short ones, and no worker is left
# alone with them in the end.
test: lint  ## everything: `make check`, contract, integration and end-to-end tests
	$(BIN)/pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder -rs

sim: setup  ## play SEEDS markets in simulation, from number FIRST on (docs/reliability.md)
	PYTHONHASHSEED=0 $(BIN)/python -m tests.sim --seeds $(SEEDS) --first $(FIRST) --workers $(WORKERS)

chaos: setup  ## abuse a market of real processes for MINUTES, with a seed of SEED (docs/reliability.md)
	$(BIN)/python -m tests.chaos --minutes $(MINUTES) --seed $(SEED)

bench: setup  ## run every benchmark, QUICK=1 small, and write docs/benchmarks.md
	$(BIN)/python -m benchmarks.all $(if $(QUICK),--quick)

soak: setup  ## keep a market busy for HOURS and draw what grows (docs/reliability.md)
	$(BIN)/python -m benchmarks.soak --hours $(HOURS)

fuzz: setup  ## send REQUESTS requests that nobody would, with a seed of SEED (docs/threat-model.md)
	$(BIN)/python -m tests.fuzz --requests $(REQUESTS) --seed $(SEED)

demo: setup  ## the main job, end to end, on this machine
	$(BIN)/python -m tests.e2e.demo

packages: setup  ## build the Debian packages into dist/
	packaging/debian/build.sh dist

packages-try: packages  ## build them and try them in a fresh Debian root (as root; needs debootstrap)
	USANCE_REQUIRE_ALL=1 USANCE_FRESH_ROOT=1 USANCE_PACKAGES=dist $(BIN)/pytest tests/packages

proto: setup  ## generate code from the contract
	$(BIN)/python -m grpc_tools.protoc -I proto --plugin=protoc-gen-mypy=$(BIN)/protoc-gen-mypy \
	  --plugin=protoc-gen-mypy_grpc=$(BIN)/protoc-gen-mypy_grpc --python_out=proto --grpc_python_out=proto \
	  --mypy_out=proto --mypy_grpc_out=proto $(PROTOS)

freeze:  ## make today's contract the released one, which later ones must not break
	proto/check.sh --release

docs: setup  ## write the parts of docs/ that are made from the code
	$(BIN)/python -m tests.docs.reference

sessions: setup  ## record docs/sessions/ anew, on a market of this machine
	$(BIN)/python -m tests.docs.sessions

pictures: setup  ## draw docs/pictures/ anew, from a market of this machine (needs prometheus)
	$(BIN)/python -m tests.docs.pictures

lock:  ## pin dependencies again (developers; needs uv)
	requirements/lock.sh

clean:  ## remove what the targets made
	rm -rf $(VENV) build dist node_modules .mypy_cache .ruff_cache .import_linter_cache .hypothesis .pytest_cache

.DEFAULT_GOAL := help
.PHONY: help setup lint check test sim chaos bench soak fuzz demo packages packages-try proto freeze docs sessions
.PHONY: pictures lock clean
