# The commands of README.md and docs/; `make` alone lists them. They need Python, make and a shell, no GPU.

PYTHON ?= python3
VENV ?= .venv
# What pip is told about torch, which comes first so that nothing else decides which build is taken.
# docs/installing.md says when to choose another.
TORCH ?= torch==2.13.0
WORKERS ?= 2
BIN := $(VENV)/bin
LOW := .venv-low
FIRST := notebooks/00_start_here.ipynb
CHROMIUM := command -v chromium || command -v chromium-browser || command -v google-chrome

.PHONY: help lab demo bench test lint test-units test-pretended-gpu test-notebooks test-real test-browser test-lower-bounds format clean
.DEFAULT_GOAL := help

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-18s %s\n", $$1, $$2 }' Makefile

lab: $(VENV)/lab.stamp ## open the first notebook in JupyterLab
	$(BIN)/jupyter lab --ServerApp.root_dir=. $(FIRST)

demo: $(VENV)/lab.stamp ## decode one text naively and speculatively, here in the terminal
	$(BIN)/specdec demo

bench: $(VENV)/lab.stamp ## time this library against transformers' own generation (minutes)
	$(BIN)/specdec bench

test: lint test-units test-notebooks ## the next three

lint: $(VENV)/test.stamp ## ruff, on code and notebooks; mypy, on the decoder and its theory
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test-units: $(VENV)/test.stamp ## the unit tests
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadscope

test-notebooks: $(VENV)/test.stamp ## run every notebook and compare its outputs with the committed ones
	$(BIN)/python -m pytest --nbval --nbval-current-env -n $(WORKERS) --dist loadscope notebooks

test-pretended-gpu: $(VENV)/test.stamp ## the tests of GPUs, without one: on tensors that say they are on one
	PYTHONPATH=tests $(BIN)/python -m pytest -p pretended_gpu -m gpu -n $(WORKERS)

test-real: $(VENV)/real.stamp ## the tests of the chat model, which is fetched once (93 MB)
	$(BIN)/python -m pytest -m real tests/test_real.py

test-browser: $(VENV)/browser.stamp ## every notebook in a real browser: JupyterLab runs it, its controls are moved
	@$(CHROMIUM) || { command -v apt-get && [ "$$(id -u)" = 0 ] && apt-get update -q && apt-get install -y -q chromium; } || true
	$(BIN)/python -m pytest -m browser -rs -n $(WORKERS) tests/test_browser.py

test-lower-bounds: ## the unit tests with the oldest of every dependency, in an environment of their own
	$(PYTHON) -m venv $(LOW)
	$(LOW)/bin/python tests/lower_bounds.py > $(LOW)/constraints.txt
	$(LOW)/bin/python -m pip install -e ".[notebooks,test]" -c $(LOW)/constraints.txt
	$(LOW)/bin/python -m pytest -n $(WORKERS) --dist loadscope

format: $(VENV)/test.stamp ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove the environments; the next command makes a new one
	rm -rf $(VENV) $(LOW)

# A stamp is written when its step has succeeded, so a second call installs nothing.
$(VENV)/torch.stamp:
	@$(PYTHON) -c "import sys; v = sys.version_info[:2]; sys.exit(v < (3, 11) and '$(PYTHON) is Python %d.%d, but 3.11 or newer is needed: say for instance PYTHON=python3.12' % v)"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install $(TORCH)
	@touch $@

$(VENV)/lab.stamp: pyproject.toml $(VENV)/torch.stamp
	$(BIN)/python -m pip install -e ".[notebooks]"
	@touch $@

$(VENV)/test.stamp: pyproject.toml $(VENV)/torch.stamp
	$(BIN)/python -m pip install -e ".[notebooks,test]"
	@touch $(VENV)/lab.stamp $@

$(VENV)/real.stamp: pyproject.toml $(VENV)/test.stamp
	$(BIN)/python -m pip install -e ".[real]"
	@touch $@

$(VENV)/browser.stamp: pyproject.toml $(VENV)/test.stamp
	$(BIN)/python -m pip install -e ".[browser]"
	@touch $@
