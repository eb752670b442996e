"""Readers: a folder as its makers ship it in, tracks with targets and a split out.

    mtat      MagnaTagATune, real or its twin: 50 tags
    gtzan     GTZAN, real or its twin: one of 10 genres
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
