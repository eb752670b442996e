"""Behind `make reproduce` and `make publish`: what the runs of a list have left, printed, published, or planned.

    python -m pawlib.bench.reproduce show LIST       the table, the time of each stage, where the files are
    python -m pawlib.bench.reproduce publish LIST    copies the rows of the list's runs to the published ones
    python -m pawlib.bench.reproduce check LIST      nothing, or one line that says what is wrong
    python -m pawlib.bench.reproduce plan            what a dry run of Snakemake (standard input) would do, a line each

LIST is a file, table=1 or figure=3; behind it scale=, corpus=, seeds=, systems= and encoders= may follow.
"""

import re
import sys
from pathlib import Path

from pawlib import paths
from pawlib.bench import kept_answers, results, runlist, tables
from pawlib.bench.files import read_json

SEVERAL_ROWS = {"71_figure4_hierarchy_tsne": "hierarchy", "72_figure5_tags_in_time": "tags_in_time"}  # one a system


def summary(runs, rows=None, number=None):
    """What a person wants to see when all runs are finished, as text.

    Parameters
    ----------
    runs : list of Run
    rows : list of dict, optional
        For the tables; those of the runs if not given.
    number : int, optional
        The one table to print; without it each table that has a row.

    Raises
    ------
    FileNotFoundError
        If a run has not finished, naming it.
    """
    missing = [run.id for run in runs if not run.output.is_file()]
    if missing:
        raise FileNotFoundError(f"{len(missing)} of {len(runs)} runs are not finished: {', '.join(missing)}")
    rows = _rows(runs) if rows is None else rows
    kinds = {}
    for row in rows:
        if row["groups"]:
            kinds.setdefault((row["dataset"], row["scale"], row["split"], row["protocol"]), []).append(row)
    grouped = [tables.groups_table(same).text() for same in kinds.values()]
    printed = tables.of(rows) if number is None else [tables.NUMBERED[number](rows)]
    return "\n\n".join([_times(runs), _places(runs), *grouped, *(table.text() for table in printed)])


def publish(runs):
    """Publish the rows of finished runs; what is published already is left as it is. Returns lines to print.

    Raises
    ------
    FileNotFoundError
        If not one of the runs has a row.
    """
    wanted = [run for run in runs if run.output.name == runlist.ROW]
    finished = [run.id for run in wanted if run.output.is_file()]
    finished += [path.parent.name for run in runs for path in _rows_beside(run)]
    if not finished:
        raise FileNotFoundError(f"none of the {len(wanted)} runs has a row in {paths.runs()}: have they finished?")
    there = {path.stem: path for path in paths.results().glob("*.json")}
    new = [name for name in finished if name not in there]
    lines = [f"published: {path}" for path in results.publish(new)]
    same = [name for name in finished if name in there and read_json(there[name]) == read_json(_row_of(name))]
    lines += [f"published: {path}" for path in kept_answers.publish([*new, *same])]  # never those of another row
    if same:
        lines.append(f"{len(same)} were published before")
    if other := [name for name in finished if name in there and name not in same]:
        lines.append(f"{len(other)} stand there with other numbers; published rows are never replaced: {_some(other)}")
    if waiting := [run.id for run in wanted if run.id not in finished]:
        lines.append(f"{len(waiting)} of {len(wanted)} runs are not finished, not published: {_some(waiting)}")
    return lines


def plan(said):
    """A dry run in the words of Snakemake, as one line per run with its reason, and a count.

    Parameters
    ----------
    said : str
        What `snakemake --dry-run` printed.

    Returns
    -------
    str
    """
    jobs = re.findall(r"^rule (\S+):\n(?:    .*\n)*?    reason: (.*)$", said, re.MULTILINE)
    staged = ("twin_", "store_")
    jobs = sorted((not name.startswith(staged), name, reason) for name, reason in jobs if name != "all")
    if not jobs:
        return "0 runs: everything is finished"
    width = max(len(name) for _, name, _ in jobs)
    lines = [f"would run  {name:{width}}  {_reason(reason)}" for _, name, reason in jobs]
    stages = sum(not is_run for is_run, _, _ in jobs)
    beside = f", after {stages} stages that make the data" if stages else ""
    return "\n".join([*lines, f"{len(jobs) - stages} runs{beside}; nothing was executed"])


def main(argv=None):
    """`show`, `publish` or `check` a list, or `plan`; returns the exit status."""
    verb, *rest = sys.argv[1:] if argv is None else argv
    try:
        if verb == "plan":
            print(plan(sys.stdin.read()))
            return 0
        if verb not in ("show", "publish", "check"):
            raise ValueError(f"{verb!r} is unknown, expected show, publish, check or plan")
        path, everything, runs = _asked(rest)
        if verb == "show":
            number = re.fullmatch(r"table([1-9])", path.stem)
            print(summary(runs, _rows(everything), int(number[1]) if number else None))
        elif verb == "publish":
            print("\n".join(publish(runs)))
        else:
            _check_audio(runs)
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


# --- the command line -------------------------------------------------------------------------------------------------


def _asked(words):
    """(path of the list, all its runs, the chosen ones) of LIST scale=toy seeds=0 ..."""
    first, *rest = words
    kind, equals, number = first.partition("=")
    path = runlist.list_of(kind, number) if equals and kind in ("table", "figure") else Path(first)
    given = dict(word.split("=", 1) for word in rest)
    known = {"scale": paths.SCALES, "corpus": paths.CORPORA, "seeds": None, "systems": None, "encoders": None}
    for key, value in given.items():
        if key not in known:
            raise ValueError(f"{key!r} is unknown, expected one of {', '.join(known)}")
        if known[key] and value not in known[key]:
            raise ValueError(f"{key.upper()} {value!r} is unknown, expected one of {', '.join(known[key])}")
    everything = runlist.read(path, **{key: given[key] for key in ("scale", "corpus") if key in given})
    return path, everything, runlist.choose(everything, *(given.get(key) for key in ("seeds", "systems", "encoders")))


def _check_audio(runs):
    """Real audio cannot be made: say at once what is missing."""
    for dataset in sorted({one.dataset for run in runs for one in run.reads if one.switch == "real"}):
        if not paths.raw(dataset).is_dir():
            raise FileNotFoundError(
                f"{paths.raw(dataset)} is not there, and CORPUS=real reads it: get it with `pawlib fetch {dataset}` "
                "or by hand, as the README in the data folder says; CORPUS=twin makes a stand-in instead"
            )


# --- what runs have left ----------------------------------------------------------------------------------------------


def _rows(runs):
    """Rows that these runs have left."""
    ids = {run.id for run in runs if run.output.name == runlist.ROW}
    return [row for row in results.read("mine") if row["id"] in ids]


def _rows_beside(run):
    """Rows that a finished chapter left, one for each system it compared; none of other runs."""
    if run.notebook.stem not in SEVERAL_ROWS or not run.output.is_file():
        return []
    encoder, seed = (run.parameters.get(name, default) for name, default in (("encoder", "fcn_4"), ("seed", 0)))
    own = f"{encoder}.{SEVERAL_ROWS[run.notebook.stem]}.seed{seed}"  # a run off its defaults has a tag there
    return sorted(paths.runs().glob(f"{run.corpus.name}.{run.corpus.scale}.*.{own}/{runlist.ROW}"))


def _row_of(name):
    return paths.runs() / name / runlist.ROW


# --- words ------------------------------------------------------------------------------------------------------------


def _times(runs, n_shown=25):
    """Seconds of each stage, as Snakemake measured them when it was last run; of many only the sum."""
    files = {}
    for run in runs:
        for name in (one.name for one in run.reads):
            files |= {f"{step} {name}": paths.runs() / f"{step}.{name}.tsv" for step in ("twin", "store")}
    files |= {run.id: run.seconds for run in runs}
    found = {}
    for what, path in files.items():
        if path.is_file():
            found[what] = float(path.read_text().splitlines()[1].split("\t")[0])
    lines = [f"{seconds:7.0f}  {what}" for what, seconds in found.items()] if len(found) <= n_shown else []
    return "\n".join(
        ["Seconds of each stage (several may run at once)", *lines, f"{sum(found.values()):7.0f}  sum of {len(found)}"]
    )


def _places(runs, n_shown=25):
    """Where a person finds what was made."""
    figures = sum(len(list(run.folder.glob("*.png"))) for run in runs)
    lines = [f"In {paths.runs()}, one folder per run" + (":" if len(runs) <= n_shown else f" ({len(runs)}).")]
    if len(runs) <= n_shown:
        lines += [f"  {run.executed.relative_to(paths.runs())}" for run in runs]
    lines.append(
        "These are the executed notebooks; beside each lie its row (row.json), checkpoint and figures "
        f"({figures} png files)."
    )
    return "\n".join(lines)


def _reason(text):
    """Snakemake's reason without the folders: what is not there yet, and which runs come first."""
    parts = []
    for part in text.split("; "):
        said, _, names = part.partition(": ")
        found = [Path(name) for name in names.split(", ")]
        if said == "Missing output files":
            parts.append(f"no {' and '.join(sorted(path.name for path in found))} yet")
        elif said == "Input files updated by another job":
            parts.append(f"after {' and '.join(sorted(path.parent.name for path in found))}")
        else:
            parts.append(part.replace(f"{paths.runs()}/", "").replace(f"{paths.data()}/", ""))
    return ", ".join(parts)


def _some(names, n_shown=5):
    """A few of many names."""
    return ", ".join(names[:n_shown]) + (f" and {len(names) - n_shown} more" if len(names) > n_shown else "")


if __name__ == "__main__":
    sys.exit(main())
