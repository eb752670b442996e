"""Run lists: which notebooks are run with which parameters, and where each run's files lie.

    notebooks/runs/workbook.yaml  ->  read()  ->  Snakefile (one job per run)  ->  data()/runs/<run id>/

Conventions
    An item of a list names a notebook and gives it parameters; `defaults` of the list go to every notebook that knows
    them. A value that is a list stands for one run per value, several lists for their product, in items and defaults.
    What a notebook knows stands in its own `parameters` cell and nowhere else: the names, and behind each name, in its
    comment, the choices: `scale = "toy"  # toy | small | paper`. papermill only warns about a name it does not know
    and runs on with the default, so everything is checked here before anything runs.
    What a kind of notebook makes of its parameters (a checkpoint, a row, on which dataset) stands in KINDS.
    What is done with the runs of a list when they have finished is in reproduce.py.
"""

import ast
import dataclasses
import io
import itertools
import json
import re
import tokenize
from pathlib import Path
from typing import NamedTuple

from pawlib import paths
from pawlib.bench import results

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
PRETRAIN, SUPERVISED = "10_pretrain_music_paw", "20_supervised_taggers"
ROW, CHECKPOINT, FINISHED = "row.json", "checkpoint.safetensors", "finished"
TAGGER_START = "supervised_mtat"  # starts from a tagger that 20 trained on MTAT
_WORD = r"""["']?([\w.+-]+)["']?"""


class Corpus(NamedTuple):
    """What audio a run reads: dataset "mtat", switch "twin", scale "small", and its store's name "mtat-twin"."""

    dataset: str
    switch: str
    scale: str
    name: str


READINGS = ("readings", "", "{readings}")  # of MusicPAW, off their defaults
EPOCHS = ("epochs", 0, "epochs_{epochs}")  # of pretraining, other than the scale's
LEVELS = ("levels", "shortest", "{levels}")  # reading R11
SPLIT = ("split", "all", "{split}")  # reading R17


@dataclasses.dataclass(frozen=True)
class Kind:
    """What a kind of notebook makes of its parameters; text in braces is the parameter of that name.

    Attributes
    ----------
    protocol : str
        As in rows and run ids.
    system, dataset : str
    output : str
        The file that says a run is finished.
    frozen : tuple of str
        Systems that are probed, not trained, whatever `protocol` says of the others; so is any with freeze: yes.
    tags : tuple of (parameter, default, form)
        A parameter off its default marks the id: ("labels", 100, "labels{labels}").
    beside : tuple of str
        Datasets that are tested, too, on the same switch; a parameter of a dataset's name, off "same", is its own.
    start : str
        The parameter that says how the system's encoder began, and names the row instead of the system: the table's
        lines differ in it. The system is then the row's backbone; "none" where it has no such encoder.
    trunk : str
        The encoder of the checkpoint that it starts from, where no parameter says so.
    probe : str
        The protocol of what is probed, not trained.
    """

    protocol: str
    system: str = "{system}"
    dataset: str = "mtat"
    output: str = ROW
    frozen: tuple = ()
    tags: tuple = ()
    beside: tuple = ()
    start: str = ""
    trunk: str = ""
    probe: str = "linear_probe"


KINDS = {
    PRETRAIN: Kind("pretrain", system="{variant}", output=CHECKPOINT, tags=(READINGS, EPOCHS)),
    SUPERVISED: Kind("supervised", dataset="{dataset}", tags=(("labels", 100, "labels{labels}"), SPLIT)),
    "30_linear_probe_mtat": Kind("linear_probe", tags=(LEVELS, SPLIT, READINGS, EPOCHS)),
    "31_few_labels_mtat": Kind("few_labels_{labels}", tags=(SPLIT,)),
    "32_finetune_gtzan": Kind(
        "fine_tune", dataset="gtzan", frozen=("random", "log_mel_statistics", "mfcc_statistics"), tags=(READINGS,)
    ),
    "40_cover_songs": Kind(
        "cover",
        dataset="shs100k",
        beside=("covers80",),
        start="init",
        trunk="fcn_4",
        tags=(("covers80", "same", "covers80_{covers80}"),),
    ),
    "50_scene_systems": Kind(
        "supervised_{fold}",
        dataset="dcase2016",
        tags=(("channels", "published", "{channels}"), ("errors", "keep", "errors_{errors}")),
    ),
    "51_scene_transfer": Kind(
        "fine_tune_{fold}",
        dataset="dcase2016",
        frozen=("log_mel_statistics", "mfcc_statistics"),
        probe="linear_probe_{fold}",
        tags=(READINGS, ("errors", "keep", "errors_{errors}")),
    ),
    "74_diagnostic": Kind("diagnostic", beside=("covers80",)),
}
LOOKING = ("7", "8")  # chapters that look at the encoders of a list
OTHER_PRETRAINING = r"\d\d_pretrain_(\w+)"  # chapters of one system each, which is called as its chapter is


def kind_of(stem):
    """The Kind of a notebook by its name, None where it makes neither checkpoint nor row."""
    other = re.fullmatch(OTHER_PRETRAINING, stem)
    return KINDS.get(stem) or (Kind("pretrain", system=other[1], output=CHECKPOINT, tags=(EPOCHS,)) if other else None)


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
    corpus : Corpus or None
        The audio it reads; None where it reads none.
    system : str or None
        Slug of what is trained or tested; None for a chapter.
    also : tuple of pathlib.Path
        What it leaves beside its output that another run of the list needs.
    beside : tuple of Corpus
        Further audio it reads.
    """

    id: str
    notebook: Path
    parameters: dict
    folder: Path
    output: Path
    needs: tuple
    corpus: Corpus | None
    system: str | None = None
    also: tuple = ()
    beside: tuple = ()

    @property
    def reads(self):
        """All the audio it reads, as a tuple of Corpus."""
        return (*((self.corpus,) if self.corpus else ()), *self.beside)

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
        For an unknown notebook, parameter or value, an item given twice, or a run from a checkpoint that no item
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
        for run in _runs(item, defaults, Path(notebooks), where):
            if run.id in places:
                raise ValueError(f"{where} is the same run as item {places[run.id]}: {run.id}")
            places[run.id] = number
            runs.append(run)
    _check_defaults(defaults, runs, path.name)
    return _wire(runs, path.name)


def list_of(kind, number, notebooks=NOTEBOOKS):
    """The run list of one of the paper's tables or figures.

    Parameters
    ----------
    kind : "table" | "figure"
    number : str or int

    Raises
    ------
    ValueError
        If there is no such list, naming those there are.
    """
    found = {path.stem.removeprefix(kind): path for path in (Path(notebooks) / "runs").glob(f"{kind}*.yaml")}
    if str(number) not in found:
        said = f"{kind.upper()} {str(number)!r} is unknown" if str(number) else f"no {kind.upper()} was given"
        raise ValueError(f"{said}, expected one of {', '.join(sorted(found))}: make reproduce {kind.upper()}=...")
    return found[str(number)]


def choose(runs, seeds=None, systems=None, encoders=None):
    """The runs of some seeds, systems and encoders, and what they need; all runs where nothing is given.

    Parameters
    ----------
    runs : list of Run
    seeds, systems, encoders : str or int, optional
        Words between spaces or commas: "0 1", "crnn fcn_5".

    Raises
    ------
    ValueError
        For a seed, system or encoder that no run of the list has, naming those there are.
    """
    kept = _having(runs, "SEEDS", seeds, lambda run: run.parameters.get("seed"))
    kept = _having(kept, "SYSTEMS", systems, lambda run: run.system)
    kept = _having(kept, "ENCODERS", encoders, lambda run: run.parameters.get("encoder"))
    ids = {run.id for run in kept}
    while more := {run.id for run in runs if {run.output, *run.also} & _needed(runs, ids)} - ids:
        ids |= more
    return [run for run in runs if run.id in ids]


def chapters(notebooks=NOTEBOOKS):
    """Names of the workbook's chapters, in their order; none where pawlib lies outside a checkout."""
    return sorted(path.stem for path in Path(notebooks).glob("[0-9][0-9]_*.ipynb"))


# --- some of many -----------------------------------------------------------------------------------------------------


def _having(runs, name, wanted, of):
    """Runs whose `of` is one of the words; a word that no run has is an error."""
    words = [] if wanted is None else re.split(r"[\s,]+", str(wanted).strip())
    if not any(words):
        return runs
    known = dict.fromkeys(str(of(run)) for run in runs if of(run) is not None)
    if unknown := [word for word in words if word not in known]:
        raise ValueError(f"{name} {unknown[0]!r} is unknown, expected some of {', '.join(known)}")
    return [run for run in runs if str(of(run)) in words]


def _needed(runs, ids):
    """Files that some runs need."""
    return {path for run in runs if run.id in ids for path in run.needs}


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


def _runs(item, defaults, notebooks, where):
    """The runs of an item: one for each combination of the values it lists."""
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
    for each in _product(given, where):
        for key, value in each.items():
            choices = asked[key][1]
            if choices and str(value) not in choices:
                raise ValueError(f"{where}: {key} {value!r} is unknown, expected one of {', '.join(choices)}")
        values = {key: default for key, (default, _) in asked.items()} | each
        _check_readings(values.get("readings"), where)
        yield _placed(notebooks / f"{name}.ipynb", values, each)


def _check_readings(text, where):
    if not text:
        return
    from pawlib import model  # torch takes a second: only where it is asked for

    try:
        model.readings(text)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _product(given, where):
    """Every combination of the values of which there are several; the seed changes last, other names as given."""
    if empty := [key for key, value in given.items() if value == []]:
        raise ValueError(f"{where}: {empty[0]} is an empty list, expected at least one value")
    lists = {key: value for key, value in given.items() if isinstance(value, list)}
    names = sorted(lists, key=lambda key: key == "seed")
    for values in itertools.product(*(lists[key] for key in names)):
        yield given | dict(zip(names, values, strict=True))


def _placed(notebook, values, given):
    """Give a run its id, folder and the file that says it is finished."""
    kind = kind_of(notebook.stem)
    corpus = None
    if "corpus" in values:
        dataset = kind.dataset.format(**values) if kind else "mtat"
        corpus = _corpus(dataset, values["corpus"], values["scale"])
    if kind is None:
        words = [corpus.name, values["scale"]] if corpus else []
        words += [notebook.stem, *(str(given[key]) for key in given if key not in ("corpus", "scale", "seed"))]
        identity = ".".join([*words, *([f"seed{values['seed']}"] if "seed" in values else [])])
        folder = paths.runs() / identity
        return Run(identity, notebook, given, folder, folder / FINISHED, (), corpus)
    system, encoder = kind.system.format(**values), values.get("encoder", results.NONE)
    if kind.start and values[kind.start] != results.NONE:
        system, encoder = values[kind.start], system
    frozen = system in kind.frozen or values.get("freeze") == "yes"
    protocol = (kind.probe if frozen else kind.protocol).format(**values)
    identity = results.make_id(
        system, encoder, corpus.name, protocol, values["scale"], values["seed"], _tag(kind, values, encoder)
    )
    folder = paths.runs() / identity
    beside = tuple(_beside(name, values) for name in kind.beside)
    return Run(identity, notebook, given, folder, folder / kind.output, (), corpus, system, beside=beside)


def _beside(dataset, values):
    """A further dataset: on the run's own switch, or on that of the parameter of its name."""
    switch = values.get(dataset, "same")
    return _corpus(dataset, values["corpus"] if switch == "same" else switch, values["scale"])


def _corpus(dataset, switch, scale):
    return Corpus(dataset, switch, scale, paths.corpus(dataset, switch, scale)[1])


def _tag(kind, values, encoder):
    """The word for parameters off their defaults, and a checkpoint by name; plain statistics have no levels."""
    marked = [
        form.format(**values) for parameter, default, form in kind.tags
        if values.get(parameter, default) != default and not (parameter == "levels" and encoder == results.NONE)
    ]  # fmt: skip
    return results.tag_of(*marked, results.started_from(values.get("checkpoint")))


def _check_defaults(defaults, runs, name):
    """A default that no notebook of the list knows is a typing error."""
    for key in defaults:
        if not any(key in run.parameters for run in runs):
            raise ValueError(f"{name}, defaults: no notebook of the list has a parameter {key!r}")


def _wire(runs, name):
    """Let each run wait for the checkpoint it starts from, what reads rows for the rows, what looks at encoders for all
    that the list pretrains on the same corpus with the same seed."""
    rows = tuple(run.output for run in runs if run.output.name == ROW)
    folders = {run.folder for run in runs if _is_start(run.notebook.stem)}
    wired = []
    for run in runs:
        needs = ()
        if run.system and not _is_start(run.notebook.stem):
            needs = _checkpoint(run, folders, name)
        elif run.parameters.get("rows") in ("mine", "all"):
            needs = rows
        elif run.notebook.stem.startswith(LOOKING):
            needs = tuple(one.output for one in runs if one.output.name == CHECKPOINT and _same_draw(one, run))
        wired.append(dataclasses.replace(run, needs=needs))
    needed = _needed(wired, {run.id for run in wired})
    return [
        dataclasses.replace(run, also=(run.folder / CHECKPOINT,))
        if run.folder / CHECKPOINT in needed - {run.output} else run
        for run in wired
    ]  # fmt: skip


def _same_draw(one, other):
    """Whether two runs are of one corpus and one seed; a run that is given no seed is of all."""
    seeds = {run.parameters["seed"] for run in (one, other) if "seed" in run.parameters}
    return one.corpus == other.corpus and len(seeds) < 2


def _checkpoint(run, folders, name):
    """What a run starts from: (path,), or () for systems that were not trained before."""
    if given := run.parameters.get("checkpoint"):
        return (paths.released().get(given, Path(given)),)
    _, _, _, encoder, *_, seed = run.id.replace(".seed", ".").split(".")
    encoder = kind_of(run.notebook.stem).trunk or encoder
    corpus = _corpus("mtat", run.corpus.switch, run.corpus.scale)
    if run.system == TAGGER_START:
        tagger = tagger_of(encoder)
        made = (tagger, results.NONE, corpus.name, KINDS[SUPERVISED].protocol, corpus.scale, seed)
        item = f"notebook: {SUPERVISED}, dataset: mtat, system: {tagger} and the same seed"
    elif run.system in (others := _other_pretrainings(run.notebook.parent)) | _variants(run.notebook.parent):
        tag = _tag(KINDS[PRETRAIN], run.parameters, encoder)
        made = (run.system, encoder, corpus.name, KINDS[PRETRAIN].protocol, corpus.scale, seed, tag)
        item = f"notebook: {PRETRAIN}, variant: {run.system} and the same encoder, readings, epochs and seed"
        if run.system in others:
            item = f"notebook: {others[run.system]} and the same encoder, epochs and seed"
    else:
        return ()
    folder = paths.runs() / results.make_id(*made)
    if folder not in folders and not (folder / CHECKPOINT).is_file():
        raise ValueError(f"{name}: {run.id} loads a checkpoint that no item makes; add an item with {item}")
    return (folder / CHECKPOINT,)


def _is_start(stem):
    """Whether a chapter leaves checkpoints that others start from."""
    return stem == SUPERVISED or bool(re.fullmatch(OTHER_PRETRAINING, stem))


def _variants(notebooks):
    """{variant: chapter} of Music-PAW's pretraining."""
    path = notebooks / f"{PRETRAIN}.ipynb"
    return dict.fromkeys(parameters(path)["variant"][1], PRETRAIN) if path.is_file() else {}


def _other_pretrainings(notebooks):
    """{system: chapter} of the pretrainings that have a chapter of their own."""
    stems = [path.stem for path in notebooks.glob("*_pretrain_*.ipynb") if path.stem != PRETRAIN]
    return {found[1]: stem for stem in stems if (found := re.fullmatch(OTHER_PRETRAINING, stem))}


def tagger_of(encoder):
    """Slug of the supervised system whose trunk an encoder is, as the paper's Table 1 has it: its own, or its backbone.

    Raises
    ------
    ValueError
        If Table 1 has no such system.
    """
    supervised = [line for line in results.paper(1) if line["group"] == "Supervised"]
    for line in supervised:
        if encoder in (line["slug"], line["backbone"].lower().replace("-", "_")):
            return line["slug"]
    raise ValueError(f"encoder {encoder!r} is the trunk of no supervised system of Table 1, so none can start from it")
