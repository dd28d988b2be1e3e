# tengri_fast. Bare `make` prints what there is; each target prepares the environment that it needs.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.SUFFIXES:

VENV := .venv/bin
DEMO_EXTRAS := nautilus,data,report
# Pytest options: `make test ARGS="-k gate -x"`.
ARGS ?=
# A pattern that chooses benches: `make bench BENCH=gate`.
BENCH ?=
# How long `make soak` and each half of `make fuzz` take, and how many orders the former sends.
MINUTES ?= 10
ORDERS ?= 1000000
# Where `make install-lib` puts headers and libraries.
PREFIX ?= /usr/local
JOBS ?= auto

# Finds Python once and hands the work to tools/environment.py; $(1) is its command line.
environment = python=$$(sh tools/find_python.sh) && "$$python" tools/environment.py $(1)

# Training runs in an interpreter of its own; tests and benches are told where it is, if it is there.
with_torch = [ ! -f .venv-train/tengri.json ] || export TENGRI_TRAIN_PYTHON="$$PWD/.venv-train/bin/python";

.PHONY: help
help: ## this list
	@echo "tengri_fast: make TARGET"
	@echo
	@awk -F ':[^#]*## ' '/^[a-z][a-z-]*:[^#]*## / { printf "  %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "Variables: PYTHON=/path/to/python  CC=/path/to/cc  ARGS=\"-k gate\" (test)  BENCH=gate (bench)"
	@echo "           MINUTES=2 (soak, fuzz)  ORDERS=1000 (soak)  PREFIX=/usr/local (install-lib)"

.PHONY: lib
lib: ## libtengri, the C library without Python: static, shared and tengri.pc in build/lib (docs/c_api.md)
	@$(MAKE) --no-print-directory -C csrc BUILD_DIR=$(CURDIR)/build/lib

.PHONY: install-lib
install-lib: ## headers, libraries and tengri.pc below PREFIX
	@$(MAKE) --no-print-directory -C csrc install BUILD_DIR=$(CURDIR)/build/lib PREFIX=$(PREFIX)

.PHONY: demo
demo: ## backtest the shipped Binance ticks; report in out/demo/report.html
	@$(call environment,main --extras $(DEMO_EXTRAS))
	@$(VENV)/tengri backtest examples/demo_btcusdt.toml --out out/demo

.PHONY: demo-rb
demo-rb: ## the same on SHFE rebar, two days of training and a third one unseen (data not shipped)
	@$(call environment,main --extras $(DEMO_EXTRAS))
	@$(VENV)/tengri backtest examples/shfe_rb2510.toml --out out/demo-rb

.PHONY: evidence
evidence: ## bad orders against every control of the risk gate, in a backtest and live; out/evidence/evidence.html
	@$(call environment,main --extras $(DEMO_EXTRAS))
	@$(VENV)/tengri risk evidence --out out/evidence

.PHONY: test
test: test-env ## everything: environment, build, all tests
	@$(with_torch) $(VENV)/pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder $(ARGS)

.PHONY: test-fast
test-fast: env ## the tests that take seconds (no installs, no training)
	@$(VENV)/pytest -n $(JOBS) --dist loadfile -m "not slow and not train" $(ARGS)

.PHONY: test-isa
test-isa: env ## the tests that run kernels, once per instruction set of this CPU
	@for isa in $$($(VENV)/python tools/isa.py --list); do \
	    echo "== TENGRI_ISA=$$isa"; \
	    TENGRI_ISA=$$isa $(VENV)/pytest -q -n $(JOBS) -m "not slow and not train" \
	        tests/csrc tests/features tests/inference tests/kernels tests/runtime $(ARGS) || exit 1; \
	done

.PHONY: bench
bench: ## measure against the rivals; one table, JSON in bench/results/latest.json
	@$(call environment,main --extras dev,rivals)
	@mkdir -p bench/results
	@$(with_torch) $(VENV)/pytest bench -q --benchmark-only --benchmark-json=bench/results/latest.json $(if $(BENCH),-k "$(BENCH)")
	@$(VENV)/python bench/summary.py bench/results/latest.json

.PHONY: tails
tails: env ## ten million steps per shape: p99.9, maximum, after idle; bench/results/committed/tails.json
	@$(VENV)/python bench/tails.py $(ARGS)

.PHONY: bench-compare
bench-compare: env ## compare the last `make bench` with the committed results
	@$(VENV)/python bench/summary.py --compare bench/results/committed bench/results/latest.json

.PHONY: bench-commit
bench-commit: env ## keep the last `make bench`, slim, in bench/results/committed
	@$(VENV)/python bench/summary.py --keep bench/results/latest.json

.PHONY: soak
soak: env ## stream, fuzz and shake for MINUTES (10), then ORDERS (1000000) through the gate and its plain twin
	@$(VENV)/python bench/soak.py --minutes $(MINUTES)
	@TENGRI_GATE_ORDERS=$(ORDERS) TENGRI_RISK_EVENTS=100000 $(VENV)/pytest -q tests/risk/test_gate_agreement.py tests/risk/test_portfolio_twin.py

.PHONY: fuzz
fuzz: env ## MINUTES (10) of damaged ONNX files, then as many of forged compiled models under ASan and UBSan
	@$(VENV)/python bench/soak.py --only loader --minutes $(MINUTES)
	@$(MAKE) --no-print-directory -C csrc/tests fuzz FUZZ_SECONDS=$$(($(MINUTES) * 60))

.PHONY: lint
lint: env ## ruff, codespell and, where it is installed, clang-format
	@$(VENV)/ruff check .
	@$(VENV)/ruff format --check .
	@$(VENV)/codespell
	@sh tools/clang_format.sh --check

.PHONY: format
format: env ## rewrite Python and C sources in the project's style
	@$(VENV)/ruff check --fix .
	@$(VENV)/ruff format .
	@sh tools/clang_format.sh

.PHONY: types
types: env ## mypy --strict on the Python face
	@$(VENV)/mypy

.PHONY: asan
asan: ## the C tests under AddressSanitizer and UndefinedBehaviorSanitizer
	@$(MAKE) --no-print-directory -C csrc/tests asan

.PHONY: tsan
tsan: ## one model in eight threads, and teams of threads, under ThreadSanitizer
	@$(MAKE) --no-print-directory -C csrc/tests tsan

.PHONY: annotate
annotate: env ## Cython's annotated HTML of every extension in build/annotate
	@$(VENV)/python tools/annotate.py

.PHONY: cpu
cpu: env ## CPU features and the active instruction set
	@$(VENV)/python tools/isa.py

.PHONY: env
env: ## .venv with everything the tests need, extensions built (every target does this by itself)
	@$(call environment,main --extras dev)

.PHONY: train-env
train-env: ## .venv-train: Python 3.11 with PyTorch, for training models
	@$(call environment,train)

# Without Python 3.11 or a CPU build of PyTorch this says so in one line and goes on: tests of training are then skipped.
.PHONY: test-env
test-env: ## .venv and .venv-train side by side: what `make test` needs
	@$(call environment,main --extras dev --with-train)

.PHONY: pycuda
pycuda: env ## build pycuda against the CUDA toolkit of this machine
	@sh tools/build_pycuda.sh $(VENV)/python

.PHONY: clean
clean: ## remove what was built (not the environments)
	@rm -rf build dist out csrc/tests/build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
	@find tengri_fast kernels engines models tests bench examples tools -name __pycache__ -type d -prune -exec rm -rf {} +
	@find tengri_fast -name '*.so' -type f -delete

.PHONY: distclean
distclean: clean ## clean, and remove the environments too
	@rm -rf .venv .venv-train
