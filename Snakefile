# The runs as a graph: twin -> store -> pretraining -> probes -> tables, and the chapters beside them.
#
#   make workbook                      this file with the profile in notebooks/runs/profiles/local, under a lock
#   make reproduce TABLE=1             the same with the run list of a table
#   snakemake --workflow-profile ...   by hand, or on a cluster with a profile and an executor plugin of its own
#
# What is run stands in a run list (notebooks/runs/workbook.yaml); each of its items becomes one rule below.
# - A notebook is an `ancient` input: saving it in JupyterLab changes its time stamp and must not repeat a pretraining.
#   So is a store that was written again.
# - Outputs are `update`: Snakemake does not delete them before a run. Every output is written in one step when it is
#   whole, and every stage goes on where it was stopped, so what is there may stay.

import json
import os
import shlex
from pathlib import Path

from snakemake.exceptions import WorkflowError

from pawlib import paths
from pawlib.bench import runlist

ROOT = Path(workflow.basedir)
LIST = config.get("list", ROOT / "notebooks" / "runs" / "workbook.yaml")
try:
    RUNS = runlist.read(LIST, **{key: config[key] for key in ("scale", "corpus") if key in config})
    RUNS = runlist.choose(RUNS, *(config.get(key) for key in ("seeds", "systems", "encoders")))
except (ValueError, OSError) as error:
    raise WorkflowError(str(error))

os.environ["PAWLIB_DATA"] = str(paths.data())  # absolute: jobs and kernels start elsewhere
# MB that a run may take, by the notebook's number; the largest tagger takes 4000 for a batch of 16.
MEMORY = {"10": 16000, "11": 8000, "12": 8000, "13": 8000, "14": 8000, "20": 6000, "30": 12000, "31": 6000, "32": 6000, "40": 8000, "50": 8000, "51": 6000, "90": 12000}
PRETRAINING = ("10", "11", "12", "13", "14")
HEAVY = (*PRETRAINING, "30", "90")  # take all cores: 90 measures time, the others use them
TRAINING = ("20", "31", "32", "40", "50", "51")  # take four cores at most: several run at once where cores and memory allow
try:
    CORES = workflow.cores
except WorkflowError:  # a cluster's profile gives no number
    CORES = 16  # what one job may take there
# What a cluster asks of a job beside threads and MB: minutes, and a GPU where one trains. One machine ignores both.
# For a cluster without GPUs: --config gpus=0, with `list` and the words that choose runs.
MINUTES = {"toy": 30, "small": 360, "paper": 2880}
GPUS = int(config.get("gpus", 1))


def threads_of(number):
    return CORES if number in HEAVY else min(CORES, 4) if number in TRAINING else 1


def minutes_of(run, number):
    """The longest a run may take: at paper scale two days, for what trains."""
    return MINUTES[run.parameters.get("scale", "small")] if number in (*HEAVY, *TRAINING) else 60


def gpus_of(run, number):
    """Resources by the names that the plugins for SLURM and Kubernetes know."""
    trains = number in (*HEAVY, *TRAINING) and run.parameters.get("scale") != "toy"
    return {"gpu": GPUS, "gpu_manufacturer": "nvidia"} if trains and GPUS else {}


def first_seeds_first(run, number):
    """Stopped half-way, a list of five seeds has left whole tables of few seeds."""
    return max(0, 5 - int(run.parameters.get("seed", 0))) + (10 if number in (*PRETRAINING, "30", *TRAINING) else 0)


# stage WHAT FOLDER COMMAND...: a line when it starts, a line when it ends, its own words only where it fails.
# It waits for a stage that outlived a killed run.
shell.prefix(r"""
stage() {{
    local what=$1 folder=$2 began=$SECONDS; shift 2
    mkdir -p "$folder"
    echo "$(date +%T)  started   $what" >&2
    if flock "$folder/.running" "$@" > "$folder/console.txt" 2>&1; then
        echo "$(date +%T)  finished  $what, $((SECONDS - began)) s" >&2
    else
        echo "$(date +%T)  FAILED    $what; the end of $folder/console.txt:" >&2
        tail -n 12 "$folder/console.txt" >&2
        return 1
    fi
}}
set -euo pipefail
""")


rule all:
    default_target: True
    input:
        [run.output for run in RUNS],


# What says that a real dataset is there; its folder where nothing is named.
REAL = {"mtat": "annotations_final.csv"}

for dataset, switch, scale, corpus in sorted({one for run in RUNS for one in run.reads}):
    # toy and its larger sister are two twins; the real audio is fetched by hand
    size = "toy" if scale == "toy" else "small"
    mark = paths.corpus(dataset, switch, scale)[0] / ("twin.json" if switch == "twin" else REAL.get(dataset, ""))
    named = "" if dataset == "mtat" else f"{dataset}_"
    if paths.store(corpus) / "store.json" in {Path(str(file)) for one in workflow.rules for file in one.output}:
        continue  # two scales that share their audio

    if switch == "twin":

        rule:
            name:
                f"twin_{named}{size}"
            output:
                update(mark),
            benchmark:
                paths.runs() / f"twin.{corpus}.tsv"
            params:
                size=size,
                folder=paths.runs() / f"twin.{corpus}",
            threads: CORES
            resources:
                mem_mb=8000,
                runtime=240,
            priority: 20
            shell:
                f"stage 'twin of {dataset.upper()}, {{params.size}}' {{params.folder:q}}"
                f" pawlib twins {'' if dataset == 'mtat' else dataset} --size {{params.size}}"

    rule:
        name:
            f"store_{corpus}"
        input:
            mark if mark.suffix else ancient(mark),
        output:
            update(paths.store(corpus) / "store.json"),
        benchmark:
            paths.runs() / f"store.{corpus}.tsv"
        params:
            corpus=switch,
            scale=scale,
            name=corpus,
            folder=paths.runs() / f"store.{corpus}",
        threads: CORES
        resources:
            mem_mb=8000,
            runtime=240,
        priority: 20
        shell:
            "stage 'store of {params.name}' {params.folder:q}"
            f" pawlib prepare {dataset} --corpus {{params.corpus}} --scale {{params.scale}}"


for run in RUNS:
    number = run.notebook.name[:2]

    rule:
        name:
            run.id
        input:
            run.needs,
            [ancient(paths.store(one.name) / "store.json") for one in run.reads],
            notebook=ancient(run.notebook),
        output:
            update(run.output),
            [update(path) for path in run.also],
        log:
            run.executed,
        benchmark:
            run.seconds
        params:
            given=json.dumps(run.parameters),
            id=run.id,
            folder=run.folder,
            finish=f"touch {shlex.quote(str(run.output))}" if run.output.name == "finished" else "true",
        threads: threads_of(number)
        resources:
            mem_mb=MEMORY.get(number, 5000),
            runtime=minutes_of(run, number),
            **gpus_of(run, number),
        priority: first_seeds_first(run, number)
        shell:
            ("OMP_NUM_THREADS={threads} " if number in TRAINING else "") + "stage {params.id:q} {params.folder:q}"
            " papermill {input.notebook:q} {log:q} -k python3 -y {params.given:q} --no-progress-bar --log-output"
            " && {params.finish}"
