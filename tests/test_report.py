"""The page for a colleague: it stands alone, tells the state of every row, and names nobody."""

import base64
import copy
import io
import json
import re
import shlex
import warnings

import nbformat
import numpy as np
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image as Picture
from PIL.PngImagePlugin import PngInfo

from pawlib.bench import results, runlist, tables
from pawlib.show import chapters, prose, report, unnamed

PROBE = "30_linear_probe_mtat"
PARAMETERS = """scale = "toy"  # toy | small | paper
corpus = "twin"  # twin | real
seed = 0
system = "random"  # random | log_mel_statistics
encoder = "fcn_4"  # fcn_4 | fcn_7 | none
checkpoint = ""
levels = "shortest"  # shortest | top"""
LIST = """defaults: {corpus: twin, scale: small, seed: [0, 1]}
runs:
  - {notebook: 30_linear_probe_mtat, system: random, encoder: [fcn_4, fcn_7]}
  - {notebook: 30_linear_probe_mtat, system: log_mel_statistics, encoder: none}
"""


def png(width=4, height=3, text=None, noise=False):
    """A small picture's bytes."""
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8) if noise else None
    image = Picture.fromarray(pixels) if noise else Picture.new("RGB", (width, height), "red")
    about = PngInfo()
    for key, value in (text or {}).items():
        about.add_text(key, value)
    held = io.BytesIO()
    image.save(held, format="png", pnginfo=about)
    return held.getvalue()


def drawn(data):
    return new_output("display_data", {"image/png": base64.b64encode(data).decode(), "text/plain": "<Image>"})


def said(text, name="stdout"):
    return new_output("stream", name=name, text=text)


def notebook(*cells, given=None, executed=True, told=None):
    """A chapter: title and claim, parameters, then `cells` as (prose, [outputs])."""
    made = [new_markdown_cell("# Probe an encoder\n\n**Claim under test**: 89.4 ROC-AUC.")]
    made.append(new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]}))
    if given:
        source = "\n".join(f"{key} = {value!r}" for key, value in given.items())
        made.append(new_code_cell(source, metadata={"tags": ["injected-parameters"]}))
    for text, outputs in cells:
        made += [new_markdown_cell(text), new_code_cell("draw()", outputs=outputs)]
    for count, cell in enumerate(made):
        if cell.cell_type == "code" and executed:
            cell.execution_count = count
    whole = new_notebook(cells=made)
    if told is not None:
        whole.metadata["papermill"] = told
    return whole


@pytest.fixture
def book(tmp_path, monkeypatch):
    """(notebooks, data): a book of one chapter and one run list, and a data folder without rows."""
    notebooks, data = tmp_path / "notebooks", tmp_path / "data"
    (notebooks / "runs").mkdir(parents=True)
    for folder in ("results", "runs"):
        (data / folder).mkdir(parents=True)
    (notebooks / "runs" / "table1.yaml").write_text(LIST)
    keep(
        notebooks,
        notebook(("## The numbers", [drawn(png())]), ("## What we see\n\nRead it.\n\n## Exercises\n\n1. Do.", [])),
    )
    monkeypatch.setenv("PAWLIB_DATA", str(data))
    return notebooks, data


def keep(folder, made, name=PROBE):
    folder.mkdir(parents=True, exist_ok=True)
    nbformat.write(made, folder / f"{name}.ipynb")


def row(**instead):
    """A row of the list's first line."""
    given = {
        "system": "random", "backbone": "fcn_4", "dataset": "mtat-twin", "split": "all", "protocol": "linear_probe",
        "scale": "small", "seed": 0, "metrics": {"roc_auc": 0.678, "roc_auc_interval": [0.665, 0.69]}, "n_tracks": 100,
    } | instead  # fmt: skip
    return results.row(**given) | {"commit": "0123456789abcdef", "date": "2026-11-20T10:00:00+00:00"}


def put(folder, made, mine=False):
    path = folder / "runs" / made["id"] / "row.json" if mine else folder / "results" / f"{made['id']}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(made))


def made(book, **kw):
    return report.page(notebooks=book[0], **kw)


def one_chapter(book, *cells, **kw):
    """The sections of a chapter with these cells."""
    keep(book[0], notebook(*cells, **kw))
    (picked,) = chapters.pick(book[0])
    return chapters.chapter(picked, book[0])


# the page


def test_the_page_stands_alone_and_loads_nothing(book):
    shown = made(book)
    assert shown.startswith("<!DOCTYPE html>") and 'name="viewport"' in shown and "prefers-color-scheme: dark" in shown
    assert not re.search(r"<(script|link|iframe|audio|video|object|embed)\b", shown)
    sources = re.findall(r'\bsrc="([^"]{,30})', shown)
    assert sources and all(source.startswith("data:image/") for source in sources)
    assert "@import" not in shown and "url(" not in shown and "default-src 'none'" in shown


def test_every_link_of_the_page_has_its_place(book):
    shown = made(book, runs=True)
    places = set(re.findall(r'\bid="([^"]+)"', shown))
    links = re.findall(r'href="#([^"]+)"', shown)
    assert links and set(links) <= places


def test_the_first_screen_says_what_may_be_concluded(book):
    put(book[1], row())
    shown = made(book)
    top = shown[: shown.index("</nav>")]
    assert "1 row on mtat-twin at small" in top and "never with the paper's column" in " ".join(top.split())
    assert "No row of ours was made on the real datasets" in top and "Every line has one seed" in top
    assert results.versions()["torch"] in top and results.commit()[:10] in top


def test_a_row_on_real_audio_at_paper_scale_is_told_apart(book):
    put(book[1], row(dataset="mtat", scale="paper", system="music_paw"))
    shown = made(book)
    assert "1 row of ours was made on real audio" in shown and "No row of ours" not in shown
    assert "-21.6" in shown  # 67.8, and the paper prints 89.4


def test_a_book_without_rows_shows_the_papers_numbers_and_says_so(book):
    for whose in report.ROWS:
        shown = made(book, rows=whose)
        assert (
            "yet:\nthe tables show the paper's numbers alone" in shown
            and "89.4" in shown
            and "0 published rows" in shown
        )


def test_unknown_rows_are_refused(book):
    with pytest.raises(ValueError, match="rows='yours' is unknown, expected one of"):
        made(book, rows="yours")


# tables


def test_every_table_that_bench_knows_is_printed(book, monkeypatch):
    own = tables.Table("Table 9: a new one", ["Method", "score"], [["A < B", "**1.0**"]], [], ["a note"])
    monkeypatch.setitem(tables.NUMBERED, 9, lambda rows: own)
    assert [one["number"] for one in report.paper_tables([])] == sorted(tables.NUMBERED)
    shown = made(book)
    assert "Table 9: a new one" in shown and "A &lt; B" in shown and "<b>1.0</b>" in shown


def test_a_table_that_fails_becomes_a_line(book):
    twice = [row(), row() | {"id": "other"}]
    first, *others = report.paper_tables(twice)
    assert "two rows of one cell have the same seed" in first["problem"] and others
    put(book[1], twice[0])
    assert "could not be printed" not in made(book)


def test_bold_underlines_groups_and_notes_of_a_table_stay():
    lines = [["Upper:", "", ""], ["log_mel_statistics", "**89.4** ± 0.3 (5)", "_36.4_"]]
    shown = report.as_html(tables.Table("t", ["Method", "a", "b"], lines, [], ["**best**, _second_: in each column"]))
    assert '<th scope="rowgroup" colspan="3">Upper:</th>' in shown and "<b>89.4</b> ± 0.3 (5)" in shown
    assert "<u>36.4</u>" in shown and ">log_mel_statistics<" in shown
    assert "<b>best</b>, <u>second</u>" in shown and shown.startswith('<div class="scroll"')


def test_groups_are_shown_by_corpus_scale_and_protocol():
    groups = {"timbre": {"roc_auc": 0.8}, "order": {"roc_auc": 0.5}}
    rows = [row(groups=groups), row(groups=groups, dataset="mtat-twin-toy", scale="toy"), row(seed=1)]
    shown = report.group_tables(rows)
    assert [one["title"].split(", ")[1] for one in shown] == ["mtat-twin at small", "mtat-twin-toy at toy"]
    assert "80.0" in shown[0]["html"]


# the state of every row


def test_each_run_of_a_list_is_published_mine_or_missing(book):
    put(book[1], row())
    put(book[1], row(seed=1), mine=True)
    found, _ = report.read_rows()
    (one,) = report.states(book[0] / "runs" / "table1.yaml", found, book[0])
    assert one["counts"] == {report.PUBLISHED: 1, report.MINE: 1, report.MISSING: 4} and one["seeds"] == [0, 1]
    cells = one["lines"][0]["cells"]
    assert cells[0] == {
        "id": row()["id"],
        "what": "published",
        "commit": "0123456789",
        "date": "2026-11-20",
        "also": "",
    }
    assert cells[1]["what"] == "mine" and one["lines"][0]["command"] == ""


def test_the_make_line_asks_for_what_is_missing(book):
    put(book[1], row())
    found, _ = report.read_rows()
    path = book[0] / "runs" / "table1.yaml"
    (one,) = report.states(path, found, book[0])
    assert one["command"] == "make reproduce TABLE=1 SCALE=small CORPUS=twin"
    runs = runlist.read(path, book[0])
    asked = 0
    for line in one["lines"]:
        missing = {cell["id"] for cell in line["cells"].values() if cell["what"] == report.MISSING}
        words = dict(word.split("=", 1) for word in shlex.split(line["command"])[2:])
        chosen = {run.id for run in runlist.choose(runs, words["SEEDS"], words["SYSTEMS"])}
        assert missing and missing <= chosen
        asked += len(missing)
    assert asked == one["counts"][report.MISSING] == 5


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("workbook", "make workbook"),
        ("figure3", "make reproduce FIGURE=3 SCALE=small CORPUS=twin"),
        ("own", "make reproduce LIST=notebooks/runs/own.yaml SCALE=small CORPUS=twin"),
    ],
)
def test_the_make_line_knows_the_kinds_of_lists(book, name, line):
    path = book[0] / "runs" / f"{name}.yaml"
    path.write_text(LIST)
    (one,) = report.states(path, {"committed": {}, "mine": {}}, book[0])
    assert one["command"] == line
    more = ' SEEDS="0 1" SYSTEMS="random"' if name != "workbook" else None
    assert one["lines"][0]["command"] == (line + more if more else "")


def test_rows_of_another_scale_are_found_in_the_same_list(book):
    put(book[1], row(dataset="mtat-twin-toy", scale="toy"), mine=True)
    found, _ = report.read_rows()
    asked, toy = report.states(book[0] / "runs" / "table1.yaml", found, book[0])
    assert asked["as_it_stands"] and asked["counts"][report.MISSING] == 6
    assert toy["scale"] == "toy" and len(toy["lines"]) == 1 and toy["command"] == toy["lines"][0]["command"] == ""
    assert report.elsewhere(found, [asked, toy]) == []


def test_my_row_beside_a_published_one_says_whether_it_differs(book):
    for seed, score in ((0, 0.678), (1, 0.7)):
        put(book[1], row(seed=seed))
        put(book[1], row(seed=seed, metrics={"roc_auc": score, "roc_auc_interval": [0.665, 0.69]}), mine=True)
    found, _ = report.read_rows()
    (one,) = report.states(book[0] / "runs" / "table1.yaml", found, book[0])
    assert [cell["also"] for cell in one["lines"][0]["cells"].values()] == ["mine too", "mine differs"]


def test_tagged_rows_stand_apart_with_their_remark(book):
    put(book[1], row(tag="first_recipe", settings={"remark": "did not train <yet>"}))
    shown = made(book)
    part = shown[shown.index("In no list") : shown.index('id="chapters"')]
    assert "first_recipe" in part and "did not train &lt;yet&gt;" in part and "0123456789" in part


def test_damaged_and_foreign_rows_become_lines(book):
    put(book[1], row())
    (book[1] / "results" / "cut.json").write_text('{"id": "cu')
    (book[1] / "results" / "other.json").write_text("[1, 2]")
    found, damaged = report.read_rows()
    assert len(found["committed"]) == 1 and len(damaged) == 2
    shown = made(book)
    assert "cut.json is not valid JSON" in shown and "other.json is a list" in shown and str(book[1]) not in shown


def test_a_run_list_that_cannot_be_read_becomes_a_line(book):
    (book[0] / "runs" / "table2.yaml").write_text("runs: [{notebook: 99_nowhere}]")
    shown = made(book)
    assert "This run list cannot be read" in shown and "99_nowhere" in shown and "table1, twin at small" in shown


# which notebook


def run(book, name, made, notebook_name=PROBE):
    keep(book[1] / "runs" / name, made, notebook_name)


def test_my_run_is_shown_instead_of_the_committed_chapter_the_largest_scale_first(book):
    assert chapters.pick(book[0])[0].run == ""
    for scale in ("toy", "small"):
        given = {"scale": scale, "system": "random"}
        run(book, f"mtat-twin.{scale}.random.fcn_4.linear_probe.seed0", notebook(("## Numbers", []), given=given))
    (one,) = chapters.pick(book[0])
    assert one.run == "mtat-twin.small.random.fcn_4.linear_probe.seed0"
    told = chapters.chapter(one, book[0])
    assert told["scale"] == "small" and told["values"]["system"] == "random" and "my run mtat-twin.small" in made(book)


def test_among_equals_the_run_lists_order_decides_and_every_run_can_be_asked_for(book):
    for system in ("log_mel_statistics.none", "random.fcn_4"):
        run(book, f"mtat-twin.small.{system}.linear_probe.seed0", notebook(("## N", []), given={"scale": "small"}))
    assert chapters.pick(book[0])[0].run.startswith("mtat-twin.small.random")
    assert [one.run.split(".")[2] for one in chapters.pick(book[0], every_run=True)] == ["random", "log_mel_statistics"]
    assert made(book, runs=True).count("<article") == 2


def test_runs_that_are_not_whole_are_left_out_and_named(book):
    run(book, "stopped", notebook(("## N", [new_output("error", ename="E", evalue="v", traceback=[])]), told={}))
    run(book, "running", notebook(("## N", []), told={"end_time": None, "exception": None}))
    run(book, "untouched", notebook(("## N", []), executed=False))
    (book[1] / "runs" / "cut").mkdir()
    (book[1] / "runs" / "cut" / f"{PROBE}.ipynb").write_text('{"cells": [')
    (one,) = chapters.pick(book[0])
    assert one.run == "" and len(one.said) == 4
    shown = made(book)
    assert all(f"the run {name} is left out" in shown for name in ("stopped", "running", "untouched", "cut"))


def test_a_run_of_another_version_of_the_chapter_says_so(book):
    changed = notebook(("## Numbers", []))
    changed.cells[-1].source = "draw_otherwise()"
    run(book, "mine", changed)
    assert "the code of the chapter has changed since this run" in made(book)


def test_a_chapter_that_was_not_executed_or_is_broken_becomes_a_line(book):
    keep(book[0], notebook(("## N", []), executed=False), "02_crops")
    (book[0] / "03_mels.ipynb").write_text('{"cells": [{"cell_type": "odd"}], "nbformat": 4, "nbformat_minor": 5}')
    (book[0] / "04_encoders.ipynb").write_text("not a notebook")
    shown = made(book)
    assert chapters.NOT_EXECUTED in shown
    assert "03_mels.ipynb is no notebook" in shown and "04_encoders.ipynb is no notebook" in shown
    assert shown.count("<article") == 4


# what a chapter shows


def test_a_chapter_keeps_claim_figures_and_what_we_see_but_no_code_and_no_exercises(book):
    (picked,) = chapters.pick(book[0])
    one = chapters.chapter(picked, book[0])
    assert one["title"] == "Probe an encoder" and "89.4 ROC-AUC" in one["claim"]
    assert [(part["heading"], part["open"]) for part in one["sections"]] == [
        ("The numbers", True),
        ("What we see", True),
    ]
    assert "<img" in one["sections"][0]["html"] and "Read it." in one["sections"][1]["html"]
    shown = made(book)
    assert "draw()" not in shown and "Exercises" not in shown and "toy scale: no evidence" in shown


def test_prose_without_a_heading_belongs_to_the_section_before_it(book):
    one = one_chapter(book, ("## First", [said("7 songs")]), ("And then:", [drawn(png())]), ("## Second", [said("8")]))
    first, second = one["sections"]
    assert first["open"] and not second["open"]
    assert first["html"].index("7 songs") < first["html"].index("And then:") < first["html"].index("<img")


def test_widgets_players_scripts_and_warnings_do_not_come_in(book):
    outputs = [
        new_output("display_data", {"application/vnd.jupyter.widget-view+json": {}, "text/plain": "VBox("}),
        new_output("display_data", {"text/html": '<audio src="data:audio/mpeg;base64,AAAA"></audio>'}),
        new_output("display_data", {"text/html": "<style>p {color: red}</style><b onclick='x()'>kept</b>"}),
        new_output("display_data", {"text/html": "<script>y()</script>"}),
        new_output("display_data", {"application/javascript": "z()"}),
        said("half a bar", "stderr"),
    ]  # fmt: skip
    prose = "## N\n\n[go](javascript:v()) [file](other.ipynb) ![web](https://x.org/a.png)\n\n<script>w()</script>"
    html = one_chapter(book, (prose, outputs))["sections"][0]["html"]
    assert "<b>kept</b>" in html and "left out: 1 with players" in html and "[picture: web]" in html
    for gone in (
        "VBox",
        "audio/",
        "color",
        "onclick",
        "x()",
        "y()",
        "z()",
        "w()",
        "v()",
        "half a bar",
        "<img",
        "ipynb",
    ):
        assert gone not in html


def test_links_to_chapters_lead_within_the_page(book):
    one = one_chapter(book, (f"## N\n\nsee [30]({PROBE}.ipynb), `{PROBE}` and [web](https://a.org/b)", []))
    html = one["sections"][0]["html"]
    assert html.count(f'href="#{PROBE}"') == 2 and 'href="https://a.org/b"' in html


def test_tables_in_prose_and_outputs_scroll_in_their_own_box(book):
    output = new_output("display_data", {"text/html": "<table><tr><td>3</table>"})
    html = one_chapter(book, ("## N\n\n| a | b |\n|---|---|\n| 1 | 2 |", [output]))["sections"][0]["html"]
    assert len(re.findall(r'<div class="scroll"[^>]*><table', html)) == 2


def test_a_damaged_picture_becomes_a_line(book):
    broken = new_output("display_data", {"image/png": base64.b64encode(png()[:30]).decode()})
    one = one_chapter(book, ("## N", [broken, drawn(png())]))
    assert "a picture here is damaged" in one["sections"][0]["html"] and one["sections"][0]["n_pictures"] == 1


def test_a_large_picture_is_made_smaller_and_a_small_one_stays():
    small = png()
    assert base64.b64encode(small).decode() in prose.picture(small, "image/png", "alt")
    large = png(2 * prose.WIDEST, 300, noise=True)
    shown = prose.picture(large, "image/png", "a < b")
    data = base64.b64decode(re.search(r"base64,([^\"]+)", shown)[1])
    assert Picture.open(io.BytesIO(data)).width == prose.WIDEST and len(data) < len(large) / 3
    assert f'width="{prose.WIDEST}"' in shown and 'alt="a &lt; b"' in shown


# formulas


@pytest.mark.parametrize(
    "latex",
    [r"\hat s^n_m = s^n_m + \lambda\,\mathrm{Transformer}(Q^n)", r"\exp\big(x\big)/\tau", r"\text{ at any } \tau",
     r"a \ge 0", r"L = \tfrac12\big(a \to b\big) \dots", r"\frac{7 e}{\tau}", r"\mathbb{1}_{u \ne b}",
     r"\mathrm{ReLU}\!\left(\gamma\,\frac{x-\mu}{\sigma}\right)"],
)  # fmt: skip
def test_formulas_are_drawn_in_the_colour_of_the_text(latex):
    shown = prose.formula(latex)
    assert "<svg" in shown and re.search(r'<path d="M[-\d.MLQCZ ]+"', shown) and "fill=" not in shown
    assert 'aria-label="' in shown


def test_a_formula_lies_within_its_box_with_its_tail_below_the_line():
    box, path = re.search(r'viewBox="([^"]+)".*d="([^"]+)"', prose.formula(r"y_p")).groups()
    left, top, width, height = map(float, box.split())
    y = [float(number) for number in re.findall(r"[-\d.]+ ([-\d.]+)", path)]
    assert top - 1 <= min(y) < 0 < max(y) <= top + height + 1 and left == 0 and width > 5


def test_a_formula_that_cannot_be_drawn_keeps_its_source(book):
    assert prose.formula(r"\begin{cases} a < b \end{cases}") == (
        r'<code class="formula">\begin{cases} a &lt; b \end{cases}</code>'
    )
    html = one_chapter(book, (r"## N" + "\n\n" + r"$a_1 < b$ and $$\begin{cases} c \end{cases}$$ for 5 \$", []))[
        "sections"
    ][0]["html"]
    assert html.count("<svg") == 1 and r"\begin{cases} c \end{cases}" in html and "\ue000" not in html


# names


@pytest.fixture
def somebody(monkeypatch, tmp_path):
    """This machine's user is annlee, its name tuba.example.org, her home in the temporary folder."""
    monkeypatch.setattr("getpass.getuser", lambda: "annlee")
    monkeypatch.setattr("socket.gethostname", lambda: "tuba.example.org")
    monkeypatch.setenv("HOME", str(tmp_path / "ann lee"))
    unnamed._people.cache_clear()
    yield str(tmp_path / "ann lee")
    unnamed._people.cache_clear()


@pytest.mark.parametrize(
    ("text", "shown"),
    [("saved /mnt/disk7/runs/a/row.json", "saved …/row.json"), ("'/" + "home/bob/x.py', line 3", "'~/x.py', line 3"),
     (r"C:\Users\bob\data\x.wav", r"~\data\x.wav"), (r"D:\disk7\a\x.wav", "…/x.wav"),
     ("file:///srv/a/b.html", "…/b.html"), ("annlee@tuba: ok", "user@host: ok"), ("on tuba.example.org", "on host"),
     ("annleesong, my_annlee", "annleesong, my_annlee")],
)  # fmt: skip
def test_folders_users_and_hosts_are_taken_out(somebody, text, shown):
    assert unnamed.without_names(text) == shown


def test_home_and_data_get_their_word(somebody, book):
    assert unnamed.without_names(f"{somebody}/x and {book[1]}/runs/a/row.json") == "~/x and data/runs/a/row.json"


@pytest.mark.parametrize(
    "text",
    ["89.4 / 36.4 and/or 3 songs/s", "https://example.org/a/b", "runs/mtat-twin.toy/row.json", r"$\exp(sim)/\tau / M$",
     "~/Music/a", "1/2/3", "the root of a tree", "`runs/<corpus>/<seed>/x`", "</div></td>"],
)  # fmt: skip
def test_plain_text_stays_as_it_is(text, monkeypatch):
    monkeypatch.setattr("getpass.getuser", lambda: "root")
    unnamed._people.cache_clear()
    assert unnamed.without_names(text) == text
    unnamed._people.cache_clear()


def test_nothing_of_the_machine_comes_into_the_page(somebody, book):
    secret = f"{somebody}/secret by annlee on tuba.example.org, /mnt/disk7/stuff/x"
    svg = f'<svg xmlns="http://www.w3.org/2000/svg"><!-- {secret} --><text>annlee</text></svg>'
    outputs = [
        said(f"row: {secret}\n"), drawn(png(text={"Author": "annlee", "Source": secret})),
        new_output("display_data", {"text/html": f"<b title='{secret}'>{secret}</b>"}),
        new_output("display_data", {"image/svg+xml": svg}),
        new_output("execute_result", {"text/plain": secret}, execution_count=1),
    ]  # fmt: skip
    given = {"scale": "small", "checkpoint": f"{somebody}/secret/checkpoint.safetensors"}
    run(
        book,
        "mtat-twin.small.random.fcn_4.linear_probe.seed0",
        notebook((f"## At `{somebody}/secret/x`", outputs), given=given),
    )
    stopped = notebook(("## N", [new_output("error", ename="E", evalue=secret, traceback=[secret])]))
    keep(book[0], stopped, "02_crops")
    put(book[1], row(tag="odd", settings={"remark": secret}))
    (book[1] / "results" / "cut.json").write_text("{")
    shown = made(book, runs=True)
    plain = shown + "".join(
        base64.b64decode(data).decode("latin-1") for data in re.findall(r"data:image/[\w+]+;base64,([^\"]+)", shown)
    )
    assert "secret" in plain  # it is shown, without whose it is
    for name in ("annlee", "ann lee", "tuba", "disk7", str(book[1]), str(book[1].parent)):
        assert name not in plain


# writing


def test_the_page_is_written_in_one_step_and_says_where_and_how_large(book, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(runlist, "NOTEBOOKS", book[0])
    monkeypatch.setattr(report, "write", lambda *a, kept=report.write, **kw: kept(*a, **kw, notebooks=book[0]))
    assert report.main(["--out", str(tmp_path / "new" / "r.html")]) == 0
    told = capsys.readouterr().out
    assert "r.html" in told and " MB" in told and [one.name for one in (tmp_path / "new").iterdir()] == ["r.html"]
    assert report.main([]) == 0 and (book[1] / "report.html").is_file()
    assert report.main(["--out", str(tmp_path)]) == 2 and "is a folder" in capsys.readouterr().err


def test_an_error_leaves_the_old_page(book, tmp_path, monkeypatch):
    path = tmp_path / "r.html"
    path.write_text("old")
    monkeypatch.setattr(report, "page", lambda *a: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        report.write(path, notebooks=book[0])
    assert path.read_text() == "old"


def test_making_the_page_changes_no_notebook_and_warns_of_nothing(book):
    before = (book[0] / f"{PROBE}.ipynb").read_bytes()
    read = chapters.read_notebook(book[0] / f"{PROBE}.ipynb")
    kept = copy.deepcopy(read)
    chapters._sections(read)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made(book)
    assert read == kept and (book[0] / f"{PROBE}.ipynb").read_bytes() == before


# the workbook itself


def test_the_committed_book_fits_into_a_mail(tmp_path, monkeypatch):
    monkeypatch.setenv("PAWLIB_DATA", str(tmp_path))
    shown = report.page()
    assert 0.5e6 < len(shown) < 15e6
    names = runlist.chapters()
    assert names and shown.count("<article") == len(names)
    assert chapters.NOT_EXECUTED not in shown and "is no notebook" not in shown and "cannot be read" not in shown
    assert str(runlist.NOTEBOOKS.parent) not in shown and str(tmp_path) not in shown
    links = set(re.findall(r'href="#([^"]+)"', shown))
    assert links <= set(re.findall(r'\bid="([^"]+)"', shown))
