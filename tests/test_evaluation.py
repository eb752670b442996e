"""From scores to what a row says: hand-worked cases."""

import numpy as np
import pytest

from pawlib.bench import evaluation, metrics
from pawlib.bench.datasets import Splits, Track

RANDOM = np.random.default_rng(0)


def track(i, target, artist=""):
    return Track(f"t{i}", None, np.array(target, dtype=np.float32), f"w{i // 2}", artist)


def tags(artists=("",) * 8):
    targets = [(1, 0), (0, 1), (1, 1), (0, 0), (1, 0), (0, 1), (1, 0), (0, 1)]
    test = [track(i, t, a) for i, (t, a) in enumerate(zip(targets, artists, strict=True))]
    train = [track(100, (1, 1), "ann")]
    return Splits(train, [], test, ("x", "y"), "made-up", groups={"one": ("x",), "two": ("y",)})


def test_numbers_are_those_of_the_metrics_and_lie_in_their_intervals():
    splits = tags()
    scores = RANDOM.random((8, 2))
    found = evaluation.of_tracks(scores, splits.test, splits, n_boot=50)
    truth = np.stack([t.target for t in splits.test])
    expected = metrics.tagging(scores, truth, ("x", "y"))
    assert found["metrics"]["roc_auc"] == pytest.approx(expected["roc_auc"])
    assert found["groups"]["one"]["pr_auc"] == pytest.approx(expected["per_tag"]["x"]["pr_auc"])
    assert found["n_tracks"] == 8 and set(found["per_tag"]) == {"x", "y"}
    low, high = found["metrics"]["roc_auc_interval"]
    assert low <= found["metrics"]["roc_auc"] <= high


def test_the_artist_filter_leaves_out_who_was_heard_in_training():
    splits = tags(("ann", "bob", "bob", "cid", "ann", "cid", "", "ann"))
    truth = np.stack([t.target for t in splits.test])
    scores = truth.copy()
    scores[[0, 4, 6, 7]] = 1 - scores[[0, 4, 6, 7]]  # wrong for ann and for nobody's track alone
    found = evaluation.of_tracks(scores, splits.test, splits, n_boot=20)["metrics"]
    assert found["n_artist_filtered"] == 4
    assert found["roc_auc_artist_filtered"] == found["pr_auc_artist_filtered"] == 1.0
    assert found["roc_auc"] < 1


def test_without_an_unheard_artist_the_filtered_score_is_missing_not_invented():
    splits = tags(("ann",) * 8)
    found = evaluation.of_tracks(RANDOM.random((8, 2)), splits.test, splits, n_boot=20)["metrics"]
    assert found["n_artist_filtered"] == 0 and found["roc_auc_artist_filtered"] is None


def classes():
    test = [track(i, np.eye(3)[i % 3]) for i in range(9)]
    return Splits([track(50, (1, 0, 0))], [], test, ("a", "b", "c"), "made-up", single_label=True)


def test_classes_get_accuracy_and_one_against_the_rest():
    splits = classes()
    scores = np.eye(3)[[0, 1, 2, 0, 1, 1, 0, 0, 2]] * 0.8 + 0.1
    found = evaluation.of_tracks(scores, splits.test, splits, n_boot=50)["metrics"]
    assert found["accuracy"] == pytest.approx(7 / 9)
    # One against the rest, 3 positives x 6 negatives, ties half:
    a = (3 * 5 + 3 * 0.5) / 18  # positives .9 .9 .9, negatives .1 x 5 and .9
    b = (2 * (5 + 0.5) + 1 * (5 * 0.5 + 0)) / 18  # positives .9 .9 .1, negatives .1 x 5 and .9
    c = (2 * 6 + 1 * 6 * 0.5) / 18  # positives .9 .9 .1, negatives .1 x 6
    assert found["roc_auc"] == pytest.approx((a + b + c) / 3)
    assert "roc_auc_artist_filtered" not in found


def test_confusion_counts_rows_as_truth():
    splits = classes()
    scores = np.eye(3)[[0, 1, 2, 0, 1, 1, 0, 0, 2]]
    counts = evaluation.confusion(scores, splits.test, 3)
    assert counts.tolist() == [[3, 0, 0], [1, 2, 0], [0, 1, 2]]


def test_rows_without_a_track_are_refused():
    splits = tags()
    with pytest.raises(ValueError, match="7 rows of scores for 8 tracks"):
        evaluation.of_tracks(np.zeros((7, 2)), splits.test, splits)
