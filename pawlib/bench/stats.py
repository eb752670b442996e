"""How sure a number is: bootstrap intervals over test tracks and seeds, exact sign flips, Holm's correction.

Conventions
    scores  : array [shape=(n_tracks, n_labels)]; targets likewise, 0 or 1.
    metric  : "roc_auc" or "pr_auc" (macro over labels), "accuracy" (targets (n_tracks,)), or any function
              (scores, targets) -> float, which is then called once per resample and so is slow.
    units   : what is drawn again. Tracks cut from one work are not independent, so whole works are drawn where `units`
              says which work each track belongs to; else tracks.
    Intervals are percentile intervals, 95 % unless said; those of PR-AUC are centred (see below, and INTERVALS). In a
    resample a label without a positive or a negative is left out of that resample's mean, for both systems alike.

Why PR-AUC is centred. A positive track that was drawn twice stands above itself: its copy is one more hit at its own
rank, and precision rises though no answer is better. Over a third of a resample are such copies, so nearly every
resample of a weak system says more than the test set itself, and the score would lie at the edge of its own interval.
The gap between the mean of the resamples and the score is the bootstrap's estimate of bias (Efron and Tibshirani 1993,
An Introduction to the Bootstrap, ch. 10); here it is taken off every resample, and percentiles (ch. 13) are of what
remains. What is asked is what another test set of this size would say: there a track counts itself once, as in ours,
so the score itself needs no correction. Bias-corrected percentiles (BC, BCa; ch. 14) correct the score, too, towards
that of an endless test set. Of a hundred simulated test sets of 30 labels and a weak system, the plain interval lies
above the mean score of their kind in 24; the bias-corrected one misses it in 45, mostly from below; the centred one in
5, on both sides (tests/test_stats.py has the simulation). Copies lift neither accuracy nor, to speak of, ROC-AUC: these
stay as they are, and so does any other function.

A resample is a vector of counts, how often each track was drawn. Both rank scores can be computed from counts in one
pass over the sorted tracks, so a thousand resamples of 45 tags take about a second (equal to scikit-learn's scores
with these counts as weights, see tests/test_stats.py).
"""

import numpy as np
from scipy.stats import permutation_test

METRICS = ("roc_auc", "pr_auc", "accuracy")
INTERVALS = {"roc_auc": "percentile", "pr_auc": "percentile, centred", "accuracy": "percentile"}  # for a row's settings
MAX_SIGN_FLIPS = 20


def bootstrap(metric, scores, targets, units=None, n_boot=1000, seed=0, level=0.95):
    """The score of one system with its interval: what another test set of the same kind might have said.

    Parameters
    ----------
    metric : str or callable
        See the module's head.
    scores, targets : array-like
    units : sequence [shape=(n_tracks,)], optional
        The work of each track; whole works are drawn.
    n_boot : int > 0
    seed : int
    level : float in (0, 1)
        Coverage of the interval.

    Returns
    -------
    dict
        `estimate`, `low`, `high` : float; `n_units`, `n_boot` : int.

    Raises
    ------
    ValueError
        If shapes or lengths differ, a score is NaN, fewer than two units are given, or the metric is unknown.

    Told in: notebooks/30_linear_probe_mtat.ipynb
    """
    scores, targets = _checked(metric, scores, targets)
    weights = _counts(units, len(scores), n_boot, seed)
    estimate = once(metric, scores, targets)
    low, high = _interval(_centred(metric, _resampled(metric, scores, targets, weights), estimate), level)
    return {"estimate": estimate, "low": low, "high": high, **_sizes(units, scores, n_boot)}


def paired_bootstrap(metric, scores_a, scores_b, targets, units=None, n_boot=1000, seed=0, level=0.95):
    """The difference a - b of two systems on the same tracks, with its interval.

    Both systems are scored on the same drawn tracks, so what is easy or hard for both drops out.

    Parameters
    ----------
    metric, targets, units, n_boot, seed, level
        As in `bootstrap`.
    scores_a, scores_b : array-like
        Rows in the same order of tracks.

    Returns
    -------
    dict
        `estimate` : float, a - b on all tracks; `low`, `high` : its interval; `mean_a`, `mean_b` : both scores;
        `p_value` : two-sided share of resamples (as the interval has them) on the other side of zero, never below
        2 / (n_boot + 1);
        `n_units`, `n_boot` : int.

    Raises
    ------
    ValueError
        As `bootstrap`; and if the two systems were scored on different numbers of tracks.

    Told in: notebooks/30_linear_probe_mtat.ipynb
    """
    scores_a, targets = _checked(metric, scores_a, targets)
    scores_b, _ = _checked(metric, scores_b, targets)
    weights = _counts(units, len(targets), n_boot, seed)
    drawn = _resampled(metric, scores_a, targets, weights) - _resampled(metric, scores_b, targets, weights)
    mean_a, mean_b = once(metric, scores_a, targets), once(metric, scores_b, targets)
    drawn = _centred(metric, drawn, mean_a - mean_b, least=-1)
    low, high = _interval(drawn, level)
    return {
        "estimate": mean_a - mean_b,
        "low": low,
        "high": high,
        "mean_a": mean_a,
        "mean_b": mean_b,
        "p_value": _p_value(drawn),
        **_sizes(units, scores_a, n_boot),
    }


def tagging_intervals(scores, targets, labels, groups=None, against=None, units=None, n_boot=1000, seed=0, level=0.95):
    """Both tagging scores of all tags and of each tag group with their intervals, in one pass over the resamples.

    The numbers are those of `bootstrap`, or of `paired_bootstrap` where a second system is given, for the columns of
    each group; the resamples are the same for all groups.

    Parameters
    ----------
    scores, targets : array-like [shape=(n_tracks, n_labels)]
    labels : sequence of str
        Names of the columns.
    groups : dict {group: sequence of labels}, optional
    against : array-like [shape=(n_tracks, n_labels)], optional
        Scores of a second system: the intervals are then of the difference, this one minus that one.
    units, n_boot, seed, level
        As in `bootstrap`.

    Returns
    -------
    dict {"all" or group: {"roc_auc" or "pr_auc": {"estimate", "low", "high"}}}
        A group without any label that can be scored is left out.

    Raises
    ------
    ValueError
        As `bootstrap`; and if a group names an unknown label or is called "all".

    Told in: notebooks/30_linear_probe_mtat.ipynb
    """
    systems = [_checked("roc_auc", one, targets) for one in ([scores] if against is None else [scores, against])]
    columns = _columns(labels, groups or {}, len(systems[0][0][0]))
    counts = _counts(units, len(targets), n_boot, seed)
    weights = np.concatenate([np.ones((1, len(counts[0])), dtype=counts.dtype), counts])  # the first: all tracks once
    least, ranked = (0 if against is None else -1), 0
    for sign, (one, truth) in zip((1, -1), systems, strict=False):
        ranked += sign * np.array([_rank_scores(one[:, k], truth[:, k], weights) for k in range(one.shape[1])])
    found = {}  # ranked: (n_labels, 2, 1 + n_boot)
    for group, chosen in columns.items():
        macro = {metric: _macro(ranked[chosen, k]) for k, metric in enumerate(("roc_auc", "pr_auc"))}
        if np.isnan(macro["roc_auc"][0]):
            continue
        found[group] = {}
        for metric, drawn in macro.items():
            low, high = _interval(_centred(metric, drawn[1:], drawn[0], least), level)
            found[group][metric] = {"estimate": float(drawn[0]), "low": low, "high": high}
    return found


def hierarchical_bootstrap(metric, scores_a, targets, scores_b=None, units=None, n_boot=1000, seed=0, level=0.95):
    """Interval of a mean over seeds, or of the difference of two such means: seeds are drawn, and works are drawn.

    Parameters
    ----------
    metric, targets, units, n_boot, seed, level
        As in `bootstrap`.
    scores_a, scores_b : sequence of arrays, one per seed
        `scores_b` optional. Seeds of a and b are drawn apart (seed 3 of one system says nothing about seed 3 of
        another), the works are the same for all.

    Returns
    -------
    dict
        As `bootstrap` (one system) or `paired_bootstrap` (two), with `n_seeds_a` and `n_seeds_b`.

    Raises
    ------
    ValueError
        As `bootstrap`; and if a system has no seed. With one seed its spread is not known: the interval then covers the
        test tracks alone.

    Told in: notebooks/61_table1.ipynb
    """
    weights = _counts(units, len(targets), n_boot, seed)
    random = np.random.default_rng((seed, 1))
    mean_a, drawn = _over_seeds(metric, scores_a, targets, weights, random)
    sizes = {"n_seeds_a": len(scores_a), **_sizes(units, targets, n_boot)}
    if scores_b is None:
        low, high = _interval(_centred(metric, drawn, mean_a), level)
        return {"estimate": mean_a, "low": low, "high": high, **sizes}
    mean_b, drawn_b = _over_seeds(metric, scores_b, targets, weights, random)
    drawn = _centred(metric, drawn - drawn_b, mean_a - mean_b, least=-1)
    low, high = _interval(drawn, level)
    return {
        "estimate": mean_a - mean_b,
        "low": low,
        "high": high,
        "mean_a": mean_a,
        "mean_b": mean_b,
        "p_value": _p_value(drawn),
        "n_seeds_b": len(scores_b),
        **sizes,
    }


def holm(p_values):
    """Holm's step-down correction: p-values that stay honest when several comparisons are made at once.

    Parameters
    ----------
    p_values : dict {name: p} or sequence of p

    Returns
    -------
    dict or list, as given
        Adjusted p-values, in the given order, at most 1.

    Raises
    ------
    ValueError
        If a p-value is not in [0, 1].
    """
    if isinstance(p_values, dict):
        return dict(zip(p_values, holm(list(p_values.values())), strict=True))
    p = np.asarray(p_values, dtype=np.float64)
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"p-values must lie in [0, 1], got {p_values}")
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return adjusted.tolist()


def sign_flip(differences):
    """Exact test of a mean difference over seeds: how many of all sign patterns give a mean at least as far from zero?

    Parameters
    ----------
    differences : sequence of float, 2 to 20 of them
        One per pair of runs, e.g. music_paw - baseline with the same seed and data order.

    Returns
    -------
    float
        Two-sided p-value. Five seeds can never give less than 2 / 32 = 0.0625.

    Raises
    ------
    ValueError
        If there are fewer than 2 or more than 20 differences, or one is not finite.
    """
    differences = np.asarray(differences, dtype=np.float64)
    if not 2 <= len(differences) <= MAX_SIGN_FLIPS or not np.isfinite(differences).all():
        raise ValueError(f"need 2 to {MAX_SIGN_FLIPS} finite differences, got {differences.tolist()}")
    if not differences.any():
        return 1.0
    result = permutation_test(
        (differences,), lambda x, axis: np.abs(np.mean(x, axis=axis)), permutation_type="samples",
        n_resamples=np.inf, alternative="greater", vectorized=True, batch=4096,
    )  # fmt: skip
    return float(result.pvalue)


def _over_seeds(metric, scores, targets, weights, random):
    """Mean score over seeds, and the same mean with drawn seeds under each drawn set of tracks (n_boot,)."""
    if len(scores) == 0:
        raise ValueError("a system without any seed has no mean")
    per_seed, estimates = [], []
    for one in scores:
        one, checked = _checked(metric, one, targets)
        per_seed.append(_resampled(metric, one, checked, weights))
        estimates.append(once(metric, one, checked))
    drawn = random.integers(len(scores), size=(len(weights), len(scores)))  # which seeds each resample takes
    return float(np.mean(estimates)), np.stack(per_seed, axis=1)[np.arange(len(weights))[:, None], drawn].mean(axis=1)


def _checked(metric, scores, targets):
    """Arrays of matching length, finite; the metric is known."""
    if not callable(metric) and metric not in METRICS:
        raise ValueError(f"metric={metric!r} is unknown, expected one of {METRICS} or a function")
    scores, targets = np.asarray(scores, dtype=np.float64), np.asarray(targets)
    if len(scores) != len(targets):
        raise ValueError(
            f"{len(scores)} scored tracks for {len(targets)} targets: were all systems scored on the same tracks?"
        )
    if metric in ("roc_auc", "pr_auc") and (scores.ndim != 2 or scores.shape != targets.shape):
        raise ValueError(f"scores {scores.shape} and targets {targets.shape} must both be (n_tracks, n_labels)")
    if np.isnan(scores).any():
        row = int(np.isnan(scores).reshape(len(scores), -1).any(axis=1).argmax())
        raise ValueError(f"scores of row {row} hold NaN")
    return scores, targets


def _columns(labels, groups, n_labels):
    """Which columns each group holds; "all" holds every one."""
    labels = list(labels)
    unknown = {group: [label for label in chosen if label not in labels] for group, chosen in groups.items()}
    unknown = {group: names for group, names in unknown.items() if names}
    if len(labels) != n_labels or unknown or "all" in groups:
        raise ValueError(
            f"{len(labels)} labels for {n_labels} columns, groups with unknown labels: {unknown or 'none'}: "
            "are groups and labels of one dataset (and no group called 'all')?"
        )
    return {"all": list(range(n_labels)), **{group: [labels.index(one) for one in groups[group]] for group in groups}}


def _counts(units, n_tracks, n_boot, seed):
    """How often each track was drawn: (n_boot, n_tracks), whole units at a time."""
    index = np.arange(n_tracks)
    if units is not None:
        if len(units) != n_tracks:
            raise ValueError(f"{len(units)} units for {n_tracks} tracks")
        index = np.unique(np.asarray(units), return_inverse=True)[1].reshape(-1)
    n_units = int(index.max()) + 1 if n_tracks else 0
    if n_units < 2 or n_boot < 1:
        raise ValueError(f"cannot resample {n_units} unit(s) {n_boot} times: need at least two units and one resample")
    drawn = np.random.default_rng(seed).multinomial(n_units, np.full(n_units, 1 / n_units), size=n_boot)
    return drawn[:, index]


def _resampled(metric, scores, targets, weights):
    """The metric under each vector of counts: (n_boot,)."""
    if callable(metric):
        return np.array([metric(np.repeat(scores, w, axis=0), np.repeat(targets, w, axis=0)) for w in weights])
    if metric == "accuracy":
        right = (scores.argmax(axis=1) if scores.ndim == 2 else scores) == targets
        return weights @ right / weights.sum(axis=1)
    ranked = [_rank_scores(scores[:, k], targets[:, k], weights)[metric == "pr_auc"] for k in range(scores.shape[1])]
    return _macro(np.stack(ranked))


def _macro(per_label):
    """Mean over the labels that are defined in a resample: (n_labels, n_boot) -> (n_boot,), NaN where none is."""
    defined = np.isfinite(per_label)
    return np.where(defined, per_label, 0).sum(axis=0) / np.where(defined.any(axis=0), defined.sum(axis=0), np.nan)


def once(metric, scores, targets):
    """The metric on all tracks as they are."""
    return float(_resampled(metric, scores, targets, np.ones((1, len(targets)), dtype=np.int64))[0])


def _rank_scores(score, truth, weights):
    """ROC-AUC and average precision of one label under each row of `weights`; NaN without a positive or a negative.

    Tracks are sorted from the best score down and joined where scores tie; between ties the ROC curve is a straight
    line and precision is taken after the whole tie, as scikit-learn does.
    """
    order = np.argsort(-score, kind="stable")
    starts = np.flatnonzero(np.diff(score[order], prepend=np.inf))  # first track of each tie
    counts = np.ascontiguousarray(weights.T, dtype=np.float64)[order]  # (n_tracks, n_boot), resamples side by side
    positive, everyone = counts * truth[order, None], counts
    if len(starts) < len(order):
        positive, everyone = (np.add.reduceat(one, starts, axis=0) for one in (positive, everyone))
    above, heard = np.cumsum(positive, axis=0), np.cumsum(everyone, axis=0)
    n_positive, n_negative = above[-1], heard[-1] - above[-1]
    with np.errstate(invalid="ignore", divide="ignore"):
        better = above - positive / 2  # positives above, and half of those in the same tie
        roc_auc = np.einsum("tb,tb->b", better, everyone - positive) / (n_positive * n_negative)
        precision = above / np.maximum(heard, 1)  # before the first drawn track both are 0
        pr_auc = np.einsum("tb,tb->b", positive, precision) / n_positive
    undefined = (n_positive == 0) | (n_negative == 0)
    roc_auc[undefined], pr_auc[undefined] = np.nan, np.nan
    return roc_auc, pr_auc


def _centred(metric, drawn, estimate, least=0):
    """Resamples without what copies of a track add to PR-AUC, see the module's head: their mean is the estimate.

    No score leaves [0, 1]; `least` is -1 for a difference.
    """
    if metric != "pr_auc":
        return drawn
    return np.clip(drawn - np.nanmean(drawn) + estimate, least, 1)


def _interval(drawn, level):
    """Percentile interval."""
    low, high = np.nanquantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _p_value(drawn):
    """Two-sided: twice the smaller share of resamples at or beyond zero."""
    tail = min((drawn <= 0).sum(), (drawn >= 0).sum())
    return float(min(1.0, 2 * (tail + 1) / (len(drawn) + 1)))


def _sizes(units, scores, n_boot):
    """What was drawn, how often."""
    return {"n_units": len(scores) if units is None else len(set(np.asarray(units).tolist())), "n_boot": n_boot}
