# The two that matter: `make demo` shows it, `make test` proves it. Both make what they need.

PYTHON ?= python3
ON ?= process
CLUSTER := tests/cluster
# Kubernetes' own tests keep both cores busy: nothing runs beside them.
E2E := test_conformance_quick.py
OLDER := 1.35
VENV := .venv
BIN := $(VENV)/bin
PROTOS := $(wildcard proto/bridge/rpc/v1/*.proto)
STAMP := $(VENV)/.installed
# Tests and tools start hundreds of processes of ours: each would compile every module anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-cluster test-older unit check format generate bench control-plane cluster conformance conformance-helper conformance-fargate parity real faults fuzz helper lock clean help

help:            ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## ?/\t/' | expand -t 16

$(STAMP): requirements.lock requirements-dev.lock pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "error: $(PYTHON) is not there: install Python 3.11 or newer"; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: Python 3.11 or newer is needed; name one: make PYTHON=python3.12"; exit 2; }
	@echo "making $(VENV) (about a minute, once)"
	@$(PYTHON) -m venv $(VENV) || { echo "error: Python's venv module is missing (Debian: apt install python3-venv)"; exit 2; }
	@$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: $(STAMP)   ## see it work: no account, no cluster
	@$(BIN)/podbridge demo

test: $(STAMP)   ## everything; what needs an engine or a control plane says so where there is none
	@$(BIN)/python -m pytest -n 2 --dist worksteal --ignore $(CLUSTER)
	@$(MAKE) --no-print-directory test-cluster

test-cluster: $(STAMP) ## the part on a real control plane, and some of Kubernetes' own tests
	@$(BIN)/python -m pytest -n 2 --dist worksteal $(CLUSTER) --ignore $(CLUSTER)/$(E2E)
	@$(BIN)/python -m pytest $(CLUSTER)/$(E2E)

test-older: $(STAMP) ## the part on a real control plane, on the minor before
	@$(BIN)/python -m tools.control_plane.build --version $(OLDER)
	@TEST_KUBERNETES=$(OLDER) $(BIN)/python -m pytest -n 2 --dist worksteal $(CLUSTER) \
	  --ignore $(CLUSTER)/$(E2E)

unit: $(STAMP)   ## what needs no process of its own
	@$(BIN)/python -m pytest -n 2 -m "not slow"

check: $(STAMP)  ## format, lint, types, import rules, generated files up to date
	@$(BIN)/ruff format --check -q .
	@$(BIN)/ruff check -q .
	@$(BIN)/mypy
	@said=$$($(BIN)/lint-imports --no-cache) || { echo "$$said"; exit 1; }
	@$(BIN)/python tools/generate.py --check
	@$(BIN)/python tools/capability_matrix.py --check
	@$(BIN)/python helper/build.py --check

format: $(STAMP) ## format and mend what can be mended
	@$(BIN)/ruff format -q .
	@$(BIN)/ruff check -q --fix .

generate: $(STAMP) ## stubs from proto/, the capability matrix
	@$(BIN)/python tools/generate.py
	@$(BIN)/python tools/capability_matrix.py

bench: $(STAMP)  ## the figures of the README, with this machine's size
	@$(BIN)/python tools/bench.py

control-plane: $(STAMP) ## builds a real control plane from its Go modules, once (10 minutes cold)
	@$(BIN)/python -m tools.control_plane.build

cluster: control-plane ## runs that with a virtual node until Ctrl-C; ON=engine for containers
	@$(BIN)/python -m tools.control_plane.run --metrics --trusting -- \
	  $(abspath $(BIN))/podbridge up --on $(ON) --no-taint

conformance: $(STAMP) ## Kubernetes' own end-to-end tests on a node with engine; writes docs/conformance.md
	@$(BIN)/python -m tools.control_plane.build --e2e
	@$(BIN)/python -m tools.conformance --report docs/conformance.md

conformance-helper: $(STAMP) ## the same where pods have only the helper; writes docs/conformance-helper.md
	@$(BIN)/python -m tools.control_plane.build --e2e
	@$(BIN)/python helper/build.py
	@$(BIN)/python -m tools.conformance --on helper --report docs/conformance-helper.md

conformance-fargate: $(STAMP) ## the same on a simulated Fargate; writes docs/conformance-fargate.md
	@$(BIN)/python -m tools.control_plane.build --e2e
	@$(BIN)/python helper/build.py
	@$(BIN)/python -m tools.conformance --on fargate --core --report docs/conformance-fargate.md

parity: $(STAMP) ## the same manifests on a real kubelet and on engine, compared; writes docs/parity.md
	@$(BIN)/python -m tools.parity --report docs/parity.md

real: $(STAMP)   ## the contract on a real account, for money: make real CLOUD=aws MAX_COST=1 (docs/fargate.md)
	@test -n "$(CLOUD)" && test -n "$(MAX_COST)" || { echo "error: make real CLOUD=aws MAX_COST=1 (US dollars)"; exit 2; }
	@$(BIN)/python -m tools.real "$(CLOUD)" --max-cost "$(MAX_COST)" $(REAL)

faults: $(STAMP) ## storms of the clouds' faults with 300 seeds; make test has 10: SEEDS=N for others
	@PODBRIDGE_FAULT_SEEDS=$(or $(SEEDS),300) $(BIN)/python -m pytest -n 2 tests/faults

fuzz: $(STAMP)   ## a million random and damaged inputs to SPDY and the WebSocket channels
	@$(BIN)/python tools/fuzz_streams.py

helper: $(STAMP) ## the program for clouds' containers (docs/helper.md), for amd64 and arm64, into the cache
	@$(BIN)/python helper/build.py

lock: $(STAMP)   ## the lock files anew, from pyproject.toml
	@$(BIN)/python -m pip install -q --disable-pip-version-check uv
	@$(BIN)/python tools/lock.py

clean:           ## what make has made
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
