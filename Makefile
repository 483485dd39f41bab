# Everything runs in .venv, which the first call of any target makes and a changed lock brings up to date.
.PHONY: demo test test-all check bench bench-gpu lock clean
BIN := .venv/bin
STAMP := .venv/.installed

demo: $(STAMP)  ## the whole pipeline on drawn scenes over real HTTP; again resumes it
	$(BIN)/ovseg run demo --out runs/demo

test: $(STAMP)  ## all tests but the slow ones
	$(BIN)/python -m pytest -m "not slow"

test-all: $(STAMP)  ## all tests
	$(BIN)/python -m pytest

check: $(STAMP)  ## style and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: $(STAMP)  ## the benchmarks of tests/benchmarks; figures are kept in docs/benchmarks.md
	$(BIN)/python -m tests.benchmarks

bench-gpu: $(STAMP)  ## the benchmark of a GPU: steps, drift, loader, evaluation
	$(BIN)/python -m tests.benchmarks.gpu

$(STAMP): infra/requirements.lock infra/requirements-uv.lock infra/setup.sh pyproject.toml
	bash infra/setup.sh
	touch $@

lock: $(STAMP)  ## resolve anew (needs uv); --no-emit-index-url keeps registry addresses out
	$(BIN)/uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-header --upgrade --quiet --output-file infra/requirements.lock

clean:
	rm -rf .venv runs .prefect
