"""Run lists: which notebooks are run with which parameters, and where each run's files lie.

    notebooks/runs/workbook.yaml  ->  read()  ->  Snakefile (one job per run)  ->  data()/runs/<run id>/

Conventions
    An item of a list names a notebook and gives it parameters; `defaults` of the list go to every notebook that knows
    them. What a notebook knows stands in its own `parameters` cell and nowhere else: the names, and behind each name,
    in its comment, the choices: `scale = "toy"  # toy | small | paper`. papermill only warns about a name it does not
    know and runs on with the default, so everything is checked here before anything runs.

    python -m pawlib.bench.runlist show LIST       the table, the time of each stage, where the files are
    python -m pawlib.bench.runlist publish LIST    copies the rows of the list's runs to the published ones
"""

import ast
import dataclasses
import io
import json
import re
import sys
import tokenize
from pathlib import Path

from pawlib import paths
from pawlib.bench import results

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
PRETRAIN, PROBE = "10_pretrain_music_paw", "30_linear_probe_mtat"
_WORD = r"""["']?([\w.+-]+)["']?"""


@dataclasses.dataclass(frozen=True)
class Run:
    """One item of a run list.

    Attributes
    ----------
    id : str
        Name of its folder in data()/runs.
    notebook : pathlib.Path
    parameters : dict
        What papermill gives the notebook: the list's defaults and the item's own.
    folder : pathlib.Path
    output : pathlib.Path
        The file that says the run is finished: checkpoint, row, or for a chapter an empty mark.
    needs : tuple of pathlib.Path
        Outputs of other runs that have to be there first.
    corpus : tuple (str, str, str) or None
        Corpus switch, scale and the name of the store it reads; None where it reads no audio.
    """

    id: str
    notebook: Path
    parameters: dict
    folder: Path
    output: Path
    needs: tuple
    corpus: tuple | None

    @property
    def executed(self):
        """The notebook as it was run: the run's log."""
        return self.folder / self.notebook.name

    @property
    def seconds(self):
        """Where Snakemake writes how long the run took."""
        return self.folder / "seconds.tsv"


def parameters(notebook):
    """What a notebook can be asked: {name: (default, choices)}, from its `parameters` cell.

    Parameters
    ----------
    notebook : path-like

    Returns
    -------
    dict
        choices is a tuple of str, the words between the bars of the name's comment; () where it lists none.

    Raises
    ------
    ValueError
        If the notebook has not exactly one such cell, or the cell holds anything but literals.
    """
    cells = json.loads(Path(notebook).read_text(encoding="utf-8"))["cells"]
    tagged = [cell for cell in cells if "parameters" in cell["metadata"].get("tags", [])]
    if len(tagged) != 1:
        raise ValueError(f"{Path(notebook).name} has {len(tagged)} cells tagged `parameters`, expected one")
    source = "".join(tagged[0]["source"])
    comments = _comments(source)
    found = {}
    for node in ast.parse(source).body:
        try:
            found[node.targets[0].id] = (ast.literal_eval(node.value), _choices(comments.get(node.end_lineno, "")))
        except (AttributeError, ValueError) as error:
            raise ValueError(
                f"{Path(notebook).name}: `{ast.unparse(node)}` in the parameters cell is no plain `name = literal`; "
                "derive values in the next cell, where an injected value reaches them"
            ) from error
    return found


def read(path, notebooks=NOTEBOOKS, **instead):
    """Read a run list and check every item against the notebook it names.

    Parameters
    ----------
    path : path-like
        YAML with `defaults` (a mapping) and `runs` (a list of items with a `notebook` each).
    notebooks : path-like
        Folder of the notebooks.
    **instead
        Defaults to use instead of the list's own: read(path, scale="toy").

    Returns
    -------
    list of Run

    Raises
    ------
    ValueError
        For an unknown notebook, parameter or value, an item given twice, or a probe of a checkpoint that no item
        makes: naming the item and what is known.
    """
    import yaml

    path = Path(path)
    try:
        listed = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{path.name} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(listed, dict) or set(listed) - {"defaults", "runs"} or not isinstance(listed.get("runs"), list):
        raise ValueError(f"{path.name}: expected `defaults:` (a mapping) and `runs:` (a list), and nothing else")
    defaults = {**(listed.get("defaults") or {}), **instead}
    runs, places = [], {}
    for number, item in enumerate(listed["runs"], start=1):
        where = f"{path.name}, item {number} ({item})"
        run = _run(item, defaults, Path(notebooks), where)
        if run.id in places:
            raise ValueError(f"{where} is the same run as item {places[run.id]}: {run.id}")
        places[run.id] = number
        runs.append(run)
    _check_defaults(defaults, runs, path.name)
    return _wire(runs, path.name)


def chapters(notebooks=NOTEBOOKS):
    """Names of the workbook's chapters, in their order; none where pawlib lies outside a checkout."""
    return sorted(path.stem for path in Path(notebooks).glob("[0-9][0-9]_*.ipynb"))


def summary(runs):
    """What a person wants to see when all runs are finished, as text.

    Raises
    ------
    FileNotFoundError
        If a run has not finished, naming it.
    """
    missing = [run.id for run in runs if not run.output.is_file()]
    if missing:
        raise FileNotFoundError(f"{len(missing)} of {len(runs)} runs are not finished: {', '.join(missing)}")
    ids = {run.id for run in runs}
    rows = [row for row in results.read("mine") if row["id"] in ids]
    parts = [results.table1(rows).text()] if rows else []
    corpora = dict.fromkeys((row["dataset"], row["scale"], row["split"], row["protocol"]) for row in rows)
    for dataset, scale, split, protocol in corpora:
        same = [
            row for row in rows if (row["dataset"], row["scale"], row["split"], row["protocol"]) ==
            (dataset, scale, split, protocol)
        ]  # fmt: skip
        parts.append(results.groups_table(same).text())
    return "\n\n".join([*parts, _times(runs), _places(runs)])


def main(argv=None):
    """`show` or `publish` a list; returns the exit status."""
    verb, path, *rest = sys.argv[1:] if argv is None else argv
    instead = dict(word.split("=", 1) for word in rest)
    try:
        runs = read(path, **instead)
        if verb == "show":
            print(summary(runs))
        elif verb == "publish":
            for copy in results.publish([run.id for run in runs if run.output.name == "row.json"]):
                print(f"published: {copy}")
        else:
            raise ValueError(f"{verb!r} is unknown, expected show or publish")
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


# --- the parameters cell ----------------------------------------------------------------------------------------------


def _comments(source):
    """Comments of a cell by line; a comment on a line of its own belongs to the code above it."""
    found, last = {}, 0
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            line = token.start[0] if token.line[: token.start[1]].strip() else last
            found[line] = f"{found.get(line, '')} {token.string.lstrip('# ')}".strip()
        elif token.type not in (tokenize.NL, tokenize.NEWLINE, tokenize.ENDMARKER):
            last = token.end[0]
    return found


def _choices(comment):
    """("toy", "small", "paper") of "toy | small | paper, see 00"; () of a comment without bars."""
    parts = comment.split("|")
    words = [re.search(rf"{_WORD}$", parts[0].strip()), *(re.match(_WORD, part.strip()) for part in parts[1:])]
    return tuple(word[1] for word in words) if len(parts) > 1 and all(words) else ()


# --- from an item to a run --------------------------------------------------------------------------------------------


def _run(item, defaults, notebooks, where):
    name = item.get("notebook") if isinstance(item, dict) else None
    known = sorted(one.stem for one in notebooks.glob("[0-9]*.ipynb"))
    if name not in known:
        raise ValueError(f"{where}: notebook {name!r} is unknown, expected one of {', '.join(known)}")
    asked = parameters(notebooks / f"{name}.ipynb")
    own = {key: value for key, value in item.items() if key != "notebook"}
    for key in own:
        if key not in asked:
            raise ValueError(f"{where}: {name} has no parameter {key!r}, expected some of {', '.join(asked)}")
    given = {**{key: value for key, value in defaults.items() if key in asked}, **own}
    for key, value in given.items():
        choices = asked[key][1]
        if choices and str(value) not in choices:
            raise ValueError(f"{where}: {key} {value!r} is unknown, expected one of {', '.join(choices)}")
    values = {key: default for key, (default, _) in asked.items()} | given
    return _placed(notebooks / f"{name}.ipynb", values, given)


def _placed(notebook, values, given):
    """Give a run its id, folder and the file that says it is finished."""
    corpus = None
    if "corpus" in values:
        corpus = (values["corpus"], values["scale"], paths.corpus("mtat", values["corpus"], values["scale"])[1])
    if notebook.stem == PRETRAIN:
        protocol, system, output = "pretrain", values["variant"], "checkpoint.safetensors"
    elif notebook.stem == PROBE:
        protocol, system, output = "linear_probe", values["system"], "row.json"
    else:
        words = [corpus[2], values["scale"]] if corpus else []
        words += [notebook.stem, *(str(given[key]) for key in given if key not in ("corpus", "scale", "seed"))]
        identity = ".".join([*words, *([f"seed{values['seed']}"] if "seed" in values else [])])
        folder = paths.runs() / identity
        return Run(identity, notebook, given, folder, folder / "finished", (), corpus)
    tag = values.get("levels", "shortest") if values["encoder"] != results.NONE else "shortest"
    tag = None if tag == "shortest" else tag  # reading R11 off its default
    identity = results.make_id(system, values["encoder"], corpus[2], protocol, values["scale"], values["seed"], tag)
    folder = paths.runs() / identity
    return Run(identity, notebook, given, folder, folder / output, (), corpus)


def _check_defaults(defaults, runs, name):
    """A default that no notebook of the list knows is a typing error."""
    for key in defaults:
        if not any(key in run.parameters for run in runs):
            raise ValueError(f"{name}, defaults: no notebook of the list has a parameter {key!r}")


def _wire(runs, name):
    """Let each probe wait for its checkpoint, and what reads rows for the rows."""
    rows = tuple(run.output for run in runs if run.output.name == "row.json")
    made = {run.folder: run.output for run in runs if run.notebook.stem == PRETRAIN}
    wired = []
    for run in runs:
        needs = ()
        if run.notebook.stem == PROBE:
            needs = _checkpoint(run, made, name)
        elif run.parameters.get("rows") in ("mine", "all"):
            needs = rows
        wired.append(dataclasses.replace(run, needs=needs))
    return wired


def _checkpoint(run, made, name):
    """What a probe loads: (path,), or () for systems that are not pretrained."""
    if run.parameters.get("checkpoint"):
        return (Path(run.parameters["checkpoint"]),)
    variants = parameters(run.notebook.parent / f"{PRETRAIN}.ipynb")["variant"][1]
    system = run.id.split(".")[2]
    if system not in variants:
        return ()
    corpus, scale, _, encoder, *_, seed = run.id.split(".")
    folder = paths.runs() / ".".join([corpus, scale, system, encoder, "pretrain", seed])
    if folder not in made and not (folder / "checkpoint.safetensors").is_file():
        raise ValueError(
            f"{name}: {run.id} loads a checkpoint that no item makes; add an item with "
            f"notebook: {PRETRAIN}, variant: {system} and the same encoder and seed"
        )
    return (folder / "checkpoint.safetensors",)


# --- words ------------------------------------------------------------------------------------------------------------


def _times(runs):
    """Seconds of each stage, as Snakemake measured them when it was last run."""
    files = {}
    for run in runs:
        if run.corpus:
            files |= {
                f"{step} {run.corpus[2]}": paths.runs() / f"{step}.{run.corpus[2]}.tsv" for step in ("twin", "store")
            }
    files |= {run.id: run.seconds for run in runs}
    found = {}
    for what, path in files.items():
        if path.is_file():
            found[what] = float(path.read_text().splitlines()[1].split("\t")[0])
    lines = [f"{seconds:7.0f}  {what}" for what, seconds in found.items()]
    return "\n".join(
        ["Seconds of each stage (two chapters may run at once)", *lines, f"{sum(found.values()):7.0f}  sum"]
    )


def _places(runs):
    """Where a person finds what was made."""
    figures = sum(len(list(run.folder.glob("*.png"))) for run in runs)
    lines = [f"In {paths.runs()}, one folder per run:"]
    for run in runs:
        lines.append(f"  {run.executed.relative_to(paths.runs())}")
    lines.append(
        "These are the executed notebooks; beside each lie its row (row.json), checkpoint and figures "
        f"({figures} png files)."
    )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
