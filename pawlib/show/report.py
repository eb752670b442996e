"""One page to send to a colleague: all tables, the figures of all chapters, and the state of every row.

    python -m pawlib.show.report [--out FILE] [--rows committed | mine] [--runs]

    rows                      -> paper_tables, group_tables   what bench.tables prints, as HTML
    rows, notebooks/runs      -> states, elsewhere            which runs have a row, and what makes the others
    notebooks, data()/runs    -> pick, chapter                claim, figures, what we see: through nbconvert
    all of it                 -> page, write                  one file

Conventions
    The file stands alone: pictures and formulas lie inside it, nothing is fetched, no script runs.
    A chapter is taken from the most telling of my runs (real audio before a twin, the larger scale, then the order of
    the run lists), else as it is committed, at toy scale. The page says which, and with which parameters.
    What is damaged, missing or not executed becomes a line of the page, never an end of it.
    What machines write (rows, outputs, errors) loses folders, user and host names before it comes in: `without_names`.

Told in: notebooks/00_start_here.ipynb
"""

import argparse
import ast
import base64
import contextlib
import dataclasses
import datetime
import functools
import getpass
import io
import re
import socket
import sys
import tempfile
import warnings
from pathlib import Path

import bleach
import bs4
import jinja2
import nbformat
from markupsafe import Markup, escape
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextPath, text_to_path
from nbconvert.exporters import HTMLExporter
from nbconvert.filters.markdown_mistune import InvalidNotebook, IPythonRenderer, MarkdownWithMath
from PIL import Image as Picture

from pawlib import paths
from pawlib.bench import files, results, runlist, tables
from pawlib.bench.progress import progress
from pawlib.show import tidy

WIDE = 12  # columns; a table with more is printed in small letters
ROWS = ("committed", "mine")
PUBLISHED, MINE, MISSING = "published", "mine", "missing"
WIDEST, FEW_BYTES, N_COLOURS = 1600, 200_000, 128  # of a picture: pixels, bytes, and what is left of one above them
NOT_EXECUTED = "not executed: no cell of it has run, so there is nothing to show"
EVERYBODY = {"root", "user", "admin", "ubuntu", "debian", "jovyan", "localhost", "runner"}  # names that name nobody


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
    picked = pick(notebooks, runs)
    chapters = [chapter(one, notebooks) for one in progress(picked, what="chapters", unit="notebooks")]
    return _TEMPLATE.render(
        rows=rows, chosen=chosen, corpora=_corpora(chosen), real=_real(chosen), most_seeds=_most_seeds(chosen),
        tables=paper_tables(chosen), groups=group_tables(chosen), damaged=damaged, lists=lists, chapters=chapters,
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
            shown.append({"number": number, "title": f"Table {number}", "problem": _said(error)})
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
            shown.append({"number": None, "title": title, "problem": _said(error)})
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
        return [{"name": path.stem, "problem": _said(error)}]
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


# --- which notebook stands for a chapter ------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Picked:
    """A notebook to show: its chapter, its file, the id of my run it comes from ("": committed), and what to say."""

    name: str
    path: Path
    run: str = ""
    said: tuple = ()


def pick(notebooks=runlist.NOTEBOOKS, every_run=False):
    """The notebooks to show, in the order of the chapters.

    Parameters
    ----------
    notebooks : path-like
    every_run : bool
        All of my runs; without it, of each chapter the most telling one.

    Returns
    -------
    list of Picked
    """
    order = _order(notebooks)
    picked = []
    for name in runlist.chapters(notebooks):
        mine, said = _my_runs(name, order)
        shown = mine or [Picked(name, Path(notebooks) / f"{name}.ipynb")]
        picked.append(dataclasses.replace(shown[0], said=said))
        picked += shown[1:] if every_run else []
    return picked


def _my_runs(name, order):
    """(runs of a chapter that are whole, the most telling first; a sentence for each that is left out)."""
    ranked, said = [], []
    for path in sorted(paths.runs().glob(f"*/{name}.ipynb")):
        run = path.parent.name
        try:
            notebook = read_notebook(path)
            problem = _unfinished(notebook)
        except ValueError as error:
            problem = _said(error)
        if problem:
            said.append(without_names(f"the run {run} is left out: {problem}"))
        else:
            ranked.append((_rank(notebook, run, order), Picked(name, path, run)))
    return [one for _, one in sorted(ranked, key=lambda pair: pair[0])], tuple(said)


def read_notebook(path):
    """A notebook in today's format.

    Raises
    ------
    ValueError
        If the file is no notebook, naming it.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of an older format: nothing a reader of the page can mend
            notebook = nbformat.read(path, as_version=4)
            nbformat.validate(notebook)
            return notebook
    except (OSError, ValueError, AttributeError, KeyError, TypeError, nbformat.ValidationError) as error:
        raise ValueError(
            f"{Path(path).name} is no notebook ({_said(error)[:200]}): was it cut off while copying?"
        ) from error


def _unfinished(notebook):
    """Why an executed notebook is not shown, or ""."""
    told = notebook.metadata.get("papermill", {})
    if told.get("exception") or any(output.output_type == "error" for output in _outputs(notebook)):
        return "it stopped with an error"
    if not any(cell.get("execution_count") for cell in notebook.cells if cell.cell_type == "code"):
        return "no cell of it has run"
    return "it was stopped, or is still running" if told and told.get("end_time") is None else ""


def _rank(notebook, run, order):
    """Small for what tells most: real audio, a large scale, early in the run lists."""
    values = _values(notebook)
    scale = values.get("scale", "toy")
    size = paths.SCALES.index(scale) if scale in paths.SCALES else -1
    return values.get("corpus", "twin") != "real", -size, order.get(_without_scale(run), len(order)), run


def _order(notebooks):
    """{run id without its scale: place in the run lists}, the workbook's own list first."""
    lists = sorted((Path(notebooks) / "runs").glob("*.yaml"), key=lambda path: (path.stem != "workbook", path.stem))
    names = []
    for path in lists:
        with contextlib.suppress(ValueError, OSError):  # said where the state of the list is told
            names += [_without_scale(run.id) for run in runlist.read(path, notebooks)]
    return {name: place for place, name in reversed(list(enumerate(names)))}


def _without_scale(run):
    """mtat.music_paw... of mtat-twin-toy.toy.music_paw..., so that one list speaks for all scales."""
    dataset, *rest = run.split(".")
    return ".".join([dataset.split("-")[0], *(word for word in rest if word not in paths.SCALES)])


def _outputs(notebook):
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.get("outputs", [])]


def _values(notebook):
    """Parameters a notebook ran with: its own cell, and what papermill gave it."""
    values = {}
    for cell in notebook.cells:
        if {"parameters", "injected-parameters"} & set(cell.metadata.get("tags", [])):
            with contextlib.suppress(SyntaxError, ValueError):
                for node in ast.parse(cell.source).body:
                    if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                        values[node.targets[0].id] = ast.literal_eval(node.value)
    return values


# --- a chapter --------------------------------------------------------------------------------------------------------


def chapter(picked, notebooks=runlist.NOTEBOOKS):
    """A chapter for the page: its title, what it ran with, its claim, and its sections as HTML.

    Parameters
    ----------
    picked : Picked
    notebooks : path-like
        To see whether the chapter has changed since my run.

    Returns
    -------
    dict
        anchor, title, name, run, scale, values, said (list of str), claim, sections: a section has heading, html,
        n_pictures and `open`, whether it is shown at once: sections with pictures and "What we see" are.
    """
    anchor = picked.name if not picked.run else f"{picked.name}.{picked.run}"
    made = {"anchor": anchor, "name": picked.name, "run": without_names(picked.run), "title": picked.name, "scale": "",
            "values": {}, "said": list(picked.said), "claim": "", "sections": []}  # fmt: skip
    try:
        notebook = read_notebook(picked.path)
    except ValueError as error:
        return made | {"said": [*made["said"], without_names(str(error))]}
    if not any(
        cell.get("execution_count") or cell.get("outputs") for cell in notebook.cells if cell.cell_type == "code"
    ):
        made["said"].append(NOT_EXECUTED)
    if picked.run and _code(notebook) != _code_of(Path(notebooks) / f"{picked.name}.ipynb"):
        made["said"].append("the code of the chapter has changed since this run")
    values, chapters = _values(notebook), set(runlist.chapters(notebooks))
    made |= {"scale": values.get("scale", ""), "values": {k: without_names(str(v)) for k, v in values.items()}}
    parts = [_section(cells, chapters) for cells in _sections(notebook)]
    if parts:
        made |= {"title": parts[0]["heading"] or made["title"], "claim": parts[0]["html"]}
    made["sections"] = [one for one in parts[1:] if one["html"].strip()]
    return made


def _code(notebook):
    """What a notebook computes, without the values it was given."""
    own = {"parameters", "injected-parameters"}
    return [c.source for c in notebook.cells if c.cell_type == "code" and not own & set(c.metadata.get("tags", []))]


def _code_of(path):
    try:
        return _code(read_notebook(path))
    except ValueError:
        return None


def _sections(notebook):
    """Cells of each section, which begins with a heading; exercises are for whoever has the notebook."""
    parts = [[]]
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            prose = re.sub(r"^#+ Exercises\b.*?(?=^#|\Z)", "", cell.source, flags=re.MULTILINE | re.DOTALL)
            cell = nbformat.from_dict(cell | {"source": without_names(prose, people=False)})
            if re.match(r"\s*#+\s", prose):
                parts.append([])
        if cell.cell_type != "raw":
            parts[-1].append(cell)
    return [part for part in parts if part]


def _section(cells, chapters):
    """A section as HTML: its prose and what its cells left, without the heading; code stays in the notebook."""
    name, body = _headed(cells)
    kept, digest = _Kept(name), nbformat.v4.new_notebook()
    for cell in body:
        if cell.cell_type == "markdown":
            digest.cells.append(cell)
        elif outputs := kept.outputs(cell):
            digest.cells.append(nbformat.v4.new_code_cell("", outputs=outputs))
    exporter = _exporter()
    exporter.kept, exporter.chapters = kept, chapters
    html, _ = exporter.from_notebook_node(digest)
    shown = kept.put_back(_clean(html))
    return {"heading": name, "html": Markup(shown), "n_pictures": kept.n_pictures,
            "open": bool(kept.n_pictures) or name.lower().startswith("what we see")}  # fmt: skip


def _headed(cells):
    """The heading of a section in plain words, and its cells without it."""
    first, *rest = cells
    heading = re.match(r"\s*#+\s+(.+)\n?", first.source) if first.cell_type == "markdown" else None
    if heading is None:
        return "", cells
    plain = re.sub(r"[`*$]", "", heading[1]).strip()
    return plain, [nbformat.from_dict(first | {"source": first.source[heading.end() :]}), *rest]


class _Kept:
    """Pictures and formulas of a section, held back under a short mark while its text is converted and cleaned."""

    def __init__(self, heading):
        self.heading, self.held, self.n_pictures = heading, [], 0

    def hold(self, html):
        """A mark that stands for `html` until `put_back`."""
        self.held.append(html)
        return f"\ue000{len(self.held) - 1}\ue001"

    def put_back(self, text):
        return re.sub("\ue000(\\d+)\ue001", lambda found: self.held[int(found[1])], text)

    def picture(self, data, kind, alt=""):
        """A mark for a picture, or for a sentence where it is damaged."""
        try:
            html = picture(base64.b64decode("".join(data)), kind, alt or self.heading)
        except (OSError, ValueError, SyntaxError) as error:  # what Pillow says of a broken file
            return self.hold(f'<p class="said">a picture here is damaged ({escape(_said(error))})</p>')
        self.n_pictures += 1
        return self.hold(html)

    def outputs(self, cell):
        """A cell's outputs as they may be shown: no widgets, no players, no errors' folders, no progress."""
        shown = [one for output in cell.get("outputs", []) if (one := self._output(output)) is not None]
        players = sum(map(tidy._is_audio, cell.get("outputs", [])))
        if players:
            shown.append(_html(f'<p class="said">left out: {players} with players; hear them in the notebook</p>'))
        return shown

    def _output(self, output):
        if output.output_type == "stream":
            return (
                None if output.name == "stderr" else nbformat.v4.new_output("stream", text=without_names(output.text))
            )
        if output.output_type == "error":
            said = without_names(f"{output.get('ename', '')}: {output.get('evalue', '')}")
            return _html(f'<p class="said">the cell stopped: {escape(said)}</p>')
        data = output.get("data", {})
        if tidy._is_audio(output) or "application/vnd.jupyter.widget-view+json" in data:
            return None
        for kind in ("image/svg+xml", "image/png", "image/jpeg"):
            if kind in data:
                encoded = base64.b64encode("".join(data[kind]).encode()).decode() if "svg" in kind else data[kind]
                return _html(self.picture(encoded, kind, output.get("metadata", {}).get(kind, {}).get("alt", "")))
        for kind in ("text/html", "text/markdown", "text/plain"):
            if kind in data:
                return nbformat.v4.new_output("display_data", {kind: without_names("".join(data[kind]))})
        return None


def _html(text):
    return nbformat.v4.new_output("display_data", {"text/html": text})


def picture(data, kind, alt):
    """A picture as HTML that holds it; large ones are scaled, and what a program wrote into the file is left out.

    Parameters
    ----------
    data : bytes
    kind : str
        "image/png", "image/jpeg" or "image/svg+xml".
    alt : str

    Raises
    ------
    OSError
        If the file is no picture.
    """
    size = ""
    if kind == "image/svg+xml":
        data = without_names(data.decode()).encode()
    else:
        with Picture.open(io.BytesIO(data)) as opened:
            opened.load()
            if (
                opened.width > WIDEST
                or len(data) > FEW_BYTES
                or set(opened.info) & {"exif", "comment", *_texts(opened)}
            ):
                data, kind = _smaller(opened), "image/png"
        with Picture.open(io.BytesIO(data)) as opened:
            size = f' width="{opened.width}" height="{opened.height}"'
    source = f"data:{kind};base64,{base64.b64encode(data).decode()}"
    return f'<span class="picture"><img src="{source}" alt="{escape(without_names(alt))}"{size}></span>'


def _texts(opened):
    """Names of the texts in a PNG."""
    return getattr(opened, "text", None) or {}


def _smaller(opened):
    """A picture of at most WIDEST pixels, of few colours where it would stay large, without texts."""
    plain = Picture.new("RGB", opened.size, "white")
    with_alpha = opened.convert("RGBA")
    plain.paste(with_alpha, mask=with_alpha.getchannel("A"))
    plain.thumbnail((WIDEST, 4 * WIDEST))
    small = io.BytesIO()
    plain.save(small, format="png", optimize=True)
    if small.tell() > FEW_BYTES:
        small = io.BytesIO()
        few = plain.quantize(N_COLOURS, method=Picture.Quantize.MEDIANCUT, dither=Picture.Dither.NONE)
        few.save(small, format="png", optimize=True)
    return small.getvalue()


# --- from prose to HTML -----------------------------------------------------------------------------------------------


class _Prose(IPythonRenderer):
    """nbconvert's markdown, with formulas drawn, headings below the chapter's, and links that lead within the page."""

    def __init__(self, kept, chapters, **kw):
        super().__init__(**kw)
        self.kept, self.chapters = kept, chapters

    def heading(self, text, level, **attrs):
        level = min(level + 2, 6)
        return f"<h{level}>{text}</h{level}>\n"

    def link(self, text, url, title=None):
        name = re.sub(r"\.ipynb$", "", url.split("#")[0].rsplit("/", 1)[-1])
        url = f"#{name}" if name in self.chapters else url
        return super().link(text, url, title) if _leads(url) else text

    def codespan(self, text):
        shown = super().codespan(text)
        return f'<a href="#{text}">{shown}</a>' if text in self.chapters else shown

    def image(self, text, url, title=None):
        try:
            source = self._embed_image_or_attachment(url)
        except InvalidNotebook:
            source = ""
        found = re.fullmatch(r"data:(image/[\w.+-]+);base64,(.+)", source, re.DOTALL)
        return self.kept.picture(found[2], found[1], text) if found else f"[picture: {escape(text)}]"

    def inline_math(self, body):
        return self.kept.hold(formula(body))

    def block_math(self, body):
        return self.kept.hold(formula(body, block=True))

    def latex_environment(self, name, body):
        return self.kept.hold(formula(f"\\begin{{{name}}}{body}\\end{{{name}}}", block=True))


class _Exporter(HTMLExporter):
    """nbconvert's exporter for the body of a notebook: prose and outputs, no code."""

    kept, chapters = None, ()  # of the section that is converted

    @jinja2.pass_context
    def markdown2html(self, context, source):
        """Markdown to HTML by our renderer."""
        attachments = context.get("cell", {}).get("attachments", {})
        prose = _Prose(self.kept, self.chapters, escape=False, attachments=attachments)
        return MarkdownWithMath(renderer=prose).render(source)


@functools.cache
def _exporter():
    """Made once: its templates take longer than a chapter."""
    return _Exporter(template_name="basic", exclude_input=True, exclude_input_prompt=True, exclude_output_prompt=True)


def _leads(url):
    """May a link stay? Within the page, or to the web; a file beside the notebook is not beside the page."""
    return bool(re.match(r"(https?://|mailto:|#)", url))


_TAGS = set(
    "a abbr b blockquote br code dd del details div dl dt em h3 h4 h5 h6 hr i kbd li ol p pre s span strong sub "
    "summary sup table tbody td tfoot th thead tr u ul".split()
)


def _attribute(tag, name, value):
    """Which attributes stay."""
    if tag == "a" and name == "href":
        return _leads(value)
    return name in ("class", "title") or (tag in ("td", "th") and name in ("colspan", "rowspan"))


def _clean(html):
    """HTML without anything that runs, loads or leaves its box; tables scroll in boxes of their own."""
    if re.search(r"<(script|style|iframe|object|template)", html, re.IGNORECASE):
        soup = bs4.BeautifulSoup(html, "html.parser")
        for tag in soup(["script", "style", "iframe", "object", "template"]):
            tag.decompose()
        html = str(soup)
    html = bleach.clean(html, tags=_TAGS, attributes=_attribute, strip=True)
    return re.sub(r"(<table.*?</table>)", r'<div class="scroll" tabindex="0">\1</div>', html, flags=re.DOTALL)


@functools.cache
def formula(latex, block=False):
    """A formula as a drawing in the colour of the text, or its source where matplotlib cannot set it.

    Parameters
    ----------
    latex : str
        Without the dollars.
    block : bool
        On a line of its own.

    Returns
    -------
    str
    """
    kind, size = "formula block" if block else "formula", 10.0
    plain = " ".join(latex.split())
    try:
        letters = FontProperties(family="STIXGeneral", size=size, math_fontfamily="stix")
        drawn = TextPath((0, 0), f"${_mathtext(plain)}$", prop=letters)
        width, height, depth = text_to_path.get_text_width_height_descent(f"${_mathtext(plain)}$", letters, ismath=True)
    except (ValueError, RuntimeError):
        return f'<code class="{kind}">{escape(plain)}</code>'
    box = f"0 {-(height - depth):.2f} {width:.2f} {height:.2f}"
    where = f"width:{width / size:.2f}em;height:{height / size:.2f}em;vertical-align:{-depth / size:.2f}em"
    return (
        f'<span class="{kind}"><svg role="img" aria-label="{escape(plain)}" viewBox="{box}" style="{where}">'
        f'<path d="{_drawing(drawn)}"/></svg></span>'
    )


def _mathtext(latex):
    """The few words of LaTeX that matplotlib spells differently."""
    latex = re.sub(r"\\[bB]igg?[lrm]?(?![A-Za-z])", "", latex)  # it has no sizes between one and \left
    latex = re.sub(r"\\mathbb\{1\}", r"\\mathbf{1}", latex)
    latex = re.sub(r"\\text\{([^{}]*)\}", lambda found: r"\mathrm{" + found[1].replace(" ", r"\ ") + "}", latex)
    latex = re.sub(r"\\t?frac\s*(\w)\s*(\w)", r"\\frac{\1}{\2}", latex.replace(r"\!", "").replace(r"\tfrac", r"\frac"))
    for short, long in (("dots", "ldots"), ("ge", "geq"), ("le", "leq"), ("to", "rightarrow")):
        latex = re.sub(rf"\\{short}(?![A-Za-z])", rf"\\{long}", latex)
    return latex


def _drawing(path):
    """A matplotlib path in the letters of SVG, whose y runs downwards."""
    letters = {path.MOVETO: "M", path.LINETO: "L", path.CURVE3: "Q", path.CURVE4: "C", path.CLOSEPOLY: "Z"}
    steps = []
    for points, code in path.iter_segments(simplify=False, curves=True):
        numbers = [] if code == path.CLOSEPOLY else points.reshape(-1, 2) * (1, -1)
        steps.append(letters[code] + " ".join(f"{x:.2f} {y:.2f}" for x, y in numbers))
    return "".join(steps)


# --- what is nobody's business ----------------------------------------------------------------------------------------

_HOMES = re.compile(r"(?:file://)?(?:/home|/Users|\b[A-Za-z]:[\\/]+Users)[\\/]+[^\s\\/'\"`<>]+")
_FOLDERS = re.compile(
    r"(?<![\w/<:.~…}$-])(?:file://)?(?:/|\b[A-Za-z]:\\+)(?:[^\s/\\:;,'\"`<>|()\[\]{}*?$]+[/\\]+)+(?=[^\s/\\]?)"
)


def without_names(text, people=True):
    """A text without the folders, and the user and host names, of the machine it was written on.

    Folders that we know get their word ("data", "~"); of any other absolute path the last name stays behind three
    dots. Names that are nobody's (root, ubuntu) stay.

    Parameters
    ----------
    text : str
    people : bool
        Also take out the names of this machine's user and of the machine.

    Returns
    -------
    str
    """
    for folder, word in _folders():
        text = re.sub(rf"(?:file://)?{re.escape(folder)}(?![\w.-])", word, text)
    text = _FOLDERS.sub("…/", _HOMES.sub("~", text))
    for name, word in _people() if people else ():
        text = re.sub(rf"(?<![\w-]){re.escape(name)}(?![\w-])", word, text)
    return text


def _folders():
    """Known folders, the longest first, and what to call them."""
    checkout = Path(paths.__file__).resolve().parents[1]
    known = {str(checkout): ".", str(Path.home()): "~", str(Path(tempfile.gettempdir())): "…"}
    with contextlib.suppress(FileNotFoundError):
        known[str(paths.data())] = "data"
    return sorted(((f, w) for f, w in known.items() if len(f) > 1), key=lambda pair: -len(pair[0]))


@functools.cache
def _people():
    """Names of this user and this machine, and what to call them."""
    names = {}
    with contextlib.suppress(OSError, KeyError, ImportError):
        names[getpass.getuser()] = "user"
    host = socket.gethostname()
    names |= {host: "host", host.split(".")[0]: "host"}
    return [(name, word) for name, word in names.items() if len(name) > 1 and name.lower() not in EVERYBODY]


def _said(error):
    """An error in one line, without names; its kind where it says nothing."""
    return without_names(" ".join(str(error).split())) or type(error).__name__


# --- how it looks -----------------------------------------------------------------------------------------------------

_STYLE = """
:root { color-scheme: light dark; --ink: #1c1e21; --pale: #5c6269; --line: #d5d9de; --paper: #fff;
  --box: #f5f6f8; --shade: #0003; --link: #0b5cad; --yes: #00694d; --mine: #0b5cad; --no: #a34700; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e6e9; --pale: #a2a9b1; --line: #3d434a; --paper: #16181b;
  --box: #202327; --shade: #fff3; --link: #7ab8f5; --yes: #4ecfa5; --mine: #7ab8f5; --no: #f0a35e; } }
* { box-sizing: border-box; }
html { scroll-behavior: smooth; -webkit-text-size-adjust: 100%; }
body { margin: 0 auto; padding: 1.2rem clamp(.8rem, 3vw, 2.5rem) 4rem; max-width: 72rem; color: var(--ink);
  background: var(--paper); font: 1rem/1.55 system-ui, "Segoe UI", Roboto, "Helvetica Neue", sans-serif;
  overflow-wrap: break-word; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: .5rem 0; }
h2 { font-size: 1.5rem; margin: 3rem 0 .8rem; padding-top: .8rem; border-top: 2px solid var(--line); }
h3 { font-size: 1.2rem; margin: 2.2rem 0 .5rem; line-height: 1.3; }
h4, h5, h6 { font-size: 1.05rem; margin: 1.4rem 0 .4rem; }
p, li { max-width: 48rem; }
a { color: var(--link); }
a code { color: inherit; }
code, pre { font: .86em/1.45 ui-monospace, "SFMono-Regular", Menlo, Consolas, monospace; }
code { background: var(--box); padding: .1em .25em; border-radius: 3px; overflow-wrap: anywhere; }
pre { background: var(--box); padding: .6rem .8rem; border-radius: 6px; overflow: auto; max-height: 24rem; }
pre code { background: none; padding: 0; overflow-wrap: normal; }
.scroll { overflow-x: auto; margin: .6rem 0; max-width: 100%; background:
  linear-gradient(to left, var(--paper) 40%, transparent) right / 3rem 100% no-repeat local,
  linear-gradient(to left, var(--shade), transparent) right / 1.2rem 100% no-repeat scroll; }
table { border-collapse: collapse; font-size: .88rem; }
th, td { padding: .28rem .6rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
thead th { border-bottom: 2px solid var(--pale); vertical-align: bottom; }
.numbers td { white-space: nowrap; font-variant-numeric: tabular-nums; }
.numbers thead th { min-width: 4.6rem; }
.numbers th[scope=row] { font-weight: normal; position: sticky; left: 0; background: var(--paper); min-width: 8rem; }
.numbers .group th { padding-top: .9rem; font-weight: 600; }
.notes, .meta { color: var(--pale); font-size: .88rem; }
.notes { padding-left: 1.1rem; margin-top: .3rem; }
.warning { border-left: 4px solid var(--no); background: var(--box); padding: .6rem .9rem; max-width: 50rem; }
.said { color: var(--no); margin: .3rem 0; }
.chip { display: inline-block; border: 1px solid var(--line); border-radius: 1em; padding: 0 .6em;
  margin: .1rem .2rem .1rem 0; font-size: .82rem; color: var(--pale); overflow-wrap: anywhere; }
.chip.toy { color: var(--no); border-color: currentColor; }
.chip.mine { color: var(--mine); border-color: currentColor; }
.picture { display: block; overflow-x: auto; margin: .8rem 0; }
.picture img { display: block; max-width: 100%; height: auto; background: #fff; border-radius: 4px; }
@media (max-width: 640px) { .picture img { max-width: none; width: max(100%, 38rem); } }
.formula svg { fill: currentColor; overflow: visible; }
.formula.block { display: block; overflow-x: auto; padding: .4rem 0; text-align: center; }
details { margin: .4rem 0; }
summary { cursor: pointer; color: var(--pale); }
.contents { columns: 22rem 2; font-size: .95rem; padding-left: 1.2rem; }
.contents li { break-inside: avoid; }
.published { color: var(--yes); } .mine { color: var(--mine); } .missing { color: var(--no); }
.state td { white-space: nowrap; } .state small { color: var(--pale); }
footer { margin-top: 4rem; color: var(--pale); font-size: .88rem; border-top: 1px solid var(--line); }
@page { size: A4 landscape; margin: 12mm; }
@media print { :root { color-scheme: light; --ink: #000; --pale: #444; --line: #bbb; --paper: #fff; --box: #f5f5f5; }
  body { max-width: none; padding: 0; font-size: 9.5pt; } h2 { break-before: page; } h3, h4 { break-after: avoid; }
  .picture, tr { break-inside: avoid; } .picture img { max-height: 15cm; width: auto; }
  .scroll, pre, .picture { overflow: visible; max-height: none; background: none; } pre { white-space: pre-wrap; }
  .wide { font-size: .5rem; } .wide th, .wide td { padding: .15em .25em; white-space: normal; }
  table { font-size: 7pt; } th, td { padding: 1.5pt 3pt; } .numbers thead th { min-width: 0; }
  .numbers td { white-space: normal; } .numbers th[scope=row] { min-width: 0; position: static; }
  .command { display: none; } summary { list-style: none; } }
"""

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'">
<title>Music-PAW workbook, report of {{ date }}</title>
<style>{{ style }}</style>
</head>
<body>
{%- macro cell(one) -%}
{%- if one is none -%}
{%- elif one.what == "missing" -%}<span class="missing">missing</span>
{%- else -%}<span class="{{ one.what }}">{{ one.what }}</span> <small><code>{{ one.commit }}</code> {{ one.date }}
{%- if one.also %}, {{ one.also }}{% endif %}</small>
{%- endif -%}
{%- endmacro %}
{%- macro n(count, what) -%}{{ count }} {{ what }}{{ "" if count == 1 else "s" }}{%- endmacro %}
<header>
<h1>Music-PAW workbook: tables, figures, state of every row</h1>
<p class="meta">{{ date }}, commit <code>{{ commit }}</code>
{%- for name, version in versions.items() %}, {{ name }} {{ version }}{% endfor %}.
Tables: {{ "published rows" if rows == "committed" else "rows of my own runs" }},
{% if corpora %}
{%- for name, count in corpora %} {{ n(count, "row") }} on {{ name }}{{ ", " if not loop.last }}{% endfor %}
{%- else %}none yet{% endif %}.</p>
<div class="warning"><p><strong>What may be concluded.</strong>
Columns headed <em>paper</em> repeat what Music-PAW's authors print, measured on the real datasets.
{% if real %}{{ n(real, "row") }} of ours {{ "was" if real == 1 else "were" }} made on real audio at the paper's scale;
only there is a difference to the paper formed.
{% else %}No row of ours was made on the real datasets at the paper's scale, so nothing here confirms or refutes a
number of the paper: those columns hold dashes.
{% endif %}Columns headed with a <em>twin</em> hold another test: a stand-in for the dataset, rendered from real
scores, other tracks and other tags; at <em>small</em> also a fraction of the training. Such numbers may be compared
with each other within one column, never with the paper's column, and no difference is formed.
{% if most_seeds == 1 %}Every line has one seed: its interval covers the choice of test tracks, not the luck of
training.
{% elif most_seeds %}A line has at most {{ most_seeds }} seeds; with one, its interval covers the choice of test
tracks, not the luck of training.
{% endif %}Figures marked <em>toy</em> were made with a few songs and a few steps: they show what a chapter does, not
what the method is worth.</p></div>
{% if not chosen %}<p class="said">There is no {{ "published row" if rows == "committed" else "row of my own" }} yet:
the tables show the paper's numbers alone.</p>{% endif %}
<nav aria-label="Contents"><ul class="contents">
<li><a href="#tables">The paper's tables</a>: {% for one in tables if one.number %}<a href="#table-{{ loop.index }}">
{{- one.title.split(" (percent)")[0] }}</a>{{ "; " if not loop.last }}{% endfor %}</li>
{% if groups %}<li><a href="#groups">Groups of tags</a></li>{% endif %}
<li><a href="#state">The state of every row</a></li>
<li><a href="#chapters">The chapters</a></li>
{% for one in chapters %}<li><a href="#{{ one.anchor }}">{{ one.name[:2] }} {{ one.title }}</a>
{%- if one.run %} <small>(my run)</small>{% endif %}</li>
{% endfor %}</ul></nav>
</header>

<h2 id="tables">The paper's tables</h2>
<p>In percent. A dash: no row yet.</p>
{% for one in tables %}<section id="table-{{ loop.index }}"><h3>{{ one.title }}</h3>
{% if one.problem %}<p class="said">This table could not be printed: {{ one.problem }}</p>
{% else %}{{ one.html }}{% endif %}
</section>
{% else %}<p class="said">The workbook can print no table.</p>
{% endfor %}
{% if groups %}<h2 id="groups">Groups of tags</h2>
<p>The twins' tags come in groups that are never pooled: what an average spectrum can know, what a learned encoder
should know, and what only the order of the parts tells.</p>
{% for one in groups %}<h3>{{ one.title }}</h3>
{% if one.problem %}<p class="said">This table could not be printed: {{ one.problem }}</p>
{% else %}{{ one.html }}{% endif %}
{% endfor %}{% endif %}

<h2 id="state">The state of every row</h2>
<p>{{ n(n_published, "published row") }}, {{ n(n_mine, "row") }} of mine. Every number of a table has a row behind it:
what was run, with which seed, at which scale, by which commit, and when. A run list says which rows there should be;
<code>make</code> lines do only what is missing on the machine they are typed on.</p>
{% for one in damaged %}<p class="said">{{ one }}</p>
{% endfor %}
{% for one in lists %}<h3>{{ one.name }}{% if not one.problem %}, {{ one.corpus }} at {{ one.scale }}{% endif %}</h3>
{% if one.problem %}<p class="said">This run list cannot be read: {{ one.problem }}</p>
{% else %}<p>{{ one.ids | length }} rows wanted: <span class="published">{{ one.counts.published }} published</span>,
<span class="mine">{{ one.counts.mine }} mine alone</span>,
<span class="missing">{{ one.counts.missing }} missing</span>.
{% if not one.as_it_stands %}The list does not ask for this scale and corpus as it stands: only lines with a row are
shown.{% endif %}
{% if one.command %}All that is missing: <code>{{ one.command }}</code>.{% endif %}
{% if one.others %}Of its pretrainings and chapters, which leave no row, {{ one.others | length - one.undone | length }}
of {{ one.others | length }} are on this machine.{% endif %}</p>
<div class="scroll" tabindex="0"><table class="numbers state"><thead><tr>
<th scope="col">system</th><th scope="col">backbone</th>
<th scope="col">protocol</th><th scope="col">rows on</th>
{% for seed in one.seeds %}<th scope="col">{% if seed is none %}row{% else %}seed {{ seed }}{% endif %}</th>{% endfor %}
{% if one.lines | selectattr("command") | list %}<th scope="col" class="command">makes what is missing</th>{% endif %}
</tr></thead><tbody>
{% for line in one.lines %}<tr><th scope="row">{{ line.system }}{% if line.tag %} ({{ line.tag }}){% endif %}</th>
<td>{{ line.backbone }}</td><td>{{ line.protocol }}</td><td>{{ line.dataset }}</td>
{% for seed in one.seeds %}<td>{{ cell(line.cells.get(seed)) }}</td>{% endfor %}
{% if line.command %}<td class="command"><code>{{ line.command }}</code></td>{% endif %}</tr>
{% endfor %}</tbody></table></div>{% endif %}
{% else %}<p class="said">There is no run list.</p>
{% endfor %}
<h3>In no list</h3>
{% if elsewhere %}<p>Rows with a tag are off the defaults and stand in no table of the paper; others were run by
hand.</p>
{% for remark, same in elsewhere | groupby("remark") %}{% if remark %}<p><strong>
{{- same | map(attribute="tag") | unique | join(", ") or "no tag" }}</strong>: {{ remark }}</p>{% endif %}
<div class="scroll" tabindex="0"><table class="state"><thead><tr><th>row</th><th>tag</th><th>scale</th><th>seed</th>
<th>state</th></tr></thead><tbody>
{% for one in same %}<tr><td><code>{{ one.id }}</code></td><td>{{ one.tag or "-" }}</td><td>{{ one.scale }}</td>
<td>{{ one.seed }}</td><td>{{ cell(one) }}</td></tr>
{% endfor %}</tbody></table></div>{% endfor %}
{% else %}<p>Every row is asked for by a list.</p>{% endif %}

<h2 id="chapters">The chapters</h2>
<p>Claim, figures and what we see of each notebook; steps without a picture can be unfolded, code stays in the
notebook.</p>
{% for one in chapters %}<article id="{{ one.anchor }}"><h3>{{ one.name[:2] }} {{ one.title }}</h3>
<p class="meta">{% if one.scale %}<span class="chip {{ one.scale }}">{{ one.scale }}
{%- if one.scale == "toy" %} scale: no evidence about the method{% endif %}</span>{% endif %}
<span class="chip{{ " mine" if one.run }}">{{ "my run " ~ one.run if one.run else "as committed" }}</span>
{% for key, value in one["values"].items() if key != "scale" and value %}
<span class="chip">{{ key }} = {{ value }}</span>
{% endfor %}</p>
{% for said in one.said %}<p class="said">{{ said }}</p>
{% endfor %}{{ one.claim }}
{% for part in one.sections %}{% if part.open %}<section>{% if part.heading %}<h4>{{ part.heading }}</h4>{% endif %}
{{ part.html }}</section>
{% else %}<details><summary>{{ part.heading or "more" }}</summary>{{ part.html }}</details>
{% endif %}{% endfor %}</article>
{% else %}<p class="said">There is no chapter: was the report made outside a checkout?</p>
{% endfor %}
<footer><p>Made by <code>make report</code> from rows and executed notebooks. One file; it loads nothing and runs
nothing.</p></footer>
</body>
</html>
"""

_TEMPLATE = jinja2.Environment(autoescape=True, trim_blocks=False).from_string(_PAGE, globals={"style": Markup(_STYLE)})


if __name__ == "__main__":
    sys.exit(main())
