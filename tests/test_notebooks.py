"""What every notebook keeps to, read from the files (running them is nbval's part: `make test`)."""

import ast
import json
import re
from pathlib import Path

import pytest

from pawlib.show import tidy

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
FIGURE_BYTES, NOTEBOOK_BYTES = 100_000, 1_500_000
MACHINE_PATH = re.compile(r"""(?<![\w.:/])/(home|root|tmp|work|farm|Users|mnt|media)/\w""")
MAGIC = re.compile(r"^\s*[%!]")


def load(path):
    return json.loads(path.read_text(encoding="utf-8"))


def text(cell):
    return "".join(cell["source"])


def code(notebook):
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def tagged(notebook, tag):
    return [cell for cell in code(notebook) if tag in cell["metadata"].get("tags", [])]


def outputs(notebook):
    return [output for cell in code(notebook) for output in cell["outputs"]]


each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def test_there_are_notebooks():
    assert len(NOTEBOOKS) >= 11
    assert all(re.fullmatch(r"\d\d_[a-z0-9_]+", path.stem) for path in NOTEBOOKS)


@each
def test_opens_with_a_title(path):
    first = load(path)["cells"][0]
    assert first["cell_type"] == "markdown" and re.match(r"# \S", text(first))


@each
def test_one_parameters_cell_comes_first_and_holds_literals(path):
    notebook = load(path)
    (cell,) = tagged(notebook, "parameters")
    assert cell is code(notebook)[0]
    lines = ast.parse(text(cell)).body
    assert lines
    for node in lines:
        assert isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name), ast.unparse(node)
        ast.literal_eval(node.value)  # raises for anything derived


@each
def test_kernel_is_python3(path):
    assert load(path)["metadata"]["kernelspec"]["name"] == "python3"


@each
def test_every_code_cell_was_run_from_top_to_bottom(path):
    cells = code(load(path))
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert all(text(cell).strip() for cell in cells)


@each
def test_no_output_is_an_error(path):
    assert [output["ename"] for output in outputs(load(path)) if output["output_type"] == "error"] == []


@each
def test_none_is_kept_with_random_weights_where_a_run_was_missing(path):
    said = ["".join(output.get("text", [])) for output in outputs(load(path))]
    assert not any(line.startswith("UNTRAINED") for line in "\n".join(said).splitlines()), "run chapter 10 first"


@each
def test_checked_cells_kept_what_they_are_checked_against(path):
    checked = tagged(load(path), "nbval-check-output")
    assert checked
    for cell in checked:
        assert any(output["output_type"] in ("stream", "execute_result", "display_data") for output in cell["outputs"])


@each
def test_cells_are_short(path):
    assert max(len(text(cell).splitlines()) for cell in code(load(path))) <= 40


def unseen(source):
    """Calls of figures.show whose picture nobody gets to see: neither the last line of the cell nor given on."""
    tree = ast.parse(source)
    lines = [node for node in ast.walk(tree) if isinstance(node, ast.Expr) and node not in tree.body[-1:]]
    return [ast.unparse(line) for line in lines if ast.unparse(line).startswith("figures.show(")]


@each
def test_every_picture_that_is_made_is_shown(path):
    assert [call for cell in code(load(path)) for call in unseen(text(cell))] == []


def test_pictures_that_are_not_shown_are_seen():
    assert unseen("with style:\n    figures.show(fig)") == ["figures.show(fig)"]
    assert unseen("figures.show(a)\nfigures.show(b)") == ["figures.show(a)"]
    assert unseen("for fig in some:\n    display(figures.show(fig))\nfigures.show(last)") == []


@each
def test_kept_outputs_are_small(path):
    """No audio, no widget state, figures under 100 kB."""
    notebook = load(path)
    assert path.stat().st_size <= NOTEBOOK_BYTES
    assert not {"widgets", "papermill"} & set(notebook["metadata"])
    found = []
    for cell in code(notebook):
        for output in cell["outputs"]:
            kinds = {
                kind: "".join(value) for kind, value in output.get("data", {}).items() if kind != "application/json"
            }
            if any(kind.startswith("audio/") for kind in kinds) or "<audio" in kinds.get("text/html", ""):
                found.append(f"cell [{cell['execution_count']}] keeps audio")
            if (n_bytes := len(kinds.get("image/png", "")) * 3 // 4) > FIGURE_BYTES:
                found.append(f"cell [{cell['execution_count']}] keeps a figure of {n_bytes} bytes")
    assert found == []


@each
def test_no_path_of_a_machine_is_kept(path):
    notebook = load(path)
    said = [text(cell) for cell in notebook["cells"]]
    said += ["".join(output.get("text", "")) for output in outputs(notebook)]
    said += [
        "".join(o.get("data", {}).get(kind, "")) for o in outputs(notebook) for kind in ("text/plain", "text/html")
    ]
    assert [found[0] for one in said if (found := MACHINE_PATH.search(one))] == []


@each
def test_no_notebook_runs_another(path):
    magic = [line.strip() for cell in code(load(path)) for line in text(cell).splitlines() if MAGIC.match(line)]
    assert [line for line in magic if re.match(r"%+run\b|!.*ipynb", line)] == []


def test_audio_is_taken_out_and_nothing_else(tmp_path):
    html = {"output_type": "display_data", "metadata": {}, "data": {"text/html": ["<p><au", "dio src=x>"]}}
    picture = {"output_type": "display_data", "metadata": {}, "data": {"image/png": "abc"}}
    cell = {"cell_type": "code", "execution_count": 3, "metadata": {}, "source": "é", "outputs": [html, picture]}
    path = tmp_path / "a.ipynb"
    path.write_text(json.dumps({"cells": [cell, {"cell_type": "markdown", "metadata": {}, "source": ""}]}))
    assert tidy.drop_audio(path) == 1
    assert load(path)["cells"][0] == cell | {"outputs": [picture]}
    assert tidy.drop_audio(path) == 0


@pytest.mark.parametrize("folder", ["home", "root", "tmp", "Users", "mnt"])
def test_machine_paths_are_seen(folder):
    assert MACHINE_PATH.search(f"saved to /{folder}/x.png") and MACHINE_PATH.search(f"'/{folder}/a/b'")
    assert not MACHINE_PATH.search(f"data/runs/{folder}/x and https://a.b/{folder}/c")
