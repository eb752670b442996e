"""Which notebook stands for a chapter, and what it says: title, claim, sections as HTML.

    notebooks, data()/runs -> pick     of each chapter my most telling run, else as it is committed
    Picked                 -> chapter  through nbconvert

Told in: notebooks/00_start_here.ipynb
"""

import ast
import base64
import contextlib
import dataclasses
import re
import warnings
from pathlib import Path

import nbformat
from markupsafe import Markup, escape

from pawlib import paths
from pawlib.bench import runlist
from pawlib.show import prose, tidy
from pawlib.show.unnamed import one_line, without_names

NOT_EXECUTED = "not executed: no cell of it has run, so there is nothing to show"


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
            problem = one_line(error)
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
            f"{Path(path).name} is no notebook ({one_line(error)[:200]}): was it cut off while copying?"
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
            text = re.sub(r"^#+ Exercises\b.*?(?=^#|\Z)", "", cell.source, flags=re.MULTILINE | re.DOTALL)
            cell = nbformat.from_dict(cell | {"source": without_names(text, people=False)})
            if re.match(r"\s*#+\s", text):
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
    exporter = prose.exporter()
    exporter.kept, exporter.chapters = kept, chapters
    html, _ = exporter.from_notebook_node(digest)
    shown = kept.put_back(prose.clean(html))
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
            html = prose.picture(base64.b64decode("".join(data)), kind, alt or self.heading)
        except (OSError, ValueError, SyntaxError) as error:  # what Pillow says of a broken file
            return self.hold(f'<p class="said">a picture here is damaged ({escape(one_line(error))})</p>')
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
