"""One door to every dataset: real or twin, toy or full, read and decoded.

    corpus = corpora.open_corpus("mtat", corpus="twin", scale="toy")
    corpus.splits.train[0].target, corpus.store.read(corpus.splits.train[0].id)

A twin that is missing is made, a store that is missing is prepared; the real data cannot be made, so a missing folder
says what to place where.

Told in: notebooks/01_data.ipynb
"""

import importlib
from dataclasses import dataclass, replace

from pawlib import paths
from pawlib.bench import datasets, scenes, store

DATASETS = ("mtat", "gtzan", "dcase2016", "shs100k", "covers80")


@dataclass(frozen=True)
class Corpus:
    """A dataset as everything after it sees it.

    Attributes
    ----------
    name : str
        What rows are headed with: "gtzan" for the real audio only, "gtzan-twin" or "gtzan-twin-toy" for stand-ins.
    splits : datasets.Splits
        Tracks that could be decoded, by split.
    store : store.Store
    left_out : list of dict
        {"id", "path", "reason"} of every track that is annotated and cannot be heard.
    """

    name: str
    splits: datasets.Splits
    store: store.Store
    left_out: list


def open_corpus(dataset="mtat", corpus="twin", scale="toy", split=None, n_workers=None, **reading):
    """Read a dataset and open its decoded store, making the twin and preparing the store where they are missing.

    Parameters
    ----------
    dataset : str
        One of DATASETS.
    corpus : "twin" | "real"
    scale : "toy" | "small" | "paper"
        The toy twin has a few dozen tracks; the real set is whole at every scale.
    split : str, optional
        As the dataset's reader has it; its default if not given.
    n_workers : int, optional
        Processes that decode.
    **reading
        Further arguments of the dataset's reader: errors="cut" of dcase2016.

    Returns
    -------
    Corpus

    Raises
    ------
    ValueError, FileNotFoundError
        For an unknown dataset or switch, or real data that is not there.
    """
    root, name = paths.corpus(dataset, corpus, scale)
    if dataset not in DATASETS:
        raise ValueError(f"dataset={dataset!r} is unknown, expected one of {', '.join(DATASETS)}")
    if corpus == "twin":
        twin = importlib.import_module(f"pawlib.bench.twins.{dataset}")
        twin.make(root, size="toy" if scale == "toy" else "small", n_workers=n_workers)
    reader = importlib.import_module(f"pawlib.bench.datasets.{dataset}")
    splits = reader.read(root, **({} if split is None else {"split": split}), **reading)
    whole = splits if split is None else reader.read(root)  # one store for all splits, whoever reads which
    every = reader.all_tracks(root) if hasattr(reader, "all_tracks") else whole.tracks
    opened = store.prepare(every, paths.store(name), n_workers=n_workers)
    heard = {part: [t for t in getattr(splits, part) if t.id in opened] for part in ("train", "valid", "test")}
    if any(getattr(track, "cut", ()) for track in splits.tracks):
        opened = scenes.WithoutSpans(opened, [track for track in splits.tracks if track.id in opened])
    wanted = {track.id for track in splits.tracks}
    lost = [one for one in opened.failed if one["id"] in wanted]
    return Corpus(name, replace(splits, **heard), opened, [*splits.missing, *lost])
