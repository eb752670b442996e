"""How a network that hears a few seconds answers for a whole track: chunks of it, and the mean of their probabilities.

What it asks of a model (every tagger and every encoder with a new head has it)
    model.sample_rate, model.n_samples     rate and length of the input
    model(wave (B, n_samples)) -> logits (B, n_labels)
    model.n_channels, where it is 2        its waves are (B, 2, n_samples)

Told in: notebooks/20_supervised_taggers.ipynb
"""

import dataclasses
import math
import time

import numpy as np
import torch

from pawlib.bench import loop, protocols
from pawlib.bench.progress import progress

TAILS = ("keep", "drop")
PEERS_CHUNKS = 16
BATCH_SAMPLES = 1_000_000  # of audio at a time: some 16 chunks of 59,049, 2 of 464,000


@dataclasses.dataclass
class Scored:
    """What a network said of some tracks.

    scores     : float32 array (n_tracks, n_labels), mean probability of each track's chunks
    n_chunks   : int, chunks heard in all
    n_repeated : int, tracks shorter than the input, filled by repetition
    seconds    : float, for all of it
    """

    scores: np.ndarray
    n_chunks: int
    n_repeated: int
    seconds: float


@torch.inference_mode()
def score(model, store, tracks, single_label, chunks="cover", tail="keep", precision="auto", what="scoring"):
    """Mean probability of each track over its chunks.

    Parameters
    ----------
    model : Module
        With the interface of the module's map; set to evaluation while it works.
    store : bench.store.Store
    tracks : list of Track
    single_label : bool
        Softmax over classes, or a sigmoid for each tag.
    chunks, tail
        As in `chunk_starts`.
    precision : "auto" | "32-true" | "bf16-mixed"
    what : str
        For the progress lines.

    Returns
    -------
    Scored

    Raises
    ------
    ValueError
        If a score is not finite, naming the track.

    Told in: notebooks/20_supervised_taggers.ipynb
    """
    began = time.perf_counter()
    fabric = loop.fabric(precision)
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    batch = max(1, round(BATCH_SAMPLES / model.n_samples))
    scores, n_chunks, n_repeated, waiting, owners = [None] * len(tracks), 0, 0, [], []

    def flush():
        with fabric.autocast():
            logits = torch.cat([model(part.to(device)) for part in torch.cat(waiting).split(batch)])
        answers = protocols.probabilities(logits.float(), single_label).cpu()
        for owner, some in zip(owners, answers.split([len(w) for w in waiting]), strict=True):
            if not torch.isfinite(some).all():
                raise ValueError(
                    f"the network's answer to track {tracks[owner].id} is not finite: did training diverge, "
                    "or is its audio broken?"
                )
            scores[owner] = some.mean(dim=0)
        waiting.clear()
        owners.clear()

    for i, track in enumerate(progress(tracks, what=what, unit="tracks")):
        wave = read_track(store, track, model.sample_rate, mono=hears_mono(model))
        starts = chunk_starts(wave.shape[-1], model.n_samples, chunks, tail)
        n_repeated += wave.shape[-1] < model.n_samples
        wave = _filled(wave, model.n_samples)
        waiting.append(torch.stack([wave[..., start : start + model.n_samples] for start in starts]))
        owners.append(i)
        n_chunks += len(starts)
        if sum(map(len, waiting)) >= batch:
            flush()
    if waiting:
        flush()
    model.train(was_training)
    return Scored(torch.stack(scores).numpy(), n_chunks, n_repeated, time.perf_counter() - began)


def chunk_starts(n_samples, n_chunk, chunks="cover", tail="keep"):
    """Where the chunks of a track begin.

    Parameters
    ----------
    n_samples, n_chunk : int
        Length of track and chunk.
    chunks : "cover" | int > 0
        "cover": side by side (PEMR, CLMR); a number: so many, evenly spaced and overlapping (Won 2020: 16); 1 is the
        middle of the track.
    tail : "keep" | "drop"
        "keep": the last chunk ends with the track. "drop", as the peers' code has it: side by side, what does not fill
        a chunk is never heard; of n overlapping ones the last begins (n - 1) / n of the way and the end is never heard.

    Returns
    -------
    list of int
        [0] for a track that is no longer than a chunk.

    Raises
    ------
    ValueError
        For an unknown `chunks` or `tail`.
    """
    if tail not in TAILS:
        raise ValueError(f"tail={tail!r} is unknown, expected one of {TAILS}")
    if chunks != "cover" and (isinstance(chunks, bool) or not isinstance(chunks, int) or chunks < 1):
        raise ValueError(f'chunks={chunks!r} is unknown, expected "cover" or a number above 0')
    room = n_samples - n_chunk
    if room <= 0:
        return [0]
    if chunks == "cover":
        starts = list(range(0, room + 1, n_chunk))
        return [*starts, room] if tail == "keep" and room % n_chunk else starts
    if tail == "drop":
        return [i * (room // chunks) for i in range(chunks)]
    return [room // 2] if chunks == 1 else [round(room * i / (chunks - 1)) for i in range(chunks)]


def read_track(store, track, sample_rate, mono=True):
    """A whole track at the wanted rate: float32 tensor (n_samples,), or with mono=False (n_channels, n_samples)."""
    wave = torch.from_numpy(store.read(track.id, **({} if mono else {"mono": False})))
    return loop.resampled(wave, store.sample_rate(track.id), sample_rate)


def hears_mono(model):
    """Whether a network takes waves of one channel, as all but the stereo scene networks do."""
    return getattr(model, "n_channels", 1) == 1


def _filled(wave, n_samples):
    """A track at least as long as the input: repeated where it is shorter."""
    has = wave.shape[-1]
    return wave if has >= n_samples else torch.cat([wave] * math.ceil(n_samples / has), dim=-1)[..., :n_samples]
