"""Scores of the downstream tasks, and two measures of an embedding space (paper Sec. 4.1 "Metrics").

Conventions
    scores  : array [shape=(n_tracks, n_labels)], larger means "more likely": probabilities
              or logits, only the order counts.
    targets : array [shape=(n_tracks, n_labels)] of 0 and 1.
    Every score is a fraction; percent appears only where a table is printed.
    Tagging is macro-averaged: one number per label, then the plain mean over labels, as the paper's peers compute it.
    alignment and uniformity take tensors or arrays, (n, width), and normalise the rows themselves.
"""

import math
import warnings

import numpy as np
import torch
from sklearn.metrics import accuracy_score, average_precision_score, roc_auc_score


def tagging(scores, targets, labels=None):
    """How well each tag is ranked: macro ROC-AUC and macro PR-AUC (average precision), with the numbers per tag.

    Parameters
    ----------
    scores : array-like [shape=(n_tracks, n_labels)]
        One row per test track, already averaged over its clips (reading R11).
    targets : array-like [shape=(n_tracks, n_labels)], 0 or 1
    labels : sequence of str, optional
        Names of the columns; "0", "1", ... where not given.

    Returns
    -------
    dict
        `roc_auc`, `pr_auc` : float, means over the labels that can be scored.
        `n_labels_scored` : int; `not_scored` : list of the labels left out.
        `per_tag` : {label: {"roc_auc", "pr_auc", "n_positive"}}, None for both scores where the label is left out.

    Raises
    ------
    ValueError
        If the shapes differ, a score is NaN (naming the row), a target is neither 0 nor 1, or no label can be scored.

    Warns
    -----
    UserWarning
        Naming the labels without a positive or without a negative track: neither score is defined for them.

    Told in: notebooks/30_linear_probe_mtat.ipynb
    """
    scores, targets, labels = _checked(scores, targets, labels)
    per_tag = {}
    for column, label in enumerate(labels):
        truth, score = targets[:, column], scores[:, column]
        n_positive = int(truth.sum())
        defined = 0 < n_positive < len(truth)
        per_tag[label] = {
            "roc_auc": float(roc_auc_score(truth, score)) if defined else None,
            "pr_auc": float(average_precision_score(truth, score)) if defined else None,
            "n_positive": n_positive,
        }
    not_scored = [label for label, one in per_tag.items() if one["roc_auc"] is None]
    if len(not_scored) == len(labels):
        raise ValueError(
            f"none of the {len(labels)} labels has both a positive and a negative among {len(targets)} tracks: "
            "is this the whole test split?"
        )
    if not_scored:
        warnings.warn(
            f"{len(not_scored)} of {len(labels)} labels lack a positive or a negative and are left out of the mean: "
            + ", ".join(not_scored),
            stacklevel=2,
        )
    return {**_means(per_tag, labels), "not_scored": not_scored, "per_tag": per_tag}


def by_group(per_tag, groups):
    """The same means, once per group of tags (timbre, musical, part, order): the groups are never pooled.

    Parameters
    ----------
    per_tag : dict
        `per_tag` of `tagging`.
    groups : dict {group: sequence of labels}

    Returns
    -------
    dict {group: {"roc_auc", "pr_auc", "n_labels_scored"}}
        None for both scores where no label of the group can be scored. Empty where `groups` is empty (the real MTAT).

    Raises
    ------
    ValueError
        If a group names a label that was not scored at all.

    Told in: notebooks/30_linear_probe_mtat.ipynb
    """
    for group, labels in groups.items():
        unknown = [label for label in labels if label not in per_tag]
        if unknown:
            raise ValueError(
                f"group {group!r} names {unknown}, which are no scored labels: are groups and labels of one dataset?"
            )
    return {group: _means(per_tag, labels) for group, labels in groups.items()}


def accuracy(scores, classes):
    """Share of tracks whose class is right.

    Parameters
    ----------
    scores : array-like [shape=(n_tracks, n_classes) or (n_tracks,)]
        Scores, of which the largest is the answer; or the answers themselves.
    classes : array-like of int [shape=(n_tracks,)]

    Returns
    -------
    float

    Raises
    ------
    ValueError
        If there are no tracks, the numbers of tracks differ, or a score is NaN.
    """
    scores, classes = np.asarray(scores), np.asarray(classes)
    if len(scores) == 0 or len(scores) != len(classes):
        raise ValueError(
            f"{len(scores)} scored tracks for {len(classes)} classes: need one class per track, and at least one"
        )
    _refuse_nan(scores)
    return float(accuracy_score(classes, scores.argmax(axis=1) if scores.ndim == 2 else scores))


def alignment(z, z_aug, power=2):
    """Mean distance between the two views of a song on the unit sphere; 0 when they coincide (Wang and Isola 2020).

    Parameters
    ----------
    z, z_aug : tensor or array [shape=(n, width)]
        Row i of both belongs to song i; any float type, normalised here.
    power : float
        Exponent of the distance.

    Returns
    -------
    float in [0, 2**power]

    Raises
    ------
    ValueError
        If the shapes differ or there is no row.

    Told in: notebooks/10_pretrain_music_paw.ipynb
    """
    z, z_aug = _unit_rows(z), _unit_rows(z_aug)
    if z.shape != z_aug.shape or len(z) == 0:
        raise ValueError(
            f"alignment needs two views of the same songs, got shapes {tuple(z.shape)} and {tuple(z_aug.shape)}"
        )
    return float((z - z_aug).norm(dim=1).pow(power).mean())


def uniformity(z, t=2):
    """How evenly the songs cover the unit sphere: log mean Gaussian potential of all pairs (Wang and Isola 2020).

    Parameters
    ----------
    z : tensor or array [shape=(n, width)], n >= 2
        Any float type, normalised here.
    t : float
        Width of the potential.

    Returns
    -------
    float in [-4 t, 0]
        0 when all songs fall on one point (collapse), about -2 t when they are spread out in many dimensions.

    Raises
    ------
    ValueError
        If there are fewer than two rows.

    Told in: notebooks/10_pretrain_music_paw.ipynb
    """
    z = _unit_rows(z)
    if len(z) < 2:
        raise ValueError(f"uniformity compares pairs of songs, got {len(z)} row(s)")
    exponents = torch.nn.functional.pdist(z).pow(2).mul(-t)  # (n * (n - 1) / 2,)
    return float(exponents.logsumexp(0)) - math.log(len(exponents))


def _checked(scores, targets, labels):
    """Arrays of one shape, finite scores, targets of 0 and 1, one name per column."""
    scores, targets = np.asarray(scores, dtype=np.float64), np.asarray(targets)
    if scores.ndim != 2 or scores.shape != targets.shape or len(scores) == 0:
        raise ValueError(
            f"scores {scores.shape} and targets {targets.shape} must both be (n_tracks, n_labels), n_tracks > 0"
        )
    _refuse_nan(scores)
    if not np.isin(targets, (0, 1)).all():
        row = int(np.argmin(np.isin(targets, (0, 1)).all(axis=1)))
        raise ValueError(f"targets of row {row} are not all 0 or 1: are scores and targets swapped?")
    labels = [str(column) for column in range(scores.shape[1])] if labels is None else list(labels)
    if len(labels) != scores.shape[1] or len(set(labels)) != len(labels):
        raise ValueError(f"{len(labels)} labels ({len(set(labels))} different) for {scores.shape[1]} columns of scores")
    return scores, targets.astype(np.int64), labels


def _refuse_nan(scores):
    """Name the first row with a NaN."""
    bad = np.isnan(np.asarray(scores, dtype=np.float64)).reshape(len(scores), -1).any(axis=1)
    if bad.any():
        raise ValueError(
            f"scores of row {int(bad.argmax())} hold NaN ({int(bad.sum())} rows in all): "
            "did training diverge, or has that track no clip?"
        )


def _means(per_tag, labels):
    """Plain means over the labels that have a score."""
    scored = [per_tag[label] for label in labels if per_tag[label]["roc_auc"] is not None]
    means = {key: float(np.mean([one[key] for one in scored])) if scored else None for key in ("roc_auc", "pr_auc")}
    return {**means, "n_labels_scored": len(scored)}


def _unit_rows(z):
    """Rows of length 1, in float32 at least, without a graph."""
    z = torch.as_tensor(z).detach()
    z = z if z.dtype == torch.float64 else z.float()
    if z.ndim != 2:
        raise ValueError(f"expected one row per song, shape (n, width), got {tuple(z.shape)}")
    return torch.nn.functional.normalize(z, dim=1)
