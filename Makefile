# make demo   sample corpus -> shards -> ZeRO-3 pretraining on two CPU ranks -> Hugging Face export -> generated text ->
#             a fine-tuned classifier -> answers over HTTP
# make test   the default tests        make test-slow   the long ones
# make check  ruff and mypy            make clean       everything that the above made, the environments included
# make test-newest, make test-oldest   the default tests with the newest packages that pyproject.toml's ranges allow, and
#             with the oldest torch of its range, each in an environment of its own (.venv-newest, .venv-oldest)
#
# A package index usually holds torch's CUDA build (4.7 GB installed). Where no GPU is, take the CPU build (1.5 GB) from
# an index that has it: make install TORCH_INDEX=https://download.pytorch.org/whl/cpu

PYTHON ?= python3
VENV ?= .venv
TORCH_INDEX ?=
RANKS ?= 2
DEMO ?= demo
# Files of tests that run at once; what a distributed test starts comes on top.
TEST_WORKERS ?= 2

BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# Two processes on two cores: one thread each, or they take turns.
export OMP_NUM_THREADS ?= 1
export TOKENIZERS_PARALLELISM ?= false
# Where Python is told to keep no bytecode, each of the many processes would compile the project anew.
export PYTHONDONTWRITEBYTECODE =
# DeepSpeed's launcher finds its own programs through PATH.
WITH_PATH := PATH=$(abspath $(BIN)):$$PATH

PIP_INSTALL := pip install --quiet --disable-pip-version-check
# torch goes first: DeepSpeed is built from source and looks for it.
FROM_TORCH_INDEX := $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX))

.PHONY: demo test test-slow test-newest test-oldest check install clean

install: $(INSTALLED)

$(INSTALLED): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "megadec needs Python 3.11 or newer, found " + sys.version)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/$(PIP_INSTALL) --upgrade pip setuptools wheel
	$(BIN)/$(PIP_INSTALL) $(FROM_TORCH_INDEX) $$(grep '^torch==' requirements.txt)
	DS_BUILD_OPS=0 $(BIN)/$(PIP_INSTALL) -r requirements.txt
	$(BIN)/$(PIP_INSTALL) --no-deps --no-build-isolation -e .
	touch $@

demo: $(INSTALLED)
	$(WITH_PATH) DEMO=$(DEMO) RANKS=$(RANKS) bash launch/demo.sh

test: $(INSTALLED)
	$(WITH_PATH) $(BIN)/python -m pytest -n $(TEST_WORKERS) --dist loadfile

test-newest: TORCH = 'torch>=2.11,<3'
# The interpreter of triton 3.6, which this torch brings, does not work with numpy 2.4; only tests on a CPU use it.
test-oldest: TORCH = 'torch==2.11.0' 'numpy<2.4'
test-newest test-oldest: test-%:
	$(PYTHON) -m venv .venv-$*
	.venv-$*/bin/$(PIP_INSTALL) --upgrade pip setuptools wheel
	.venv-$*/bin/$(PIP_INSTALL) $(FROM_TORCH_INDEX) $(TORCH)
	DS_BUILD_OPS=0 .venv-$*/bin/$(PIP_INSTALL) $(TORCH) -e '.[dev]'
	PATH=$(abspath .venv-$*/bin):$$PATH .venv-$*/bin/python -m pytest -n $(TEST_WORKERS) --dist loadfile

test-slow: $(INSTALLED)
	$(WITH_PATH) $(BIN)/python -m pytest -m slow

check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) .venv-newest .venv-oldest $(DEMO) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
