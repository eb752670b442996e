"""The paper's numbers as committed: row counts and values checked by eye against the printed tables."""

import csv

import pytest

from pawlib import paths
from pawlib.bench import results

ROWS = {1: 19, 2: 11, 3: 20, 4: 10, 5: 35, 6: 14}


def one(table, **wanted):
    """The single line with these values."""
    found = [line for line in results.paper(table) if all(line[key] == value for key, value in wanted.items())]
    assert len(found) == 1, wanted
    return found[0]


@pytest.mark.parametrize(("table", "n_rows"), ROWS.items())
def test_every_printed_row_is_there_once(table, n_rows):
    lines = results.paper(table)
    assert len(lines) == n_rows
    keys = [(line["slug"], line.get("backbone_slug"), line.get("folder"), line["method"]) for line in lines]
    assert len(set(keys)) == n_rows
    assert all(line["group"] and line["method"] and line["slug"] for line in lines)


@pytest.mark.parametrize("table", ROWS)
def test_files_are_tidy(table):
    with open(paths.paper() / f"table{table}.csv", newline="", encoding="utf-8") as file:
        lines = list(csv.reader(file))
    assert len({len(line) for line in lines}) == 1
    marks = [k for k, name in enumerate(lines[0]) if name.endswith("_mark")]
    assert marks
    assert {line[k] for line in lines[1:] for k in marks} <= {"", "bold", "underlined"}
    numbers = [k for k, name in enumerate(lines[0]) if name.endswith("_percent")]
    assert all(0 < float(line[k]) < 100 for line in lines[1:] for k in numbers)


def test_table_1():
    ours = one(1, slug="music_paw", backbone_slug="fcn_4")
    assert (ours["roc_auc"], ours["pr_auc"]) == (pytest.approx(0.894), pytest.approx(0.364))
    assert (ours["param_m"], ours["gflops"]) == (0.37, 8.93)
    assert one(1, slug="crnn")["gflops"] == 242.34
    assert one(1, slug="harmonic_cnn")["roc_auc"] == pytest.approx(0.909)
    assert one(1, slug="multi_format", backbone_slug="fcn_7")["pr_auc"] == pytest.approx(0.313)
    assert one(1, slug="clmr")["citation"] == "[63]"  # a slip of the paper, kept


def test_table_2():
    ours = one(2, slug="music_paw", backbone_slug="fcn_7")
    assert [ours[key] for key in ("roc_auc_1", "roc_auc_10", "pr_auc_1", "pr_auc_10")] == pytest.approx(
        [0.812, 0.880, 0.270, 0.341]
    )
    assert one(2, slug="supervised", backbone_slug="fcn_7")["pr_auc_1"] == pytest.approx(0.143)
    assert one(2, slug="cola", backbone_slug="fcn_7")["roc_auc_1"] == pytest.approx(0.805)


def test_table_3():
    ours = one(3, slug="music_paw", backbone_slug="fcn_7")
    assert [ours[key] for key in ("accuracy", "roc_auc", "pr_auc")] == pytest.approx([0.717, 0.947, 0.772])
    assert ours["accuracy_mark"] == "bold"
    assert one(3, slug="cola", backbone_slug="fcn_7")["accuracy_mark"] == "underlined"
    assert one(3, slug="fcn_5")["accuracy"] == pytest.approx(0.648)


def test_table_4():
    ours = one(4, slug="music_paw")
    assert ours["shs100k_sub_map"] == pytest.approx(0.522)
    assert ours["covers80_mr1"] == 7.53  # a rank, never scaled
    assert one(4, slug="ki_net")["shs100k_sub_mr1"] == 68.33
    best = one(4, covers80_mr1_mark="bold")
    assert (best["slug"], best["covers80_mr1"]) == ("byol_a", 6.67)


def test_table_5_keeps_the_printed_slip():
    marked = one(5, slug="byol_a", folder="folder1")
    assert (marked["accuracy_mark"], marked["accuracy"]) == ("underlined", pytest.approx(0.834))
    assert one(5, slug="cola", folder="folder1")["accuracy"] == pytest.approx(0.841)
    assert one(5, slug="dnn", folder="folder1")["accuracy"] == pytest.approx(0.800)


def test_table_5_averages_agree_with_its_folders():
    for slug in {line["slug"] for line in results.paper(5)}:
        folders = [
            line["accuracy"] for line in results.paper(5) if line["slug"] == slug and line["folder"] != "average"
        ]
        assert len(folders) == 4
        assert sum(folders) / 4 == pytest.approx(one(5, slug=slug, folder="average")["accuracy"], abs=0.0006)


def test_table_6():
    assert one(6, slug="rn2")["accuracy"] == pytest.approx(0.871)
    ours = one(6, slug="music_paw")
    assert (ours["accuracy"], ours["accuracy_mark"]) == (pytest.approx(0.868), "underlined")


def test_best_of_a_bold_column_is_bold():
    for table, columns in {
        2: ("roc_auc_1", "roc_auc_10", "pr_auc_1", "pr_auc_10"),
        3: ("accuracy", "roc_auc", "pr_auc"),
    }.items():
        for column in columns:
            best = max(line[column] for line in results.paper(table))
            assert {line[f"{column}_mark"] == "bold" for line in results.paper(table) if line[column] == best} == {True}


def test_unknown_table_is_named():
    with pytest.raises(FileNotFoundError, match="table7.csv is missing"):
        results.paper(7)
