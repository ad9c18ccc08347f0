# Two commands on a fresh machine: `make example` sets up and compiles and trains a circuit, `make test` sets up and tests.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
READY = $(VENV)/.ready
LOWEST ?= .venv-lowest
TORCH_ALONE = emit kernels lowering passes predict rotations

.PHONY: docs example test test-lowest test-slow test-peft gpu lint format clean

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	$(BIN)/python -m compileall -q quanta_compiler
	touch $(READY)

example: $(READY)
	$(BIN)/quanta compile examples/llama2-7b-16-8-8-4.yaml -o build
	$(BIN)/python examples/train.py build/llama2_7b_16_8_8_4.py

# Two processes of tests: with a thread for every core in each, they would wait for each other's.
test test-lowest test-slow: export OMP_NUM_THREADS = 1

test: $(READY)
	$(BIN)/python -m pytest -n 2 -m 'not slow'

# The oldest versions that pyproject.toml admits, but for torch, which is the one of `test`: its oldest has no small build
# for the CPU everywhere, and is run by hand (docs/versions.md). So what rests on torch and this package alone would run
# as in `test`, and is left out.
$(LOWEST)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/python -m pip install --quiet --no-compile --no-deps --constraint constraints.txt torch uv
	$(LOWEST)/bin/uv pip install --quiet --python $(LOWEST) --constraint constraints.txt --resolution lowest-direct \
		--editable '.[all,test]'
	touch $@

test-lowest: $(LOWEST)/.ready
	$(LOWEST)/bin/python -m pytest -n 2 -m 'not slow' $(TORCH_ALONE:%=--ignore tests/%)

test-slow: $(READY)
	$(BIN)/python -m pytest -n 2 -m slow

test-peft: $(READY)
	$(BIN)/python tests/peft_suite/run.py

# Needs an NVIDIA GPU, and takes ten minutes at most: build/gpu-report.html and build/gpu-report.json.
gpu: $(READY)
	$(BIN)/python tests/gpu/gpu_report.py -o build

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

format: $(READY)
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) $(LOWEST) build dist *.egg-info
