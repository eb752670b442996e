# The runs as a graph: twin -> store -> pretraining -> probes -> tables, and the chapters beside them.
#
#   make workbook                      this file with the profile in notebooks/runs/profiles/local, under a lock
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
except (ValueError, OSError) as error:
    raise WorkflowError(str(error))

os.environ["PAWLIB_DATA"] = str(paths.data())  # absolute: jobs and kernels start elsewhere
MEMORY = {"10": 16000, "30": 12000, "90": 12000}  # MB, by the notebook's number
HEAVY = ("10", "30", "90")  # take all cores: 90 measures time, the others use them

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


for switch, scale, corpus in sorted({run.corpus for run in RUNS if run.corpus}):
    # toy and its larger sister are two twins; the real audio is fetched by hand
    size = "toy" if scale == "toy" else "small"
    mark = paths.corpus("mtat", switch, scale)[0] / ("twin.json" if switch == "twin" else "annotations_final.csv")
    if paths.store(corpus) / "store.json" in {Path(str(file)) for one in workflow.rules for file in one.output}:
        continue  # two scales that share their audio

    if switch == "twin":

        rule:
            name:
                f"twin_{size}"
            output:
                update(mark),
            benchmark:
                paths.runs() / f"twin.{corpus}.tsv"
            params:
                size=size,
                folder=paths.runs() / f"twin.{corpus}",
            threads: workflow.cores or 1
            priority: 20
            shell:
                "stage 'twin of MTAT, {params.size}' {params.folder:q} pawlib twins --size {params.size}"

    rule:
        name:
            f"store_{corpus}"
        input:
            mark,
        output:
            update(paths.store(corpus) / "store.json"),
        benchmark:
            paths.runs() / f"store.{corpus}.tsv"
        params:
            corpus=switch,
            scale=scale,
            name=corpus,
            folder=paths.runs() / f"store.{corpus}",
        threads: workflow.cores or 1
        priority: 20
        shell:
            "stage 'store of {params.name}' {params.folder:q}"
            " pawlib prepare mtat --corpus {params.corpus} --scale {params.scale}"


for run in RUNS:
    number = run.notebook.name[:2]

    rule:
        name:
            run.id
        input:
            run.needs,
            [ancient(paths.store(run.corpus[2]) / "store.json")] if run.corpus else [],
            notebook=ancient(run.notebook),
        output:
            update(run.output),
        log:
            run.executed,
        benchmark:
            run.seconds
        params:
            given=json.dumps(run.parameters),
            id=run.id,
            folder=run.folder,
            finish=f"touch {shlex.quote(str(run.output))}" if run.output.name == "finished" else "true",
        threads: (workflow.cores or 1) if number in HEAVY else 1
        resources:
            mem_mb=MEMORY.get(number, 5000),
        priority: 10 if number in ("10", "30") else 0
        shell:
            "stage {params.id:q} {params.folder:q}"
            " papermill {input.notebook:q} {log:q} -k python3 -y {params.given:q} --no-progress-bar --log-output"
            " && {params.finish}"
