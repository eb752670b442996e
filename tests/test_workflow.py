"""The run list, and the graph that Snakemake makes of it: planned on empty and on finished data folders, never run."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pawlib import paths
from pawlib.bench import runlist

ROOT = Path(__file__).resolve().parents[1]
LIST = ROOT / "notebooks" / "runs" / "workbook.yaml"
PARAMETERS = {
    "10_pretrain_music_paw": 'scale = "toy"  # toy | small\ncorpus = "twin"\nseed = 0\n'
    'variant = "hc"  # hc | baseline\nencoder = "fcn_4"\n',
    "30_linear_probe_mtat": 'scale = "toy"  # toy | small\ncorpus = "twin"\nseed = 0\n'
    'system = "random"  # hc | baseline | random\nencoder = "fcn_4"\ncheckpoint = ""  # a file\n'
    'levels = "shortest"  # shortest | top\n',
    "61_table1": 'rows = "committed"  # committed | mine\n',
}


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """A folder with three small notebooks, and a function that reads a run list given as text."""
    monkeypatch.setenv("PAWLIB_DATA", str(tmp_path / "data"))
    for name, source in PARAMETERS.items():
        notebook(tmp_path / f"{name}.ipynb", source)

    def read(text, **instead):
        (tmp_path / "list.yaml").write_text(text)
        return runlist.read(tmp_path / "list.yaml", notebooks=tmp_path, **instead)

    return read


def notebook(path, source, tag="parameters"):
    import nbformat

    cell = nbformat.v4.new_code_cell(source, metadata={"tags": [tag]})
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), path)


def items(*lines, defaults="{scale: small, seed: 0}"):
    return "\n".join([f"defaults: {defaults}", "runs:", *(f"  - {{notebook: {line}}}" for line in lines)])


# --- the parameters cell ---


def test_parameters_are_read_with_their_choices(tmp_path):
    source = (
        'scale = "toy"  # toy | small | paper, see 00\n'
        "# a line that belongs to the one above\n"
        "seed = 3\n"
        'system = "crnn"  # crnn | musicnn |\n'
        "# short_chunk_cnn\n"
        'order = "top_down"  # "top_down" as printed\n'
        "mix = 0.5  # which share, 0.5 | 1 of it\n"
    )
    notebook(tmp_path / "a.ipynb", source)
    assert runlist.parameters(tmp_path / "a.ipynb") == {
        "scale": ("toy", ("toy", "small", "paper")),
        "seed": (3, ()),
        "system": ("crnn", ("crnn", "musicnn", "short_chunk_cnn")),
        "order": ("top_down", ()),
        "mix": (0.5, ("0.5", "1")),
    }


@pytest.mark.parametrize("source", ["n = 2\ntwice = n * 2", "import os", "a, b = 1, 2"])
def test_parameters_cell_holds_literals_only(tmp_path, source):
    notebook(tmp_path / "a.ipynb", source)
    with pytest.raises(ValueError, match="a.ipynb: .* is no plain `name = literal`"):
        runlist.parameters(tmp_path / "a.ipynb")


def test_notebook_without_parameters_cell_is_named(tmp_path):
    notebook(tmp_path / "a.ipynb", "x = 1", tag="other")
    with pytest.raises(ValueError, match="a.ipynb has 0 cells tagged `parameters`"):
        runlist.parameters(tmp_path / "a.ipynb")


# --- a list ---


def test_probe_waits_for_its_own_checkpoint_and_the_table_for_rows(desk):
    made, probe, random, table = desk(
        items(
            "10_pretrain_music_paw, variant: hc",
            "30_linear_probe_mtat, system: hc",
            "30_linear_probe_mtat, system: random",
            "61_table1, rows: mine",
        )
    )
    assert made.output == paths.runs() / "mtat-twin.small.hc.fcn_4.pretrain.seed0" / "checkpoint.safetensors"
    assert probe.output == paths.runs() / "mtat-twin.small.hc.fcn_4.linear_probe.seed0" / "row.json"
    assert (made.needs, probe.needs, random.needs) == ((), (made.output,), ())
    assert set(table.needs) == {probe.output, random.output}
    assert made.parameters == {"scale": "small", "seed": 0, "variant": "hc"} and table.parameters == {"rows": "mine"}


def test_reading_off_its_default_is_a_run_of_its_own_on_the_same_checkpoint(desk):
    probe = "30_linear_probe_mtat, system: hc"
    made, plain, top = desk(items("10_pretrain_music_paw, variant: hc", probe, f"{probe}, levels: top"))
    assert top.id == "mtat-twin.small.hc.fcn_4.linear_probe.top.seed0" != plain.id
    assert top.needs == plain.needs == (made.output,)


def test_scale_can_be_given_instead(desk):
    (run,) = desk(items("30_linear_probe_mtat"), scale="toy")
    assert run.id == "mtat-twin-toy.toy.random.fcn_4.linear_probe.seed0" and run.parameters["scale"] == "toy"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["11_pretrain_clmr"], r"item 1 .* notebook '11_pretrain_clmr' is unknown, expected one of 10_pretrain_mus"),
        (["30_linear_probe_mtat, sistem: hc"], r"item 1 .* has no parameter 'sistem', expected some of scale, corpus"),
        (
            ["61_table1", "30_linear_probe_mtat, system: hd"],
            r"item 2 .*system 'hd' is unknown, expected one of hc, bas",
        ),
        (["30_linear_probe_mtat, scale: big"], r"item 1 .* scale 'big' is unknown, expected one of toy, small"),
        (["30_linear_probe_mtat", "30_linear_probe_mtat"], "item 2 .* is the same run as item 1"),
        (["30_linear_probe_mtat, system: hc"], "loads a checkpoint that no item makes"),
    ],
)
def test_typing_error_in_a_list_is_named(desk, lines, message):
    with pytest.raises(ValueError, match=message):
        desk(items(*lines))


def test_default_that_no_notebook_knows_is_named(desk):
    with pytest.raises(ValueError, match="list.yaml, defaults: no notebook of the list has a parameter 'sede'"):
        desk(items("30_linear_probe_mtat", defaults="{sede: 1}"))


@pytest.mark.parametrize("text", ["runs: [", "- a", "runs: {}", "runs: []\nrun: []"])
def test_file_that_is_no_list_is_named(desk, text):
    with pytest.raises(ValueError, match="list.yaml"):
        desk(text)


def test_summary_tells_what_is_not_finished(desk):
    runs = desk(items("61_table1", defaults="{rows: mine}"))
    with pytest.raises(FileNotFoundError, match="1 of 1 runs are not finished: 61_table1.mine"):
        runlist.summary(runs)
    runs[0].folder.mkdir(parents=True)
    runs[0].output.touch()
    runs[0].seconds.write_text("s\th:m:s\n12.4\t0:00:12\n")
    assert re.search(r"\b12  61_table1.mine\b", runlist.summary(runs))
    assert str(Path(runs[0].id) / "61_table1.ipynb") in runlist.summary(runs)


# --- the lists of this workbook ---


def test_lists_name_only_what_the_notebooks_know(tmp_path, monkeypatch):
    monkeypatch.setenv("PAWLIB_DATA", str(tmp_path))
    lists = sorted((ROOT / "notebooks" / "runs").glob("*.yaml"))
    assert lists, "no run list was found"
    for path in lists:
        assert runlist.read(path)


@pytest.mark.parametrize(
    ("name", "key"), [("10_pretrain_music_paw", "variant"), ("30_linear_probe_mtat", "system"), ("61_table1", "rows")]
)
def test_notebooks_list_the_choices_that_a_run_list_is_checked_against(name, key):
    default, choices = runlist.parameters(ROOT / "notebooks" / f"{name}.ipynb")[key]
    assert len(choices) > 1 and default in choices


# --- the graph ---


def plan(data, *words, path=LIST):
    """(exit status, {job: count}, all that Snakemake says) of a dry run."""
    (data / "runs").mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "snakemake", "--dry-run", "--quiet", "host", "--snakefile", ROOT / "Snakefile"]
    command += ["--workflow-profile", ROOT / "notebooks" / "runs" / "profiles" / "local"]
    command += ["--directory", data / "runs", "--config", f"list={path}", *words]
    done = subprocess.run(
        list(map(str, command)), env=os.environ | {"PAWLIB_DATA": str(data)}, capture_output=True, text=True, cwd=ROOT
    )
    said = done.stdout + done.stderr
    jobs = {name: int(count) for name, count in re.findall(r"^(\S+) +(\d+)$", said.split("\n\n")[0], re.MULTILINE)}
    return done.returncode, {name: count for name, count in jobs.items() if name not in ("all", "total")}, said


@pytest.fixture
def listed(tmp_path, monkeypatch):
    monkeypatch.setenv("PAWLIB_DATA", str(tmp_path / "data"))
    return tmp_path / "data", runlist.read(LIST)


def finish(data, runs):
    """Every output of the graph, as old as can be: older than any notebook."""
    marks = [data / "twins" / "mtat" / "twin.json", data / "store" / "mtat-twin" / "store.json"]
    for seconds, path in enumerate([*marks, *(run.output for run in sorted(runs, key=lambda run: len(run.needs)))]):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        os.utime(path, (1_000_000_000 + seconds,) * 2)


def test_empty_data_folder_plans_every_job_once(listed):
    data, runs = listed
    status, jobs, said = plan(data)
    assert status == 0, said
    assert jobs == {"twin_small": 1, "store_mtat-twin": 1} | {run.id: 1 for run in runs}


def test_toy_scale_plans_the_toy_twin(listed):
    status, jobs, said = plan(listed[0], "scale=toy")
    assert status == 0 and {"twin_toy", "store_mtat-twin-toy"} <= set(jobs), said


def test_finished_runs_are_not_repeated_though_their_notebooks_are_newer(listed):
    data, runs = listed
    finish(data, runs)
    assert all(run.notebook.stat().st_mtime > run.output.stat().st_mtime for run in runs)
    status, jobs, said = plan(data)
    assert (status, jobs) == (0, {}) and "Nothing to be done" in said, said
    chapter = next(run for run in runs if run.output.name == "finished" and not run.needs)
    chapter.output.unlink()
    os.utime(data / "store" / "mtat-twin" / "store.json")  # decoded anew: what was trained on it stays
    assert plan(data)[1] == {chapter.id: 1}


def test_typing_error_stops_before_anything_runs(listed, tmp_path):
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(LIST.read_text().replace("variant: baseline", "variant: basline"))
    status, jobs, said = plan(listed[0], path=wrong)
    assert status != 0 and not jobs
    assert said.count("variant 'basline' is unknown, expected one of music_paw") == 1, said
