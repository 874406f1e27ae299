# make run    everything from nothing to a chat page      make test   the test suite, with style and types
# make soak   longer proofs                               make lint   style and types
# Options of yatsude run go into ARGS: make run MINUTES=30 ARGS=--restart
PYTHON ?= python3
BIN := .venv/bin
MINUTES ?= 10
STAMP := .venv/.installed

.PHONY: run test soak lint clean

run: $(STAMP)
	$(BIN)/yatsude run --minutes $(MINUTES) $(ARGS)

test: $(STAMP)-dev lint
	$(BIN)/python -m pytest -q --durations=10

soak: $(STAMP)-dev
	$(BIN)/python -m pytest -q -m soak --durations=10

lint: $(STAMP)-dev
	$(BIN)/ruff check src tests bench
	$(BIN)/ruff format --check src tests bench
	$(BIN)/mypy

clean:
	rm -rf .venv build src/*.egg-info

# torch comes first and plainly, so that pip's own index settings decide between its CPU and CUDA builds
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q --disable-pip-version-check $(shell grep '^torch==' constraints.txt)
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e '.[all]'
	touch $@

$(STAMP)-dev: $(STAMP)
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@sh tests/browser.sh
	touch $@
