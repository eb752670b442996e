"""The run list, and the graph that Snakemake makes of it: planned on empty and on finished data folders, never run."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pawlib import model, paths
from pawlib.bench import hierarchy, reproduce, results, runlist

ROOT = Path(__file__).resolve().parents[1]
LIST = ROOT / "notebooks" / "runs" / "workbook.yaml"
SWITCHES = 'scale = "toy"  # toy | small\ncorpus = "twin"\nseed = 0\n'
PARAMETERS = {
    "10_pretrain_music_paw": f'{SWITCHES}variant = "hc"  # hc | baseline\nencoder = "fcn_4"\nreadings = ""\n',
    "20_supervised_taggers": f'{SWITCHES}system = "crnn"  # crnn | fcn_4 | short_chunk_cnn\n'
    'dataset = "mtat"  # mtat | gtzan\nlabels = 100  # 100 | 10 | 1\n',
    "30_linear_probe_mtat": 'scale = "toy"  # toy | small\ncorpus = "twin"\nseed = 0\n'
    'system = "random"  # hc | baseline | random\nencoder = "fcn_4"\ncheckpoint = ""  # a file\n'
    'levels = "shortest"  # shortest | top\nreadings = ""\n',
    "31_few_labels_mtat": f'{SWITCHES}system = "supervised"  # supervised | random | log_mel_statistics | hc\n'
    'encoder = "fcn_4"  # fcn_4 | fcn_7 | none\nlabels = 1  # 1 | 10\ncheckpoint = ""\n',
    "32_finetune_gtzan": f'{SWITCHES}system = "supervised_mtat"  # supervised_mtat | random | mfcc_statistics | hc\n'
    'encoder = "fcn_4"  # fcn_4 | fcn_7 | none\ncheckpoint = ""\n',
    "40_cover_songs": f'{SWITCHES}system = "cqt_net"  # cqt_net | fcn_4_on_cqt_net | qmax\n'
    'init = "none"  # none | random | supervised_mtat | hc\ncovers80 = "same"  # same | real\n',
    "61_table1": 'rows = "committed"  # committed | mine\n',
}


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """A folder with small notebooks, and a function that reads a run list given as text."""
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


# --- readings off their defaults ---


def test_readings_are_part_of_the_name_and_of_the_checkpoint_that_is_waited_for(desk):
    text = items(
        "10_pretrain_music_paw, variant: hc, readings: temperature=0.1 mix=0.25",
        "30_linear_probe_mtat, system: hc, levels: top, readings: temperature=0.1 mix=0.25",
    )
    made, probe = desk(text)
    assert made.id == "mtat-twin.small.hc.fcn_4.pretrain.temperature_0_1_mix_0_25.seed0"
    assert probe.id == "mtat-twin.small.hc.fcn_4.linear_probe.top-temperature_0_1_mix_0_25.seed0"
    assert probe.needs == (made.output,)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "temprature=0.1",
            "'temprature=0.1' in .* is no reading written as name=value; the readings are .*temperature",
        ),
        ("temperature", "'temperature' in .* is no reading written as name=value"),
        ("mix=0.1 mix=0.2", "'mix=0.2' in .* is given twice"),
        ("variant=hc", "is no reading written as name=value"),
        ("share=false", "share is True by default, expected something of that kind"),
        ("temperature=high", "temperature is 0.5 by default, expected something of that kind"),
        ("n_levels=True", "n_levels is 4 by default"),
        ("order=1", "order is 'top_down' by default"),
    ],
)
def test_a_misspelt_reading_is_refused_before_anything_runs(desk, text, said):
    with pytest.raises(ValueError, match=f"list.yaml, item 1 .*{said}"):
        desk(items(f'10_pretrain_music_paw, variant: hc, readings: "{text}"'))


def test_readings_become_arguments():
    made = model.readings("temperature=0.1 order=bottom_up symmetric=True tau_pw=None mix=0.25")
    assert made == {"temperature": 0.1, "order": "bottom_up", "symmetric": True, "tau_pw": None, "mix": 0.25}
    assert model.readings("") == {} and model.MusicPAW(**made).settings["order"] == "bottom_up"


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
        reproduce.summary(runs)
    runs[0].folder.mkdir(parents=True)
    runs[0].output.touch()
    runs[0].seconds.write_text("s\th:m:s\n12.4\t0:00:12\n")
    assert re.search(r"\b12  61_table1.mine\b", reproduce.summary(runs))
    assert str(Path(runs[0].id) / "61_table1.ipynb") in reproduce.summary(runs)


# --- what each kind of notebook makes and needs ---


@pytest.mark.parametrize(
    ("item", "name", "output"),
    [
        ("10_pretrain_music_paw, encoder: fcn_7", "mtat-twin.small.hc.fcn_7.pretrain.seed0", "checkpoint.safetensors"),
        ("20_supervised_taggers", "mtat-twin.small.crnn.none.supervised.seed0", "row.json"),
        ("20_supervised_taggers, labels: 1", "mtat-twin.small.crnn.none.supervised.labels1.seed0", "row.json"),
        ("20_supervised_taggers, dataset: gtzan", "gtzan-twin.small.crnn.none.supervised.seed0", "row.json"),
        ("20_supervised_taggers, dataset: gtzan, corpus: real", "gtzan.small.crnn.none.supervised.seed0", "row.json"),
        ("31_few_labels_mtat, labels: 10", "mtat-twin.small.supervised.fcn_4.few_labels_10.seed0", "row.json"),
        (
            "31_few_labels_mtat, system: log_mel_statistics, encoder: none",
            "mtat-twin.small.log_mel_statistics.none.few_labels_1.seed0", "row.json",
        ),
        ("32_finetune_gtzan, system: random", "gtzan-twin.small.random.fcn_4.linear_probe.seed0", "row.json"),
        (
            "32_finetune_gtzan, system: mfcc_statistics, encoder: none, scale: toy",
            "gtzan-twin-toy.toy.mfcc_statistics.none.linear_probe.seed0", "row.json",
        ),
    ],
)  # fmt: skip
def test_run_is_named_as_its_row_is(desk, item, name, output):
    (run,) = desk(items(item))
    assert run.id == name and run.needs == run.also == ()
    assert run.output == paths.runs() / name / output
    assert run.corpus.name == name.split(".")[0]


def test_fine_tuning_waits_for_what_was_pretrained_on_mtat(desk):
    made, tuned, few = desk(
        items("10_pretrain_music_paw", "32_finetune_gtzan, system: hc", "31_few_labels_mtat, system: hc, labels: 10")
    )
    assert tuned.id == "gtzan-twin.small.hc.fcn_4.fine_tune.seed0"
    assert tuned.needs == few.needs == (made.output,)
    assert (tuned.corpus.dataset, few.corpus.dataset) == ("gtzan", "mtat")


def test_supervised_start_waits_for_the_tagger_whose_trunk_it_is(desk):
    tagger = "20_supervised_taggers, system: {}"
    four, seven, other, tuned_4, tuned_7 = desk(
        items(
            tagger.format("fcn_4"), tagger.format("short_chunk_cnn"), tagger.format("crnn"),
            "32_finetune_gtzan, encoder: fcn_4", "32_finetune_gtzan, encoder: fcn_7",
        )
    )  # fmt: skip
    assert four.also == tuned_4.needs == (four.folder / "checkpoint.safetensors",)
    assert seven.also == tuned_7.needs == (seven.folder / "checkpoint.safetensors",)
    assert other.also == () and tuned_7.id == "gtzan-twin.small.supervised_mtat.fcn_7.fine_tune.seed0"


def test_a_cover_system_is_named_for_its_start_and_waits_for_that_checkpoint(desk):
    made, tagger, *runs = desk(items(
        "10_pretrain_music_paw, variant: hc",
        "20_supervised_taggers, system: fcn_4",
        "40_cover_songs, system: fcn_4_on_cqt_net, init: [hc, supervised_mtat, random]",
        "40_cover_songs, system: [cqt_net, qmax]",
    ))  # fmt: skip
    names = ["hc.fcn_4_on_cqt_net", "supervised_mtat.fcn_4_on_cqt_net", "random.fcn_4_on_cqt_net", "cqt_net.none",
             "qmax.none"]  # fmt: skip
    assert [run.id for run in runs] == [f"shs100k-twin.small.{name}.cover.seed0" for name in names]
    assert [run.needs for run in runs] == [(made.output,), tagger.also, (), (), ()]
    assert [run.system for run in runs] == ["hc", "supervised_mtat", "random", "cqt_net", "qmax"]


def test_a_cover_system_reads_both_of_its_test_sets(desk):
    twin, real = desk(items("40_cover_songs, covers80: [same, real]"))
    assert [one.name for one in twin.reads] == ["shs100k-twin", "covers80-twin"]
    assert [one.name for one in real.reads] == ["shs100k-twin", "covers80"]
    assert real.id == "shs100k-twin.small.cqt_net.none.cover.covers80_real.seed0"


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ("31_few_labels_mtat, system: hc", "add an item with notebook: 10_pretrain_music_paw, variant: hc"),
        ("32_finetune_gtzan, system: hc", "add an item with notebook: 10_pretrain_music_paw, variant: hc"),
        (
            "32_finetune_gtzan, encoder: fcn_7",
            "notebook: 20_supervised_taggers, dataset: mtat, system: short_chunk_cnn and the same seed",
        ),
        ("32_finetune_gtzan, encoder: none", "encoder 'none' is the trunk of no supervised system"),
    ],
)
def test_missing_checkpoint_says_which_item_makes_it(desk, item, message):
    with pytest.raises(ValueError, match=message):
        desk(items(item))


def test_checkpoint_of_other_labels_or_another_seed_is_no_start(desk):
    for item in ("labels: 10", "dataset: gtzan", "seed: 1"):
        with pytest.raises(ValueError, match="loads a checkpoint that no item makes"):
            desk(items(f"20_supervised_taggers, system: fcn_4, {item}", "32_finetune_gtzan"))


def test_checkpoint_that_is_there_needs_no_item(desk):
    there = paths.runs() / "mtat-twin.small.fcn_4.none.supervised.seed0" / "checkpoint.safetensors"
    there.parent.mkdir(parents=True)
    there.touch()
    (tuned,) = desk(items("32_finetune_gtzan"))
    assert tuned.needs == (there,)


def test_a_checkpoint_by_name_or_file_is_part_of_the_name(desk):
    own = "/somewhere/mtat-twin.small.hc.fcn_4.pretrain.seed1/checkpoint.safetensors"
    starts = ("music-paw-fcn4-scores", "/somewhere/best.safetensors", own)
    runs = desk(items(*(f"30_linear_probe_mtat, system: hc, checkpoint: {start}" for start in starts)))
    assert [run.id.split(".linear_probe.")[1] for run in runs] == [
        "from_music_paw_fcn4_scores.seed0",
        "from_best.seed0",
        "from_mtat_twin_small_hc_fcn_4_pretrain_seed1.seed0",
    ]
    assert runs[2].needs == (paths.Path(own),)


def test_a_released_checkpoint_is_waited_for_where_it_lies(desk, tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "checkpoints", lambda: tmp_path)
    (tmp_path / "scores.safetensors").touch()
    (run,) = desk(items("30_linear_probe_mtat, system: hc, checkpoint: scores"))
    assert run.needs == (tmp_path / "scores.safetensors",) and ".from_scores." in run.id


# --- several values ---


def test_lists_stand_for_their_product_seeds_last(desk):
    runs = desk(
        items("20_supervised_taggers, system: [crnn, fcn_4], labels: [1, 10]", defaults="{scale: small, seed: [0, 3]}")
    )
    assert [run.id.removeprefix("mtat-twin.small.") for run in runs] == [
        f"{system}.none.supervised.labels{labels}.seed{seed}"
        for system in ("crnn", "fcn_4") for labels in (1, 10) for seed in (0, 3)
    ]  # fmt: skip
    assert runs[3].parameters == {"scale": "small", "seed": 3, "system": "crnn", "labels": 10}


def test_listed_probe_waits_for_the_checkpoint_of_its_own_seed_and_encoder(desk):
    runs = desk(
        items(
            "10_pretrain_music_paw, encoder: [fcn_4, fcn_7]",
            "30_linear_probe_mtat, system: hc, encoder: [fcn_4, fcn_7]",
            defaults="{seed: [0, 1]}",
        )
    )  # fmt: skip
    assert [probe.needs for probe in runs[4:]] == [(made.output,) for made in runs[:4]]
    assert len({made.output for made in runs[:4]}) == 4


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("20_supervised_taggers, system: [crnn, crn]", "item 1 .*system 'crn' is unknown, expected one of crnn, fcn_4"),
        ("20_supervised_taggers, system: []", "item 1 .*system is an empty list"),
        ("20_supervised_taggers, system: [crnn, crnn]", "item 1 .*is the same run as item 1"),
    ],
)
def test_typing_error_among_several_values_is_named(desk, line, message):
    with pytest.raises(ValueError, match=message):
        desk(items(line))


def test_chosen_runs_bring_what_they_need(desk):
    runs = desk(
        items(
            "20_supervised_taggers, system: [crnn, fcn_4]", "10_pretrain_music_paw", "32_finetune_gtzan",
            "32_finetune_gtzan, system: hc", defaults="{seed: [0, 1, 2]}",
        )
    )  # fmt: skip

    def named(**chosen):
        return [(run.system, run.id[-1]) for run in runlist.choose(runs, **chosen)]

    assert runlist.choose(runs) == runlist.choose(runs, seeds="", systems=" ") == runs
    assert {seed for _, seed in named(seeds="2, 0")} == {"0", "2"} and len(named(seeds=1)) == 5
    assert named(seeds="0", systems="supervised_mtat") == [("fcn_4", "0"), ("supervised_mtat", "0")]
    assert named(seeds="1", systems="crnn hc") == [("crnn", "1"), ("hc", "1"), ("hc", "1")]
    with pytest.raises(ValueError, match="SEEDS '7' is unknown, expected some of 0, 1, 2$"):
        runlist.choose(runs, seeds="0 7")
    with pytest.raises(
        ValueError, match="SYSTEMS 'cnrr' is unknown, expected some of crnn, fcn_4, hc, supervised_mtat"
    ):
        runlist.choose(runs, systems="cnrr")


# --- the command line ---


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["table=9"], "TABLE '9' is unknown, expected one of 1, 2, 3"),
        (["table="], "no TABLE was given, expected one of 1, 2, 3"),
        (["table=1", "scale=smal"], "SCALE 'smal' is unknown, expected one of toy, small, paper"),
        (["table=1", "corpus=twn"], "CORPUS 'twn' is unknown, expected one of twin, real"),
        (["table=2", "seeds=0,7"], "SEEDS '7' is unknown, expected some of 0, 1, 2, 3, 4"),
        (["table=3", "systems=fcn_6"], "SYSTEMS 'fcn_6' is unknown, expected some of crnn"),
        (["table=1", "sedes=0"], "'sedes' is unknown, expected one of scale, corpus, seeds, systems"),
    ],
)
def test_typing_error_on_the_command_line_is_one_line(tables_of_the_paper, capsys, words, message):
    assert reproduce.main(["check", *words]) == 2
    said = capsys.readouterr().err
    assert said.startswith(message) and said.count("\n") == 1
    assert reproduce.main(["check", "table=1", "scale=toy", "corpus=twin", "seeds=0 4", "systems=crnn"]) == 0


def test_real_audio_that_is_not_there_is_told_before_anything_runs(tables_of_the_paper, capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("PAWLIB_DATA", str(tmp_path))
    words = ["check", "table=3", "corpus=real", "scale=toy", "systems=crnn"]
    assert reproduce.main(words) == 2
    said = capsys.readouterr().err
    assert said.startswith(str(tmp_path / "raw" / "gtzan")) and "get it with `pawlib fetch gtzan`" in said
    (tmp_path / "raw" / "gtzan").mkdir(parents=True)
    assert reproduce.main(words) == 0


@pytest.mark.filterwarnings("ignore:.*in no commit")
def test_publishing_a_list_takes_what_is_finished_and_keeps_what_is_published(desk):
    runs = desk(items("20_supervised_taggers, seed: [0, 1, 2]"))
    with pytest.raises(FileNotFoundError, match="none of the 3 runs has a row"):
        reproduce.publish(runs)

    def finished(seed, roc_auc):
        results.write(
            results.row(
                system="crnn", backbone=None, dataset="mtat-twin", split="all", protocol="supervised", scale="small",
                seed=seed, metrics={"roc_auc": roc_auc}, n_tracks=9,
            )
        )  # fmt: skip

    finished(0, 0.5)
    assert [line.split(":")[0] for line in reproduce.publish(runs)] == [
        "published",
        "2 of 3 runs are not finished, not published",
    ]
    finished(0, 0.6)
    finished(1, 0.7)
    assert [line.split(":")[0] for line in reproduce.publish(runs)][:2] == [
        "published", "1 stand there with other numbers; published rows are never replaced",
    ]  # fmt: skip
    assert reproduce.publish(runs)[0].startswith("1 were published before")
    assert [row["metrics"]["roc_auc"] for row in results.read()] == [0.5, 0.7]


@pytest.mark.filterwarnings("ignore:.*in no commit")
def test_publishing_a_figure_takes_the_rows_of_its_chapter_and_no_others(tmp_path, monkeypatch):
    monkeypatch.setenv("PAWLIB_DATA", str(tmp_path))
    runs = runlist.choose(runlist.read(runlist.list_of("figure", 4)), seeds=0)
    number = {"silhouette by song": {"estimate": -0.1, "low": None, "high": None}}

    def left(system, protocol="hierarchy", seed=0, tag=None):
        row = hierarchy.row("mtat-twin", system, "fcn_4", protocol, "small", seed, number, 20, tag=tag)
        return results.write(row).parent.name

    own = {left("music_paw"), left("random")}
    left("music_paw", "tags_in_time"), left("music_paw", seed=1), left("music_paw", tag="songs30")
    with pytest.raises(FileNotFoundError, match="none of the 0 runs has a row"):
        reproduce.publish(runs)  # the chapter has not finished
    runs[-1].output.parent.mkdir(parents=True)
    runs[-1].output.touch()
    assert len(reproduce.publish(runs)) == 2
    assert {path.stem for path in paths.results().glob("*.json")} == own


def test_summary_ends_with_the_table(desk):
    (run,) = desk(items("20_supervised_taggers"))
    row = results.row(
        system="crnn", backbone=None, dataset="mtat-twin", split="all", protocol="supervised", scale="small", seed=0,
        metrics={"roc_auc": 0.612}, n_tracks=9,
    )  # fmt: skip
    results.write(row)
    said = reproduce.summary([run]).split("\n\n")
    assert said[-1].startswith("Table 1: tagging on MTAT") and "61.2 (1)" in said[-1]
    assert reproduce.summary([run], number=3).split("\n\n")[-1].startswith("Table 3")


# --- the lists of this workbook ---


CHAPTERS_OF_THE_LISTS = {
    "10_pretrain_music_paw": "variant", "20_supervised_taggers": "system", "30_linear_probe_mtat": "system",
    "31_few_labels_mtat": "system", "32_finetune_gtzan": "system", "40_cover_songs": "system",
    "50_scene_systems": "system", "51_scene_transfer": "system", "61_table1": "rows", "74_diagnostic": "system",
}  # fmt: skip


@pytest.fixture
def tables_of_the_paper(tmp_path, monkeypatch):
    monkeypatch.setenv("PAWLIB_DATA", str(tmp_path))
    return {number: runlist.read(runlist.list_of("table", number)) for number in (1, 2, 3)}


def test_lists_name_only_what_the_notebooks_know(tmp_path, monkeypatch):
    monkeypatch.setenv("PAWLIB_DATA", str(tmp_path))
    lists = sorted((ROOT / "notebooks" / "runs").glob("*.yaml"))
    assert len(lists) >= 4
    for path in lists:
        assert runlist.read(path)


@pytest.mark.parametrize(("name", "key"), CHAPTERS_OF_THE_LISTS.items())
def test_notebooks_list_the_choices_that_a_run_list_is_checked_against(name, key):
    default, choices = runlist.parameters(ROOT / "notebooks" / f"{name}.ipynb")[key]
    assert len(choices) > 1 and default in choices


def test_run_lists_make_every_line_of_the_papers_tables_that_has_a_chapter(tables_of_the_paper):
    for number, runs in tables_of_the_paper.items():
        made = {(run.system, run.id.split(".")[3]) for run in runs if run.output.name == "row.json"}
        lines = {(one["slug"], one["backbone_slug"] or "none") for one in results.paper(number)}
        assert lines <= made
        assert {(name, "fcn_4") for name in ("random",)} | {("log_mel_statistics", "none")} <= made
        seeds = [tuple(run.id.rsplit(".seed")) for run in runs]
        assert all({seed for name, seed in seeds if name == one} == set("01234") for one, _ in seeds)


def test_the_list_of_table_4_makes_its_ten_lines_from_the_checkpoints_of_table_1(tables_of_the_paper):
    runs = runlist.read(runlist.list_of("table", 4), scale="small")
    made = {(run.system, run.id.split(".")[3]) for run in runs if run.output.name == "row.json" and "cover" in run.id}
    lines = {(one["slug"], one["backbone_slug"] or "none") for one in results.paper(4)}
    ours = {"random_embedding", "averaged_chroma", "two_d_fourier", "qmax", "symbolic_melody"}
    assert len(lines) == 10 and made == lines | {(name, "none") for name in ours}
    for line in lines:
        seeds = [run.id[-1] for run in runs if (run.system, run.id.split(".")[3]) == line]
        assert seeds == list("01234")
    assert {run.id for run in runs if ".pretrain." in run.id} <= {run.id for run in tables_of_the_paper[1]}
    (start,) = next(run.needs for run in runs if run.system == "cola" and "cover" in run.id)
    assert start.parent.name == "mtat-twin.small.cola.fcn_4.pretrain.seed0"


def test_tables_share_their_checkpoints(tables_of_the_paper):
    made = {number: {run.id: run for run in runs} for number, runs in tables_of_the_paper.items()}
    pretrained = {name for name in made[1] if ".pretrain." in name}
    without_clmr = {name for name in pretrained if ".clmr." not in name}  # Table 3 has no row of it
    assert len(pretrained) == 45 and pretrained <= set(made[2]) and without_clmr <= set(made[3])
    assert "mtat-twin.small.clmr.sample_cnn.pretrain.seed0" in pretrained - without_clmr
    shared = {name for name in made[3] if name.startswith("mtat-twin.small.") and ".supervised." in name}
    assert len(shared) == 10 and shared <= set(made[1])
    assert all(made[1][name].parameters == made[3][name].parameters for name in shared)


def test_the_ablation_probes_every_variant_it_pretrains(tmp_path, monkeypatch):
    monkeypatch.setenv("PAWLIB_DATA", str(tmp_path))
    path = runlist.list_of("figure", 3)
    runs = runlist.choose(runlist.read(path), seeds="1", encoders="fcn_4")
    made = {run.id.removeprefix("mtat-twin.small.") for run in runs}
    chosen = {name: "temperature_1_0" if name.startswith("baseline") else "" for name in (*model.VARIANTS, "random")}
    variants = model.VARIANTS

    def named(name, protocol, level=""):
        words = [name, "fcn_4", protocol, results.tag_of(level, chosen[name]), "seed1"]
        return ".".join(word for word in words if word)

    assert {named(name, "pretrain") for name in variants} <= made
    assert {named(name, "linear_probe", level) for name in chosen for level in ("", "top")} <= made
    genres = {run.id: run for run in runs if run.id.startswith("gtzan-twin.small.") and ".linear_probe." in run.id}
    assert len(genres) == len(variants) + 1 and len(runs) == 4 * len(variants) + 3
    frozen = genres["gtzan-twin.small.cousins.fcn_4.linear_probe.seed1"]
    assert frozen.needs[0].parent.name == "mtat-twin.small.cousins.fcn_4.pretrain.seed1"
    with pytest.raises(ValueError, match="FIGURE '9' is unknown, expected one of 3, 4, 5"):
        runlist.list_of("figure", 9)
    with pytest.raises(ValueError, match="ENCODERS 'fcn_9' is unknown, expected some of fcn_4, fcn_7"):
        runlist.choose(runlist.read(path), encoders="fcn_9")


def test_a_figure_waits_for_the_encoders_that_it_looks_at(tmp_path, monkeypatch):
    monkeypatch.setenv("PAWLIB_DATA", str(tmp_path))
    runs = runlist.read(runlist.list_of("figure", 5))
    *pretrained, picture = [run for run in runs if run.parameters["seed"] == 1]
    assert picture.notebook.stem == "72_figure5_tags_in_time" and len(pretrained) == 3 and len(runs) > 4
    assert set(picture.needs) == {run.output for run in pretrained}, "of its own seed alone"
    for number in (3, 4, 5):
        assert runlist.choose(runlist.read(runlist.list_of("figure", number)), seeds="0", encoders="fcn_4")


def test_published_rows_are_found_under_the_names_that_the_lists_give(tables_of_the_paper):
    """What is published keeps its name: a run list that called it otherwise would run it again."""
    published = {path.stem for path in (ROOT / "data" / "results").glob("mtat-twin.small.*.seed0.json")}
    todays = {
        "mtat-twin.small.baseline.fcn_4.linear_probe.seed0", "mtat-twin.small.baseline.fcn_4.linear_probe.top.seed0",
        "mtat-twin.small.log_mel_statistics.none.linear_probe.seed0",
        "mtat-twin.small.mfcc_statistics.none.linear_probe.seed0",
        "mtat-twin.small.music_paw.fcn_4.linear_probe.seed0", "mtat-twin.small.music_paw.fcn_4.linear_probe.top.seed0",
        "mtat-twin.small.random.fcn_4.linear_probe.seed0", "mtat-twin.small.random.fcn_4.linear_probe.top.seed0",
    }  # fmt: skip
    listed = {run.id for run in runlist.read(LIST) if run.output.name == "row.json"}
    assert listed == todays <= published


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


def test_dry_run_is_told_in_a_line_per_run(tmp_path, monkeypatch):
    monkeypatch.setenv("PAWLIB_DATA", str(tmp_path))
    said = (
        "rule store_x:\n    input: a\n    output: b\n    jobid: 2\n"
        f"    reason: Missing output files: {tmp_path}/store/x/store.json\n    priority: 20\n"
        f"rule z.seed0:\n    input: a\n    reason: Missing output files: {tmp_path}/runs/z/row.json, "
        f"{tmp_path}/runs/z/checkpoint.safetensors; Input files updated by another job: {tmp_path}/store/x/store.json\n"
        "rule all:\n    input: c\n    reason: Rules with neither input nor output\n"
        "rule a.seed1:\n    reason: Params have changed since last execution: before: 1\n"
    )
    assert [line.split() for line in reproduce.plan(said).splitlines()] == [
        "would run store_x no store.json yet".split(),
        "would run a.seed1 Params have changed since last execution: before: 1".split(),
        "would run z.seed0 no checkpoint.safetensors and row.json yet, after x".split(),
        "2 runs, after 1 stages that make the data; nothing was executed".split(),
    ]
    assert reproduce.plan("Nothing to be done.") == "0 runs: everything is finished"


@pytest.mark.skipif(shutil.which("make") is None or not (ROOT / ".venv" / ".installed").exists(), reason="make setup")
def test_make_n_shows_what_reproduce_would_run_and_runs_nothing(tmp_path):
    clean = {key: value for key, value in os.environ.items() if key not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
    done = subprocess.run(
        ["make", "-n", "reproduce", "TABLE=3", "SCALE=toy", "SEEDS=2", "SYSTEMS=supervised_mtat random"],
        env=clean | {"PAWLIB_DATA": str(tmp_path)}, capture_output=True, text=True, cwd=ROOT,
    )  # fmt: skip
    planned = {line.split()[2] for line in done.stdout.splitlines() if line.startswith("would run")}
    stages = {name for name in planned if name.startswith(("twin_", "store_"))}
    assert stages == {"twin_toy", "store_mtat-twin-toy", "twin_gtzan_toy", "store_gtzan-twin-toy"}, done.stderr
    assert planned - stages == {
        "mtat-twin-toy.toy.fcn_4.none.supervised.seed2", "mtat-twin-toy.toy.short_chunk_cnn.none.supervised.seed2",
        "gtzan-twin-toy.toy.supervised_mtat.fcn_4.fine_tune.seed2",
        "gtzan-twin-toy.toy.supervised_mtat.fcn_7.fine_tune.seed2",
        "gtzan-twin-toy.toy.random.fcn_4.linear_probe.seed2", "gtzan-twin-toy.toy.random.fcn_7.linear_probe.seed2",
    }  # fmt: skip
    assert "6 runs, after 4 stages that make the data; nothing was executed" in done.stdout
    assert not list(tmp_path.glob("runs/*toy*")) and not (tmp_path / "twins").exists()


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
