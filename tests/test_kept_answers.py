"""Answers are kept with all that a comparison needs; effects are differences by hand, with chance counted."""

import numpy as np
import pytest

from pawlib import paths
from pawlib.bench import effects, kept_answers, metrics
from pawlib.bench.datasets import Splits, Track


@pytest.fixture
def desk(tmp_path, monkeypatch):
    monkeypatch.setenv("PAWLIB_DATA", str(tmp_path))
    return tmp_path


def splits(n=60, n_labels=4):
    random = np.random.default_rng(0)
    tracks = [Track(f"t{i}", None, (random.random(n_labels) < 0.4).astype(np.float32), f"w{i // 2}") for i in range(n)]
    labels = tuple("abcd"[:n_labels])
    return Splits(tracks, [], tracks, labels, "made-up", groups={"first": labels[:2], "second": labels[2:]})


def run(name, noise, seed, made=None):
    """Keep the answers of a made-up run, the noisier the worse, and give its row."""
    made = made or splits()
    random = np.random.default_rng(seed)
    truth = np.array([track.target for track in made.test])
    scores = truth + noise * random.standard_normal(truth.shape)
    id = f"{name}.seed{seed}"
    kept_answers.write(paths.runs() / id, made.test, made, scores)
    score = metrics.tagging(scores, truth)["roc_auc"]
    return {
        "id": id,
        "system": name,
        "seed": seed,
        "metrics": {"roc_auc": score},
        "groups": {"first": {"roc_auc": 0.5}},
    }


def test_answers_come_back_with_truth_works_and_groups(desk):
    made = splits()
    row = run("good", 0.5, 0, made)
    found = kept_answers.read(row["id"])
    assert found.ids.tolist() == [t.id for t in made.test] and found.works[3] == "w1"
    assert found.groups.tolist() == ["first", "first", "second", "second"]
    assert np.array_equal(found.targets, np.array([t.target for t in made.test]))
    scores, targets = found.of("second")
    assert scores.shape == targets.shape == (60, 2) and np.array_equal(scores, found.scores[:, 2:])
    with pytest.raises(ValueError, match="group 'third' has no label, expected one of first, second"):
        found.of("third")
    assert kept_answers.read("nobody.seed0") is None


def test_published_answers_are_read_where_the_run_is_gone(desk):
    row = run("good", 0.5, 0)
    before = kept_answers.read(row["id"])
    assert [path.name for path in kept_answers.publish([row["id"], "nobody.seed0"])] == [f"{row['id']}.npz"]
    (paths.runs() / row["id"] / kept_answers.NAME).unlink()
    assert np.array_equal(kept_answers.read(row["id"]).scores, before.scores)
    run("good", 5.0, 0)
    assert kept_answers.publish([row["id"]]) == []  # what is published stays as it is


def test_damaged_answers_are_named(desk):
    path = kept_answers.published("x.seed0")
    path.parent.mkdir(parents=True)
    path.write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(ValueError, match=r"x.seed0.npz holds no answers .* cut off while copying"):
        kept_answers.read("x.seed0")


def test_scores_that_do_not_fit_are_refused(desk):
    with pytest.raises(ValueError, match=r"scores \(3, 4\) for 60 tracks and 4 labels"):
        kept_answers.write(desk, splits().test, splits(), np.zeros((3, 4)))


def test_points_are_one_number_per_system_and_seed():
    rows = [
        {"id": f"{name}{seed}", "system": name, "seed": seed, "metrics": {"roc_auc": value}, "groups": {}}
        for name, seed, value in (("a", 0, 0.7), ("a", 1, 0.8), ("b", 0, 0.6))
    ]
    assert effects.points(rows) == {"a": {0: 0.7, 1: 0.8}, "b": {0: 0.6}}
    assert effects.points(rows, group="part") == {}
    with pytest.raises(ValueError, match="two rows of b with seed 0, the second is b0: filter by"):
        effects.points([*rows, rows[-1]])
    assert effects.summary({0: 0.7, 1: 0.8}) == pytest.approx({"mean": 0.75, "sd": 0.1 / 2**0.5, "k": 2})
    assert effects.summary({0: 0.7})["sd"] is None


def test_the_deviation_between_seeds_is_pooled_over_systems():
    # about their means: -.1, .1 and -.3, 0, .3: sum of squares .2, three degrees of freedom; a difference has twice
    found = {"a": {0: 0.5, 1: 0.7}, "b": {0: 0.1, 1: 0.4, 2: 0.7}, "c": {0: 0.9}}
    assert effects.between_seeds(found) == pytest.approx((2 * 0.2 / 3) ** 0.5)
    assert effects.between_seeds({"c": {0: 0.9}}) is None and effects.between_seeds({}) is None


def test_comparisons_are_paired_by_seed_and_corrected_together():
    found = {
        "a": {0: 0.70, 1: 0.72, 2: 0.74}, "b": {0: 0.60, 1: 0.63, 2: 0.66}, "c": {1: 0.73, 2: 0.72}, "d": {7: 0.1},
    }  # fmt: skip
    made = effects.compare(found, "a", ["b", "c", "d"])
    assert made["b"]["differences"] == pytest.approx([0.10, 0.09, 0.08]) and made["b"]["seeds"] == [0, 1, 2]
    assert made["b"]["p"] == effects.least_p(3) == 0.25  # three seeds of one sign: 2 of 8 patterns
    assert made["c"]["differences"] == pytest.approx([-0.01, 0.02]) and made["c"]["p"] == 1.0
    assert made["b"]["p_holm"] == 0.75 and "d" not in made  # three were asked for, one of them could not be made
    assert (
        effects.compare(found, "a", ["d"]) == {}
        and effects.compare({"a": {0: 1}, "b": {0: 2}}, "a", ["b"])["b"]["p"] is None
    )


def test_intervals_cover_the_difference_and_know_the_better_one(desk):
    rows = [run(name, noise, seed) for name, noise in (("good", 0.6), ("bad", 1.5)) for seed in range(3)]
    found = effects.points(rows)
    alone = effects.interval(rows, "good", n_boot=300)
    assert alone["estimate"] == pytest.approx(effects.summary(found["good"])["mean"], abs=1e-6)
    apart = effects.interval(rows, "good", "bad", n_boot=300)
    assert apart["estimate"] == pytest.approx(effects.compare(found, "good", ["bad"])["bad"]["mean"], abs=1e-6)
    assert 0 < apart["low"] < apart["estimate"] < apart["high"]
    pair = effects.difference(rows[0]["id"], rows[3]["id"], n_boot=300)
    assert pair["estimate"] == pytest.approx(found["good"][0] - found["bad"][0], abs=1e-6)


def test_without_answers_or_on_other_tracks_there_is_no_interval(desk):
    rows = [run("good", 0.6, 0), {"id": "gone.seed0", "system": "gone", "seed": 0, "metrics": {"roc_auc": 0.5}}]
    assert effects.interval(rows, "good", "gone") is None and effects.interval(rows, "gone") is None
    assert effects.difference("good.seed0", "gone.seed0") is None
    rows.append(run("fewer", 0.6, 0, splits(n=40)))
    with pytest.raises(ValueError, match="scored on other tracks or labels .60 and 40 tracks"):
        effects.interval(rows, "good", "fewer")
    changed = splits()
    changed.test[7].target[0] = 1 - changed.test[7].target[0]
    rows.append(run("turned", 0.6, 0, changed))
    with pytest.raises(ValueError, match="or against another truth"):
        effects.interval(rows, "good", "turned")


def test_answers_of_a_run_that_was_repeated_are_not_those_of_its_row(desk):
    row = run("good", 0.6, 0)
    kept_answers.publish([row["id"]])
    run("good", 2.0, 0)
    with pytest.raises(ValueError, match="the answers of good.seed0 give a ROC-AUC of .* its row says .* repeated"):
        effects.interval([row], "good")
    assert effects.interval([row], "good", source="committed", n_boot=50)["estimate"] > 0.5
