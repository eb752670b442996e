"""Scores against hand-worked rankings and slow loops."""

import math

import numpy as np
import pytest
import torch

from pawlib.bench import metrics

TOLERANCE = 1e-12


def normal(seed, *shape, dtype=torch.float64):
    """Seeded normal numbers."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def slow_roc_auc(scores, truth):
    """Share of (positive, negative) pairs in the right order, ties counting half."""
    pairs = [
        (p, n) for p, t in zip(scores, truth, strict=True) if t for n, u in zip(scores, truth, strict=True) if not u
    ]
    return sum(1.0 if p > n else 0.5 if p == n else 0.0 for p, n in pairs) / len(pairs)


def test_hand_worked_ranking():
    # ranked: hit, miss, hit, miss -> precision at hits 1 and 2/3; pairs right 3 of 4
    found = metrics.tagging([[0.9], [0.8], [0.7], [0.1]], [[1], [0], [1], [0]], ["guitar"])
    assert found["roc_auc"] == pytest.approx(3 / 4, abs=TOLERANCE)
    assert found["pr_auc"] == pytest.approx((1 + 2 / 3) / 2, abs=TOLERANCE)
    assert found["per_tag"]["guitar"]["n_positive"] == 2
    assert found["n_labels_scored"] == 1


def test_perfect_ranking_scores_one_and_reversed_zero():
    targets = np.eye(4)[:, :3]
    assert metrics.tagging(targets, targets)["roc_auc"] == 1
    assert metrics.tagging(targets, targets)["pr_auc"] == 1
    assert metrics.tagging(-targets, targets)["roc_auc"] == 0


def test_constant_scores_are_chance():
    targets = np.array([[1], [0], [0], [0]])
    found = metrics.tagging(np.zeros((4, 1)), targets)
    assert found["roc_auc"] == 0.5
    assert found["pr_auc"] == 0.25


def test_macro_mean_equals_slow_loops_over_pairs():
    random = np.random.default_rng(0)
    scores, targets = random.integers(0, 6, (40, 5)) / 5, random.integers(0, 2, (40, 5))
    expected = np.mean([slow_roc_auc(scores[:, k], targets[:, k]) for k in range(5)])
    assert metrics.tagging(scores, targets)["roc_auc"] == pytest.approx(expected, abs=TOLERANCE)


def test_only_the_order_counts():
    random = np.random.default_rng(1)
    logits, targets = random.normal(size=(30, 3)), random.integers(0, 2, (30, 3))
    assert metrics.tagging(logits, targets)["roc_auc"] == metrics.tagging(1 / (1 + np.exp(-logits)), targets)["roc_auc"]


def test_label_without_positive_or_negative_is_left_out_and_named():
    targets = np.array([[1, 0, 1], [0, 0, 1], [1, 0, 1]])
    with pytest.warns(UserWarning, match="2 of 3 labels .* harp, piano"):
        found = metrics.tagging(np.array([[0.9, 0, 0], [0.1, 0, 0], [0.8, 0, 0]]), targets, ["cello", "harp", "piano"])
    assert found["roc_auc"] == 1
    assert found["n_labels_scored"] == 1
    assert found["not_scored"] == ["harp", "piano"]
    assert found["per_tag"]["harp"] == {"roc_auc": None, "pr_auc": None, "n_positive": 0}
    assert found["per_tag"]["piano"]["n_positive"] == 3


def test_nothing_to_score_is_an_error():
    with pytest.raises(ValueError, match="none of the 2 labels has both"):
        metrics.tagging(np.zeros((3, 2)), np.zeros((3, 2)))


def test_nan_scores_name_the_row():
    scores = np.zeros((4, 2))
    scores[2, 1] = np.nan
    with pytest.raises(ValueError, match="scores of row 2 hold NaN"):
        metrics.tagging(scores, np.eye(4)[:, :2])


@pytest.mark.parametrize(
    ("scores", "targets", "labels", "message"),
    [
        (np.zeros((3, 2)), np.zeros((3, 3)), None, "must both be"),
        (np.zeros((0, 2)), np.zeros((0, 2)), None, "n_tracks > 0"),
        (np.zeros((2, 1)), np.array([[1], [0.3]]), None, "targets of row 1 are not all 0 or 1"),
        (np.zeros((2, 1)), np.array([[1], [0]]), ["a", "b"], "2 labels"),
        (np.zeros((2, 2)), np.array([[1, 0], [0, 1]]), ["a", "a"], r"\(1 different\)"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(scores, targets, labels, message):
    with pytest.raises(ValueError, match=message):
        metrics.tagging(scores, targets, labels)


def test_groups_average_their_own_tags_only():
    one = {"n_positive": 1}
    per_tag = {
        "organ": {"roc_auc": 0.9, "pr_auc": 0.5, **one},
        "flute": {"roc_auc": 0.7, "pr_auc": 0.3, **one},
        "a_b": {"roc_auc": 0.5, "pr_auc": 0.1, **one},
        "none": {"roc_auc": None, "pr_auc": None, "n_positive": 0},
    }
    found = metrics.by_group(per_tag, {"timbre": ("organ", "flute"), "order": ("a_b", "none"), "part": ("none",)})
    assert found["timbre"] == {"roc_auc": pytest.approx(0.8), "pr_auc": pytest.approx(0.4), "n_labels_scored": 2}
    assert found["order"] == {"roc_auc": 0.5, "pr_auc": 0.1, "n_labels_scored": 1}
    assert found["part"] == {"roc_auc": None, "pr_auc": None, "n_labels_scored": 0}
    assert metrics.by_group(per_tag, {}) == {}
    with pytest.raises(ValueError, match="'timbre' names .*oboe"):
        metrics.by_group(per_tag, {"timbre": ("oboe",)})


def test_accuracy_takes_scores_or_answers():
    assert metrics.accuracy([[0.1, 0.9], [0.8, 0.2], [0.6, 0.4]], [1, 0, 1]) == pytest.approx(2 / 3)
    assert metrics.accuracy([1, 0, 0], [1, 0, 1]) == pytest.approx(2 / 3)
    with pytest.raises(ValueError, match="0 scored tracks"):
        metrics.accuracy([], [])
    with pytest.raises(ValueError, match="row 0 hold NaN"):
        metrics.accuracy([[np.nan, 1.0]], [1])


def test_alignment_equals_slow_loops():
    z, z_aug = normal(0, 6, 5), normal(1, 6, 5)
    expected = 0.0
    for a, b in zip(z, z_aug, strict=True):
        expected += sum((x / a.norm() - y / b.norm()) ** 2 for x, y in zip(a, b, strict=True)) / 6
    assert metrics.alignment(z, z_aug) == pytest.approx(float(expected), abs=TOLERANCE)
    assert metrics.alignment(z.numpy(), z_aug.numpy()) == pytest.approx(float(expected), abs=TOLERANCE)


def test_uniformity_equals_slow_loops():
    z = normal(2, 7, 4)
    unit = [row / row.norm() for row in z]
    potentials = [math.exp(-2 * float(((unit[i] - unit[j]) ** 2).sum())) for i in range(7) for j in range(i)]
    assert metrics.uniformity(z) == pytest.approx(math.log(sum(potentials) / len(potentials)), abs=1e-9)


def test_collapse_and_spread_are_told_apart():
    same = torch.ones(10, 8)
    assert metrics.alignment(same, 3 * same) == pytest.approx(0, abs=1e-6)
    assert metrics.uniformity(same) == pytest.approx(0, abs=1e-6)
    assert metrics.uniformity(torch.eye(8)) == pytest.approx(-4, abs=1e-5)  # all pairs at distance sqrt(2)
    assert metrics.alignment(torch.eye(3), -torch.eye(3)) == pytest.approx(4, abs=1e-5)


def test_half_precision_and_gradients_are_taken_as_they_come():
    z = normal(3, 5, 4, dtype=torch.float32).requires_grad_()
    assert isinstance(metrics.uniformity(z.bfloat16()), float)
    assert metrics.uniformity(z.bfloat16()) == pytest.approx(metrics.uniformity(z), abs=0.1)


def test_views_that_do_not_match_are_refused():
    with pytest.raises(ValueError, match="two views of the same songs"):
        metrics.alignment(torch.ones(3, 2), torch.ones(4, 2))
    with pytest.raises(ValueError, match="got 1 row"):
        metrics.uniformity(torch.ones(1, 2))
    with pytest.raises(ValueError, match="one row per song"):
        metrics.uniformity(torch.ones(2, 3, 4))
