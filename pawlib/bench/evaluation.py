"""From the scores of test tracks to what a row says: numbers, intervals, groups, labels.

    numbers = evaluation.of_tracks(scores, tracks, splits)
    results.row(..., **numbers)

Conventions
    scores : array [shape=(n_tracks, n_labels)], probabilities; one row per track.
    Tags (several per track) get macro ROC-AUC and PR-AUC, as the papers compute them; classes (one per track) accuracy,
    too, and one against the rest for the two others: no peer's code says how the paper's were computed.
    Intervals (95 %) draw whole works again: tracks of one work stand or fall together. Which interval it is, and why
    that of PR-AUC is centred, is told in bench.stats; a row names them in its settings (`stats.INTERVALS`).

Told in: notebooks/20_supervised_taggers.ipynb, notebooks/30_linear_probe_mtat.ipynb
"""

import numpy as np

from pawlib.bench import datasets, metrics, stats


def of_tracks(scores, tracks, splits, n_boot=1000):
    """Everything a row says about the answers to some test tracks.

    Parameters
    ----------
    scores : array [shape=(n_tracks, n_labels)]
    tracks : list of Track
        The scored ones, in the order of the rows.
    splits : datasets.Splits
        Labels and groups, and the training tracks whose artists have been heard.
    n_boot : int
        Resamples behind each interval.

    Returns
    -------
    dict
        `metrics`, `groups`, `per_tag`, `n_tracks`, as results.row takes them.

    Raises
    ------
    ValueError
        If rows and tracks differ in number or a score is NaN.

    Told in: notebooks/20_supervised_taggers.ipynb
    """
    if len(scores) != len(tracks):
        raise ValueError(f"{len(scores)} rows of scores for {len(tracks)} tracks: were some left out?")
    targets = datasets.targets(tracks)
    per_tag = metrics.tagging(scores, targets, splits.labels)["per_tag"]
    intervals = stats.tagging_intervals(
        scores, targets, splits.labels, splits.groups, units=[track.work for track in tracks], n_boot=n_boot
    )
    found = {group: _numbers(both) for group, both in intervals.items()}
    overall = found.pop("all") | _by_artist(scores, tracks, splits)
    if splits.single_label:
        overall = _accuracy(scores, targets, tracks, n_boot) | overall
    return {"metrics": overall, "groups": found, "per_tag": per_tag, "n_tracks": len(tracks)}


def heard_artists(splits):
    """Names of the artists of the training tracks; empty where the dataset names none."""
    return {track.artist for track in splits.train} - {""}


def confusion(scores, tracks, n_classes):
    """How often each class (row) was taken for each (column): int array (n_classes, n_classes)."""
    from sklearn.metrics import confusion_matrix

    truth = datasets.targets(tracks).argmax(axis=1)
    return confusion_matrix(truth, np.asarray(scores).argmax(axis=1), labels=range(n_classes))


def _numbers(both):
    """{"roc_auc": 0.7, "roc_auc_interval": [0.66, 0.74], ...} of {"roc_auc": {"estimate", "low", "high"}, ...}."""
    found = {name: one["estimate"] for name, one in both.items()}
    return found | {f"{name}_interval": [one["low"], one["high"]] for name, one in both.items()}


def _accuracy(scores, targets, tracks, n_boot):
    one = stats.bootstrap(
        "accuracy", scores, targets.argmax(axis=1), units=[track.work for track in tracks], n_boot=n_boot
    )
    return _numbers({"accuracy": one})


def _by_artist(scores, tracks, splits):
    """The scores over the tracks whose artist was never heard in training, where the dataset names artists.

    2,680 of the real set's 4,332 tagged test clips are by an artist heard in training.
    """
    heard = heard_artists(splits)
    if not heard or splits.single_label:
        return {}
    unheard = np.array([track.artist not in heard and track.artist != "" for track in tracks])
    found = {"n_artist_filtered": int(unheard.sum())}
    targets = datasets.targets(tracks)[unheard]
    for metric in ("roc_auc", "pr_auc"):
        value = stats.once(metric, np.asarray(scores, dtype=np.float64)[unheard], targets) if unheard.any() else np.nan
        found[f"{metric}_artist_filtered"] = None if np.isnan(value) else float(value)
    return found
