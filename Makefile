# Each target is one line that a person would type; `make` alone lists them. Needs Python 3.11, git and make.
# Everything can be stopped at any moment and started again: it does only what is missing.
#   PYTHON=/path/to/python3.11    another interpreter        PAWLIB_DATA=/large/disk    another data folder
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := list
.PHONY: list setup workbook toy reproduce test faults browser lab publish refresh report format

PYTHON ?= python3.11
LIST ?= notebooks/runs/$(if $(TABLE),table$(TABLE),$(if $(FIGURE),figure$(FIGURE),workbook)).yaml
PROFILE ?= notebooks/runs/profiles/local
# What `reproduce` and `publish` may be told: TABLE=1, FIGURE=3 or LIST=a file, and e.g.
# SCALE=small CORPUS=twin SEEDS="0 1" SYSTEMS="crnn fcn_5" ENCODERS=fcn_4
export SCALE CORPUS SEEDS SYSTEMS ENCODERS
asked = $(if $(TABLE),table=$(TABLE),$(if $(FIGURE),figure=$(FIGURE),$(if $(filter file,$(origin LIST)),table=,$(LIST))))
# Under `make -n`, or with DRY=1, `reproduce` shows what it would run.
flags = $(firstword -$(MAKEFLAGS))
dry = $(or $(findstring n,$(flags)),$(filter-out 0,$(DRY)))
ENV := $(CURDIR)/.venv
export PATH := $(ENV)/bin:$(PATH)
export PAWLIB_DATA := $(shell realpath -m -- "$${PAWLIB_DATA:-data}")
export PYTHONNOUSERSITE := 1
# The kernel named python3 is this environment's, whatever else is installed for the user.
export JUPYTER_PATH := $(ENV)/share/jupyter
export JUPYTER_PREFER_ENV_PATH := 1

list:  ## this list
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' Makefile | expand -t 12

setup: .venv/.installed  ## create .venv and install what requirements.lock pins

# The stamp is written last. Without it an installation was cut off, and pip would take what is half there for whole:
# begin anew. The lock file doubles as a lock, so that two makes do not install at once.
.venv/.installed: requirements.lock pyproject.toml
	@command -v "$(PYTHON)" > /dev/null || { echo "$(PYTHON) is not installed: install Python 3.11, or name one: make PYTHON=/path/to/python3.11 setup" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || { echo "$(PYTHON) is no Python 3.11, and requirements.lock is for 3.11: make PYTHON=/path/to/python3.11 setup" >&2; exit 1; }
	@exec 9< requirements.lock; flock 9; \
	if [ $@ -nt requirements.lock ] && [ $@ -nt pyproject.toml ]; then exit 0; fi; \
	began=$$SECONDS; echo "$$(date +%T)  started   installation into .venv (about 6 GB, minutes)"; \
	if [ -f $@ ]; then rm $@; else rm -rf .venv; fi; \
	"$(PYTHON)" -m venv .venv || { rm -rf .venv; echo "$(PYTHON) cannot make a virtual environment; on Debian install python3.11-venv" >&2; exit 1; }; \
	.venv/bin/pip install -qq --disable-pip-version-check --require-hashes -r requirements.lock; \
	.venv/bin/pip install -qq --disable-pip-version-check --no-deps --no-build-isolation -e .; \
	touch $@; echo "$$(date +%T)  finished  installation, $$((SECONDS - began)) s"

# Snakemake, and the words that choose runs of a list, as bash arrays.
define snakemake
	@mkdir -p "$(PAWLIB_DATA)/runs"; words=($(1)); \
	graph=(snakemake --snakefile Snakefile --workflow-profile "$(PROFILE)" --directory "$(PAWLIB_DATA)/runs" $(room) --config list="$(abspath $(LIST))" "$${words[@]}")
endef
# 85 % of the memory, and never less than the largest run asks for. A profile of one's own says what its machines have.
room = $(if $(filter notebooks/runs/profiles/local,$(PROFILE)),--resources mem_mb=$(shell awk '/^MemTotal/ {m = int($$2 * 0.85 / 1024)} END {print (m > 20000 ? m : 20000)}' /proc/meminfo 2> /dev/null || echo 20000))

# Under a lock of our own, held as long as Snakemake lives, a lock that Snakemake left behind is stale.
define graph
	$(call snakemake,$(1)); exec 9> "$(PAWLIB_DATA)/runs/.lock"; \
	flock -n 9 || { echo "another make is at work in $(PAWLIB_DATA)/runs, or one that was killed still ends a stage: waiting for it"; flock 9; }; \
	if [ -n "$$(ls -A "$(PAWLIB_DATA)/runs/.snakemake/locks" 2> /dev/null)" ]; then "$${graph[@]}" --unlock; fi; \
	"$${graph[@]}" || { said=$$("$${graph[@]}" --dry-run --quiet host 2>&1) || echo "$$said"; echo "stopped; mend what is said above and run the same again, what is finished is kept"; exit 1; } >&2; \
	python -m pawlib.bench.reproduce show "$(LIST)" "$${words[@]}"
endef
define plan
	$(call snakemake,$(1)); said=$$("$${graph[@]}" --dry-run --quiet host progress 2>&1) || { echo "$$said" >&2; exit 1; }; \
	python -m pawlib.bench.reproduce plan <<< "$$said"
endef
define reproduction
	@command -v snakemake > /dev/null || { echo "nothing is installed here yet: make setup" >&2; exit 1; }
	@python -m pawlib.bench.reproduce check "$(asked)" $(1)
	$(if $(dry),$(call plan,$(1)),$(call graph,$(1)))
endef
chosen = $${SCALE:+"scale=$$SCALE"} $${CORPUS:+"corpus=$$CORPUS"} $${SEEDS:+"seeds=$$SEEDS"} $${SYSTEMS:+"systems=$$SYSTEMS"} $${ENCODERS:+"encoders=$$ENCODERS"}

workbook: setup  ## make the twin, run every notebook of the list, print the table beside the paper's
	$(call graph,)

toy: setup  ## the same in a few minutes: few songs, few steps, numbers that mean nothing
	$(call graph,scale=toy)

reproduce: $(if $(dry),,setup)  ## what a table or figure lacks: TABLE=1 or FIGURE=3 [SCALE=small CORPUS=twin SEEDS="0 1" SYSTEMS="crnn fcn_5" ENCODERS=fcn_4]; -n or DRY=1: show it only
	$(if $(findstring n,$(flags)),+@MAKEFLAGS= $(MAKE) --no-print-directory reproduce DRY=1,$(call reproduction,$(chosen)))

test: setup  ## unit tests, then all notebooks at toy scale against their committed outputs
	@began=$$SECONDS; for dataset in mtat gtzan dcase2016 shs100k covers80; do pawlib twins $$dataset --size toy; pawlib prepare $$dataset --corpus twin --scale toy; done; echo "== toy data: $$((SECONDS - began)) s"
	@began=$$SECONDS; pytest -n 2 tests --ignore tests/browser; echo "== unit tests: $$((SECONDS - began)) s"
	@began=$$SECONDS; OMP_NUM_THREADS=1 pytest --nbval-lax --nbval-current-env --nbval-cell-timeout 300 -n 2 --dist loadscope notebooks; echo "== notebooks: $$((SECONDS - began)) s"

faults: setup  ## kill, damage and interrupt for 20 minutes: the fault tests with 20 moments and 2000 bad files
	@PAWLIB_FAULTS=$${PAWLIB_FAULTS:-20} pytest -n 2 tests/test_faults.py

browser: setup  ## open notebooks in JupyterLab in a headless Chromium and move a slider
	@pytest -rs tests/browser

lab: setup  ## JupyterLab at the first notebook
	@jupyter lab notebooks/00_start_here.ipynb

publish: setup  ## copy the rows of my runs to data/results, which is committed, and fill README's tables; TABLE=1 or FIGURE=3: those of its list
	@python -m pawlib.bench.reproduce publish "$(LIST)" $(chosen)
	@python -m pawlib.show.readme
	@echo "make refresh runs the chapters again that show rows; make test compares them"

# 71 and 72 look at what chapter 10 leaves at toy scale.
refresh: setup  ## run again, in place, the chapters that show published rows: after each `make publish`
	@jupyter nbconvert --to notebook --execute --stdout notebooks/10_pretrain_music_paw.ipynb > /dev/null
	@jupyter nbconvert --to notebook --execute --inplace notebooks/6?_*.ipynb notebooks/7?_*.ipynb
	$(tidy)

report: setup  ## one HTML page of all tables, figures and the state of every row, to send: report.html in the data folder
	@python -m pawlib.show.report

format: setup  ## tidy code, and take noise and audio (not other outputs) out of the notebooks
	$(tidy)

define tidy
	@nbstripout --keep-output --keep-count --extra-keys "metadata.widgets metadata.papermill cell.metadata.papermill cell.metadata.execution" notebooks/*.ipynb
	@python -m pawlib.show.tidy notebooks/*.ipynb
	@ruff format .; ruff check --fix .
endef
