# Every target installs first what is missing; `make help` lists them.
SHELL := /bin/sh
PYTHON := .venv/bin/python
.DEFAULT_GOAL := help
.PHONY: help install run demo test check format lint types deployable migrations mutants bench clean

help:  ## list the targets
	@awk -F ':.*## +' '/^[a-z]+:.*##/ {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install:  ## make .venv and install what this machine lacks; instant when nothing is missing
	@.ci/install

run: install  ## start the Console on http://127.0.0.1:8000 or BIND=ADDRESS:PORT (SQLite, private broker, web, worker, beat)
	@exec $(PYTHON) manage.py up $(if $(BIND),--bind $(BIND))

demo: install  ## real servers and clients, issued and revoked before your eyes (root; ONCE=1 ends by itself)
	@exec $(PYTHON) -m tests.lab.demo $(if $(ONCE),--once)

test: install  ## the whole suite on SQLite, and beside it what touches a database on PostgreSQL and Redis
	@$(PYTHON) -m tests.databases

check: install  ## everything that must hold before a commit: format, lint, types, deployment, migrations, tests
	@$(PYTHON) -m ruff format --check .
	@$(PYTHON) -m ruff check .
	@$(PYTHON) -m mypy .
	@$(MAKE) --no-print-directory deployable migrations
	@$(PYTHON) -m tests.databases

format: install  ## format the code and mend what can be mended
	@$(PYTHON) -m ruff format .
	@$(PYTHON) -m ruff check --fix .

lint: install  ## ruff: format and rules
	@$(PYTHON) -m ruff format --check .
	@$(PYTHON) -m ruff check .

types: install  ## mypy --strict
	@$(PYTHON) -m mypy .

deployable: install  ## Django's own deployment check, warnings count
	@MUSTER_DATA=$$(mktemp -d) && export MUSTER_DATA && trap 'rm -r "$$MUSTER_DATA"' EXIT && \
	  $(PYTHON) manage.py check --deploy --fail-level WARNING

migrations: install  ## fail where a migration is missing
	@MUSTER_DATA=$$(mktemp -d) && export MUSTER_DATA && trap 'rm -r "$$MUSTER_DATA"' EXIT && \
	  $(PYTHON) manage.py makemigrations --check --dry-run

mutants: install  ## take each guard out of a copy in turn: its tests must fail
	@$(PYTHON) -m tests.mutants $(MUTANTS)

bench: install  ## 50 real servers against Ansible and ssh, one of 10,000 peers (root; ONLY=PART JSON=FILE STRICT=1)
	@exec $(PYTHON) -m tests.bench $(addprefix --only ,$(ONLY)) $(if $(JSON),--json $(JSON)) $(if $(STRICT),--strict)

clean:  ## remove .venv and caches; data/ stays
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
