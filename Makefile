# A bare machine needs Python 3.11 or newer and make; the first target creates .venv, later ones reuse it.
PYTHON ?= python3
WORKERS ?= 2
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PIP_INSTALL := $(BIN)/python -m pip install -qq --no-input --disable-pip-version-check -c constraints.txt

.DEFAULT_GOAL := help
.PHONY: help demo test lint slow fuzz faults soak talk bench nano clean

help:  ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | while IFS="$$(printf '\t')" read -r target what; do \
		printf '  make %-7s %s\n' "$$target" "$$what"; done

demo: $(READY)  ## track by instruction on a drawn clip; the last line of stdout is key=value
	@$(BIN)/trackgpt demo --overwrite

test: lint  ## everything that must hold before a change lands: lint, then the fast tests
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(WORKERS)

lint: $(READY)  ## style, spelling, import directions, types
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check .
	@$(BIN)/codespell
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/mypy

slow: $(READY)  ## the tests that take minutes
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m slow

fuzz: $(READY)  ## 100,000 mutated inputs for every parser (minutes)
	@OMP_NUM_THREADS=1 $(BIN)/python tests/fuzz.py

faults: $(READY)  ## 200 runs that are killed, stopped or refused (minutes)
	@OMP_NUM_THREADS=1 $(BIN)/python tests/faults.py

soak: $(READY)  ## a session of 100,000 frames, and the slope of its memory (half an hour)
	@OMP_NUM_THREADS=1 $(BIN)/python tests/soak.py

talk: $(READY)  ## a session of 5,000 frames and 50 instructions: memory, questions, undo (minutes)
	@OMP_NUM_THREADS=1 $(BIN)/python tests/long_session.py

bench: $(READY)  ## measure speed on this machine
	@$(BIN)/python -m eval speed

nano: $(READY)  ## train nano from nothing, 14 parts (half a day); the same command goes on after a stop
	@for part in $$(ls configs/trackgpt/foundation/*.yaml | sort -V); do $(BIN)/python -m train $$part || exit 1; done
	@$(BIN)/python -m train.score_calibration runs/nano/score_longer/model

clean:  ## remove the environment, caches and builds
	@rm -rf $(VENV) build dist *.egg-info .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# torch first and alone: an installer that meets it last may choose another build of it.
$(READY): setup.cfg pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(v < (3, 11) and f"trackgpt needs Python 3.11 or newer, {sys.executable} is {v[0]}.{v[1]}; run make PYTHON=python3.11")'
	@echo "trackgpt: preparing $(VENV) (once; minutes, most of them torch)" >&2
	@$(PYTHON) -m venv $(VENV)
	@echo "trackgpt: 1/2 installing torch" >&2
	@$(PIP_INSTALL) torch
	@echo "trackgpt: 2/2 installing trackgpt and its tools" >&2
	@$(PIP_INSTALL) -e '.[dev]'
# trackeval asks for opencv-python, whose cv2 would replace the headless one; it needs it for no metric used here.
	@$(PIP_INSTALL) --no-deps trackeval tabulate
	@touch $@
