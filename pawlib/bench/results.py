"""Rows of evidence, and the tables that put them beside the paper's numbers.

Conventions
    A run writes one row, runs()/<id>/row.json; `publish` copies chosen rows to results()/<id>.json, which is committed.
    Published rows are only added: a correction is a new row with another tag.
    An id reads from the corpus down to the seed:  mtat-twin.small.music_paw.fcn_4.linear_probe.seed0
    with a tag before the seed where a reading other than the default was used:  ...linear_probe.tau0_1.seed0
    Metrics are fractions; "<metric>_interval" beside one is its 95 % interval [low, high].
    dataset is "mtat" for the real audio alone; a stand-in says so in its name ("mtat-twin", "mtat-twin-toy"), has its
    own column in every table and never fills a column of the paper's dataset.
    Percent, with one decimal, appears only where a table is printed.
"""

import csv
import dataclasses
import datetime
import importlib.metadata
import json
import math
import platform
import re
import shutil
import statistics
import subprocess
import unicodedata
import warnings
from pathlib import Path

from pawlib import paths
from pawlib.bench import files

FIELDS = (
    "id", "system", "backbone", "dataset", "split", "protocol", "scale", "seed", "tag", "metrics", "groups", "per_tag",
    "n_tracks", "commit", "versions", "date", "settings",
)  # fmt: skip
FRACTIONS = ("roc_auc", "pr_auc", "accuracy", "map", "p10")
METRIC_NAMES = {"roc_auc": "ROC-AUC", "pr_auc": "PR-AUC", "accuracy": "Accuracy"}
PACKAGES = ("torch", "torchaudio", "pawlib", "numpy", "scikit-learn")
NONE = "none"
DASH = "-"


def make_id(system, backbone, dataset, protocol, scale, seed, tag=None):
    """The readable id of a run, e.g. mtat-twin.small.music_paw.fcn_4.linear_probe.seed0.

    Raises
    ------
    ValueError
        If a part holds anything but lower-case letters, digits, _ and -: the id is a file name on every system.
    """
    parts = [dataset, scale, system, backbone or NONE, protocol, *([tag] if tag else []), f"seed{seed}"]
    for part in parts:
        if not re.fullmatch(r"[a-z0-9_-]+", str(part)):
            raise ValueError(f"{part!r} cannot be part of a run id: use lower-case letters, digits, _ and -")
    return ".".join(map(str, parts))


def row(
    *, system, backbone, dataset, split, protocol, scale, seed, metrics, n_tracks, groups=None, per_tag=None,
    settings=None, tag=None, id=None,
):  # fmt: skip
    """One row of evidence: what was run, on what, with which code, and what came out.

    Parameters
    ----------
    system : str
        Slug of the system or variant, e.g. "music_paw", "random", "log_mel_statistics".
    backbone : str or None
        Slug of its encoder; None where it has none (statistics).
    dataset, split : str
        As the reader names them: "mtat" or "mtat-twin"; "all" or "tagged".
    protocol : str
        "linear_probe", "supervised", ...
    scale : "toy", "small" or "paper"
    seed : int
    metrics : dict {name: fraction, rank, or None}
        "<name>_interval": [low, high] beside a metric is its interval.
    n_tracks : int > 0
        Test tracks that were scored.
    groups : dict {group: dict like metrics}, optional
    per_tag : dict {label: dict}, optional
    settings : dict, optional
        What matters and is not above, read back from the objects.
    tag : str, optional
        A word for a run off the default readings; tables leave tagged rows out unless asked.
    id : str, optional
        Instead of the one `make_id` gives.

    Returns
    -------
    dict with the keys FIELDS; commit, versions and date are filled in here.

    Raises
    ------
    ValueError
        For a value that cannot be right: an unknown scale, no track, a fraction outside [0, 1], NaN.

    Told in: notebooks/30_linear_probe_mtat.ipynb
    """
    made = {
        "id": id or make_id(system, backbone, dataset, protocol, scale, seed, tag),
        "system": system, "backbone": backbone or NONE, "dataset": dataset, "split": split, "protocol": protocol,
        "scale": scale, "seed": seed, "tag": tag, "metrics": metrics, "groups": groups or {}, "per_tag": per_tag or {},
        "n_tracks": n_tracks, "commit": commit(), "versions": versions(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"), "settings": settings or {},
    }  # fmt: skip
    _validate(made, "this row")
    return made


def with_intervals(numbers, intervals):
    """Scores and their intervals as a row keeps them: {"roc_auc": 0.7, "roc_auc_interval": [0.66, 0.74], ...}.

    Parameters
    ----------
    numbers : dict {name: number}
        From `metrics.tagging` or one group of `metrics.by_group`; what is no number (lists, per tag) is left out.
    intervals : dict {metric: {"low", "high", ...}}
        From `stats.tagging_intervals`, or of a single `stats.bootstrap` per metric; {} where there is none.
    """
    plain = {name: value for name, value in numbers.items() if value is None or isinstance(value, (int, float))}
    return plain | {f"{metric}_interval": [one["low"], one["high"]] for metric, one in intervals.items()}


def write(row, folder=None):
    """Write a row atomically as `folder`/row.json; without a folder into runs()/<id>. Returns the path.

    A run that is repeated replaces its own row: only published rows are append-only.
    """
    _validate(row, "this row")
    path = Path(folder or paths.runs() / row["id"]) / "row.json"
    files.write_json(path, row)
    return path


def read(rows="committed", **filters):
    """Rows, sorted by id.

    Parameters
    ----------
    rows : "committed", "mine" or "all"
        Published ones, those of my runs, or both; in "all" my row replaces a published one of the same id, so that no
        seed counts twice.
    **filters
        A field and the value, or the collection of values, it must have: read(dataset="mtat-twin", seed=(0, 1)).

    Returns
    -------
    list of dict

    Raises
    ------
    ValueError
        For an unknown `rows` or an unknown field.

    Warns
    -----
    UserWarning
        Naming each file that is no valid row, and why; it is left out.

    Told in: notebooks/61_table1.ipynb
    """
    if rows not in ("committed", "mine", "all"):
        raise ValueError(f'rows={rows!r} is unknown, expected "committed", "mine" or "all"')
    unknown = [key for key in filters if key not in FIELDS]
    if unknown:
        raise ValueError(f"rows have no field {unknown}, expected some of {FIELDS}")
    found = {}
    if rows != "mine":
        found |= _read_folder(paths.results().glob("*.json"))
    if rows != "committed":
        found |= _read_folder(paths.runs().glob("*/row.json"))
    return [found[key] for key in sorted(found) if _passes(found[key], filters)]


def publish(ids):
    """Copy rows of my runs to the published ones; returns the paths. Publishing the same row again changes nothing.

    Parameters
    ----------
    ids : sequence of str
        Row ids.

    Raises
    ------
    FileNotFoundError
        If a run has no row; nothing is copied then.
    ValueError
        If a different row is already published under an id (rows are only added), or a row is no valid row.

    Warns
    -----
    UserWarning
        For a row made with uncommitted changes: nobody else can run that code.
    """
    mine = _read_folder(paths.runs().glob("*/row.json"))
    copies = []
    for name in [ids] if isinstance(ids, str) else ids:
        if name not in mine:
            raise FileNotFoundError(f"no run under {paths.runs()} has a row with id {name!r}: has it finished?")
        target = paths.results() / f"{name}.json"
        if target.exists() and files.read_json(target) != mine[name]:
            raise ValueError(
                f"{target} holds another row, and published rows are never replaced: give the new row a tag"
            )
        copies.append((mine[name], target))
    for made, target in copies:
        if made["commit"].endswith("+dirty") or made["commit"] == "unknown":
            warnings.warn(f"{made['id']} was made with code that is in no commit ({made['commit']})", stacklevel=2)
        files.write_json(target, made)
    return [target for _, target in copies]


def commit():
    """The commit of this checkout, "+dirty" behind it where tracked files differ, "unknown" outside a repository."""
    git = shutil.which("git")
    checkout = Path(paths.__file__).resolve().parents[1]
    if git is None:
        return "unknown"
    ask = {"cwd": checkout, "capture_output": True, "text": True}
    head = subprocess.run([git, "rev-parse", "--verify", "HEAD"], **ask)
    if head.returncode != 0:
        return "unknown"
    changed = subprocess.run([git, "status", "--porcelain", "--untracked-files=no"], **ask).stdout.strip()
    return head.stdout.strip() + ("+dirty" if changed else "")


def versions():
    """Versions of Python and of the packages whose numbers we trust."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def paper(number):
    """A table of the paper as it is printed, one dict per row, scores as fractions.

    Columns that end in `_percent` in data/paper/table<number>.csv come back without that ending, divided by 100. A
    `_mark` is "underlined" where the paper underlines; "bold" where its caption says the best is bold (our copy of the
    text keeps underlines but no bold type). `slug` and `backbone_slug` are ours, as in rows.

    Parameters
    ----------
    number : int, 1 to 6

    Raises
    ------
    FileNotFoundError
        If there is no such table.

    Told in: notebooks/61_table1.ipynb
    """
    path = paths.paper() / f"table{number}.csv"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: the paper has tables 1 to 6, committed in that folder")
    with open(path, newline="", encoding="utf-8") as file:
        return [dict(_value(key, value) for key, value in line.items()) for line in csv.DictReader(file)]


@dataclasses.dataclass
class Table:
    """Cells as text under named columns; `records` keeps the numbers behind them."""

    title: str
    columns: list
    lines: list
    records: list
    notes: list

    def text(self):
        """The table in aligned plain text."""
        widths = [max(map(_width, cells)) for cells in zip(self.columns, *self.lines, strict=True)]
        shown = [
            "  ".join(_pad(cell, w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in self._all()
        ]
        rule = "  ".join("-" * w for w in widths)
        return "\n".join([self.title, shown[0], rule, *shown[1:], *self.notes])

    def markdown(self):
        """The same as a markdown table."""
        shown = ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in self._all()]
        rule = "|" + "---|" * len(self.columns)
        notes = [f"*{note}*" for note in self.notes]
        return "\n".join([f"**{self.title}**", "", shown[0], rule, *shown[1:], "", *notes]).rstrip() + "\n"

    def _all(self):
        return [self.columns, *self.lines]

    __str__ = text
    _repr_markdown_ = markdown


def table1(rows, metrics=("roc_auc", "pr_auc"), split="all"):
    """Table 1 with our columns beside the paper's: MTAT tagging, mean and deviation over seeds, and the difference.

    The column "ours on mtat" takes rows on the real audio at paper scale alone; every other corpus and scale found in
    the rows has a column headed with its own name and no difference, because it is another test. Systems the paper
    does not have (controls, a random encoder, statistics) follow below. A dash where no row exists.

    Parameters
    ----------
    rows : list of dict
        From `read`; rows of other datasets, protocols or splits, and tagged ones, are left out.
    metrics : sequence of "roc_auc", "pr_auc"
    split : str
        Reading R17.

    Returns
    -------
    Table
        Its `records`: one dict per line with group, method, slug, backbone, param_m, gflops, and per metric
        {"paper", "ours", "difference", <corpus>: cell}; a cell is {"mean", "sd", "k", "interval", "ids"} or None.

    Raises
    ------
    ValueError
        If two rows of one cell have the same seed.

    Told in: notebooks/61_table1.ipynb
    """
    used = [one for one in rows if _belongs_to_table1(one, split)]
    others = sorted({_corpus(one) for one in used} - {("mtat", "paper")})
    lines = [_paper_line(entry) for entry in paper(1)]
    records = []
    for line in [*lines, *_lines_of_ours(used, lines)]:
        mine = [one for one in used if _fits(one, line)]
        record = dict(line)
        for metric in metrics:
            ours = _cell(mine, ("mtat", "paper"), metric)
            printed = line["printed"].get(metric)
            difference = ours["mean"] - printed if ours and printed is not None else None
            record[metric] = {"paper": printed, "ours": ours, "difference": difference}
            record[metric] |= {_corpus_name(corpus): _cell(mine, corpus, metric) for corpus in others}
        records.append(record)
    return _table1_text(records, metrics, [_corpus_name(corpus) for corpus in others])


def groups_table(rows, metric="roc_auc", title=None):
    """One line per system, one column per tag group, for rows of one corpus and scale: groups are never pooled.

    Parameters
    ----------
    rows : list of dict
        All of one dataset, scale and protocol; tagged rows are shown as systems of their own.
    metric : str

    Returns
    -------
    Table
        One seed shows its interval over test tracks, several seeds mean and deviation over seeds.

    Raises
    ------
    ValueError
        If the rows are of several datasets, scales or protocols, or two rows of one cell have the same seed.

    Told in: notebooks/61_table1.ipynb
    """
    kinds = {(*_corpus(one), one["split"], one["protocol"]) for one in rows}
    if len(kinds) > 1:
        raise ValueError(f"rows of {sorted(kinds)} cannot share a table of groups: filter them when reading")
    names = list(dict.fromkeys(group for one in rows for group in one["groups"]))
    records = []
    for key in dict.fromkeys((one["system"], one["backbone"], one["tag"]) for one in rows):
        mine = [one for one in rows if (one["system"], one["backbone"], one["tag"]) == key]
        cells = {group: _summary(mine, lambda one, g=group: one["groups"].get(g, {}), metric) for group in names}
        records.append({"slug": key[0], "backbone": key[1], "tag": key[2], **cells})
    columns = ["System", "Backbone", *names]
    lines = [
        [one["slug"] + (f" ({one['tag']})" if one["tag"] else ""), one["backbone"], *(_shown(one[g]) for g in names)]
        for one in records
    ]
    where = " at ".join(_corpus(rows[0])) if rows else "no rows"
    title = title or f"{METRIC_NAMES.get(metric, metric)} per tag group, {where} (percent)"
    return Table(title, columns, lines, records, [_LEGEND] if rows else [])


def percent(fraction, sign=False):
    """0.8941 -> "89.4"; with `sign` a difference: +0.3. A dash for None."""
    if fraction is None:
        return DASH
    return f"{100 * fraction:+.1f}" if sign else f"{100 * fraction:.1f}"


_LEGEND = "Ours: mean ± deviation over seeds (number of seeds); with one seed [95 % interval over test tracks]."


def _table1_text(records, metrics, others):
    """The cells of table 1 as text."""
    columns = ["Method", "Backbone"]
    for metric in metrics:
        name = METRIC_NAMES.get(metric, metric)
        columns += [f"{name} paper", "ours on mtat", "difference", *others]
    lines, group = [], None
    for one in records:
        if one["group"] != group:
            group = one["group"]
            lines.append([f"{group}:"] + [""] * (len(columns) - 1))
        line = [one["method"], one["backbone"]]
        for metric in metrics:
            cell = one[metric]
            line += [percent(cell["paper"]), _shown(cell["ours"]), percent(cell["difference"], sign=True)]
            line += [_shown(cell[name]) for name in others]
        lines.append(line)
    notes = [_LEGEND]
    if others:
        notes.append(f"{', '.join(others)}: another test than the paper's column; compare only within that column.")
    return Table("Table 1: tagging on MTAT (percent)", columns, lines, records, notes)


def _belongs_to_table1(one, split):
    """Tagging of MTAT or a stand-in of it, under the protocols of Table 1, at the default readings."""
    protocols = ("linear_probe", "supervised")
    named = one["dataset"] == "mtat" or one["dataset"].startswith("mtat-")
    return named and one["protocol"] in protocols and one["split"] == split and not one["tag"]


def _paper_line(entry):
    """What a line of table 1 is called and what the paper prints in it."""
    printed = {metric: entry[metric] for metric in ("roc_auc", "pr_auc")}
    keep = {key: entry[key] for key in ("group", "method", "slug", "backbone", "backbone_slug", "param_m", "gflops")}
    return {**keep, "protocol": "supervised" if entry["group"] == "Supervised" else "linear_probe", "printed": printed}


def _lines_of_ours(used, lines):
    """Lines for systems the paper does not list."""
    extra = [one for one in used if not any(_fits(one, line) for line in lines)]
    keys = dict.fromkeys((one["system"], one["backbone"], one["protocol"]) for one in extra)
    return [
        {
            "group": "Not in the paper's table", "method": system, "slug": system, "backbone": backbone,
            "backbone_slug": backbone, "param_m": None, "gflops": None, "protocol": protocol, "printed": {},
        }
        for system, backbone, protocol in keys
    ]  # fmt: skip


def _fits(one, line):
    """Does a row belong to a line? A supervised system is its own backbone."""
    same = one["system"] == line["slug"] and one["protocol"] == line["protocol"]
    return same and (line["protocol"] == "supervised" or one["backbone"] == line["backbone_slug"])


def _corpus(one):
    return one["dataset"], one["scale"]


def _corpus_name(corpus):
    return f"{corpus[0]} at {corpus[1]}"


def _cell(rows, corpus, metric):
    """Mean over the seeds of one corpus and scale."""
    return _summary([one for one in rows if _corpus(one) == corpus], lambda one: one["metrics"], metric)


def _summary(rows, where, metric):
    """Mean, deviation and number of seeds; None without a row that has the metric."""
    rows = [one for one in rows if where(one).get(metric) is not None]
    if not rows:
        return None
    seeds = [one["seed"] for one in rows]
    if len(set(seeds)) < len(seeds):
        raise ValueError(
            f"two rows of one cell have the same seed: {[one['id'] for one in rows]}. "
            "Give the one that is off the default readings a tag, or filter when reading"
        )
    values = [where(one)[metric] for one in rows]
    return {
        "mean": statistics.fmean(values),
        "sd": statistics.stdev(values) if len(values) > 1 else None,
        "k": len(values),
        "interval": where(rows[0]).get(f"{metric}_interval") if len(rows) == 1 else None,
        "ids": [one["id"] for one in rows],
    }


def _shown(cell):
    """89.4 ± 0.3 (5), or 89.4 [88.1, 90.6] (1)."""
    if cell is None:
        return DASH
    spread = f" ± {percent(cell['sd'])}" if cell["sd"] is not None else ""
    if cell["interval"]:
        spread = f" [{percent(cell['interval'][0])}, {percent(cell['interval'][1])}]"
    return f"{percent(cell['mean'])}{spread} ({cell['k']})"


def _value(key, text):
    """A cell of a paper table: percent to fraction, numbers to numbers, empty to None where a number is expected."""
    if key.endswith("_percent"):
        return key.removesuffix("_percent"), float(text) / 100 if text else None
    if key in ("param_m", "gflops") or key.endswith("_mr1"):
        return key, float(text) if text else None
    return key, text


def _read_folder(found):
    """{id: row} of the files that are valid rows."""
    rows = {}
    for path in sorted(found):
        try:
            one = files.read_json(path)
            _validate(one, str(path))
            if path.name not in ("row.json", f"{one['id']}.json"):
                raise ValueError(f"{path} holds the row {one['id']}: was it renamed?")
        except (ValueError, OSError) as error:
            warnings.warn(f"left out, not a row: {error}", stacklevel=3)
            continue
        if one["id"] in rows:
            warnings.warn(f"left out: {path} repeats the row {one['id']}", stacklevel=3)
            continue
        rows[one["id"]] = one
    return rows


def _passes(one, filters):
    """Every filtered field has the value, or one of the values."""
    return all(
        one[key] in wanted if isinstance(wanted, (list, tuple, set, frozenset)) else one[key] == wanted
        for key, wanted in filters.items()
    )


def _validate(one, called):
    """Refuse what cannot be a row, naming the field."""
    if not isinstance(one, dict):
        raise ValueError(f"{called} is a {type(one).__name__}, expected the fields {FIELDS}")
    missing = [key for key in FIELDS if key not in one]
    if missing:
        raise ValueError(f"{called} lacks the fields {missing}")
    if one["scale"] not in paths.SCALES:
        raise ValueError(f"{called} has scale {one['scale']!r}, expected one of {paths.SCALES}")
    for key in ("id", "system", "backbone", "dataset", "split", "protocol", "commit"):
        if not isinstance(one[key], str) or not one[key]:
            raise ValueError(f"{called} has {key} {one[key]!r}, expected a word")
    if "/" in one["id"] or "\\" in one["id"] or one["id"].startswith("."):
        raise ValueError(f"{called} has id {one['id']!r}, which is no file name")
    for key in ("seed", "n_tracks"):
        if isinstance(one[key], bool) or not isinstance(one[key], int) or one[key] < (key == "n_tracks"):
            raise ValueError(
                f"{called} has {key} {one[key]!r}, expected a whole number{' above 0' * (key == 'n_tracks')}"
            )
    if not isinstance(one["metrics"], dict) or not one["metrics"]:
        raise ValueError(f"{called} has no metrics: what did the run find?")
    _validate_metrics(one["metrics"], called)
    for key in ("groups", "per_tag"):
        if not isinstance(one[key], dict):
            raise ValueError(
                f"{called} has {key} {one[key]!r}, expected a dict by {'group' if key == 'groups' else 'tag'}"
            )
        for name, numbers in one[key].items():
            _validate_metrics(numbers, f"{called}, {key} {name!r}")
    _validate_json(one, called)


def _validate_metrics(numbers, called):
    """Numbers, None, or intervals; fractions within [0, 1]."""
    if not isinstance(numbers, dict):
        raise ValueError(f"{called} has {numbers!r} where {{metric: number}} was expected")
    for metric, value in numbers.items():
        values = value if metric.endswith("_interval") else [value]
        if metric.endswith("_interval") and (not isinstance(value, (list, tuple)) or len(value) != 2):
            raise ValueError(f"{called} has {metric} {value!r}, expected [low, high]")
        for number in values:
            if number is None:
                continue
            if isinstance(number, bool) or not isinstance(number, (int, float)) or not math.isfinite(number):
                raise ValueError(
                    f"{called} has {metric} {number!r}, expected a finite number: use float() on array scalars"
                )
            if metric.removesuffix("_interval") in FRACTIONS and not 0 <= number <= 1:
                raise ValueError(f"{called} has {metric} {number!r}, expected a fraction in [0, 1]: is it in percent?")


def _validate_json(one, called):
    """Rows travel as JSON: nothing else may hide in settings."""
    try:
        json.dumps(one, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{called} cannot be written as JSON ({error})") from error


def _width(text):
    """Columns that a text takes on a terminal."""
    return sum(0 if unicodedata.combining(letter) else 1 for letter in text)


def _pad(text, width):
    return text + " " * (width - _width(text))
