# `make demo` and `make test` need make and Python 3.10 or newer, nothing else. Without
# make: see README.md.
.PHONY: demo test test-oldest test-robust check-wheel sbom audit bench experiments \
	verify-results lint notebooks lint-notebooks check-notebooks sabotage reference \
	book check-site check-live serve clean
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# The lock's versions need Python 3.11; on 3.10 the bounds of pyproject.toml decide.
LOCK = $$($(BIN)/python -c \
	'import sys; print("-c requirements.lock" * (sys.version_info >= (3, 11)))')
# Tests run in two processes of one thread each: threads that wait for one another, and
# spin meanwhile, cost more than they bring.
ONE_THREAD = OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE
PYTEST = $(ONE_THREAD) $(BIN)/python -m pytest -n 2 --dist loadfile

demo: $(VENV)/dev
	$(BIN)/ddad demo build/demo

test: lint
	$(PYTEST)

# the long checks, an hour or more; ONLY="name .." runs some; records
# book/results/robustness.json
test-robust: $(VENV)/book
	$(BIN)/python tests/robust/run.py $(if $(ONLY),--only $(ONLY))

# the lower bounds of pyproject.toml, the part of the tests that needs no book;
# PYTHON 3.10 or 3.11
NOT_OLDEST = book robust test_robust.py reproduction/test_runs.py \
	reproduction/test_receipts.py reproduction/test_tables.py
test-oldest: build/oldest/ok
	$(ONE_THREAD) build/oldest/bin/python -m pytest $(NOT_OLDEST:%=--ignore tests/%)

# the wheel, in a clean environment, runs the demo from outside the checkout
check-wheel: $(VENV)/dev
	rm -rf build/lib build/wheel build/clean build/outside
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir build/wheel .
	$(BIN)/python -m venv build/clean
	build/clean/bin/python -m pip install --quiet $(LOCK) build/wheel/*.whl
	mkdir build/outside
	cd build/outside && ../clean/bin/ddad demo demo && ../clean/bin/python -c \
		"import ddad; assert 'site-packages' in ddad.__file__, ddad.__file__"

# build/sbom.json, CycloneDX, of what requirements.lock pins
sbom: build/tools/ok
	build/tools/bin/cyclonedx-py requirements requirements.lock \
		--pyproject pyproject.toml --output-reproducible -o build/sbom.json

# known vulnerabilities of what requirements.lock pins; asks PyPI
audit: build/tools/ok
	build/tools/bin/pip-audit --strict --no-deps --disable-pip -r requirements.lock

# what everything around the networks costs: build/bench.json; leave the machine alone
# meanwhile
bench: $(VENV)/dev
	$(BIN)/ddad bench build

# records of book/results made anew: all that are stale, or ONLY="name .."; DATA=FOLDER
# of real sets and TAEF2=FILE.py:CALLABLE where they need them, CORES jobs at a time
experiments: $(VENV)/dev
	$(BIN)/python book/tools/experiments.py run $(ONLY) --cores $(or $(CORES),2) \
		$(if $(DATA),--data $(DATA)) $(if $(TAEF2),--taef2 $(TAEF2)) \
		$(if $(TAESD),--taesd $(TAESD))

# every table of the book again, from the receipts and recorded runs; fails on any
# difference
verify-results: $(VENV)/dev
	$(BIN)/python book/tools/make_results.py --check
	$(BIN)/python book/tools/make_codecheck.py --check

lint: $(VENV)/dev
	$(BIN)/ruff check
	$(BIN)/codespell README.md book ddad notebooks tests

# runs the stale chapters, writes them back, and brings the tables in line with them
notebooks: $(VENV)/book
	$(BIN)/python book/tools/run_notebooks.py update
	$(BIN)/python book/tools/make_results.py
	$(BIN)/python book/tools/make_codecheck.py

# executed with the present code, short cells, described figures
lint-notebooks: $(VENV)/book
	$(PYTEST) tests/book

# runs all chapters and compares what they record
check-notebooks: $(VENV)/book
	$(BIN)/python book/tools/run_notebooks.py check

# breaks three lines of the method; each must turn a chapter red
sabotage: $(VENV)/book
	$(BIN)/python book/tools/sabotage.py

# the pages on commands and settings, from the parser and the presets
reference: $(VENV)/dev
	$(BIN)/python book/tools/make_reference.py

book: $(VENV)/book
	$(BIN)/jupyter-book build . --config _config.yml --toc book/_toc.yml \
		-W -n --keep-going --all
	$(BIN)/python book/tools/make_live.py
	$(BIN)/python book/tools/check_pages.py

# after `make book`; needs Chromium and its driver
check-site: $(VENV)/book
	$(BIN)/python book/tools/check_site.py
	$(BIN)/python book/tools/check_gallery.py
	$(BIN)/python book/tools/check_reports.py

# after `make book`; breaks a board in Chromium, and compares the page with PyTorch
check-live: $(VENV)/book
	$(BIN)/python book/tools/check_live.py

serve: book
	$(BIN)/python -m http.server 8000 --directory _build/html

clean:
	rm -rf $(VENV) build _build

# An empty file notes what the environment holds; it is made again when the lock or the
# dependencies change.
$(VENV)/dev: requirements.lock pyproject.toml | $(BIN)/python
	@$(BIN)/python book/tools/before_pip.py $(LOCK)
	$(BIN)/python -m pip install $(LOCK) -e ".[dev]"
	touch $@

$(VENV)/book: $(VENV)/dev
	$(BIN)/python -m pip install $(LOCK) -e ".[dev,book]"
	touch $@

# Environments apart, so that what they hold is not among the locked packages.
build/tools/ok: | $(BIN)/python
	$(BIN)/python -m venv build/tools
	build/tools/bin/python -m pip install --quiet \
		cyclonedx-bom==7.5.0 pip-audit==2.10.1
	touch $@

build/oldest/ok: requirements-oldest.txt pyproject.toml
	$(PYTHON) -m venv build/oldest
	build/oldest/bin/python -m pip install --quiet -c requirements-oldest.txt -e . \
		pytest hypothesis
	touch $@

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit("ddad needs Python 3.10 or newer; say which \
	with: make PYTHON=python3.11" if sys.version_info < (3, 10) else None)'
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }
