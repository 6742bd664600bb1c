# `make serve` and `make test` work on a fresh machine with Python 3.11 or later, with or without uv.

BIN := .venv/bin
INSTALL := requirements/install
CODE := learnflow_core learnflow_http storage_backends payment_gateways tests benchmarks

# Extra arguments for the program that a target runs, as in `make serve ARGS="--port 9000"`.
ARGS ?=

# A lock holds for every platform and Python, has a hash for each file, and names no registry.
COMPILE := uv pip compile pyproject.toml --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-annotate --no-header \
	--group build --extra server --extra postgres --extra stripe

.PHONY: help serve test covered lint soak planted mutants bench lock clean
.DEFAULT_GOAL := help

help: ## Show this list.
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-7s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

serve: .venv/.serve ## Run the server with demo data on 127.0.0.1:8000 (ARGS=... adds options).
	$(BIN)/learnflow serve --demo $(ARGS)

test: lint ## Check the code, then run every test (ARGS=... goes to pytest).
	$(BIN)/python -m pytest -n 2 $(ARGS)

covered: .venv/.test ## See that the tests of the core run all of its lines and branches.
	$(BIN)/coverage run -m pytest -q --hypothesis-profile=covered @tests/core.args
	$(BIN)/coverage report

lint: .venv/.test ## Check style, types and the arrows between the layers.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

soak: .venv/.test ## Run the tests with many more examples, seeds, faults and kills than usual (hours).
	$(BIN)/python -m pytest -n 2 --hypothesis-profile=soak $(ARGS)

planted: .venv/.test ## Plant bugs in copies, and see that the tests notice each (ARGS=words of their names).
	$(BIN)/python -m tests.planted $(ARGS)

mutants: .venv/.test ## Change the core, a thing at a time, and see whether the tests notice (ARGS="--sample 300").
	$(BIN)/python -m tests.mutants $(ARGS)

bench: .venv/.bench ## Measure, beside the peers (ARGS="limiter", "http" or "catalogue" chooses).
	$(BIN)/python -m benchmarks $(ARGS)

lock: ## Resolve the requirements again (needs uv; ARGS=--upgrade takes newer versions).
	$(COMPILE) -o requirements/serve.txt $(ARGS)
	$(COMPILE) --group test -c requirements/serve.txt -o requirements/test.txt $(ARGS)
	$(COMPILE) --group test --group bench -c requirements/test.txt -o requirements/bench.txt $(ARGS)

clean: ## Remove everything that make made.
	rm -rf .venv .benchmarks .coverage .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache dist
	find $(CODE) -name __pycache__ -type d -prune -exec rm -rf {} +

# One stamp for each lock: a second call finds it and starts at once, unless what is compiled has changed.
.venv/.%: requirements/%.txt pyproject.toml hatch_build.py $(wildcard learnflow_core/limiter/*.[ch]) $(INSTALL)
	@$(INSTALL) $*
