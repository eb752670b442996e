"""A few songs of a corpus, as the model hears them.

Conventions
    wave : Tensor [shape=(B, n_whole)], mono, float32, at the model's sample rate.

Told in: notebooks/02_crops.ipynb
"""

import torch
import torchaudio

from pawlib import crops


def wholes(corpus, n_songs=4, n_whole=358_400, sample_rate=16_000, first=0, part="train"):
    """The first whole of some songs.

    Parameters
    ----------
    corpus : pawlib.bench.corpora.Corpus
    n_songs : int > 0
    n_whole : int > 0 [samples]
        358,400 is 22.4 s at 16 kHz (reading R1). A shorter song is completed by repeating it.
    sample_rate : int [Hz]
        Of the result; songs of another rate are resampled.
    first : int
        Index of the first song in its part, counted in the order of the split.
    part : "train" | "valid" | "test"

    Returns
    -------
    wave : Tensor [shape=(B, n_whole)]
    tracks : list of B Track

    Raises
    ------
    ValueError
        If the part has not that many songs.

    Told in: notebooks/02_crops.ipynb
    """
    tracks = getattr(corpus.splits, part)[first : first + n_songs]
    if len(tracks) < n_songs:
        n_there = len(getattr(corpus.splits, part))
        raise ValueError(
            f"{corpus.name} has {n_there} songs in its {part} part, so not {n_songs} from number {first} on: "
            "choose an earlier song, or a larger scale"
        )
    return torch.cat([_whole(corpus.store, track.id, n_whole, sample_rate) for track in tracks]), tracks


def tags(corpus, track):
    """Tags a track has, in words: "guitar, slow"; "no tag" where it has none."""
    held = [label for label, value in zip(corpus.splits.labels, track.target, strict=True) if value > 0]
    return ", ".join(held) or "no tag"


def _whole(store, track_id, n_whole, sample_rate):
    """First whole of one song, (1, n_whole)."""
    rate = store.sample_rate(track_id)
    n_needed = min(store.n_samples(track_id), -(-n_whole * rate // sample_rate))
    wave = torch.from_numpy(store.read(track_id, n_samples=n_needed)).unsqueeze(0)
    if rate != sample_rate:
        wave = torchaudio.functional.resample(wave, rate, sample_rate)
    return crops.split_wholes(wave, n_whole)[0][:, 0]
