# What there is to do here: make help
SHELL := /bin/bash
VENV := .venv
PY := $(VENV)/bin/python
SYSTEM := git strace buildah skopeo umoci runc mmdebstrap docker-registry busybox-static libarchive-tools uidmap slirp4netns passt libcap2-bin attr acl libseccomp2 golang-github-containers-common fuse-overlayfs zsh fish \
  crun bubblewrap systemd-container lxc podman docker.io containerd stargz-snapshotter qemu-system-x86 qemu-user-static cpio e2fsprogs libxml2-utils zstd

.PHONY: help setup demo test check lint types imports startup unit property compat security integration golden docs peers bench fuzz clean

help: ## Show this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(VENV)/ready: pyproject.toml
	@command -v python3 >/dev/null || { echo "python3 (3.11 or newer) is missing: apt-get install python3 python3-venv"; exit 1; }
	@python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed, this is $$(python3 --version)"; exit 1; }
	@python3 -c 'import ensurepip' 2>/dev/null || { [ "$$(id -u)" = 0 ] && apt-get update -qq && apt-get install -y -qq python3-venv; } || { echo "python3-venv is missing: apt-get install python3-venv"; exit 1; }
	python3 -m venv $(VENV)
	@# compat puts a path on sys.path; the default is an import hook that costs 11 ms at every start.
	$(PY) -m pip install -q --disable-pip-version-check --config-settings editable_mode=compat -e '.[dev]'
	@touch $@

setup: $(VENV)/ready ## Make the virtual environment

demo: setup ## Run the main job end to end: build, push, pull, verify, convert
	@PATH="$(CURDIR)/$(VENV)/bin:$$PATH" bash fixtures/demo/run.sh

test: check peers ## Check everything and run all tests (root on Debian installs the peers)
	$(PY) -m pytest -q -n 4

check: lint types imports startup ## Lint, types, import rules and the cost of starting

lint: setup ## Lint and format, changing nothing
	$(VENV)/bin/ruff check imagetool registry_server tests benchmarks
	$(VENV)/bin/ruff format --check imagetool registry_server tests benchmarks

types: setup ## Check types
	$(VENV)/bin/mypy

imports: setup ## Check that imports run one way
	$(VENV)/bin/lint-imports

startup: setup ## Check that --version loads next to nothing and costs next to nothing
	$(PY) -m pytest -q tests/cli/test_startup.py -k version

unit: setup ## Run the quick tests: units and the contracts of stores
	$(PY) -m pytest -q -n 4 tests/unit tests/contract

property: setup ## Run the tests with generated input
	$(PY) -m pytest -q -n 4 tests/property

security: setup ## Run the tests with hostile input
	$(PY) -m pytest -q -n 4 tests/security

integration: setup ## Run whole builds, pushes and pulls (root)
	$(PY) -m pytest -q -n 4 tests/integration tests/cli

compat: setup peers ## Compare with skopeo, buildah, umoci, runc and Debian's registry (root)
	$(PY) -m pytest -q -n 4 tests/compat

golden: setup ## Write the golden files of --help, of the lint and of imagetool.api anew
	$(PY) -m pytest -q --update-golden tests/cli tests/unit/dockerfile tests/unit/test_api.py

docs: setup ## Check that documents and comments point at what is there
	$(PY) -m pytest -q tests/unit/test_documents.py

peers: ## Install the tools of other projects that tests compare with
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  dpkg -s $(SYSTEM) >/dev/null 2>&1 || fixtures/peers/install.sh $(SYSTEM); \
	else echo "not root on Debian: tests that need $(SYSTEM) are skipped where these are missing"; fi

bench: setup ## Measure against buildah in one run; writes benchmarks/RESULTS.md
	$(PY) benchmarks/run.py

FUZZ_SECONDS ?= 600
FUZZ_CONTAINERS ?= 10000
FUZZ_SEED ?= $(shell echo $$RANDOM)
fuzz: setup ## Search for inputs that break readers, FUZZ_SECONDS each, and for containers, FUZZ_CONTAINERS, that get out (root)
	IMAGETOOL_FUZZ=$(FUZZ_CONTAINERS) $(PY) -m pytest -q -n 2 tests/security/test_runtime_fuzz.py
	$(PY) -m pip install -q --disable-pip-version-check --config-settings editable_mode=compat -e '.[fuzz]' || echo "atheris cannot be installed here: mutating at random"
	$(PY) -m tests.fuzz.run layer --seconds $(FUZZ_SECONDS) --seed $(FUZZ_SEED)
	$(PY) -m tests.fuzz.run scan --seconds $(FUZZ_SECONDS) --seed $(FUZZ_SEED)
	$(PY) -m tests.fuzz.run document --seconds $(FUZZ_SECONDS) --seed $(FUZZ_SEED)

clean: ## Remove what make made
	rm -rf $(VENV) .mypy_cache .ruff_cache .import_linter_cache .hypothesis build *.egg-info
