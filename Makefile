# Everything sets itself up in .venv; nothing else on the machine is touched.
PYTHON ?= python3
BIN := .venv/bin
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: demo test test-slow lint types docs commands base base-flow clean

demo: .venv/installed
	$(BIN)/perdure demo --out demo-out

# A process a core, each with one thread.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses auto --maxprocesses 8

test: .venv/installed
	$(PYTEST) -m "not slow" $(ARGS)

test-slow: .venv/installed
	$(PYTEST) $(ARGS)

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/installed
	$(BIN)/mypy

# The documentation site, in site/; a warning, such as a broken link, is an error.
docs: .venv/docs commands
	$(BIN)/sphinx-build -W --keep-going -q -b html docs site

# The reference of the command line, from the code; a test compares it.
commands: .venv/installed
	$(BIN)/python -m typer perdure.cli utils docs --name perdure --output docs/commands.md >/dev/null

# Train smallworld's weights anew (hours on two cores); resumes where it was stopped.
base: .venv/installed
	for stage in data clip vae unet assemble vision further; do \
	  $(BIN)/python -m perdure.smallworld.train $$stage || exit 1; done

# Train smallworld-flow's weights (days on two cores); resumes where it was stopped.
base-flow: .venv/installed
	$(BIN)/python -m perdure.smallworld.flow scenes --chunks 60
	$(BIN)/python -m perdure.smallworld.flow train --compile
	$(BIN)/python -m perdure.smallworld.flow export

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check $(TORCH)
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $@

.venv/docs: .venv/installed
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[docs]'
	touch $@

# A machine without an NVIDIA GPU needs no CUDA packages: this release has a small CPU build.
TORCH ?= torch==2.13.0

clean:
	rm -rf .venv demo-out site
