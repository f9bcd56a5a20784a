# make play        sets up .venv, plays a flute clip on a violin: a sound file and its picture
# make demo        the same, then trains a flute model a little, interrupts it, resumes it
# make app         sets up .venv, opens a page in the browser that does transfers; APP="port=8000" passes settings on
# make test        sets up .venv, checks style, spelling and types, runs the tests; with JOBS=2 in two processes
# make test-long   runs every test, the long campaigns and larger random searches included; about an hour
# make test-faults kills training runs at 20 random moments and compares what they left; minutes
# make clean       removes .venv, demo/ and what building and testing leave here
# Elsewhere: make demo PYTHON=python3.13 VENV=FOLDER OUTPUT=FOLDER
PYTHON ?= python3
VENV ?= .venv
OUTPUT = demo
APP =
JOBS ?= 0
BIN = $(VENV)/bin
SPELLED = *.md *.py *.toml Makefile audio_diffusion_pytorch basic-pitch-torch benchmarks configs docs exp scripts tests
export RUFF_CACHE_DIR = $(VENV)/.ruff_cache
export MYPY_CACHE_DIR = $(VENV)/.mypy_cache
PYTEST = "$(BIN)/python" -m pytest -o cache_dir="$(VENV)/.pytest_cache"

.PHONY: play demo app test test-long test-faults format clean setup setup-app setup-dev

play: setup
	@"$(BIN)/python" scripts/demo.py --output "$(OUTPUT)" --play

demo: setup
	@"$(BIN)/python" scripts/demo.py --output "$(OUTPUT)"

app: setup-app
	@"$(BIN)/python" app.py $(APP)

test: setup-dev
	"$(BIN)/ruff" check .
	"$(BIN)/ruff" format --check .
	"$(BIN)/codespell" $(SPELLED)
	"$(BIN)/mypy"
	$(PYTEST) -n $(JOBS) --dist loadfile --no-loadscope-reorder

test-long: setup-dev
	HYPOTHESIS_PROFILE=long $(PYTEST) -m "long or faults or not long"

test-faults: setup-dev
	$(PYTEST) -m faults

format: setup-dev
	"$(BIN)/ruff" check --fix .
	"$(BIN)/ruff" format .

setup:
	@"$(PYTHON)" scripts/set_up.py --venv "$(VENV)"

setup-app:
	@"$(PYTHON)" scripts/set_up.py --venv "$(VENV)" --app

setup-dev:
	@"$(PYTHON)" scripts/set_up.py --venv "$(VENV)" --dev

clean:
	rm -rf .venv demo build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
