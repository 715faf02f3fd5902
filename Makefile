# `make run` and `make test` need Python 3.10-3.13 (with venv), git and make; nothing else.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin

.PHONY: run install test check unit wheel bench clean
.DEFAULT_GOAL := run

run: install  ## Start a server, deploy the demo agent, call it, serve until Ctrl-C
	@PATH="$(abspath $(BIN)):$$PATH" sh examples/run.sh

install: $(VENV)/installed

$(VENV)/installed: setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --config-settings editable_mode=compat -e .
	@touch $@

$(VENV)/tested: $(VENV)/installed
	$(BIN)/pip install --quiet --disable-pip-version-check --config-settings editable_mode=compat -e '.[test,check]'
	@touch $@

test: check unit wheel  ## Everything CI runs

check: $(VENV)/tested  ## Style, types, layers, docstrings
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/vermin --quiet --no-tips --target=3.8- --violations agentcore/python
	$(BIN)/pydoctor --config setup.cfg --html-output build/api --warnings-as-errors --quiet

unit: $(VENV)/tested
	$(BIN)/python -m pytest $(TESTS)

wheel: $(VENV)/tested  ## The built wheel works outside of the checkout
	PYTHON=$(abspath $(BIN)/python) sh tests/wheel.sh

bench: $(VENV)/installed  ## Measure it beside its rivals; ROWS="latency tasks" for some, WRITE=1 puts tables into docs/performance.md
	$(BIN)/python -m benchmarks $(if $(WRITE),--write) $(ROWS)

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
