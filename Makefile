# `make demo` and `make test` install everything they need, the first time.
PY := .venv/bin/python

# The data root: make server ROOT=/data/ohp, or OHP_DATA_ROOT.
AT := $(if $(ROOT),--root $(ROOT))

# There are folders of these names: they must be phony.
.PHONY: docs pictures truth rehearsal
.PHONY: help setup demo test test-long test-faults test-server test-load check lint lock audit measured clean-demo server worker deploy bench

help:  ## what there is
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 14

setup:  ## install what is missing: Debian packages, .venv from the lock file
	@scripts/setup

demo: setup  ## simulate a small campaign under demo/, reduce and stack it, show where its pages are
	@$(PY) -m flows.demo

test: setup-test  ## the tests (20 to 25 minutes on two cores)
	@$(PY) -m pytest -m "not slow" --durations=15 --numprocesses 2 --no-loadscope-reorder

test-long: setup-test  ## all tests, the long ones too
	@$(PY) -m pytest

test-faults: setup-test  ## 500 damaged inputs, tools that misbehave, full disks, `kill -9` (as root: all of it)
	@EXAMPLES_TIMES=20 $(PY) -m pytest tests/faults

test-load: setup-test  ## 200 stack requests at once, two people on one data root, years of 3000 frames (an hour)
	@$(PY) -m pytest -m load

test-server: setup-test  ## deployments on a real server and worker, in a browser, on PostgreSQL and Dask
	@$(PY) -m pytest -m server

server: setup  ## Prefect's server and interface for a data root (ROOT=/data/ohp), in the background
	@$(PY) -m deployments server $(AT) --background

worker: setup  ## the process that starts the runs that are due, in the background
	@$(PY) -m deployments worker $(AT) --background

deploy: setup  ## register the deployments, or bring them up to date
	@$(PY) -m deployments deploy $(AT)

pictures: setup  ## the pictures of README and docs/, from the demo's pages
	@scripts/setup --pictures
	@$(PY) -m scripts.pictures --root demo

docs: setup  ## the documentation site, site/index.html: readable from disk; any warning fails
	@scripts/setup --docs
	@$(PY) -m scripts.site

check: lint test  ## what CI runs

lint: setup  ## formatting, rules (of security, too), types, import contracts
	@.venv/bin/ruff format --check .
	@.venv/bin/ruff check .
	@.venv/bin/bandit --quiet --configfile pyproject.toml --recursive bench deployments flows models scripts tasks
	@.venv/bin/mypy
	@.venv/bin/lint-imports

bench: setup-bench  ## benchmarks, goal beside each figure; written to bench/results.json (SUBJECTS="startup nothing" for some)
	@$(PY) -m bench $(SUBJECTS)

measured: setup  ## measure the demo's products against the simulated truth, write docs/measured.md
	@$(PY) -m scripts.measure --root demo --write docs/measured.md

truth: setup  ## simulate campaigns of several seeds under truth/, set the products against the truth (SEEDS="21,22,23")
	@$(PY) -m scripts.truth --root truth $(if $(SEEDS),--seeds $(SEEDS)) --write docs/truth.md --json docs/truth.json

rehearsal: setup  ## play the whole archive with the simulator, build the release, set it against the truth (FRACTION=0.1)
	@$(PY) -m scripts.rehearsal --root rehearsal $(if $(FRACTION),--fraction $(FRACTION)) $(if $(GROUPS),--groups $(GROUPS)) --write docs/rehearsal.md

lock: setup  ## resolve requirements*.in into requirements*.lock (needs uv)
	uv pip compile --quiet --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --universal \
		--python-version 3.11 requirements.in --output-file requirements.lock
	uv pip compile --quiet --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --universal \
		--python-version 3.11 --constraint requirements.lock requirements-cluster.in --output-file requirements-cluster.lock
	uv pip compile --quiet --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --universal \
		--python-version 3.11 --constraint requirements.lock requirements-docs.in --output-file requirements-docs.lock
	uv pip compile --quiet --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --universal \
		--python-version 3.11 --constraint requirements.lock requirements-bench.in --output-file requirements-bench.lock
	uv pip compile --quiet --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --universal \
		--python-version 3.11 requirements-audit.in --output-file requirements-audit.lock

audit:  ## ask PyPI's advisories about every package of the lock files (its data must be reachable)
	@scripts/audit

clean-demo:  ## remove the demo's products
	rm -rf demo

.PHONY: setup-test
setup-test:
	@scripts/setup --test

.PHONY: setup-bench
setup-bench:
	@scripts/setup --bench
