"""Rows: made, written, read, published."""

import importlib
import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from pawlib import paths
from pawlib.bench import metrics, protocols, results, stats, tables
from pawlib.bench.twins import covers


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A data folder of our own, with the paper's tables in it."""
    real = paths.paper()
    monkeypatch.setenv("PAWLIB_DATA", str(tmp_path))
    (tmp_path / "paper").mkdir()
    for table in real.glob("*.csv"):
        (tmp_path / "paper" / table.name).write_bytes(table.read_bytes())
    return tmp_path


def made(seed=0, roc_auc=0.7, **changes):
    """A row of music_paw on the twin, changed as asked."""
    fields = {
        "system": "music_paw", "backbone": "fcn_4", "dataset": "mtat-twin", "split": "all", "protocol": "linear_probe",
        "scale": "small", "seed": seed, "metrics": {"roc_auc": roc_auc, "pr_auc": 0.3}, "n_tracks": 350,
    }  # fmt: skip
    return results.row(**(fields | changes))


def test_row_says_what_was_run_and_with_what(data):
    row = made()
    assert tuple(row) == results.FIELDS
    assert row["id"] == "mtat-twin.small.music_paw.fcn_4.linear_probe.seed0"
    assert set(row["versions"]) == {"python", "torch", "torchaudio", "pawlib", "numpy", "scikit-learn"}
    assert "not installed" not in row["versions"].values()
    assert row["date"].endswith("+00:00")


def test_ids_tell_seeds_tags_and_missing_backbones_apart():
    assert made(seed=3, tag="tau0_1")["id"] == "mtat-twin.small.music_paw.fcn_4.linear_probe.tau0_1.seed3"
    assert made(system="log_mel_statistics", backbone=None)["id"] == (
        "mtat-twin.small.log_mel_statistics.none.linear_probe.seed0"
    )
    with pytest.raises(ValueError, match="'Music PAW' cannot be part of a run id"):
        made(system="Music PAW")


def test_commit_is_the_checkouts_head():
    root = paths.Path(paths.__file__).resolve().parents[1]
    head = subprocess.run(["git", "rev-parse", "--verify", "HEAD"], cwd=root, capture_output=True, text=True)
    expected = head.stdout.strip() if head.returncode == 0 else "unknown"
    assert results.commit().removesuffix("+dirty") == expected


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metrics": {"roc_auc": 89.4}}, "is it in percent"),
        ({"metrics": {"roc_auc": float("nan")}}, "expected a finite number"),
        ({"metrics": {}}, "no metrics"),
        ({"metrics": {"roc_auc_interval": 0.3}}, r"expected \[low, high\]"),
        ({"scale": "medium"}, "scale 'medium'"),
        ({"n_tracks": 0}, "whole number above 0"),
        ({"seed": "0"}, "seed '0'"),
        ({"metrics": {"roc_auc_artist_filtered": 61.0}}, "is it in percent"),
        ({"metrics": {"covers80_map_drop": 52.2}}, "is it in percent"),
        ({"groups": {"order": {"roc_auc": 1.2}}}, "groups 'order' has roc_auc 1.2"),
        ({"per_tag": {"harp": 0.5}}, "per_tag 'harp'"),
        ({"settings": {"device": object()}}, "cannot be written as JSON"),
        ({"id": "../escape"}, "no file name"),
    ],
)
def test_what_cannot_be_a_row_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        made(**changes)


def test_what_is_written_is_read_back(data):
    row = made(
        metrics={"roc_auc": 0.7, "roc_auc_interval": [0.6, 0.8], "pr_auc": None}, per_tag={"harp": {"roc_auc": 0.5}}
    )
    path = results.write(row)
    assert path == data / "runs" / row["id"] / "row.json"
    assert results.read("mine") == [row]
    assert results.read("committed") == []


def test_rows_name_the_version_of_their_twin_and_those_of_another_are_left_out(data):
    card = data / "twins" / "mtat" / "twin.json"
    card.parent.mkdir(parents=True)
    card.write_text('{"version": 2}')
    now = made()
    assert now["versions"]["mtat-twin"] == 2 and "mtat" not in made(dataset="mtat")["versions"]
    results.write(now)
    old = now | {"id": now["id"].replace("seed0", "seed1"), "seed": 1}
    old["versions"] = {name: version for name, version in old["versions"].items() if name != "mtat-twin"}
    results.write(old)
    with pytest.warns(UserWarning, match="seed1 was made on version 1 of the twin, here is version 2: delete"):
        assert [one["id"] for one in results.read("mine")] == [now["id"]]


def test_filters_take_a_value_or_several(data):
    for seed in range(3):
        results.write(made(seed=seed))
    results.write(made(system="random"))
    assert len(results.read("mine")) == 4
    assert [row["seed"] for row in results.read("mine", system="music_paw", seed=(0, 2))] == [0, 2]
    assert results.read("mine", dataset="mtat") == []
    with pytest.raises(ValueError, match=r"no field \['sytem'\]"):
        results.read("mine", sytem="music_paw")
    with pytest.raises(ValueError, match="rows='published' is unknown"):
        results.read("published")


def test_broken_row_files_are_named_and_left_out(data):
    good = made()
    results.write(good)
    for name, text in {"cut": '{"id": "cu', "old": '{"id": "old"}', "list": "[]"}.items():
        (data / "runs" / name).mkdir()
        (data / "runs" / name / "row.json").write_text(text)
    with pytest.warns(UserWarning) as told:
        assert results.read("mine") == [good]
    messages = " ".join(str(warning.message) for warning in told)
    assert len(told) == 3
    assert all(f"{name}/row.json" in messages for name in ("cut", "old", "list"))


def test_renamed_published_row_is_left_out(data):
    (data / "results").mkdir()
    (data / "results" / "best.json").write_text(json.dumps(made()))
    with pytest.warns(UserWarning, match="was it renamed"):
        assert results.read() == []


@pytest.mark.filterwarnings("ignore:.*in no commit")
def test_publishing_adds_and_never_replaces(data):
    row = made()
    results.write(row)
    (path,) = results.publish([row["id"]])
    assert path == data / "results" / f"{row['id']}.json"
    assert results.read() == [row]
    results.publish(row["id"])
    results.write(made(roc_auc=0.71))
    with pytest.raises(ValueError, match="published rows are never replaced"):
        results.publish([row["id"]])
    assert results.read() == [row]


@pytest.mark.filterwarnings("ignore:.*in no commit")
def test_publishing_is_all_or_nothing(data):
    results.write(made())
    with pytest.raises(FileNotFoundError, match="'nothing': has it finished"):
        results.publish([made()["id"], "nothing"])
    assert results.read() == []


def test_publishing_uncommitted_code_warns(data, monkeypatch):
    monkeypatch.setattr(results, "commit", lambda: "abc+dirty")
    results.write(made())
    with pytest.warns(UserWarning, match="in no commit"):
        results.publish([made()["id"]])


@pytest.mark.filterwarnings("ignore:.*in no commit")
def test_my_row_replaces_the_published_one_when_both_are_read(data):
    results.write(made())
    results.publish([made()["id"]])
    results.write(made(roc_auc=0.9))
    assert [row["metrics"]["roc_auc"] for row in results.read("all")] == [0.9]


def test_from_features_to_the_table(data):
    generator = torch.Generator().manual_seed(0)
    splits = []
    for n_tracks in (80, 30, 40):
        targets = (torch.rand(n_tracks, 4, generator=generator) < 0.4).float()
        tracks = torch.arange(n_tracks).repeat_interleave(3)
        x = targets[tracks] + torch.randn(len(tracks), 4, generator=generator)
        splits.append(protocols.ClipFeatures(x, tracks, targets))
    labels, groups = ["organ", "flute", "a_b", "b_a"], {"timbre": ("organ", "flute"), "order": ("a_b", "b_a")}
    probe = protocols.linear_probe(*splits, n_labels=4, seed=0, weight_decays=(1e-3,), max_epochs=20)
    found = metrics.tagging(probe.scores, probe.targets, labels)
    works = [f"work {k // 2}" for k in range(probe.n_tracks)]
    intervals = stats.tagging_intervals(probe.scores, probe.targets, labels, groups, units=works, n_boot=100)
    by_group = metrics.by_group(found["per_tag"], groups)
    row = made(
        metrics=results.with_intervals(found, intervals["all"]),
        groups={group: results.with_intervals(by_group[group], intervals.get(group, {})) for group in groups},
        per_tag=found["per_tag"],
        n_tracks=probe.n_tracks,
        settings=probe.settings,
    )
    results.write(row)
    (read,) = results.read("mine")
    assert read == row
    low, high = read["groups"]["order"]["roc_auc_interval"]
    assert low < np.mean([read["per_tag"][label]["roc_auc"] for label in groups["order"]]) < high
    assert tables.percent(row["metrics"]["roc_auc"]) in tables.table1([read]).text()
    assert tables.percent(low) in tables.groups_table([read]).markdown()


def test_papers_numbers_are_found_where_the_data_folder_lies_elsewhere(tmp_path, monkeypatch):
    here = results.paper(3)
    monkeypatch.setenv("PAWLIB_DATA", str(tmp_path))
    assert results.paper(3) == here
    with pytest.raises(FileNotFoundError, match="table7.csv is missing"):
        results.paper(7)


def test_published_rows_heard_the_twins_of_today():
    folder = Path(__file__).parents[1] / "data" / "results"
    published = [json.loads(path.read_text()) for path in folder.glob("*-twin.*.json")]
    assert published
    for one in published:
        maker = importlib.import_module(f"pawlib.bench.twins.{one['dataset'].removesuffix('-twin')}")
        today = getattr(maker, "VERSION", covers.VERSION)  # both sets of covers are of one generator
        assert one["versions"].get(one["dataset"], 1) == today, one["id"]
