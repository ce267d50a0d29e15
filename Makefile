# trackd: every job has one name here. `make` alone lists them; `make check` is what CI runs.
#
# Only make and Python 3.11 (with its venv module) are needed beforehand: each job sets .venv up first.

VENV ?= .venv
PYTHON ?=
SEED ?= $(shell date +%s)
ARGS ?=
# Processes that tests run in; 0 runs them in one, and with a debugger's prompt.
TESTERS ?= 2
AGAINST ?= HEAD

bin := $(VENV)/bin
code := $(wildcard src tests bench scripts)
typed := $(wildcard src tests bench)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup run test test-tools torture lint format types proto proto-check proto-breaking \
	bench bench-short load load-check image-check check requirements clean

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## /{printf "  \033[1m%-15s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/ready ## prepare .venv with the trackd command in it (does nothing when nothing changed)

$(VENV)/ready: requirements/dev.txt pyproject.toml scripts/setup.sh scripts/build_hook.py $(wildcard src/trackd/*/*.pyx src/trackd/*/*.pxd)
	@VENV='$(VENV)' PYTHON='$(PYTHON)' scripts/setup.sh
	@touch $@

run: setup ## start the server with a demo courier network streaming scans into it
	$(bin)/trackd demo $(ARGS)

test: setup test-tools ## run the tests, in TESTERS processes (some 5 minutes on 2 cores; ARGS='-k name' picks some)
	$(bin)/python -m pytest --numprocesses $(TESTERS) --dist loadfile --no-loadscope-reorder --durations 12 $(ARGS)

test-tools:
	@VENV='$(VENV)' scripts/test_tools.sh

torture: setup test-tools ## long fault campaigns; SEED=n repeats one
	@echo "torture: SEED=$(SEED)"
	TRACKD_TEST_SEED=$(SEED) $(bin)/python -m pytest -m torture --timeout=0 $(ARGS)

lint: setup ## style, formatting, which room may import which, and the contract's lint
	$(bin)/ruff check $(code)
	$(bin)/ruff format --check $(code)
	$(bin)/lint-imports
	$(if $(wildcard proto),$(bin)/buf lint)

format: setup ## rewrite the code as lint wants it
	$(bin)/ruff check --fix $(code)
	$(bin)/ruff format $(code)

types: setup ## mypy --strict
	$(bin)/mypy $(typed)

proto: setup ## generate src/trackd/v1 from proto/
	@VENV='$(VENV)' scripts/proto.sh src

proto-check: setup ## is the committed generated code what proto/ says?
	@VENV='$(VENV)' scripts/proto_check.sh

proto-breaking: setup ## does proto/ break clients of the version at AGAINST (a git revision)?
	$(bin)/buf breaking --against '.git#ref=$(AGAINST)'

bench: setup ## the figures of the README, as ratios within one run (takes a while)
	$(bin)/python -m bench $(ARGS)

bench-short: setup ## the same for a few seconds: does the load path work?
	$(bin)/python -m bench --short $(ARGS)

SHAPE ?= steady
load: setup ## load as people make it: SHAPE=name [TARGET=host:port USERS=n DURATION=s PROCESSES=n]
	@$(bin)/python -m bench.swarm --shape '$(SHAPE)' $(if $(TARGET),--target '$(TARGET)') $(if $(USERS),--users '$(USERS)') \
		$(if $(DURATION),--duration '$(DURATION)') $(if $(PROCESSES),--processes '$(PROCESSES)') \
		$(if $(OBJECTIVES),--objectives '$(OBJECTIVES)') $(ARGS)

load-check: setup ## look-ups by h2load and by our own generator, as a check of the latter
	@$(bin)/python -m bench.h2load $(ARGS)

image-check: setup ## run the Dockerfile's steps without a container engine
	@VENV='$(VENV)' scripts/image_check.sh

check: lint types proto-check image-check bench-short test ## what CI runs

requirements: ## pin the dependencies anew (needs uv; ARGS=--upgrade moves the versions)
	scripts/requirements.sh $(ARGS)

clean: ## remove what was built, .venv included; data directories are left alone
	rm -rf $(VENV) $(VENV).lock build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find src tests bench scripts -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
