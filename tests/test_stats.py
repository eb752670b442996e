"""Rank scores under counts against scikit-learn; intervals, corrections and exact tests against hand-worked cases."""

import itertools

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import average_precision_score, roc_auc_score

from pawlib.bench import stats

TOLERANCE = 1e-12


@pytest.fixture
def case():
    """Two systems on 60 tracks of 20 works, 4 labels, scores with ties."""
    random = np.random.default_rng(0)
    targets = (random.random((60, 4)) < 0.3).astype(int)
    a = np.round(random.normal(size=(60, 4)) + 2 * targets, 1)
    b = np.round(random.normal(size=(60, 4)) + targets, 1)
    return a, b, targets, [f"work {k // 3}" for k in range(60)]


@pytest.mark.parametrize(("column", "reference"), [(0, roc_auc_score), (1, average_precision_score)])
def test_rank_scores_under_counts_equal_scikit_learn_with_weights(case, column, reference):
    a, _, targets, _ = case
    weights = np.random.default_rng(1).integers(0, 4, (25, 60))
    for label in range(4):
        found = stats._rank_scores(a[:, label], targets[:, label], weights)[column]
        expected = [reference(targets[:, label], a[:, label], sample_weight=w) for w in weights]
        np.testing.assert_allclose(found, expected, atol=TOLERANCE)


def test_counts_mean_the_same_as_repeating_tracks(case):
    a, _, targets, _ = case
    weights = stats._counts(None, 60, 5, seed=3)
    for w in weights:
        drawn = np.repeat(np.arange(60), w)
        expected = np.mean([roc_auc_score(targets[drawn, k], a[drawn, k]) for k in range(4)])
        assert stats._resampled("roc_auc", a, targets, w[None])[0] == pytest.approx(expected, abs=TOLERANCE)


def test_label_without_positive_in_a_resample_is_left_out_of_it():
    scores = np.array([[0.9, 0.1], [0.2, 0.3], [0.1, 0.9]])
    targets = np.array([[1, 0], [0, 0], [0, 1]])
    weights = np.array([[2, 1, 0]])  # the only positive of label 1 is not drawn
    assert stats._resampled("roc_auc", scores, targets, weights)[0] == 1
    assert np.isnan(stats._resampled("roc_auc", scores, targets, np.array([[0, 3, 0]]))[0])


def test_whole_works_are_drawn_together(case):
    *_, units = case
    weights = stats._counts(units, 60, 50, seed=0)
    by_work = weights.reshape(50, 20, 3)
    assert (by_work == by_work[:, :, :1]).all()
    assert (by_work[:, :, 0].sum(axis=1) == 20).all()
    assert by_work.max() > 1


def test_estimate_is_the_score_on_all_tracks(case):
    a, b, targets, units = case
    for metric, reference in (("roc_auc", roc_auc_score), ("pr_auc", average_precision_score)):
        found = stats.paired_bootstrap(metric, a, b, targets, units, n_boot=50)
        assert found["mean_a"] == pytest.approx(reference(targets, a, average="macro"), abs=TOLERANCE)
        assert found["mean_b"] == pytest.approx(reference(targets, b, average="macro"), abs=TOLERANCE)
        assert found["estimate"] == pytest.approx(found["mean_a"] - found["mean_b"], abs=TOLERANCE)
        assert found["low"] < found["estimate"] < found["high"]
        assert found["n_units"] == 20


@pytest.mark.parametrize("paired", [False, True])
def test_intervals_of_all_groups_at_once_equal_one_at_a_time(case, paired):
    a, b, targets, units = case
    found = stats.tagging_intervals(
        a, targets, "wxyz", {"late": ("y", "z")}, against=b if paired else None, units=units, n_boot=40
    )
    for group, columns in {"all": [0, 1, 2, 3], "late": [2, 3]}.items():
        for metric in ("roc_auc", "pr_auc"):
            if paired:
                one = stats.paired_bootstrap(
                    metric, a[:, columns], b[:, columns], targets[:, columns], units, n_boot=40
                )
            else:
                one = stats.bootstrap(metric, a[:, columns], targets[:, columns], units, n_boot=40)
            assert found[group][metric] == pytest.approx({key: one[key] for key in ("estimate", "low", "high")})


def test_group_that_cannot_be_scored_is_left_out_and_unknown_labels_are_named(case):
    a, _, targets, _ = case
    targets[:, 3] = 0
    found = stats.tagging_intervals(a, targets, "wxyz", {"late": ("z",), "early": ("w",)}, n_boot=10)
    assert list(found) == ["all", "early"]
    with pytest.raises(ValueError, match="unknown labels: .*'late': \\['harp'\\]"):
        stats.tagging_intervals(a, targets, "wxyz", {"late": ("harp",)}, n_boot=10)


def test_same_seed_same_interval_another_seed_another(case):
    a, b, targets, units = case
    first, again, other = (stats.paired_bootstrap("roc_auc", a, b, targets, units, 40, seed) for seed in (0, 0, 1))
    assert first == again
    assert first["low"] != other["low"]


def test_a_system_does_not_differ_from_itself(case):
    a, _, targets, units = case
    found = stats.paired_bootstrap("pr_auc", a, a, targets, units, n_boot=30)
    assert (found["estimate"], found["low"], found["high"], found["p_value"]) == (0, 0, 0, 1)


def test_clear_difference_has_the_smallest_p_value(case):
    _, _, targets, _ = case
    noise = np.random.default_rng(5).normal(size=targets.shape)
    found = stats.paired_bootstrap("roc_auc", targets.astype(float), noise, targets, n_boot=99)
    assert found["p_value"] == pytest.approx(2 / 100)
    assert found["low"] > 0


def test_interval_covers_the_truth_about_as_often_as_it_says():
    random = np.random.default_rng(2)
    hits = 0
    for trial in range(100):
        right = random.random(80) < 0.7
        found = stats.bootstrap("accuracy", right.astype(int), np.ones(80, int), n_boot=200, seed=trial)
        hits += found["low"] <= 0.7 <= found["high"]
    assert 86 <= hits <= 100


# --- PR-AUC: copies of a track lift it ---


def made_up(random, n_works=60, n_labels=30):
    """A test set of one to three tracks a work, and the scores of a weak system, alike within a work."""
    work = np.repeat(np.arange(n_works), random.integers(1, 4, n_works))
    share = np.linspace(0.1, 0.25, n_labels)
    of_work = (random.random((n_works, n_labels)) < share)[work]
    own = random.random((len(work), n_labels)) < share
    targets = np.where(random.random(own.shape) < 0.7, of_work, own).astype(int)
    noise = 0.6 * random.normal(size=(n_works, n_labels))[work] + 0.8 * random.normal(size=own.shape)
    return 0.3 * targets + noise, targets, work


@pytest.fixture(scope="module")
def simulated():
    """Mean scores of test sets of one kind, and for 150 of them: score, resamples, and the interval that is given."""
    random = np.random.default_rng(0)
    many = [made_up(random)[:2] for _ in range(300)]
    mean = {metric: np.mean([stats.once(metric, *one) for one in many]) for metric in ("roc_auc", "pr_auc")}
    found = {"roc_auc": [], "pr_auc": []}
    for trial in range(150):
        scores, targets, work = made_up(random)
        made = stats.tagging_intervals(scores, targets, range(30), units=work, n_boot=120, seed=trial)["all"]
        for metric, rows in found.items():
            drawn = stats._resampled(metric, scores, targets, stats._counts(work, len(work), 120, trial))
            rows.append((made[metric]["estimate"], drawn, (made[metric]["low"], made[metric]["high"])))
    return mean, found


def missed(mean, intervals):
    """Shares of intervals that lie above the mean, and below it."""
    low, high = np.array(intervals).T
    return float((low > mean).mean()), float((high < mean).mean())


def plain(drawn):
    return np.quantile(drawn, [0.025, 0.975])


def bias_corrected(drawn, estimate):
    """Efron and Tibshirani 1993, ch. 14, without acceleration."""
    z0 = norm.ppf(np.clip((drawn < estimate).mean(), 0.5 / len(drawn), 1 - 0.5 / len(drawn)))
    return np.quantile(drawn, norm.cdf(2 * z0 + norm.ppf([0.025, 0.975])))


def test_centred_intervals_of_pr_auc_cover_the_mean_score_and_miss_it_on_both_sides_alike(simulated):
    mean, found = simulated
    above, below = missed(mean["pr_auc"], [interval for *_, interval in found["pr_auc"]])
    assert above + below <= 0.1 and above <= 0.06 and below <= 0.06


def test_plain_and_bias_corrected_intervals_of_pr_auc_miss_it_on_one_side(simulated):
    mean, found = simulated
    above, below = missed(mean["pr_auc"], [plain(drawn) for _, drawn, _ in found["pr_auc"]])
    assert above >= 0.15 and below <= 0.01
    above, below = missed(mean["pr_auc"], [bias_corrected(drawn, score) for score, drawn, _ in found["pr_auc"]])
    assert below >= 0.2 and below > 2 * above


def test_pr_auc_lies_in_the_middle_of_its_interval_though_at_the_edge_of_its_resamples(simulated):
    _, found = simulated
    for score, drawn, (low, high) in found["pr_auc"]:
        assert drawn.mean() - score > 0.5 * drawn.std()
        assert 0.3 < (score - low) / (high - low) < 0.7
        assert high - low == pytest.approx(np.diff(plain(drawn))[0])
    assert np.mean([(drawn.mean() - score) / drawn.std() for score, drawn, _ in found["pr_auc"]]) > 1


def test_intervals_of_roc_auc_are_plain_and_need_no_centring(simulated):
    mean, found = simulated
    for _, drawn, interval in found["roc_auc"]:
        assert interval == pytest.approx(plain(drawn), abs=TOLERANCE)
    assert abs(np.mean([(drawn.mean() - score) / drawn.std() for score, drawn, _ in found["roc_auc"]])) < 0.05
    above, below = missed(mean["roc_auc"], [interval for *_, interval in found["roc_auc"]])
    assert above <= 0.06 and below <= 0.06
    assert stats.INTERVALS == {"roc_auc": "percentile", "pr_auc": "percentile, centred", "accuracy": "percentile"}


def test_a_difference_and_a_mean_over_seeds_are_centred_too():
    scores, targets, work = made_up(np.random.default_rng(1))
    better = scores + 2 * targets
    weights = stats._counts(work, len(work), 200, 0)
    drawn = [stats._resampled("pr_auc", one, targets, weights) for one in (better, scores)]
    difference = drawn[0] - drawn[1]
    found = stats.paired_bootstrap("pr_auc", better, scores, targets, work, n_boot=200)
    centred = difference - difference.mean() + found["estimate"]
    assert (found["low"], found["high"]) == pytest.approx(tuple(plain(centred)))
    assert difference.mean() < found["estimate"]  # copies lift the weaker system more
    seeds = stats.hierarchical_bootstrap("pr_auc", [scores, scores], targets, units=work, n_boot=200)
    single = stats.bootstrap("pr_auc", scores, targets, work, n_boot=200)
    assert (seeds["low"], seeds["high"]) == pytest.approx((single["low"], single["high"]))


def test_a_centred_interval_stays_a_share():
    random = np.random.default_rng(0)
    targets = (random.random((30, 2)) < 0.5).astype(int)
    perfect = stats.bootstrap("pr_auc", targets.astype(float), targets, n_boot=50)
    assert (perfect["low"], perfect["estimate"], perfect["high"]) == (1, 1, 1)
    nearly = stats.bootstrap("pr_auc", targets + 0.45 * random.normal(size=targets.shape), targets, n_boot=400)
    assert nearly["low"] < nearly["estimate"] < nearly["high"] <= 1


def test_accuracy_and_any_function_can_be_resampled():
    classes = np.array([0, 1, 2, 1, 0, 2, 1])
    scores = np.eye(3)[[0, 1, 1, 1, 2, 2, 0]]
    built_in = stats.bootstrap("accuracy", scores, classes, n_boot=30)
    function = stats.bootstrap(lambda s, t: (s.argmax(1) == t).mean(), scores, classes, n_boot=30)
    assert built_in == function
    assert built_in["estimate"] == pytest.approx(4 / 7)


def test_one_seed_gives_the_plain_bootstrap(case):
    a, b, targets, units = case
    plain = stats.paired_bootstrap("roc_auc", a, b, targets, units, n_boot=60)
    seeds = stats.hierarchical_bootstrap("roc_auc", [a], targets, [b], units, n_boot=60)
    assert {key: seeds[key] for key in plain} == plain


def test_spread_over_seeds_widens_the_interval(case):
    a, b, targets, units = case
    alike = stats.hierarchical_bootstrap("roc_auc", [a, a, a], targets, units=units, n_boot=300)
    unlike = stats.hierarchical_bootstrap("roc_auc", [a, b, -a], targets, units=units, n_boot=300)
    single = stats.bootstrap("roc_auc", a, targets, units, n_boot=300)
    assert alike["low"] == pytest.approx(single["low"], abs=TOLERANCE)
    assert unlike["high"] - unlike["low"] > 2 * (alike["high"] - alike["low"])
    mean = np.mean([roc_auc_score(targets, s, average="macro") for s in (a, b, -a)])
    assert unlike["estimate"] == pytest.approx(mean, abs=TOLERANCE)


def test_holm_by_hand():
    # sorted .01 * 4, .02 * 3, .03 * 2 (but never below the one before), .04
    assert stats.holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert stats.holm({"a": 0.5, "b": 0.9}) == {"a": 1.0, "b": 1.0}
    assert stats.holm([]) == []
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\]"):
        stats.holm([0.2, 1.2])


def test_sign_flip_counts_all_patterns():
    differences = [0.3, 0.1, -0.2, 0.4]
    means = [abs(np.mean(np.multiply(signs, differences))) for signs in itertools.product((1, -1), repeat=4)]
    expected = np.mean([m >= abs(np.mean(differences)) - TOLERANCE for m in means])
    assert stats.sign_flip(differences) == pytest.approx(expected)


def test_five_seeds_never_give_less_than_one_sixteenth():
    assert stats.sign_flip([1, 2, 3, 4, 5]) == pytest.approx(2 / 32)
    assert stats.sign_flip([-1, -2, -3, -4, -5]) == pytest.approx(2 / 32)
    assert stats.sign_flip([0, 0, 0]) == 1


@pytest.mark.parametrize("differences", [[0.1], [0.1, np.nan], [0.1] * 21])
def test_sign_flip_refuses_what_it_cannot_enumerate(differences):
    with pytest.raises(ValueError, match="need 2 to 20 finite differences"):
        stats.sign_flip(differences)


def test_errors_name_what_is_wrong(case):
    a, b, targets, _ = case
    with pytest.raises(ValueError, match="'auc' is unknown"):
        stats.bootstrap("auc", a, targets)
    with pytest.raises(ValueError, match="scored on the same tracks"):
        stats.paired_bootstrap("roc_auc", a, b[:-1], targets)
    with pytest.raises(ValueError, match="3 units for 60 tracks"):
        stats.bootstrap("roc_auc", a, targets, units=[1, 2, 3])
    with pytest.raises(ValueError, match="1 unit"):
        stats.bootstrap("roc_auc", a, targets, units=["same"] * 60)
    with pytest.raises(ValueError, match="without any seed"):
        stats.hierarchical_bootstrap("roc_auc", [], targets)
    a[7, 0] = np.nan
    with pytest.raises(ValueError, match="row 7 hold NaN"):
        stats.bootstrap("roc_auc", a, targets)
