"""What finds covers without learning anything: chance, and three baselines from the literature (beside Table 4).

    averaged_chroma     which notes a song uses, in the best of twelve keys; no order, no time
    two_d_fourier       2DFTM: patterns of pitch and time, whatever the key; sensitive to tempo
    qmax                an alignment of every pair, whatever key and tempo
    random_embeddings   chance, for a list of works

A trained system that ranks worse than averaged chroma has a bug, or too little training: look for the bug first.

Conventions
    cqts : list of float32 arrays (84, n_frames), from bench.cqt.
    Similarities are (n, n), row = query, larger = more alike, as retrieval.py takes them.

Told in: notebooks/40_cover_songs.ipynb
"""

import itertools
import math

import numpy as np

from pawlib.bench import covers, retrieval
from pawlib.bench.progress import progress

N_KEYS = 12


def chroma(cqt):
    """Pitch classes: (84, n_frames) -> float32 (12, n_frames), mean over octaves; class 0 is C."""
    return cqt.reshape(-1, N_KEYS, cqt.shape[1]).mean(axis=0).astype(np.float32)


def averaged_chroma(cqts):
    """Cosine between songs' mean chroma in the best of 12 transpositions: what the mere use of notes gives away.

    Parameters
    ----------
    cqts : list of arrays [shape=(84, n_frames)]

    Returns
    -------
    np.ndarray, float64 [shape=(n, n)]
        Symmetric; the same whatever key a song is played in, and in whatever order its notes come.
    """
    means = retrieval.unit_rows([chroma(cqt).mean(axis=1) for cqt in cqts])
    return np.max([means @ np.roll(means, shift, axis=1).T for shift in range(N_KEYS)], axis=0)


def two_d_fourier(cqts, n_frames=75, power=1.96):
    """2DFTM: the magnitude of the chroma's Fourier transform in pitch and time, median over the song's patches.

    A patch moved in key or in time has the same magnitude; so a song in another key has the same embedding. The
    published patches are of 75 beats; here no beats are tracked, and a patch is of `n_frames` frames (75 are 35 s), so
    that a song at another tempo has another embedding.

    Parameters
    ----------
    cqts : list of arrays [shape=(84, n_frames of the song)]
        A song shorter than a patch is followed by zeros.
    n_frames : int > 0
        Of a patch.
    power : float
        Chroma is raised to it, so that strong notes count more.

    Returns
    -------
    np.ndarray, float32 [shape=(n, 12 * (n_frames // 2 + 1))]
        Embeddings; compare them by their cosine.

    Source: Bertin-Mahieux and Ellis 2012, "Large-scale cover song recognition using the 2D Fourier transform
    magnitude", without its beats and its final PCA.
    """
    return np.stack([_fourier(covers.filled(chroma(cqt), n_frames) ** power, n_frames) for cqt in cqts]).astype(
        np.float32
    )


def _fourier(song, n_frames):
    patches = np.lib.stride_tricks.sliding_window_view(song, n_frames, axis=1)  # (12, n_patches, n_frames)
    magnitude = np.abs(np.fft.fft(np.fft.rfft(patches.transpose(1, 0, 2), axis=2), axis=1))
    return np.median(magnitude, axis=0).ravel()


def qmax(cqts, n_stack=9, share=0.095, gap=0.5, what="aligning"):
    """Qmax: the length of the longest stretch that two songs go through together, in the best transposition.

    Every pair is aligned, so the time grows with the square of the number of songs: some milliseconds a pair.

    Parameters
    ----------
    cqts : list of arrays [shape=(84, n_frames)]
    n_stack : int > 0
        Successive frames that are compared as one.
    share : float
        Each frame is taken to be like this share of the other song's frames; both must agree.
    gap : float
        What it costs to begin and to go on with a stretch where they are not alike.
    what : str
        For the progress lines.

    Returns
    -------
    np.ndarray, float64 [shape=(n, n)]
        Row: query. Divided by the square root of the other song's frames, of which long ones have the longer stretches
        by chance. The diagonal is 0.

    Source: Serra, Serra and Andrzejak 2009, "Cross recurrence quantification for cover song identification"; the
    alignment is librosa.sequence.rqa.
    """
    songs_chroma = [chroma(cqt) for cqt in cqts]
    songs_chroma = [one / np.maximum(one.max(axis=0, keepdims=True), 1e-6) for one in songs_chroma]
    found = np.zeros((len(cqts), len(cqts)))
    pairs = list(itertools.combinations(range(len(cqts)), 2))
    for a, b in progress(pairs, what=what, unit="pairs"):
        best = _longest_stretch(songs_chroma[a], songs_chroma[b], n_stack, share, gap)
        found[a, b], found[b, a] = (best / math.sqrt(songs_chroma[i].shape[1]) for i in (b, a))
    return found


def _longest_stretch(a, b, n_stack, share, gap):
    """Qmax of two chroma sequences, the second brought into the key of the first by their means."""
    import librosa

    a, b = (_stacked(one, n_stack) for one in (a, np.roll(b, best_key(a, b), axis=0)))
    found = librosa.sequence.rqa(_alike(a, b, share).astype(float), gap_onset=gap, gap_extend=gap, backtrack=False)
    return float(found.max())


def _alike(a, b, share):
    """Which frames of two sequences are among each other's nearest `share` of frames: bool (frames of a, of b)."""
    squared = (a * a).sum(axis=0)[:, None] + (b * b).sum(axis=0) - 2 * a.T @ b
    alike = np.ones(squared.shape, dtype=bool)
    for axis, n_others in ((1, b.shape[1]), (0, a.shape[1])):
        k = max(1, round(share * n_others))
        alike &= squared <= np.partition(squared, k - 1, axis=axis).take([k - 1], axis=axis)
    return alike


def _stacked(song, n_stack):
    """Each frame with those after it: (12, n_frames) -> (12 * n_stack, n_frames - n_stack + 1)."""
    n_stack = min(n_stack, song.shape[1])
    windows = np.lib.stride_tricks.sliding_window_view(song, n_stack, axis=1)  # (12, n_frames - n_stack + 1, n_stack)
    return windows.transpose(2, 0, 1).reshape(-1, windows.shape[1])


def cross_similarity(a, b, n_stack=9):
    """How alike each moment of a song is to each moment of another, once both are in one key: a picture of a cover.

    Parameters
    ----------
    a, b : arrays [shape=(84, n_frames)]
    n_stack : int > 0
        Successive frames that are compared as one: a bar looks like itself, a single note like half the song.

    Returns
    -------
    np.ndarray, float64 [shape=(frames of a, frames of b)]
        Cosine of stacked chroma, between 0 and 1; n_stack - 1 frames fewer than the songs have. Stripes along the
        diagonal are stretches that both songs go through; steeper or flatter ones, at another tempo.
    int
        Semitones, 0..11, by which b was moved up.
    """
    a, b = chroma(a), chroma(b)
    shift = best_key(a, b)
    a, b = (retrieval.unit_rows(_stacked(one, n_stack).T + 1e-9) for one in (a, np.roll(b, shift, axis=0)))
    return a @ b.T, shift


def best_key(a, b):
    """Semitones, 0..11, that bring the mean of one chroma (12, n_frames) nearest to that of another."""
    return int(np.argmax([a.mean(axis=1) @ np.roll(b, k, axis=0).mean(axis=1) for k in range(N_KEYS)]))


def random_embeddings(n_songs, seed=0, width=300):
    """Embeddings that know nothing: chance, for this list of works. float32 (n_songs, width)."""
    return np.random.default_rng(seed).standard_normal((n_songs, width), dtype=np.float32)
