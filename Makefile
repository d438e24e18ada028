# Everything sets itself up in .venv; nothing else on the machine is touched.
PYTHON ?= python3
BIN := .venv/bin
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: demo perf test test-slow faults fuzz audit lowest lint types docs commands base base-flow clean

demo: .venv/core
	$(BIN)/perdure demo --out demo-out

# Tables of docs/performance.md: a step beside diffusers' own script, and what a full bank costs.
perf: .venv/installed
	$(BIN)/python perf/step_vs_diffusers.py $(ARGS)
	$(BIN)/python perf/step_time.py --concepts 500
	$(BIN)/python perf/open_time.py --concepts 1 500

# A process a core, each with one thread.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses auto --maxprocesses 8

test: .venv/installed
	$(PYTEST) -m "not slow" $(ARGS)

test-slow: .venv/installed
	$(PYTEST) $(ARGS)

# Every verb is killed at random instants, and every file operation fails in turn (docs/reliability.md).
faults: .venv/installed
	OMP_NUM_THREADS=1 nice $(BIN)/python tests/faults/run.py $(ARGS)

fuzz: .venv/installed
	PERDURE_FUZZ=20000 $(BIN)/pytest tests/test_bad_input.py $(ARGS)

# Known holes in what is installed. With AUDIT_DB, a zip or a folder of advisories in OSV's format, no
# network is needed.
audit: .venv/installed
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[supply]'
	$(BIN)/python tests/audit.py $(AUDIT_DB)

# Do the lower bounds of pyproject.toml, taken at their word, resolve?
lowest: .venv/installed
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[supply]'
	$(BIN)/uv pip compile --quiet --resolution lowest-direct --all-extras --no-header --no-annotate \
	  --output-file .venv/lowest.txt pyproject.toml

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

# What learning and drawing need, and nothing else; of it only what is imported is ever compiled.
.venv/core: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --no-compile $(TORCH)
	$(BIN)/pip install --quiet --disable-pip-version-check --no-compile -e .
	touch $@

.venv/installed: .venv/core
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $@

.venv/docs: .venv/installed
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[docs]'
	touch $@

# A machine without an NVIDIA GPU needs no CUDA packages: this release has a small CPU build.
TORCH ?= torch==2.13.0

clean:
	rm -rf .venv demo-out site
