# make demo   sample corpus -> shards -> ZeRO-3 pretraining on two CPU ranks -> Hugging Face export -> generated text ->
#             a fine-tuned classifier -> answers over HTTP
# make test   the default tests        make test-slow   the long ones
# make check  ruff and mypy            make clean       everything that the above made, the environment included

PYTHON ?= python3
VENV ?= .venv
RANKS ?= 2
DEMO ?= demo
# Files of tests that run at once; what a distributed test starts comes on top.
TEST_WORKERS ?= 2

BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# Two processes on two cores: one thread each, or they take turns.
export OMP_NUM_THREADS ?= 1
export TOKENIZERS_PARALLELISM ?= false
# DeepSpeed's launcher finds its own programs through PATH.
WITH_PATH := PATH=$(abspath $(BIN)):$$PATH

.PHONY: demo test test-slow check install clean

install: $(INSTALLED)

$(INSTALLED): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "megadec needs Python 3.11 or newer, found " + sys.version)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --upgrade pip setuptools wheel
	# torch first: DeepSpeed is built from source and looks for it.
	$(BIN)/pip install --quiet --disable-pip-version-check $$(grep '^torch==' requirements.txt)
	DS_BUILD_OPS=0 $(BIN)/pip install --quiet --disable-pip-version-check -r requirements.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

demo: $(INSTALLED)
	$(WITH_PATH) DEMO=$(DEMO) RANKS=$(RANKS) bash launch/demo.sh

test: $(INSTALLED)
	$(WITH_PATH) $(BIN)/python -m pytest -n $(TEST_WORKERS) --dist loadfile

test-slow: $(INSTALLED)
	$(WITH_PATH) $(BIN)/python -m pytest -m slow

check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) $(DEMO) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
