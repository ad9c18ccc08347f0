# Two commands on a fresh machine: `make example` sets up and compiles and trains a circuit, `make test` sets up and tests.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
READY = $(VENV)/.ready

.PHONY: example test test-slow test-peft lint format clean

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	$(BIN)/python -m compileall -q quanta_compiler
	touch $(READY)

example: $(READY)
	$(BIN)/quanta compile examples/llama2-7b-16-8-8-4.yaml -o build
	$(BIN)/python examples/train.py build/llama2_7b_16_8_8_4.py

test: $(READY)
	$(BIN)/python -m pytest -n 2 -m 'not slow'

test-slow: $(READY)
	$(BIN)/python -m pytest -m slow

test-peft: $(READY)
	$(BIN)/python tests/peft_suite/run.py

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build dist *.egg-info
