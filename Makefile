# Every target sets up what it needs in .venv, from constraints.txt; a second call finds it done.
#   make quickstart [MINUTES=30]   train the demonstration model and write its report
#   make test | check              tests | format, lint, types, import layers
#   make bench [RUN=runs/...]      measurements
#   make faults                    kill -9 trainings of one and of two processes 200 times, an encoding fifty: all must end
#                                  bit-identical; 10,000 spoilt checkpoints, 10,000 spoilt pictures
#   make mutants                   plant 300 small faults in the mathematics; the tests must see 95 %
#   make docs                      the pictures of docs/math.md and the table of solver orders
SHELL := /bin/bash
PYTHON ?= python3
RUN ?= runs/quickstart
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

# Threads that wait without spinning: one other busy process would otherwise cost most of the speed.
export OMP_WAIT_POLICY ?= passive

.PHONY: quickstart test check bench faults mutants docs

quickstart: $(VENV)/.ready-run
	$(BIN)/calotype quickstart $(if $(MINUTES),--minutes $(MINUTES))

test: $(VENV)/.ready-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

check: $(VENV)/.ready-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.ready-bench
	$(BIN)/python benchmarks/network_speed.py
	$(BIN)/python benchmarks/first_stages.py openmoji --minutes 1 --out runs/first-stages
	$(BIN)/python benchmarks/latent_cache.py
	$(BIN)/calotype evaluate $(RUN)

faults: $(VENV)/.ready-dev
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/faults.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/cache_faults.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/mutated_checkpoints.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/mutated_pictures.py

mutants: $(VENV)/.ready-mutants
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/mutants.py

docs: $(VENV)/.ready-dev
	$(BIN)/python docs/make_tables.py
	$(BIN)/python docs/make_figures.py

# venv writes its pip last, so an interrupted set-up is made again.
$(BIN)/pip:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.ready-run: EXTRAS := demo,eval
$(VENV)/.ready-dev: EXTRAS := demo,eval,dev
$(VENV)/.ready-bench: EXTRAS := demo,eval,bench
$(VENV)/.ready-mutants: EXTRAS := demo,eval,dev,mutants
$(VENV)/.ready-%: pyproject.toml constraints.txt | $(BIN)/pip
	@echo "installing calotype[$(EXTRAS)] into $(VENV), about a minute the first time" >&2
	$(INSTALL) -e '.[$(EXTRAS)]'
	@touch $@
