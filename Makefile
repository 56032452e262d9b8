# `make` alone prints this help. Everything runs in .venv, made from hashed pins.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PROTOS := $(sort $(wildcard proto/usance/v1/*.proto))

help:  ## print this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(VENV)/.ready: requirements/dev.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

setup: $(VENV)/.ready  ## make the environment (the other targets do it when needed)

lint: setup  ## style, types, imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy

check: lint  ## the fast subset: lint, types, imports, unit tests
	$(BIN)/pytest tests/unit tests/docs -m "not slow"

test: lint  ## everything: `make check`, contract, integration and end-to-end tests
	$(BIN)/pytest

demo: setup  ## the main job, end to end, on this machine
	$(BIN)/python -m tests.e2e.demo

proto: setup  ## generate code from the contract
	$(BIN)/python -m grpc_tools.protoc -I proto --plugin=protoc-gen-mypy=$(BIN)/protoc-gen-mypy \
	  --plugin=protoc-gen-mypy_grpc=$(BIN)/protoc-gen-mypy_grpc --python_out=proto --grpc_python_out=proto \
	  --mypy_out=proto --mypy_grpc_out=proto $(PROTOS)

lock:  ## pin dependencies again (developers; needs uv)
	requirements/lock.sh

clean:  ## remove what the targets made
	rm -rf $(VENV) build dist node_modules .mypy_cache .ruff_cache .import_linter_cache .hypothesis .pytest_cache

.DEFAULT_GOAL := help
.PHONY: help setup lint check test demo proto lock clean
