# Plain pip and venv underneath: each target says what it runs.
PYTHON ?= python3
VENV   := .venv
PEERS  := .venv-peers
BIN    := $(VENV)/bin
LAB    := $(BIN)/python -m lab

.PHONY: run test docs hooks benchmark gpu publish clean

run: $(VENV)/.run  ## install, then train A2C on CartPole
	$(LAB) algo=a2c env=cartpole

test: $(VENV)/.test  ## install with what the tests need, then run them all but the slow ones
	$(BIN)/python -m pytest

docs: $(VENV)/.docs  ## build the docs site in build/docs; a broken link is an error
	$(BIN)/python -m sphinx -q -W --keep-going -n -d build/docs-cache docs build/docs
	@echo "Open build/docs/index.html"

hooks: $(VENV)/.test  ## check each commit with ruff, mypy, import-linter and codespell before it is made
	$(BIN)/pre-commit install

benchmark: $(VENV)/.benchmark $(PEERS)/.benchmark  ## frames per second, side by side with Stable-Baselines3, sbx and rejax
	$(BIN)/python -m benchmark.throughput

gpu:  ## measure stacks on a GPU, then run the tests that need one; installs nothing, and runs in .venv if there is one
	$(or $(wildcard $(BIN)/python),$(PYTHON)) -m benchmark.gpu
	$(or $(wildcard $(BIN)/python),$(PYTHON)) -m pytest -n0 -m gpu

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

$(VENV)/.docs: $(VENV)/.run
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	touch $@

$(VENV)/.benchmark: $(VENV)/.run
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[benchmark]'
	touch $@

$(PEERS)/.benchmark: benchmark/peers.txt  # an environment of its own: the pins of JAX must not touch ours
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet --requirement benchmark/peers.txt
	touch $@

$(VENV)/.publish: $(VENV)/.run
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[publish]'
	touch $@

clean:  ## remove the virtual environments
	rm -rf $(VENV) $(PEERS)
