# `make help` lists what there is.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help setup demo example pictures test test-unit test-integration chaos lint format lock docs proto bench bench-check clean distclean install uninstall

PREFIX ?= /opt/unikernel-shim
BINDIR ?= /usr/local/bin
SYSCONFDIR ?= /etc
UNITDIR ?= /etc/systemd/system
DATADIR ?= /usr/local/share
DESTDIR ?=
# The interpreter an installation is made with.
PYTHON ?= /usr/bin/python3

VENV := .venv/bin
SETUP := tests/setup/setup.sh
# Extra arguments for pytest: make test ARGS="-k calico -x"
ARGS ?=
# How many pytests `make test` runs at once.
LANES ?= 2

help: ## what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## everything test and demo need, on a Debian 12 as root (they do it themselves)
	@$(SETUP)

demo: setup ## both kinds of pod network: a unikernel pod serves an ordinary pod, on a real containerd
	@PYTHONPATH=. $(VENV)/python -m tests.demo.run

example: setup ## a kernel and an initrd to try things with, in build/example
	@PYTHONPATH=. $(VENV)/python -m tests.demo.example

test: setup ## every test: units, real namespaces, real containerd, chaos; LANES=1 does one thing at a time
	@$(VENV)/python -m tests.lanes $(LANES) $(ARGS)

test-unit: .cache/unit ## the unit tests alone: no root, no network
	@$(VENV)/python -m pytest tests/unit $(ARGS)

test-integration: setup ## the integration tests alone
	@$(VENV)/python -m pytest tests/integration $(ARGS)

chaos: setup ## random operations and faults on many pods: SECONDS=3600 for an hour, SEED=7 ROUND=12 for that round again
	@$(VENV)/python -m tests.chaos.run $(if $(SECONDS),--seconds $(SECONDS)) $(if $(SEED),--seed $(SEED)) $(if $(ROUND),--round $(ROUND)) $(ARGS)

.PHONY: kind
kind: ## the end-to-end test on a cluster of kind; needs docker, kind and kubectl (contrib/kind/README.md)
	@contrib/kind/run.sh

lint: .cache/unit ## formatting, linting, types
	@$(VENV)/ruff format --check .
	@$(VENV)/ruff check .
	@$(VENV)/mypy --explicit-package-bases

format: .cache/unit ## make the formatting what lint wants
	@$(VENV)/ruff format .
	@$(VENV)/ruff check --fix .

# What needs no root: the virtual environment, the generated messages, the programs.
.PHONY: .cache/unit
.cache/unit:
	@$(SETUP) venv scripts

docs: .cache/unit ## the pages of docs/ as a site, in build/docs
	@$(VENV)/python docs/generate.py
	@$(VENV)/python -m sphinx -q -W --keep-going -b dirhtml -d build/doctrees docs build/docs

proto: .cache/unit ## generate shim/wire from protos/
	@$(VENV)/python protos/generate.py

pictures: .cache/unit ## draw docs/pictures anew, and what tests compare drawings with
	@$(VENV)/python -m tests.unit.cli.topology.pictures

bench: setup ## every figure beside the peer's, in ten minutes: a table, build/bench.json, build/bench/*.svg; FIGURES="start courier" for some
	@$(SETUP) bench
	@$(VENV)/python -m pytest tests/performance -s $(if $(FIGURES),--figures "$(FIGURES)") $(ARGS)
	@$(VENV)/python -m tests.performance.plots

bench-check: bench ## the same, and its ratios beside the committed ones; it fails where one is worse, and CI does not ask
	@$(VENV)/python -m tests.performance.baseline

clean: ## what was generated or built; the virtual environment and unpacked packages stay
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis shim/wire/*_pb2.py shim/wire/*_pb2.pyi shim/wire/.fingerprint
	find shim tests protos -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean ## that as well: the next `make test` begins from nothing
	rm -rf .venv .cache

lock: .cache/unit ## renew the lock files from pyproject.toml
	@$(VENV)/python -m pip install -q pip-tools
	@for each in "requirements.lock --extra dev --extra docs --extra tracing" requirements-node.lock \
	        "requirements-bench.lock --extra bench -c requirements.lock"; do \
	    $(VENV)/pip-compile -q --no-emit-index-url --no-emit-find-links --no-emit-options --generate-hashes --allow-unsafe \
	        --strip-extras --upgrade -o $$each pyproject.toml; done

install: .cache/unit ## on a real node: programs, systemd units, documents, configuration (PREFIX, DESTDIR)
	@PREFIX=$(PREFIX) BINDIR=$(BINDIR) SYSCONFDIR=$(SYSCONFDIR) UNITDIR=$(UNITDIR) DATADIR=$(DATADIR) \
	    DESTDIR=$(DESTDIR) PYTHON=$(PYTHON) \
	    contrib/install/install.sh

uninstall: ## undo install; the configuration stays
	@PREFIX=$(PREFIX) BINDIR=$(BINDIR) SYSCONFDIR=$(SYSCONFDIR) DESTDIR=$(DESTDIR) contrib/install/uninstall.sh
