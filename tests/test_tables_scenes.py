"""Tables 5 and 6: folds and their average, the evaluation set; what of a twin never mixes with the paper's column."""

import pytest

from pawlib.bench import results, runlist, tables

FOLDS = ("fold1", "fold2", "fold3", "fold4")


@pytest.fixture(autouse=True)
def _git_is_asked_once(monkeypatch):
    """Rows are made by the dozen here; their commit does not matter."""
    monkeypatch.setattr(results, "commit", lambda: "0" * 40)


def made(split="fold1", accuracy=0.5, system="music_paw", backbone="fcn_4", family="fine_tune", seed=0, **changes):
    fields = {
        "system": system, "backbone": backbone, "dataset": "dcase2016-twin", "split": split, "scale": "small",
        "protocol": f"{family}_{split}", "seed": seed, "n_tracks": 60,
        "metrics": {"accuracy": accuracy, "class_mean": accuracy - 0.1},
    }  # fmt: skip
    return results.row(**(fields | changes))


def folds(values=(0.5, 0.6, 0.7, 0.8), **changes):
    return [made(fold, value, **changes) for fold, value in zip(FOLDS, values, strict=True)]


def line(table, slug, backbone="FCN-4"):
    (found,) = [one for one in table.records if one["slug"] == slug and one["backbone"] == backbone]
    return found


def test_the_papers_numbers_stand_by_method_and_fold():
    table = tables.table5([])
    assert [one["method"] for one in table.records][:2] == ["DNN", "R. FCN"] and len(table.records) == 7
    paw = line(table, "music_paw")
    assert [paw[key]["paper"] for key in (*FOLDS, "average")] == pytest.approx([0.848, 0.797, 0.785, 0.798, 0.807])
    assert paw["marks"]["fold1"]["paper"] == "bold" and paw["marks"]["average"]["paper"] == "bold"
    assert line(table, "byol_a")["marks"]["fold1"]["paper"] == "underlined"
    assert paw["class_mean"] == {"paper": None, "ours": None, "difference": None}
    assert len(tables.table6([]).records) == 14
    assert line(tables.table6([]), "music_paw")["evaluation"]["paper"] == pytest.approx(0.868)


def test_groups_of_the_paper_come_together():
    groups = [one["group"] for one in tables.table6([]).records]
    assert groups == sorted(groups, key=("Supervised", "FCN-4", "Self-supervised").index)


def test_the_average_is_the_plain_mean_of_four_folds():
    rows = folds()
    cell = line(tables.table5(rows), "music_paw")
    at = "dcase2016-twin at small"
    assert cell["average"][at]["mean"] == pytest.approx(0.65) and cell["average"][at]["k"] == 1
    assert cell["class_mean"][at]["mean"] == pytest.approx(0.55)
    assert sorted(cell["average"][at]["ids"]) == sorted(row["id"] for row in rows)
    assert cell["fold3"][at]["mean"] == pytest.approx(0.7)


def test_there_is_no_average_of_three_folds_or_of_two_seeds():
    rows = [*folds()[:3], made("fold4", 0.9, seed=1)]
    record = line(tables.table5(rows), "music_paw")
    assert record["average"]["dcase2016-twin at small"] is None
    assert record["fold4"]["dcase2016-twin at small"]["mean"] == pytest.approx(0.9)
    both = [*folds(seed=0), *folds((0.6, 0.7, 0.8, 0.9), seed=1)]
    cell = line(tables.table5(both), "music_paw")["average"]["dcase2016-twin at small"]
    assert cell["mean"] == pytest.approx(0.7) and cell["k"] == 2 and cell["sd"] == pytest.approx(0.1 / 2**0.5)


def test_a_twin_is_called_synthetic_and_fills_no_column_of_the_paper():
    for table in (tables.table5(folds()), tables.table6([made("evaluation")])):
        assert "are synthetic" in table.text()
        assert all(one[key]["ours"] is None for one in table.records for key in table.names)
    real = tables.table5(folds(dataset="dcase2016", scale="paper"))
    assert line(real, "music_paw")["average"]["difference"] == pytest.approx(0.65 - 0.807)
    assert "synthetic" not in real.text()


def test_evaluation_and_folds_do_not_enter_each_others_table():
    assert tables.table6(folds()).text() == tables.table6([]).text()
    assert tables.table5([made("evaluation")]).text() == tables.table5([]).text()
    assert [one.title for one in tables.of(folds())] == [tables.table5([]).title]


def test_trained_and_frozen_random_encoders_are_different_lines():
    rows = [*folds(system="random"), *folds((0.2, 0.2, 0.2, 0.2), system="random", family="linear_probe")]
    rows += folds((0.3, 0.3, 0.3, 0.3), system="mfcc_mixture", backbone=None, family="supervised")
    table = tables.table5(rows, parts=("average",))
    said = {
        one["method"]: one["average"]["dcase2016-twin at small"]["mean"]
        for one in table.records
        if one["average"].get("dcase2016-twin at small")
    }
    assert said == pytest.approx({"R. FCN": 0.65, "random (frozen)": 0.2, "mfcc_mixture": 0.3})


def test_columns_can_be_chosen():
    table = tables.table5(folds(), parts=("average",), metrics=("class_mean",))
    assert list(table.names) == ["average", "class_mean"]
    assert list(tables.table5([], parts=FOLDS).names) == list(FOLDS)


# --- run lists --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [5, 6])
def test_every_line_of_the_paper_has_its_runs(number):
    runs = runlist.read(runlist.list_of("table", number), seed=0)
    parts = FOLDS if number == 5 else ("evaluation",)
    ids = {run.id for run in runs}
    lines = {(one["slug"], one["backbone_slug"]) for one in results.paper(number)}
    for slug, backbone in lines:
        for part in parts:
            protocol = f"fine_tune_{part}" if backbone else f"supervised_{part}"
            assert results.make_id(slug, backbone, "dcase2016-twin", protocol, "small", 0) in ids
    made = {run.output for run in runs}
    assert all(set(run.needs) <= made | {path for run in runs for path in run.also} for run in runs)
    scenes = [run for run in runs if run.corpus.dataset == "dcase2016"]
    assert len(scenes) == len({run.id for run in scenes}) == len(parts) * (len(lines) + 4)


def test_a_frozen_encoder_says_so_in_its_protocol_and_waits_for_nothing():
    runs = runlist.read(runlist.list_of("table", 6), seed=0)
    (frozen,) = [run for run in runs if run.parameters.get("freeze") == "yes"]
    assert frozen.id == "dcase2016-twin.small.random.fcn_4.linear_probe_evaluation.seed0" and frozen.needs == ()
    (tuned,) = [run for run in runs if run.system == "music_paw" and run.notebook.stem == "51_scene_transfer"]
    assert [path.parent.name for path in tuned.needs] == ["mtat-twin.small.music_paw.fcn_4.pretrain.seed0"]
