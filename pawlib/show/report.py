"""One page to send to a colleague: all tables, the figures of all chapters, and the state of every row.

    python -m pawlib.show.report [--out FILE] [--rows committed | mine] [--runs]

    rows                      -> paper_tables, group_tables   what bench.tables prints, as HTML
    rows, notebooks/runs      -> states, elsewhere            which runs have a row, and what makes the others
    notebooks, data()/runs    -> chapters.pick, .chapter      claim, figures, what we see: through nbconvert
    all of it                 -> page, write                  one file

Conventions
    The file stands alone: pictures and formulas lie inside it, nothing is fetched, no script runs.
    A chapter is taken from the most telling of my runs (real audio before a twin, the larger scale, then the order of
    the run lists), else as it is committed, at toy scale. The page says which, and with which parameters.
    What is damaged, missing or not executed becomes a line of the page, never an end of it.
    What machines write (rows, outputs, errors) loses folders, user and host names before it comes in: show/unnamed.py.

Told in: notebooks/00_start_here.ipynb
"""

import argparse
import contextlib
import datetime
import re
import sys
import warnings
from pathlib import Path

import jinja2
from markupsafe import Markup, escape

from pawlib import paths
from pawlib.bench import files, results, runlist, tables
from pawlib.bench.progress import progress
from pawlib.show import chapters
from pawlib.show.unnamed import one_line, without_names

WIDE = 12  # columns; a table with more is printed in small letters
ROWS = ("committed", "mine")
PUBLISHED, MINE, MISSING = "published", "mine", "missing"


# --- the page ---------------------------------------------------------------------------------------------------------


def page(rows="committed", runs=False, notebooks=runlist.NOTEBOOKS):
    """The report as HTML.

    Parameters
    ----------
    rows : "committed" or "mine"
        Whose rows fill the tables; the state of the rows always speaks of both.
    runs : bool
        Show every run of mine that left a notebook, not only the most telling one of each chapter.
    notebooks : path-like
        Folder of the chapters, with their run lists in runs/.

    Returns
    -------
    str

    Raises
    ------
    ValueError
        For an unknown `rows`.
    """
    if rows not in ROWS:
        raise ValueError(f"rows={rows!r} is unknown, expected one of {ROWS}")
    notebooks = Path(notebooks)
    found, damaged = read_rows()
    chosen = list(found[rows].values())
    lists = [one for path in sorted((notebooks / "runs").glob("*.yaml")) for one in states(path, found, notebooks)]
    picked = chapters.pick(notebooks, runs)
    shown = [chapters.chapter(one, notebooks) for one in progress(picked, what="chapters", unit="notebooks")]
    return _TEMPLATE.render(
        rows=rows, chosen=chosen, corpora=_corpora(chosen), real=_real(chosen), most_seeds=_most_seeds(chosen),
        tables=paper_tables(chosen), groups=group_tables(chosen), damaged=damaged, lists=lists, chapters=shown,
        elsewhere=elsewhere(found, lists), n_published=len(found["committed"]), n_mine=len(found["mine"]),
        commit=_short(results.commit()), versions=results.versions(), date=datetime.datetime.now(datetime.UTC).date(),
    )  # fmt: skip


def write(path=None, rows="committed", runs=False, notebooks=runlist.NOTEBOOKS):
    """Write the report atomically to `path`, by default report.html in the data folder; returns the path."""
    path = Path(path or paths.data() / "report.html")
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder: name a file in it, {path / 'report.html'}")
    shown = page(rows, runs, notebooks)
    with files.atomic(path) as temporary:
        temporary.write_text(shown, encoding="utf-8")
    return path


def main(argv=None):
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m pawlib.show.report", description=__doc__.splitlines()[0])
    parser.add_argument("--out", metavar="FILE", help="where to write (report.html in the data folder)")
    parser.add_argument("--rows", choices=ROWS, default=ROWS[0], help="whose rows fill the tables (committed)")
    parser.add_argument("--runs", action="store_true", help="every run of mine, not only one for each chapter")
    asked = parser.parse_args(argv)
    try:
        path = write(asked.out, asked.rows, asked.runs)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    print(f"report: {path}, {path.stat().st_size / 1e6:.1f} MB; open it in any browser, no network is needed")
    return 0


# --- rows and tables --------------------------------------------------------------------------------------------------


def read_rows():
    """Published rows and mine, and what is no row.

    Returns
    -------
    found : dict {"committed" | "mine": {id: row}}
    damaged : list of str
        One sentence per file that was left out.
    """
    found, damaged = {}, []
    for whose in ROWS:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found[whose] = {row["id"]: row for row in results.read(whose)}
        damaged += [without_names(str(one.message)) for one in caught]
    return found, list(dict.fromkeys(damaged))


def paper_tables(rows):
    """Every table of the paper that bench.tables can print, as {"number", "title", "html"} or {"number", "problem"}."""
    shown = []
    for number, table in sorted(tables.NUMBERED.items()):
        try:
            shown.append(_shown(number, table(rows)))
        except (ValueError, OSError, KeyError, TypeError) as error:
            shown.append({"number": number, "title": f"Table {number}", "problem": one_line(error)})
            continue
        if any(key.endswith(results.ARTISTS) for row in rows for key in row["metrics"]):
            with contextlib.suppress(KeyError, TypeError, ValueError):  # a table without that question
                if (filtered := tables.artist_filtered(rows, number)) is not None:
                    shown.append(_shown(number, filtered))
    return shown


def group_tables(rows):
    """A table of tag groups for each corpus, scale, split and protocol that has them; groups are never pooled."""
    kinds = {}
    for row in rows:
        if row["groups"]:
            kinds.setdefault((row["dataset"], row["scale"], row["split"], row["protocol"]), []).append(row)
    shown = []
    for kind, same in sorted(kinds.items()):
        title = f"{kind[-1].replace('_', ' ')}, {kind[0]} at {kind[1]}, ROC-AUC per tag group (percent)"
        try:
            shown.append(_shown(None, tables.groups_table(same, title=title)))
        except (ValueError, KeyError) as error:
            shown.append({"number": None, "title": title, "problem": one_line(error)})
    return shown


def as_html(table):
    """A `tables.Table` as HTML, in a box of its own that scrolls; bold and underlined stay."""
    head = "".join(f'<th scope="col">{_marks(name)}</th>' for name in table.columns)
    body = []
    for first, *cells in table.lines:
        if not any(cells):
            body.append(
                f'<tr class="group"><th scope="rowgroup" colspan="{len(table.columns)}">{_marks(first)}</th></tr>'
            )
            continue
        rest = "".join(f"<td>{_marks(cell)}</td>" for cell in cells)
        body.append(f'<tr><th scope="row">{_marks(first)}</th>{rest}</tr>')
    notes = "".join(f"<li>{_marks(note)}</li>" for note in table.notes)
    rows = f"<thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody>"
    kind = "numbers wide" if len(table.columns) > WIDE else "numbers"
    return f'<div class="scroll" tabindex="0"><table class="{kind}">{rows}</table></div><ul class="notes">{notes}</ul>'


def _shown(number, table):
    return {"number": number, "title": without_names(table.title), "html": Markup(as_html(table))}


def _marks(text):
    """**bold** and _underlined_ of a cell or note as HTML, the rest escaped."""
    safe = str(escape(without_names(str(text))))
    safe = re.sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", safe)
    return re.sub(r"(?<!\w)_([^_\s]+)_(?!\w)", r"<u>\1</u>", safe)


def _corpora(rows):
    """{"mtat-twin at small": number of rows}, most first."""
    names = [f"{row['dataset']} at {row['scale']}" for row in rows]
    return sorted(((name, names.count(name)) for name in set(names)), key=lambda pair: (-pair[1], pair[0]))


def _real(rows):
    """How many rows may stand beside the paper's numbers: real audio, paper scale."""
    return sum("-twin" not in row["dataset"] and row["scale"] == "paper" for row in rows)


def _most_seeds(rows):
    """Seeds of the line that has most."""
    lines = {}
    for row in rows:
        lines.setdefault(_line(row), set()).add(row["seed"])
    return max(map(len, lines.values()), default=0)


# --- the state of every row -------------------------------------------------------------------------------------------


def states(path, found, notebooks=runlist.NOTEBOOKS):
    """Which runs of a list have a row, for the list as it stands and for other scales and corpora that have rows.

    Parameters
    ----------
    path : path-like
        A run list.
    found : dict
        From `read_rows`.
    notebooks : path-like

    Returns
    -------
    list of dict
        name, scale, corpus, as_it_stands, seeds, ids, command (makes what is missing), others and undone (pretrainings
        and chapters, which leave no row), counts {PUBLISHED, MINE, MISSING: int}, lines; a line has protocol, system,
        backbone, dataset, tag, command, and cells {seed: {"what", "id", "commit", "date", "also"}}.
        A list that cannot be read: name, problem.
    """
    path, made = Path(path), []
    rows = [*found["committed"].values(), *found["mine"].values()]
    try:
        kinds = dict.fromkeys([_switches(runlist.read(path, notebooks)), *sorted(map(_switches_of, rows))])
    except (ValueError, OSError) as error:
        return [{"name": path.stem, "problem": one_line(error)}]
    for number, (scale, corpus) in enumerate(kinds):
        instead = {key: value for key, value in (("scale", scale), ("corpus", corpus)) if number and value}
        try:
            one = _state(path, runlist.read(path, notebooks, **instead), scale, corpus, found)
        except (ValueError, OSError):  # the list cannot be asked at that scale: nothing of it can be there
            continue
        if number:  # not what the list asks for as it stands: only what is there
            one["lines"] = [line for line in one["lines"] if any(c["what"] != MISSING for c in line["cells"].values())]
            one["command"] = ""
            for line in one["lines"]:
                line["command"] = ""
        if not number or one["lines"]:
            made.append(one | {"as_it_stands": not number})
    return made


def elsewhere(found, lists):
    """Rows that no list asks for: tagged ones, or of runs by hand; {"id", "what", "tag", "remark", ...} each."""
    listed = {name for one in lists for name in one.get("ids", ())}
    shown = []
    for whose, what in zip(ROWS, (PUBLISHED, MINE), strict=True):
        for name, row in found[whose].items():
            if name in listed or (what == MINE and name in found["committed"]):
                continue
            remark = without_names(str(row["settings"].get("remark", ""))) if isinstance(row["settings"], dict) else ""
            shown.append({**_stamp(row, what), "tag": row["tag"] or "", "remark": remark, "seed": row["seed"],
                          "scale": row["scale"]})  # fmt: skip
    return sorted(shown, key=lambda one: one["id"])


def _state(path, runs, scale, corpus, found):
    """One list at one scale and corpus."""
    wanted = [run for run in runs if run.output.name == runlist.ROW]
    others = [run for run in runs if run.output.name != runlist.ROW]
    lines, counts = {}, dict.fromkeys((PUBLISHED, MINE, MISSING), 0)
    for run in wanted:
        dataset, _, system, backbone, protocol, *tag, _ = run.id.split(".")
        line = lines.setdefault((protocol, dataset, system, backbone, *tag), {
            "protocol": protocol.replace("_", " "), "system": system, "backbone": backbone, "dataset": dataset,
            "tag": " ".join(tag), "cells": {},
        })  # fmt: skip
        cell = _cell(run.id, found)
        line["cells"][run.parameters.get("seed")] = cell
        counts[cell["what"]] += 1
    for line in lines.values():
        missing = [seed for seed, cell in line["cells"].items() if cell["what"] == MISSING]
        one_system = missing and path.stem != "workbook"
        line["command"] = _command(path, scale, corpus, missing, line["system"]) if one_system else ""
    return {
        "name": path.stem, "scale": scale, "corpus": corpus, "counts": counts, "ids": [run.id for run in wanted],
        "seeds": sorted({seed for line in lines.values() for seed in line["cells"]}, key=str),
        "lines": list(lines.values()), "others": [run.id for run in others],
        "undone": [run.id for run in others if not run.output.is_file()],
        "command": _command(path, scale, corpus) if counts[MISSING] else "",
    }  # fmt: skip


def _command(path, scale, corpus, seeds=(), system=None):
    """What a person types to have the missing runs of a list, or of one system of it."""
    if path.stem == "workbook":
        return "make toy" if scale == "toy" else "make workbook"
    paper = re.fullmatch(r"(table|figure)(\d+)", path.stem)
    words = [f"{paper[1].upper()}={paper[2]}" if paper else f"LIST=notebooks/runs/{path.name}"]
    words += [f"{name}={value}" for name, value in (("SCALE", scale), ("CORPUS", corpus)) if value]
    words += [f'SEEDS="{" ".join(map(str, seeds))}"'] if seeds and None not in seeds else []
    return " ".join(["make reproduce", *words, *([f'SYSTEMS="{system}"'] if system else [])])


def _cell(name, found):
    """The published row of an id, else mine, else that there is none."""
    published, mine = (found[whose].get(name) for whose in ROWS)
    if published:
        also = "" if mine is None else "mine too" if mine["metrics"] == published["metrics"] else "mine differs"
        return {**_stamp(published, PUBLISHED), "also": also}
    return {**_stamp(mine, MINE), "also": ""} if mine else {"id": name, "what": MISSING}


def _stamp(row, what):
    """Whose row it is, by which commit, and when."""
    return {
        "id": without_names(row["id"]), "what": what, "commit": _short(row["commit"]),
        "date": without_names(str(row["date"]))[:10],
    }  # fmt: skip


def _short(commit):
    """Ten letters of a commit, and whether there were changes besides."""
    name, plus, dirty = without_names(str(commit)).partition("+")
    return name[:10] + plus + dirty


def _switches(runs):
    """(scale, corpus) of a list as it stands."""
    return next(((run.corpus.scale, run.corpus.switch) for run in runs if run.corpus), ("", ""))


def _switches_of(row):
    """(scale, corpus) at which a list would ask for a row."""
    return row["scale"], "twin" if "-twin" in row["dataset"] else "real"


def _line(row):
    """What a row shares with the same run of another seed."""
    return tuple(row[key] for key in ("dataset", "scale", "split", "protocol", "system", "backbone", "tag"))


_TEMPLATE = jinja2.Environment(
    autoescape=True, trim_blocks=False, loader=jinja2.FileSystemLoader(Path(__file__).parent)
).get_template("report.html", globals={"style": Markup(Path(__file__).with_name("report.css").read_text())})


if __name__ == "__main__":
    sys.exit(main())
