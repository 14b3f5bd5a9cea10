# `make demo` opens the page, `make test` runs the tests; each is the first command after a clone.
PYTHON ?= python3
PORT ?= 7860
VENV := .venv
PY := $(VENV)/bin/python

CHECKPOINTS := $(patsubst checkpoints/%/run.json,%,$(wildcard checkpoints/*/run.json))
PORTABLE := $(CHECKPOINTS:%=.cache/portable/%)
GALLERY := .cache/gallery

.PHONY: demo test lint portable clean
.DELETE_ON_ERROR:

demo: $(VENV)/installed portable $(GALLERY)/app.py
	@MODEL_ID="$$(echo $(PORTABLE:%=$(CURDIR)/%) | tr ' ' ',')" OPEN_PAGE=1 GRADIO_ANALYTICS_ENABLED=False \
	GRADIO_SERVER_NAME=127.0.0.1 GRADIO_SERVER_PORT=$(PORT) $(PY) $(GALLERY)/app.py

test: $(VENV)/installed-tests
	@$(PY) -m pytest

lint: $(VENV)/installed-tests
	@$(PY) -m ruff check . && $(PY) -m ruff format --check .

portable: $(PORTABLE:%=%/README.md)

# a portable folder is rebuilt when its checkpoint, the code it carries or the build step changed
.SECONDEXPANSION:
.cache/portable/%/README.md: $$(wildcard checkpoints/%/* checkpoints/%/*/*) $(wildcard pipelines/*/*.py) training/publish.py training/card.py | $(VENV)/installed
	@$(PY) -m training.publish checkpoints/$* --to .cache/portable/$* > /dev/null

$(GALLERY)/app.py: $(wildcard spaces/*/*) $(wildcard checkpoints/*/*.json) training/publish.py | $(VENV)/installed
	@$(PY) -m training.publish --space spaces/gallery --to $(GALLERY) > /dev/null

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
