# Everything a person needs, from a fresh clone: `make run` and `make test`. `make help` lists the rest.

# Tools of the checkout import the application from here.
export PYTHONPATH := $(CURDIR)

# The first Python that is new enough; set PYTHON to choose another.
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo $$p && break; done)
STATE := $(or $(TOLLWAY_STATE),.tollway)
PY := .venv/bin/python
# More arguments for pytest: make test ARGS="tests/unit -k quota"
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help run test check lint docs protos bench containers clean-state lock venv

help: ## list what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-12s %s\n", $$1, $$2}'

venv:
	@test -n "$(PYTHON)" || { echo "make: tollway needs Python 3.11 or newer, and found none" >&2; exit 1; }
	@$(PYTHON) local/bootstrap.py

run: venv ## start everything on 127.0.0.1; CATALOG=catalogs/….yaml chooses the catalog; Ctrl-C stops
	@$(PY) -m local.up

test: venv ## run every test (ARGS="…" goes to pytest)
	@$(PY) -m pytest $(ARGS)

check: lint ## format, lint, types, import layers, protos and references fresh, catalogs valid, unit tests
	$(PY) -m pytest tests/unit -q

lint: venv ## all of check but the unit tests
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	.venv/bin/lint-imports
	$(PY) tools/check_protos.py
	$(PY) tools/check_catalogs.py
	$(PY) -m tools.references --check

docs: venv ## write the reference pages in docs/reference/ anew from the contracts and the code
	@$(PY) -m tools.references

protos: venv ## generate the typed stubs in tollway/ from protos/
	@$(PY) tools/protos.py

bench: venv ## measure, print a table, write .tollway/bench.json
	@$(PY) -m benchmarks

containers: ## build the test images of PostgreSQL and NATS without any image registry
	@deploy/test-images/build

clean-state: ## remove the state of local mode (.tollway): databases, mails, logs, secrets
	@$(PYTHON) -m local.state clean

COMPILE = .venv/bin/uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-annotate --no-header --quiet

lock: venv ## resolve requirements.lock anew from pyproject.toml, and of it what the image needs
	$(COMPILE) --all-extras -o requirements.lock
	$(COMPILE) --extra services -c requirements.lock -o deploy/requirements.lock
