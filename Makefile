# `make run` and `make test` need python3 (3.11 or newer, with venv), and nothing else.
PYTHON ?= python3
CORES  ?= all
BIN    := .venv/bin
# For GPUs older than Turing: make setup PINS=envs/requirements-volta.txt
PINS   ?= envs/requirements.txt
# Only as it is typed: WSL has a variable NAME of its own.
ifneq ($(origin NAME),command line)
override NAME :=
endif
# Who names images means their configuration, unless another one is named.
ifeq ($(origin CONFIG),undefined)
CONFIG := $(if $(value IMAGES)$(value NAME),config/own-images.yaml,config/config.yaml)
endif
# Names reach programs by the environment and as they were typed: no shell, and not make itself, reads what they hold.
override CONFIG := $(value CONFIG)
override IMAGES := $(value IMAGES)
override NAME := $(value NAME)
override CORES := $(value CORES)
export CONFIG CORES
# Whose images config/own-images.yaml takes, and what their results are called: make own IMAGES=... NAME=birds
export METANTK_IMAGES := $(IMAGES)
export METANTK_NAME := $(NAME)
override SHOWN :=
CHECK := python scripts/check_config.py --configfile "$$CONFIG" --cores "$$CORES"
export PATH := $(CURDIR)/$(BIN):$(PATH)
export PYTHONNOUSERSITE := 1
# Without compiled modules each start of a stage compiles PyTorch anew: 6 s more of processor, some thirty times.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup run own images-named status why estimate estimate-gpu tables theory study report figures container check test test-slow test-cluster test-rest bench wheels web lint schema lock clean

help:       ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## /\1	/p' $(MAKEFILE_LIST) | expand -t 16

setup: .venv/ready  ## Make the environment .venv from the pins in envs/

.venv/ready: $(PINS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "make: $$($(PYTHON) --version) is too old: Python 3.11 or newer is needed (make PYTHON=...)" >&2; exit 2; }
	$(PYTHON) -m venv .venv
	@# A module is compiled when it is first imported: most of them never are.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --requirement $(PINS)
	@touch $@

run: .venv/ready    ## Run the workflow in config/config.yaml (or CONFIG=...) and print its tables
	@$(CHECK)
	@snakemake --cores "$$CORES" --quiet reason --show-failed-logs --rerun-incomplete --configfile "$$CONFIG"
	@python scripts/show_results.py --configfile "$$CONFIG" $(SHOWN)

own: override CONFIG := config/own-images.yaml
own: override SHOWN := --verdict
own: images-named run ## Train on your own images: make own IMAGES=folder NAME=birds, with a folder per class in it

images-named:
	@test -n "$$METANTK_IMAGES" || { echo "make: name your folder of images: make own IMAGES=some/folder" >&2; exit 2; }

status: .venv/ready ## Say how far a workflow is (CONFIG=...): jobs done, running and left, the table so far
	@python scripts/show_results.py --configfile "$$CONFIG" --status

why: .venv/ready    ## Say why jobs of CONFIG=... would run again: the option, input or module that changed
	@$(CHECK)
	@python scripts/explain_reruns.py --configfile "$$CONFIG"

estimate: .venv/ready ## Measure here how long CONFIG=... or IMAGES=... will take, on 1 to 8 GPUs or cores
	@$(CHECK)
	@python scripts/estimate_campaign.py --configfile "$$CONFIG"

estimate-gpu: .venv/ready ## Count what the paper's steps need of GPUs, without one: memory, launches, time
	@python scripts/estimate_gpu.py

tables: .venv/ready ## Tabulate what is finished so far (CONFIG=...), and name what is missing
	@$(CHECK)
	@snakemake tabulate_finished --cores 1 --quiet all --nolock --configfile "$$CONFIG"

theory: .venv/ready ## Check the paper's theorems in numbers, into results/theory/theory.md
	@$(CHECK)
	@snakemake theory --cores "$$CORES" --configfile "$$CONFIG"

study: .venv/ready  ## Say what criteria are worth (CONFIG=config/study.yaml), into results/.../criteria
	@$(CHECK)
	@snakemake study --cores "$$CORES" --rerun-incomplete --configfile "$$CONFIG"

report: run         ## Write report.html into the results of CONFIG=...: tables and figures in one page
	@snakemake --cores "$$CORES" --configfile "$$CONFIG" \
	  --report "$$(python scripts/show_results.py --configfile "$$CONFIG" --folder)/report.html"

DRAWN := $(addprefix results/figures/glyphs/3cells-4ch/search_,metantk_seed0.png ntk-bo_seed0.png)

figures: .venv/ready ## Draw the figures of the documentation anew, from a run of some minutes
	@snakemake $(DRAWN) --cores "$$CORES" --rerun-incomplete --configfile docs/figures/config.yaml
	@python docs/figures/draw.py results

container: .venv/ready ## Build the Apptainer image containers/metantk-VERSION.sif (DEFINITION=, MIRROR=)
	@python scripts/build_container.py $(if $(DEFINITION),--definition $(DEFINITION)) $(if $(MIRROR),--mirror $(MIRROR))

check: .venv/ready lint ## Run the fast tests, some two minutes on two cores: before a commit
	@OMP_NUM_THREADS=1 python -m pytest --numprocesses 2 --dist loadfile tests/unit -m "not slow"

PYTEST := OMP_NUM_THREADS=1 python -m pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder
# What needs root, a package manager or an image of its own, and what kills a workflow many times.
CLUSTER := tests/integration/test_slurm.py tests/integration/test_container.py tests/integration/test_faults.py

# What a fresh machine can run, in two shares.
HERE := $(CLUSTER:%=--ignore=%) tests/integration tests/workflow tests/unit tests/gpu

test: .venv/ready lint ## Run units, workflow, resumption and a small default run
	@$(PYTEST) $(HERE) -m "not slow"

test-slow: .venv/ready ## Run the longer tests: against literal references, of exporters, reports and the theory
	@$(PYTEST) $(HERE) -m slow

test-cluster: .venv/ready ## Run what needs a system of its own: SLURM, Apptainer and its image, 20 kills, faults
	@$(PYTEST) $(CLUSTER)

test-rest: .venv/ready ## Run test-slow and test-cluster side by side, which takes less than one after the other
	@$(PYTEST) $(CLUSTER) tests/integration tests/workflow tests/unit tests/gpu -m slow

bench: .venv/ready  ## Time the search and the input pipeline against the usual ways, side by side
	@python tests/benchmarks/bench_search.py --parts kernel --channels 48
	@python tests/benchmarks/bench_search.py --parts kernel regions round search small paths
	@python tests/benchmarks/bench_input_pipeline.py
	@python tests/benchmarks/bench_training.py --size 32
	@python tests/benchmarks/bench_training.py --size 84
	@python tests/benchmarks/bench_evaluation.py --size 32
	@python tests/benchmarks/bench_evaluation.py --size 84
	@python tests/benchmarks/bench_side_by_side.py
	@python tests/benchmarks/bench_adaptation.py
	@OMP_NUM_THREADS=1 python tests/benchmarks/bench_classifiers.py
	@OMP_NUM_THREADS=1 python tests/benchmarks/bench_heads.py

# Not torch and torchvision: a machine with a GPU has its own.
GPU_PACKAGES := opacus opt-einsum scipy pydantic pydantic-core annotated-types typing-inspection typing-extensions \
                tqdm pytest pluggy iniconfig packaging pygments pyyaml pandas python-dateutil scikit-learn joblib \
                threadpoolctl narwhals safetensors

wheels: .venv/ready ## Fetch what tests/gpu/run.sh needs into wheels/, for a GPU machine without network
	@python -m pip download --quiet --no-deps --dest wheels --constraint envs/requirements.txt $(GPU_PACKAGES)

# What export_classifier.py --page puts into its page; that program compares the checksum.
WEB_PACKAGE := onnxruntime-web

web: web/$(WEB_PACKAGE)-1.30.0.tgz ## Fetch onnxruntime for pages of export_classifier.py into web/ (needs npm)

web/$(WEB_PACKAGE)-%.tgz:
	@command -v npm >/dev/null || { echo "make: npm is needed to fetch $(@F)" >&2; exit 2; }
	@mkdir -p web
	@npm pack --silent --pack-destination web $(WEB_PACKAGE)@$* >/dev/null

lint: .venv/ready   ## Check style: ruff, snakefmt, snakemake --lint, words and sentences
	@ruff check .
	@ruff format --check .
	@snakefmt --check Snakefile workflow
	@snakemake --lint
	@python tests/check_words.py

schema: .venv/ready ## Write workflow/schemas/ anew from scripts/metantk/options/
	@python scripts/write_schema.py

RESOLVE := --universal --python-version 3.11 --no-header --quiet envs/requirements.in

lock:               ## Resolve envs/requirements.in into exact pins, for pip and conda alike (needs uv)
	uv pip compile $(RESOLVE) -o envs/requirements.txt
	cp envs/requirements.txt envs/requirements-volta.txt
	uv pip compile $(RESOLVE) --override envs/volta.in -o envs/requirements-volta.txt
	@$(MAKE) --no-print-directory envs/metantk.yaml

# Snakemake copies the file elsewhere before conda reads it, so the pins must stand in it.
envs/metantk.yaml: envs/requirements.txt
	@{ echo "# Written by \`make lock\` from requirements.txt; for \`snakemake --sdm conda\`."; \
	   printf '%s\n' 'channels:' '  - conda-forge' '  - nodefaults' 'dependencies:' '  - python=3.12' '  - pip' '  - pip:'; \
	   sed -n 's/^\([a-z].*==.*\)$$/      - \1/p' envs/requirements.txt; } > $@

clean:              ## Remove results (not the environment)
	rm -rf results .snakemake
