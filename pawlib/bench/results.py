"""Rows of evidence: what was run, on what, with which code, and what came out; and the paper's numbers.

Conventions
    A run writes one row, runs()/<id>/row.json; `publish` copies chosen rows to results()/<id>.json, which is committed.
    Published rows are only added: a correction is a new row with another tag.
    An id reads from the corpus down to the seed:  mtat-twin.small.music_paw.fcn_4.linear_probe.seed0
    with a tag before the seed where a reading other than the default was used:  ...linear_probe.tau0_1.seed0
    Metrics are fractions; "<metric>_interval" beside one is its 95 % interval [low, high].
    dataset is "mtat" for the real audio alone; a stand-in says so in its name ("mtat-twin", "mtat-twin-toy"), has its
    own column in every table and never fills a column of the paper's dataset.
    Percent, with one decimal, appears only where a table is printed (pawlib.bench.tables).
"""

import csv
import datetime
import importlib.metadata
import json
import math
import platform
import re
import shutil
import subprocess
import warnings
from pathlib import Path

from pawlib import paths
from pawlib.bench import files, stats

FIELDS = (
    "id", "system", "backbone", "dataset", "split", "protocol", "scale", "seed", "tag", "metrics", "groups", "per_tag",
    "n_tracks", "commit", "versions", "date", "settings",
)  # fmt: skip
FRACTIONS = ("roc_auc", "pr_auc", "accuracy", "map", "p10")
ARTISTS = "_artist_filtered"  # behind a metric: over test tracks of artists that were not heard in training
ANSWERABLE = "_drop"  # behind a metric of retrieval: over queries that have a right answer (retrieval.py)
SECOND_TEST = "covers80_"  # before a metric: of the other test set of the same trained system (Table 4)
PACKAGES = ("torch", "torchaudio", "pawlib", "numpy", "scikit-learn")
NONE = "none"


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


def tag_of(*words):
    """The tag of a run off its defaults, None where nothing is: ("top", "mix=0.25") -> "top-mix_0_25".

    Parameters
    ----------
    *words : str
        Empty ones, and None, are left out. What cannot stand in an id becomes "_", the sign of a number "minus".
    """
    words = [re.sub(r"-(?=[\d.])", "minus", word.lower()) for word in words if word]
    plain = [re.sub(r"[^a-z0-9]+", "_", word).strip("_") for word in words]
    return "-".join(plain) or None


def started_from(checkpoint):
    """The word of a tag for a checkpoint that was named instead of the one a run would take; "" for none.

    Parameters
    ----------
    checkpoint : path-like
        A released name, or a file: it is then called as its run, which is the file's folder.
    """
    if not checkpoint:
        return ""
    path = Path(checkpoint)
    return f"from_{path.parent.name if path.stem == 'checkpoint' and path.parent.name else path.stem}"


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
        "n_tracks": n_tracks, "commit": commit(), "versions": versions(dataset),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "settings": ({"intervals": stats.INTERVALS} if _has_intervals(metrics) else {}) | (settings or {}),
    }  # fmt: skip
    _validate(made, "this row")
    return made


def _has_intervals(metrics):
    return any(name.endswith("_interval") for name in metrics)


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
        Naming each file that is no valid row, or a row of my runs on another version of a twin; it is left out.

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
        found |= _of_this_twin(_read_folder(paths.runs().glob("*/row.json")))
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


def versions(dataset=None):
    """Versions of Python, of the packages whose numbers we trust, and of a dataset that is a twin.

    Parameters
    ----------
    dataset : str, optional
        As rows name it: "mtat-twin" adds {"mtat-twin": 2}, read from the twin's own card; "mtat" adds nothing.
    """
    found = {"python": platform.python_version()} | _twin_version(dataset)
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def _twin_version(dataset):
    """{"mtat-twin": 2} where this data folder holds that twin, else {}."""
    if dataset is None or not dataset.removesuffix("-toy").endswith("-twin"):
        return {}
    card = paths.data() / "twins" / dataset.replace("-twin", "") / "twin.json"
    return {dataset: files.read_json(card)["version"]} if card.is_file() else {}


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


def _of_this_twin(rows):
    """{id: row} without the rows that were made on another version of a twin than the data folder holds."""
    held = {dataset: _twin_version(dataset).get(dataset) for dataset in {one["dataset"] for one in rows.values()}}
    kept = {}
    for key, one in rows.items():
        made, here = one["versions"].get(one["dataset"], 1), held[one["dataset"]]  # version 1 had no need of a number
        if here in (None, made):
            kept[key] = one
        else:
            warnings.warn(
                f"left out: {key} was made on version {made} of the twin, here is version {here}: "
                "delete the run's folder and run it again",
                stacklevel=3,
            )
    return kept


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
            plain = metric.removesuffix("_interval").removesuffix(ARTISTS).removesuffix(ANSWERABLE)
            if plain.removeprefix(SECOND_TEST) in FRACTIONS and not 0 <= number <= 1:
                raise ValueError(f"{called} has {metric} {number!r}, expected a fraction in [0, 1]: is it in percent?")


def _validate_json(one, called):
    """Rows travel as JSON: nothing else may hide in settings."""
    try:
        json.dumps(one, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{called} cannot be written as JSON ({error})") from error
