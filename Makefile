# `make demo` opens the page, `make test` runs the tests; each is the first command after a clone.
PYTHON ?= python3
PORT ?= 7860
VENV := .venv
PY := $(VENV)/bin/python

CACHE := .cache
CHECKPOINTS := $(patsubst checkpoints/%/run.json,%,$(wildcard checkpoints/*/run.json))

.PHONY: demo test lint portable clean
.DELETE_ON_ERROR:

demo: portable
	@MODEL_ID="$$(echo $(CHECKPOINTS:%=$(CURDIR)/$(CACHE)/portable/%) | tr ' ' ',')" OPEN_PAGE=1 GRADIO_ANALYTICS_ENABLED=False \
	GRADIO_SERVER_NAME=127.0.0.1 GRADIO_SERVER_PORT=$(PORT) $(PY) $(CACHE)/gallery/app.py

# a process for each core, four at most, each with one thread; the tests of a file run in one of them
test: $(VENV)/installed-tests
	@$(PY) -m pytest -n logical --maxprocesses 4 --dist loadscope --no-loadscope-reorder

lint: $(VENV)/installed-tests
	@$(PY) -m ruff check . && $(PY) -m ruff format --check .

# the portable folder of each checkpoint and the gallery; what did not change is not built again
portable: $(VENV)/installed
	@$(PY) -m training.publish --cache $(CACHE)

$(PY):
	@$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 11) or sys.exit(f"Python {v[0]}.{v[1]} is too old; give Python 3.11 or newer by PYTHON=python3.11")'
	@$(PYTHON) -m venv $(VENV)

$(VENV)/installed: requirements.txt | $(PY)
	@echo "installing requirements.txt into $(VENV), once"
	@$(PY) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

$(VENV)/installed-tests: tests/requirements.txt requirements.txt | $(PY)
	@echo "installing tests/requirements.txt into $(VENV), once"
	@$(PY) -m pip install --quiet --disable-pip-version-check -r tests/requirements.txt
	@touch $@ $(VENV)/installed

clean:
	rm -rf $(VENV) .cache build
