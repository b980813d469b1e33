# Plain pip and venv underneath: each target says what it runs.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
LAB    := $(BIN)/python -m lab

.PHONY: run test hooks benchmark publish clean

run: $(VENV)/.run  ## install, then train A2C on CartPole
	$(LAB) algo=a2c env=cartpole

test: $(VENV)/.test  ## install with what the tests need, then run them all but the slow ones
	$(BIN)/python -m pytest

hooks: $(VENV)/.test  ## check each commit with ruff, mypy, import-linter and codespell before it is made
	$(BIN)/pre-commit install

benchmark: $(VENV)/.benchmark  ## frames per second, side by side with Stable-Baselines3
	$(BIN)/python -m benchmark.throughput

publish: $(VENV)/.publish  ## train and publish what is not up to date; `dvc pull` before it fetches what was trained elsewhere
	PATH="$(CURDIR)/$(BIN):$$PATH" dvc repro

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run: $(VENV)/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

$(VENV)/.test: $(VENV)/.run
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test]'
	touch $@

$(VENV)/.benchmark: $(VENV)/.run
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[benchmark]'
	touch $@

$(VENV)/.publish: $(VENV)/.run
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[publish]'
	touch $@

clean:  ## remove the virtual environment
	rm -rf $(VENV)
