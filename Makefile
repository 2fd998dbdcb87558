# What a person does in this folder, one line each. The first target that runs sets up .venv (needs Python 3.11+ and a
# network, once); a change of pyproject.toml or constraints.txt sets it up again.

PYTHON ?= $(shell for p in python3 python3.11 python3.12 python3.13 python; do $$p -c "import sys; sys.exit(sys.version_info < (3, 11))" 2>/dev/null && echo $$p && break; done)
BIN     = .venv/bin
READY   = .venv/ready
PIP     = $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
# Without an NVIDIA driver the small CPU build of torch will do, where its index can be reached.
WHEELS  = https://download.pytorch.org/whl/cpu
CPU     = $(shell command -v nvidia-smi >/dev/null || { $(PYTHON) -c "import urllib.request as u; u.urlopen('$(WHEELS)/torch/', timeout=3)" 2>/dev/null && echo --extra-index-url $(WHEELS); })

.PHONY: help demo serve test check bench web world notebooks docs format ci-deps clean

help:    ; @grep -E '^[a-z-]+: .*  ##' Makefile | sed -E 's/:.*## /\t/' | expand -t 10  ## this list
demo:    $(READY) ; @$(BIN)/lensing walk "The reliability of the Almanac is very"  ## walk one sentence through the shipped model
serve:   $(READY) ; @$(BIN)/lensing serve --open  ## show everything in the browser
test:    $(READY) ; @$(BIN)/python -m pytest  ## every test, offline
check:   $(READY) ; @$(BIN)/ruff check && $(BIN)/ruff format --check && $(BIN)/pyrefly check && $(BIN)/python -m pytest tests/rules  ## style, types, rules of the house
format:  $(READY) ; @$(BIN)/ruff check --fix && $(BIN)/ruff format  ## rewrite the code in the house style
bench:   $(READY) ; @for f in benchmarks/[!_]*.py; do $(BIN)/python $$f || exit 1; done  ## time and score what the package promises
web:     $(READY) ; @cd web && ../$(BIN)/python make_openapi.py && PATH="$(CURDIR)/$(BIN):$$PATH" && npm ci --silent --no-audit --no-fund && npm run -s types && npm run -s build  ## build the page into the package, with the Node that constraints.txt pins
world:   $(READY) ; @$(BIN)/python -m lensing.recipes.almanac $(ARGS)  ## make what ships and is missing (with ARGS=--fresh all of it, from nothing)
notebooks: $(READY) ; @$(BIN)/jupytext --to ipynb --execute docs/notebooks/*.py  ## run the notebooks; each is written beside its .py
docs:    $(READY) ; @$(BIN)/python docs/make_cli.py && $(BIN)/python docs/make_world.py  ## write docs/cli.md and docs/world.md
ci-deps: ; @$(PYTHON) -c "import venv, ensurepip" 2>/dev/null && command -v chromium >/dev/null || (apt-get update -q && apt-get install -y -q python3-venv chromium)  ## what a bare CI machine lacks
clean:   ; @rm -rf .venv .pytest_cache .ruff_cache  ## back to a fresh clone

$(READY): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || (echo "lensing needs Python 3.11 or newer; none was found. Install one, or say make PYTHON=/path/to/python3." && exit 1)
	@echo "Setting up .venv (once; torch is the large part) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(PIP) -q $(CPU) torch || $(PIP) torch
	@$(PIP) -e ".[dev]"
	@touch $(READY)
