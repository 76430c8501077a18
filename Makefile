# Start with `make demo` and `make test`. Both need Python >= 3.11 and make, and set up .venv.

PYTHON ?= $(firstword $(foreach name,python3.13 python3.12 python3.11 python3,$(shell $(name) -c 'import sys; sys.version_info >= (3, 11) and print(sys.executable)' 2>/dev/null)))
BIN := .venv/bin
LOCK := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header

.PHONY: help demo test test-slow test-cloud coverage fuzz cloud policy lint docs site dist bench bench-smoke lock clean

help:  ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "%-12s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

demo: .venv/ready  ## Make mosaics of a small synthetic Earth, in ./demo
	$(BIN)/scenebeam demo --output demo

test: .venv/ready  ## Run the default tests
	$(BIN)/python -m pytest --numprocesses logical --maxprocesses 4 --dist worksteal

test-slow: .venv/ready  ## Run tests that take minutes
	$(BIN)/python -m pytest -m slow --numprocesses 2 --dist worksteal

test-cloud: .venv/ready .venv-worker/ready  ## Test a whole cloud on loopback, images and infrastructure; lists what this machine lacks
	.venv-worker/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --force-reinstall .
	SCENEBEAM_WORKER_PYTHON=$(CURDIR)/.venv-worker/bin/python $(BIN)/python -m pytest -m cloud

fuzz: .venv/ready  ## Fuzz TIFFs, requests, items, vector files and states; inputs with findings are kept in ./fuzz
	$(BIN)/python tests/fuzz_tiffs.py --count 2000 --keep fuzz
	$(BIN)/python tests/fuzz_vectors.py --count 2000 --keep fuzz
	$(BIN)/python tests/fuzz_requests.py --seconds 150 --keep fuzz
	$(BIN)/python tests/fuzz_catalogs.py --seconds 120
	$(BIN)/python tests/fuzz_coverage.py --seconds 150 --corpus fuzz/corpus
	$(BIN)/python tests/fuzz_states.py --seconds 600 --keep fuzz

cloud: .venv/ready  ## Run the example request through a whole cloud on loopback
	$(BIN)/python tests/local_cloud.py

policy: .venv-checkov/ready  ## Check the infrastructure with checkov, but for the examples of infra/clusters
	.venv-checkov/bin/checkov --directory infra --skip-path infra/clusters --skip-download --compact --quiet

lint: .venv/ready  ## Style, types, spelling and prose
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/codespell
	$(BIN)/python docs/prose.py
	$(BIN)/python docs/field_tables.py --check

coverage: .venv/ready  ## The default tests, and which lines they run: a report, not a gate
	$(BIN)/python -m pytest --numprocesses logical --maxprocesses 4 --dist worksteal --cov --cov-report=term --cov-report=html

docs: .venv/ready  ## Regenerate the tables of request fields in docs/
	$(BIN)/python docs/field_tables.py

bench: .venv-bench/ready  ## Compare with other tools; takes 40 minutes and 20 GB of disk
	cd benchmarks && for name in mosaic zones timestamp stack composite index assets chips places landcover cube start; do ../.venv-bench/bin/python $$name.py || exit 1; done

bench-smoke: .venv/ready  ## Compare a small mosaic with the recorded ratios; fails if more is read
	cd benchmarks && ../$(BIN)/python smoke.py

dist: .venv/ready  ## Build the wheel and the source distribution into dist/
	rm -rf dist
	$(BIN)/python -m build --no-isolation --outdir dist .

site: .venv-site/ready  ## Build the documentation as a site, in ./site
	NO_MKDOCS_2_WARNING=1 .venv-site/bin/mkdocs build --strict --quiet

lock:  ## Resolve the dependencies; needs uv
	$(LOCK) --extra dev --constraint benchmarks/constraints.txt pyproject.toml --output-file requirements.lock
	$(LOCK) --constraint requirements.lock benchmarks/requirements.in --output-file benchmarks/requirements.lock
	$(LOCK) --constraint requirements.lock --extra dataflow --extra aws --extra planetary-computer --extra vector --extra icechunk --extra dask pyproject.toml --output-file docker/worker.lock
	$(LOCK) docs/site.in --output-file docs/site.lock
	$(LOCK) --constraint requirements.lock functions/requirements.in --output-file functions/requirements.lock
	$(LOCK) infra/checkov.in --output-file infra/checkov.lock

.venv/ready: requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "scenebeam needs Python 3.11 or newer: none found; set PYTHON=..." >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

.venv-worker/ready: docker/worker.lock
	$(PYTHON) -m venv .venv-worker
	.venv-worker/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r docker/worker.lock
	@touch $@

.venv-checkov/ready: infra/checkov.lock
	$(PYTHON) -m venv .venv-checkov
	.venv-checkov/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r infra/checkov.lock
	@touch $@

.venv-site/ready: docs/site.lock
	$(PYTHON) -m venv .venv-site
	.venv-site/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r docs/site.lock
	@touch $@

.venv-bench/ready: requirements.lock benchmarks/requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv-bench
	.venv-bench/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock -r benchmarks/requirements.lock
	.venv-bench/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

clean:
	rm -rf .venv .venv-bench .venv-checkov .venv-site .venv-worker demo dist out site
