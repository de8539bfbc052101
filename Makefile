# `make demo` and `make test` need make and Python 3.10 or newer, nothing else. Without make: see README.md.
.PHONY: demo test test-oldest check-wheel sbom audit test-robust bench verify-results lint notebooks lint-notebooks check-notebooks sabotage book check-site serve clean
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# The lock's versions need Python 3.11; on 3.10 the bounds of pyproject.toml decide.
LOCK = $$($(BIN)/python -c 'import sys; print("-c requirements.lock" * (sys.version_info >= (3, 11)))')

demo: $(VENV)/dev
	$(BIN)/ddad demo build/demo

test: lint
	$(BIN)/python -m pytest

test-robust: $(VENV)/book                # the long checks, an hour or more; ONLY="name .." runs some; records book/results/robustness.json
	$(BIN)/python tests/robust/run.py $(if $(ONLY),--only $(ONLY))

test-oldest: build/oldest/ok            # the lower bounds of pyproject.toml, the part of the tests that needs no book; PYTHON 3.10 or 3.11
	build/oldest/bin/python -m pytest $(filter-out tests/test_notebooks.py tests/test_book.py tests/test_reproduce.py tests/test_robust.py,$(wildcard tests/test_*.py))

check-wheel: $(VENV)/dev                # the wheel, in a clean environment, runs the demo from outside the checkout
	rm -rf build/lib build/wheel build/clean build/outside
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir build/wheel .
	$(BIN)/python -m venv build/clean
	build/clean/bin/python -m pip install --quiet $(LOCK) build/wheel/*.whl
	mkdir build/outside
	cd build/outside && ../clean/bin/ddad demo demo && ../clean/bin/python -c "import ddad; assert 'site-packages' in ddad.__file__, ddad.__file__"

sbom: build/tools/ok                    # build/sbom.json, CycloneDX, of what requirements.lock pins
	build/tools/bin/cyclonedx-py requirements requirements.lock --pyproject pyproject.toml --output-reproducible -o build/sbom.json

audit: build/tools/ok                   # known vulnerabilities of what requirements.lock pins; asks PyPI
	build/tools/bin/pip-audit --strict --no-deps --disable-pip -r requirements.lock

bench: $(VENV)/dev                      # what everything around the networks costs: build/bench.json; leave the machine alone meanwhile
	$(BIN)/ddad bench build

verify-results: $(VENV)/dev             # every table of the book again, from the receipts and recorded runs; fails on any difference
	$(BIN)/python book/make_results.py --check

lint: $(VENV)/dev
	$(BIN)/ruff check
	$(BIN)/codespell README.md book ddad notebooks tests

notebooks: $(VENV)/book                 # runs the stale ones and writes them back
	$(BIN)/python book/run_notebooks.py update

lint-notebooks: $(VENV)/book             # executed with the present code, short cells, described figures
	$(BIN)/python -m pytest tests/test_notebooks.py

check-notebooks: $(VENV)/book           # runs all and compares what they record
	$(BIN)/python book/run_notebooks.py check

sabotage: $(VENV)/book                  # breaks three lines of the method; each must turn a notebook red
	$(BIN)/python book/sabotage.py

book: $(VENV)/book
	$(BIN)/jupyter-book build . --config _config.yml --toc book/_toc.yml -W -n --keep-going --all
	$(BIN)/python book/make_live.py
	$(BIN)/python book/check_pages.py

check-site: $(VENV)/book                # after `make book`; needs Chromium and its driver
	$(BIN)/python book/check_site.py

.PHONY: check-live
check-live: $(VENV)/book                # after `make book`; breaks a board in Chromium, and compares the page with PyTorch
	$(BIN)/python book/check_live.py

serve: book
	$(BIN)/python -m http.server 8000 --directory _build/html

clean:
	rm -rf $(VENV) build _build

# An empty file notes what the environment holds; it is made again when the lock or the dependencies change.
$(VENV)/dev: requirements.lock pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet $(LOCK) -e ".[dev]"
	touch $@

$(VENV)/book: $(VENV)/dev
	$(BIN)/python -m pip install --quiet $(LOCK) -e ".[dev,book]"
	touch $@

# Environments apart, so that what they hold is not among the locked packages.
build/tools/ok: | $(BIN)/python
	$(BIN)/python -m venv build/tools
	build/tools/bin/python -m pip install --quiet cyclonedx-bom==7.5.0 pip-audit==2.10.1
	touch $@

build/oldest/ok: requirements-oldest.txt pyproject.toml
	$(PYTHON) -m venv build/oldest
	build/oldest/bin/python -m pip install --quiet -c requirements-oldest.txt -e . pytest hypothesis
	touch $@

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit("ddad needs Python 3.10 or newer; say which with: make PYTHON=python3.11") if sys.version_info < (3, 10) else None'
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }
