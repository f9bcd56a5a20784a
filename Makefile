# make demo   sets up and runs the main job: train a little, interrupt, resume; play a flute clip on a violin
# make test   sets up and runs lint and tests
# make test-long   runs every test, the long campaigns and larger random searches included; about an hour
# make test-faults   kills training runs at 20 random moments and compares what they left; minutes
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin

.PHONY: demo test test-long test-faults lint format clean

demo: $(VENV)/.run
	$(BIN)/python scripts/demo.py

test: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest

test-long: $(VENV)/.dev
	HYPOTHESIS_PROFILE=long $(BIN)/python -m pytest -m "long or faults or not long"

test-faults: $(VENV)/.dev
	$(BIN)/python -m pytest -m faults

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(VENV)/.run: requirements.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(None if (3, 10) <= sys.version_info < (3, 13) else "Python 3.10 to 3.12 is needed, this is " + sys.version.split()[0] + "; choose another with make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

$(VENV)/.dev: $(VENV)/.run
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[data,notebook,dev]"
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info demo
