"""Readers: a folder as its makers ship it in, tracks with targets and a split out.

    mtat      MagnaTagATune, real or its twin: 50 tags
    gtzan     GTZAN, real or its twin: one of 10 genres
    shs100k   SHS100K-SUB and SHS100K2, or the twin: recordings and the song they are of
    covers80  Covers80, or its twin: 80 songs in two recordings each
    folder    anybody's own audio, no targets

Every reader gives `Splits` of `Track`; nothing is decoded here, so that 25,863 clips are read in about a second.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np


@dataclass(frozen=True, eq=False, slots=True)
class Track:
    """One audio file and what is known about it.

    Attributes
    ----------
    id : str
        Unique within its corpus; the key of stores and results.
    path : pathlib.Path
    target : np.ndarray, float32 (n_labels,)
        1 where the label holds; empty where nothing is known.
    work : str
        What two tracks share when they are cut from one recording or made from one score: statistics resample works,
        and no work may cross a split.
    artist : str
        Who plays, where the dataset says so, else "": a test score over artists never heard in training needs it.
    """

    id: str
    path: Path
    target: np.ndarray
    work: str
    artist: str = ""


@dataclass(frozen=True, eq=False)
class Splits:
    """A corpus, split.

    Attributes
    ----------
    train, valid, test : list of Track
    labels : tuple of str
        Names of the targets' columns.
    name : str
        What was heard: "mtat", "mtat-twin", ...; rows of results carry it.
    split : str
        Which of the dataset's splits, by name.
    groups : dict of str to tuple of str
        Labels by group, where the corpus has groups (the twins); else empty.
    missing : list of dict
        What was left out: "id", "path", "reason".
    single_label : bool
        Every track has exactly one label (genres): softmax, cross-entropy and accuracy; else any number (tags).
    """

    train: list
    valid: list
    test: list
    labels: tuple
    name: str
    split: str = "all"
    groups: dict = field(default_factory=dict)
    missing: list = field(default_factory=list)
    single_label: bool = False

    @property
    def tracks(self):
        """All tracks: train, then valid, then test."""
        return [*self.train, *self.valid, *self.test]

    @property
    def counts(self):
        """(n_train, n_valid, n_test)."""
        return len(self.train), len(self.valid), len(self.test)

    def __repr__(self):
        counts = "/".join(f"{n:,}" for n in self.counts)
        left_out = f", {len(self.missing):,} left out" if self.missing else ""
        return f"Splits({self.name!r}, {self.split!r}: {counts} tracks, {len(self.labels)} labels{left_out})"


def targets(tracks):
    """Stack the targets of some tracks: np.ndarray, float32 (n_tracks, n_labels)."""
    if not tracks:
        raise ValueError("no tracks, so no targets: is this split empty? A corpus of a few dozen tracks may have none")
    return np.stack([track.target for track in tracks])


def unheard(tracks, labels):
    """Names of the labels that none of the tracks carries: nothing can be learnt of them."""
    heard = targets(tracks).any(axis=0)
    return [label for label, yes in zip(labels, heard, strict=True) if not yes]


def few_labels(tracks, percent, seed, floor=0):
    """A drawn share of the labelled tracks in which every label is heard where possible (paper Sec. 4.1, Table 2).

    The lists behind the paper's 1 % and 10 % were never published. Here: for each label, the rarest first, that no
    chosen track carries, one of its tracks is drawn; the rest is drawn from all others.

    Parameters
    ----------
    tracks : list of Track
    percent : float, above 0, at most 100
    seed : int
    floor : int
        No fewer tracks than these, however small the share: for corpora of toy size.

    Returns
    -------
    list of Track, in the order of `tracks`

    Raises
    ------
    ValueError
        If `percent` is out of range, or so small that no track is left.

    Told in: notebooks/31_few_labels_mtat.ipynb
    """
    if not 0 < percent <= 100:
        raise ValueError(f"percent={percent} is no share of the labels, expected above 0 and at most 100")
    n = max(round(len(tracks) * percent / 100), floor)
    if n < 1:
        raise ValueError(f"{percent} % of {len(tracks)} tracks is none: take a larger share or a larger corpus")
    if n > len(tracks):
        raise ValueError(f"floor={floor} tracks are more than the {len(tracks)} there are")
    if n == len(tracks):
        return list(tracks)
    order = np.random.default_rng([seed, round(100 * percent)]).permutation(len(tracks))  # first come, first drawn
    target = targets(tracks)[order] > 0
    chosen = np.zeros(len(tracks), dtype=bool)
    for column in np.argsort(target.sum(axis=0), kind="stable"):
        carriers = np.flatnonzero(target[:, column])
        if chosen.sum() < n and len(carriers) and not chosen[carriers].any():
            chosen[carriers[0]] = True
    others = np.flatnonzero(~chosen)
    chosen[others[: n - chosen.sum()]] = True
    return [tracks[i] for i in sorted(order[chosen])]
