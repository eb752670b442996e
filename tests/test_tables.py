"""The paper's tables beside our rows: which row stands where, what is marked, and what never mixes."""

import base64
import itertools
import statistics

import pytest

from pawlib.bench import results, tables


def made(seed=0, roc_auc=0.7, **changes):
    """A row of music_paw on the twin, changed as asked."""
    fields = {
        "system": "music_paw", "backbone": "fcn_4", "dataset": "mtat-twin", "split": "all", "protocol": "linear_probe",
        "scale": "small", "seed": seed, "metrics": {"roc_auc": roc_auc, "pr_auc": 0.3}, "n_tracks": 350,
    }  # fmt: skip
    return results.row(**(fields | changes))


@pytest.fixture(autouse=True)
def _git_is_asked_once(monkeypatch):
    """Rows are made by the dozen here; their commit does not matter."""
    monkeypatch.setattr(results, "commit", lambda: "0" * 40)


def line(table, method, backbone):
    """The record of one line."""
    (found,) = [one for one in table.records if one["method"] == method and one["backbone"] == backbone]
    return found


def genre(system="music_paw", backbone="fcn_4", accuracy=0.6, seed=0, **changes):
    """A row on GTZAN's twin."""
    found = {"accuracy": accuracy, "roc_auc": 0.9, "pr_auc": 0.7}
    fields = {"dataset": "gtzan-twin", "split": "fault_filtered", "protocol": "fine_tune", "metrics": found}
    return made(seed, system=system, backbone=backbone, **(fields | changes))


def few(labels, roc_auc, system="music_paw", backbone="fcn_4", **changes):
    """A row of few labels."""
    return made(roc_auc=roc_auc, system=system, backbone=backbone, protocol=f"few_labels_{labels}", **changes)


def test_table_without_rows_is_the_papers_with_dashes():
    table = tables.table1([])
    assert len(table.records) == 19
    assert line(table, "Music-PAW", "FCN-7")["roc_auc"] == {
        "paper": pytest.approx(0.895),
        "ours": None,
        "difference": None,
    }
    assert "89.5" in table.text()
    assert {line[3] for line in table.lines if line[1]} == {"-"}
    assert {number: len(one([]).records) for number, one in tables.NUMBERED.items()} == {
        1: 19, 2: 11, 3: 20, 4: 10, 5: 7, 6: 14,
    }  # fmt: skip


def test_mean_deviation_and_difference_over_seeds():
    rows = [made(seed, value, dataset="mtat", scale="paper") for seed, value in enumerate((0.88, 0.90, 0.92))]
    cell = line(tables.table1(rows), "Music-PAW", "FCN-4")["roc_auc"]
    assert cell["ours"]["mean"] == pytest.approx(0.90)
    assert cell["ours"]["sd"] == pytest.approx(0.02)
    assert cell["ours"]["k"] == 3
    assert cell["difference"] == pytest.approx(0.90 - 0.894)
    text = tables.table1(rows).text()
    assert "90.0 ± 2.0 (3)" in text and "+0.6" in text
    assert line(tables.table1(rows), "Music-PAW", "FCN-7")["roc_auc"]["ours"] is None


def test_a_twin_never_fills_the_column_of_the_real_dataset():
    record = line(tables.table1([made()]), "Music-PAW", "FCN-4")
    assert record["roc_auc"]["ours"] is None and record["roc_auc"]["difference"] is None
    assert record["roc_auc"]["mtat-twin at small"]["mean"] == 0.7
    assert "mtat-twin at small" in tables.table1([made()]).columns
    assert "compare only within that column" in tables.table1([made()]).text()


def test_real_audio_at_a_smaller_scale_has_its_own_column():
    record = line(tables.table1([made(dataset="mtat")]), "Music-PAW", "FCN-4")
    assert record["roc_auc"]["ours"] is None
    assert record["roc_auc"]["mtat at small"]["mean"] == 0.7


def test_rows_of_other_tests_do_not_enter_table_1():
    others = [made(dataset="gtzan"), made(split="tagged"), made(protocol="fine_tune"), made(tag="tau0_1")]
    assert tables.table1(others).text() == tables.table1([]).text()


def test_systems_the_paper_lacks_stand_below():
    rows = [made(system="random"), made(system="log_mel_statistics", backbone=None)]
    table = tables.table1(rows)
    assert [one["slug"] for one in table.records[19:]] == ["random", "log_mel_statistics"]
    assert table.records[-1]["roc_auc"]["paper"] is None


def test_supervised_and_probed_fcn_4_are_different_lines():
    rows = [made(system="fcn_4", backbone="fcn_4", protocol="supervised", dataset="mtat", scale="paper", roc_auc=0.8)]
    table = tables.table1(rows)
    assert line(table, "FCN-4", "-")["roc_auc"]["ours"]["mean"] == 0.8
    assert len(table.records) == 19


def test_two_rows_of_one_seed_in_one_cell_are_an_error():
    with pytest.raises(ValueError, match="same seed: .*linear_probe"):
        tables.table1([made(), made(id="another")])


def test_groups_stand_apart_and_show_their_interval():
    groups = {"timbre": {"roc_auc": 0.9, "roc_auc_interval": [0.85, 0.95]}, "order": {"roc_auc": 0.5}}
    table = tables.groups_table([made(groups=groups), made(system="random")])
    assert table.columns == ["System", "Backbone", "timbre", "order"]
    assert table.lines == [["music_paw", "fcn_4", "90.0 [85.0, 95.0] (1)", "50.0 (1)"], ["random", "fcn_4", "-", "-"]]
    with pytest.raises(ValueError, match="cannot share a table of groups"):
        tables.groups_table([made(), made(dataset="mtat")])
    assert tables.groups_table([]).lines == []


def test_text_is_aligned_and_markdown_is_a_table():
    table = tables.table1([made()])
    lines = table.text().splitlines()
    assert lines[0] == "Table 1: tagging on MTAT (percent)"
    start = lines[1].index("PR-AUC paper")
    assert lines[4][start:].startswith("28.8") and lines[4].startswith("CRNN")
    rows = [text for text in table.markdown().splitlines() if text.startswith("|")]
    assert len({text.count("|") for text in rows}) == 1
    assert rows[1].startswith("|---|")


def test_percent_has_one_decimal():
    assert tables.percent(0.8941) == "89.4"
    assert tables.percent(0.003, sign=True) == "+0.3"
    assert tables.percent(-0.0123, sign=True) == "-1.2"
    assert tables.percent(None) == "-"


# --- what is marked ---


def marks(table, key, place):
    """{method and backbone: mark} of the lines that have one."""
    found = {(one["method"], one["backbone"]): one["marks"].get(key, {}).get(place) for one in table.records}
    return {name: mark for name, mark in found.items() if mark}


def test_paper_is_marked_as_printed():
    assert marks(tables.table1([]), "pr_auc", "paper") == {("Music-PAW", "FCN-7"): "bold"}
    assert marks(tables.table2([]), "roc_auc_10", "paper") == {("Music-PAW", "FCN-7"): "bold"}
    assert marks(tables.table3([]), "accuracy", "paper") == {
        ("COLA", "FCN-7"): "underlined",
        ("Music-PAW", "FCN-7"): "bold",
    }
    assert "**71.7**" in tables.table3([]).text() and "_65.5_" in tables.table3([]).text()
    assert "| **71.7** |" in tables.table3([]).markdown() and "| <u>65.5</u> |" in tables.table3([]).markdown()


def test_table_1_marks_the_best_self_supervised_line_alone():
    supervised = made(roc_auc=0.9, system="crnn", backbone=None, protocol="supervised")
    rows = [supervised, made(roc_auc=0.61), made(roc_auc=0.62, backbone="fcn_7"), made(roc_auc=0.8, system="random")]
    table = tables.table1(rows)
    assert marks(table, "roc_auc", "mtat-twin at small") == {("Music-PAW", "FCN-7"): "bold"}
    assert "**62.0** (1)" in table.text() and "90.0 (1)" in table.text() and "**90.0**" not in table.text()


def test_single_number_is_not_the_best_of_anything():
    assert marks(tables.table1([made()]), "roc_auc", "mtat-twin at small") == {}


def test_what_prints_the_same_shares_the_mark_and_the_second_is_the_next_lower():
    values = {"crnn": 0.6004, "fcn_5": 0.5996, "musicnn": 0.55, "sample_cnn": 0.5504, "harmonic_cnn": 0.3}
    rows = [genre(system, None, value, protocol="supervised") for system, value in values.items()]
    assert marks(tables.table3(rows), "accuracy", "gtzan-twin at small") == {
        ("CRNN", "FCN-4 + GRU"): "bold",
        ("FCN-5", "-"): "bold",
        ("Musicnn", "-"): "underlined",
        ("SampleCNN", "-"): "underlined",
    }


def test_marks_compare_within_one_corpus():
    rows = [made(roc_auc=0.6), made(roc_auc=0.5, backbone="fcn_7")]
    rows += [made(roc_auc=0.9, backbone="fcn_7", scale="toy", dataset="mtat-twin-toy"), made(dataset="mtat")]
    table = tables.table1(rows)
    assert marks(table, "roc_auc", "mtat-twin at small") == {("Music-PAW", "FCN-4"): "bold"}
    assert marks(table, "roc_auc", "mtat-twin-toy at toy") == marks(table, "roc_auc", "mtat at small") == {}


@pytest.mark.parametrize(("control", "told"), [(0.59, False), (0.60, True), (0.7, True)])
def test_control_that_reaches_the_best_line_is_named(control, told):
    table = tables.table1([made(roc_auc=0.6), made(roc_auc=control, system="random")])
    said = [note for note in table.notes if note.startswith("ROC-AUC, mtat-twin at small: not below")]
    assert [f"(60.0): random fcn_4 {100 * control:.1f}." in note for note in said] == [True] * told


# --- tables 2 and 3 ---


def test_few_labels_stand_under_their_percentage():
    real = {"dataset": "mtat", "scale": "paper"}
    rows = [few(1, value, seed=seed, **real) for seed, value in enumerate((0.80, 0.82))] + [few(10, 0.9, **real)]
    table = tables.table2([*rows, made(**real)])
    record = line(table, "Music-PAW", "FCN-4")
    assert record["roc_auc_1"]["ours"]["mean"] == pytest.approx(0.81)
    assert record["roc_auc_1"]["ours"]["sd"] == pytest.approx(0.02**0.5 * 0.1)  # (0.01**2 + 0.01**2) / (2 - 1)
    assert (record["roc_auc_1"]["ours"]["k"], record["roc_auc_10"]["ours"]["k"]) == (2, 1)
    assert record["roc_auc_1"]["difference"] == pytest.approx(0.81 - 0.806)
    assert record["roc_auc_10"]["difference"] == pytest.approx(0.9 - 0.876)
    assert "81.0 ± 1.4 (2)" in table.text() and "+0.4" in table.text() and "+2.4" in table.text()


def test_supervised_start_and_controls_of_table_2():
    rows = [few(1, 0.6, "supervised"), few(1, 0.5, "supervised", "fcn_7"), few(10, 0.55, "random")]
    rows += [few(labels, 0.52, "log_mel_statistics", None) for labels in (1, 10)]
    table = tables.table2(rows)
    assert line(table, "Supervised", "FCN-4")["roc_auc_1"]["mtat-twin at small"]["mean"] == 0.6
    assert line(table, "Supervised", "FCN-7")["roc_auc_1"]["mtat-twin at small"]["mean"] == 0.5
    assert [one["slug"] for one in table.records[11:]] == ["random", "log_mel_statistics"]
    assert table.records[11]["roc_auc_1"]["mtat-twin at small"] is None
    assert [len(tables.table2(rows, metrics=("pr_auc",), labels=labels).columns) for labels in ((1,), (1, 10))] == [
        6,
        10,
    ]


def test_kinds_of_training_are_different_lines_of_table_3():
    rows = [
        genre("fcn_4", None, 0.5, protocol="supervised"), genre("supervised_mtat", "fcn_4", 0.55),
        genre("music_paw", "fcn_4", 0.6), genre("random", "fcn_4", 0.4, protocol="linear_probe"),
        genre("hc", "fcn_4", 0.5),
    ]  # fmt: skip
    table = tables.table3(rows)
    here = "gtzan-twin at small"
    assert line(table, "FCN-4", "-")["accuracy"][here]["mean"] == 0.5
    assert line(table, "Supervised-MTAT", "FCN-4")["accuracy"][here]["mean"] == 0.55
    assert line(table, "Music-PAW", "FCN-4")["accuracy"][here]["mean"] == 0.6
    assert [one["method"] for one in table.records[20:]] == ["random (frozen)", "hc"]
    assert [one["group"] for one in table.records[20:]] == [tables.OURS] * 2


@pytest.mark.parametrize(
    ("number", "row"),
    [(1, made), (2, lambda **kw: few(1, 0.7, **kw)), (3, lambda **kw: genre(**kw)), (4, lambda **kw: cover(**kw))],
)
def test_no_stand_in_and_no_small_run_fills_the_papers_column(number, row):
    real = {1: "mtat", 2: "mtat", 3: "gtzan", 4: "shs100k"}[number]
    for dataset, scale in itertools.product((f"{real}-twin", f"{real}-twin-toy", real), ("toy", "small", "paper")):
        table = tables.NUMBERED[number]([row(dataset=dataset, scale=scale)])
        cells = [record[key] for record in table.records for key in table.names]
        filled = any(cell["ours"] for cell in cells)
        differs = any(cell["difference"] is not None for cell in cells)
        assert filled == differs == ((dataset, scale) == (real, "paper"))


def test_a_row_has_its_tables_and_no_others():
    titles = {
        "linear_probe": [tables.table1], "supervised": [tables.table1], "few_labels_10": [tables.table2],
        "pretrain": [],
    }  # fmt: skip
    for protocol, wanted in titles.items():
        assert [one.title for one in tables.of([made(protocol=protocol)])] == [one([]).title for one in wanted]
    assert [one.title for one in tables.of([genre()])] == [tables.table3([]).title]
    assert tables.of([made(dataset="covers"), made(split="tagged")]) == []


def cover(system="music_paw", backbone="fcn_4_on_cqt_net", seed=0, **changes):
    """A row of a cover-song system on both tests."""
    found = {"map": 0.5, "p10": 0.3, "mr1": 15.0, "covers80_map": 0.7, "covers80_p10": 0.08, "covers80_mr1": 8.0}
    fields = {"dataset": "shs100k-twin", "split": "sub", "protocol": "cover", "metrics": found}
    return made(seed, system=system, backbone=backbone, **(fields | changes))


def test_one_cover_row_fills_the_columns_of_both_tests():
    rows = [cover(), cover("cqt_net", None, metrics={"map": 0.4, "covers80_map": 0.75}), cover("averaged_chroma", None)]
    table = tables.table4(rows)
    paw, cqt_net = table.records[9], table.records[3]
    assert [one["slug"] for one in (paw, cqt_net)] == ["music_paw", "cqt_net"]
    assert paw["shs100k_sub_map"]["paper"] == pytest.approx(0.522)
    assert paw["covers80_map"]["paper"] == pytest.approx(0.748)
    assert paw["shs100k_sub_map"]["shs100k-twin at small"]["mean"] == 0.5
    assert paw["covers80_map"]["covers80-twin at small"]["mean"] == 0.7
    assert paw["covers80_p10"]["covers80-twin at small"]["mean"] == 0.08
    assert cqt_net["covers80_map"]["covers80-twin at small"]["mean"] == 0.75
    assert cqt_net["covers80_p10"]["covers80-twin at small"] is None
    assert table.records[-1]["group"] == tables.OURS and table.records[-1]["slug"] == "averaged_chroma"
    assert [name for name in table.columns if "covers80" in name] == ["ours on covers80", "covers80-twin at small"] * 2
    assert "MAP, SHS100K, shs100k-twin at small: not below the best ranked line (50.0)" in table.text()


def test_a_mean_rank_is_no_percentage_and_less_is_better():
    rows = [cover(), cover("cqt_net", None, metrics={"mr1": 20.0}), cover("averaged_chroma", None)]
    table = tables.table4(rows, metrics=("mr1",), tests=("shs100k",))
    paw, here = table.records[9], "shs100k-twin at small"
    assert paw["shs100k_sub_mr1"]["paper"] == 14.53 and "14.53" in table.text() and "15.00 (1)" in table.text()
    assert paw["marks"]["shs100k_sub_mr1"][here] == "bold" and not table.records[3]["marks"]["shs100k_sub_mr1"][here]
    assert "not above the best ranked line (15.00): averaged_chroma none 15.00" in table.text()
    real = tables.table4([cover(dataset="shs100k", scale="paper")], metrics=("mr1",))
    assert real.records[9]["shs100k_sub_mr1"]["difference"] == pytest.approx(0.47) and "+0.47" in real.text()


def test_new_artists_have_a_table_of_their_own():
    scores = {"roc_auc": 0.7, "pr_auc": 0.3, "roc_auc_artist_filtered": 0.65, "pr_auc_artist_filtered": None}
    rows = [made(metrics=scores), made(system="random")]
    table = tables.artist_filtered(rows)
    assert [one["method"] for one in table.records] == ["Music-PAW"]
    assert table.lines[1:] == [["Music-PAW", "FCN-4", "-", "65.0 (1)", "-", "-"]]
    assert table.title == "Table 1: tagging on MTAT, test artists not heard in training (percent)"
    assert table.columns[2:4] == ["ROC-AUC, new artists ours on mtat", "mtat-twin at small"]
    assert tables.artist_filtered([*rows[1:], made(metrics=scores, split="tagged")]) is None


# --- the picture ---


def test_dots_show_our_numbers_one_panel_per_corpus():
    from matplotlib import pyplot

    from pawlib.show import dots, figures

    rows = [made(seed, value) for seed, value in enumerate((0.6, 0.7))] + [made(system="random", roc_auc=0.5)]
    rows += [made(dataset="mtat-twin-toy", scale="toy", metrics={"roc_auc": 0.55, "roc_auc_interval": [0.5, 0.6]})]
    fig = dots.of_table(tables.table1(rows), "roc_auc")
    assert {axis.get_title() for axis in fig.axes} == {"mtat-twin at small", "mtat-twin-toy at toy"}
    (panel,) = (axis for axis in fig.axes if axis.get_title() == "mtat-twin at small")
    drawn = sorted(float(one.get_xdata()[0]) for one in panel.lines if len(one.get_xdata()) == 1)
    assert drawn == pytest.approx([50, 65])
    spans = {tuple(line.get_ydata()): line.get_linewidth() for line in panel.lines if len(line.get_xdata()) == 2}
    assert spans[0, 0] > 2 * spans[1, 1], "a deviation over two seeds must not pass for a narrow interval over works"
    told = [text.get_text() for text in fig.legends[0].get_texts()]
    assert told[-2:] == ["deviation over seeds", "one seed, 95 % interval over works"]
    assert [label.get_text() for label in fig.axes[0].get_yticklabels()] == ["Music-PAW, FCN-4", "random, fcn_4"]
    assert len(base64.b64encode(figures.show(fig).data)) < 100_000
    assert not pyplot.get_fignums()
    assert dots.of_table(tables.table1([]), "roc_auc") is None


def test_line_through_a_dot_is_deviation_or_interval():
    from pawlib.show import dots

    assert dots.span({"mean": 0.5, "sd": 0.1, "interval": None}) == pytest.approx((0.4, 0.6))
    assert dots.span({"mean": 0.5, "sd": None, "interval": [0.45, 0.6]}) == [0.45, 0.6]
    assert dots.span({"mean": 0.5, "sd": None, "interval": None}) == (0.5, 0.5)


def test_dots_of_groups_tell_a_deviation_over_seeds_from_an_interval_over_works():
    from pawlib.show import dots, figures

    def grouped(seed, roc_auc, system="music_paw", **more):
        groups = {"timbre": {"roc_auc": roc_auc, "roc_auc_interval": [roc_auc - 0.1, roc_auc + 0.1]} | more, "part": {}}
        return made(seed, roc_auc, system=system) | {"groups": groups}

    table = tables.groups_table([grouped(0, 0.6), grouped(1, 0.8), grouped(0, 0.5, system="random")])
    fig = dots.of_groups(table, "made up")
    timbre, part = fig.axes
    assert [label.get_text() for label in timbre.get_yticklabels()] == ["music_paw", "random"]
    lines = {tuple(line.get_ydata()): line for line in timbre.lines if len(line.get_ydata()) == 2}
    deviation = statistics.stdev([60, 80])
    assert list(lines[0, 0].get_xdata()) == pytest.approx([70 - deviation, 70 + deviation])
    assert list(lines[1, 1].get_xdata()) == pytest.approx([40, 60])
    assert lines[0, 0].get_linewidth() > 2 * lines[1, 1].get_linewidth()
    assert len(part.lines) == 1, "a group without a score has its line of chance alone"
    figures.show(fig)
