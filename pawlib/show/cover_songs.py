"""Cover songs to look at and to hear: two recordings and what they share, a query and its answers, the worst misses.

    songs : bench.covers.Songs of one test set, with the store they were decoded into.
    cqt   : float32 (84, n_frames), semitones from C1, `seconds` for a frame.

Told in: notebooks/40_cover_songs.ipynb
"""

import matplotlib.pyplot as plt
import numpy as np
import torch

from pawlib.bench import cover_baselines, loop
from pawlib.show import figures, players

OCTAVES = range(0, 84, 12)


@figures.styled
def pair(a, b, seconds, titles=("one recording", "another"), n_stack=9):
    """Two CQTs, and how alike each moment of one is to each of the other once both are in one key.

    Parameters
    ----------
    a, b : arrays [shape=(84, n_frames)]
    seconds : float [s]
        Of a frame.
    titles : (str, str)
    n_stack : int
        As in cover_baselines.cross_similarity.

    Returns
    -------
    fig, ax : ax of shape (3,), CQT, CQT, cross-similarity
    """
    fig, ax = plt.subplot_mosaic("ac;bc", figsize=(figures.WIDTH, 3.6))
    for name, cqt, title in zip("ab", (a, b), titles, strict=True):
        _draw(ax[name], cqt, seconds)
        ax[name].set_title(title, fontsize=11)
    ax["b"].set_xlabel("time [s]")
    similarity, shift = cover_baselines.cross_similarity(a, b, n_stack)
    box = (0, similarity.shape[1] * seconds, 0, similarity.shape[0] * seconds)
    drawn = ax["c"].imshow(similarity, origin="lower", aspect="auto", cmap="magma", extent=box)
    moved = "as it is" if not shift else f"{shift} semitones up" if shift <= 6 else f"{12 - shift} semitones down"
    ax["c"].set(xlabel=f"{titles[1]} [s], {moved}", ylabel=f"{titles[0]} [s]")
    ax["c"].set_title(f"alike, {n_stack * seconds:.1f} s at a time", fontsize=11)
    fig.colorbar(drawn, ax=ax["c"], label="cosine of chroma", pad=0.02)
    return fig, np.array([ax[name] for name in "abc"])


@figures.styled
def side_by_side(cqts, titles, seconds, heads=()):
    """CQTs in rows and columns, each under its title.

    Parameters
    ----------
    cqts : list of R lists of C arrays [shape=(84, n_frames)]
    titles : list of R lists of C str
    seconds : float [s]
        Of a frame.
    heads : sequence of C str
        Above the columns.

    Returns
    -------
    fig, ax : ax of shape (R, C)
    """
    fig, ax = plt.subplots(
        len(cqts), len(cqts[0]), figsize=(figures.WIDTH, 1.35 * len(cqts) + 0.5), squeeze=False, sharex=True
    )
    for r, row in enumerate(cqts):
        for c, cqt in enumerate(row):
            _draw(ax[r, c], cqt, seconds)
            ax[r, c].set_title(titles[r][c], fontsize=9, pad=2)
    for c, head in enumerate(heads):
        ax[0, c].set_title(f"{head}\n{titles[0][c]}", fontsize=10, pad=2)
    for axis in ax[:, 1:].ravel():
        axis.set_yticklabels([])
        axis.set_ylabel("")
    for axis in ax[-1]:
        axis.set_xlabel("time [s]")
    ax[0, 0].set_xlim(0, seconds * max(cqt.shape[1] for row in cqts for cqt in row))
    return fig, ax


def ranked(similarity, query):
    """All other songs, the most alike first, of equals the first in the list: int array (n - 1,)."""
    order = np.argsort(-similarity[query], kind="stable")
    return order[order != query]


def worst_misses(similarity, works, n=3):
    """Queries whose first right answer comes latest, the worst first.

    Parameters
    ----------
    similarity : array [shape=(n_songs, n_songs)]
    works : sequence of str [shape=(n_songs,)]
    n : int
        At most so many; queries without a right answer ask nothing, and those that were answered well are no misses.

    Returns
    -------
    list of (query, wrong, right, rank)
        Rows of the songs: who asked, what came first, the first right answer, and its rank (2 or more).
    """
    works, found = np.asarray(works), []
    for query in range(len(works)):
        order = ranked(similarity, query)
        hits = np.flatnonzero(works[order] == works[query])
        if len(hits) and hits[0] > 0:
            found.append((query, int(order[0]), int(order[hits[0]]), int(hits[0]) + 1))
    return sorted(found, key=lambda one: (-one[3], one[0]))[:n]


def heard(songs, rows, titles, seconds=10.0, heading=""):
    """Some songs side by side, to be heard: a row of players.

    Parameters
    ----------
    songs : Songs, with a store
    rows : sequence of int
    titles : sequence of str
    seconds : float [s]
        Of each song, from its beginning.
    heading : str

    Returns
    -------
    IPython.display.HTML
    """
    waves = [_begin(songs, songs.ids[row], seconds) for row in rows]
    return players.row(waves, players.RATE, list(titles), heading)


def _begin(songs, track_id, seconds):
    rate = songs.store.sample_rate(track_id)
    n_samples = min(round(seconds * rate), songs.store.n_samples(track_id))
    return loop.resampled(torch.from_numpy(songs.store.read(track_id, 0, n_samples)), rate, players.RATE)


def _draw(axis, cqt, seconds):
    """One CQT: square root, so that quiet partials are seen; octaves marked."""
    axis.imshow(
        np.sqrt(cqt), origin="lower", aspect="auto", cmap="magma", vmin=0, vmax=1,
        extent=(0, cqt.shape[1] * seconds, 0, len(cqt)),
    )  # fmt: skip
    axis.set_yticks(OCTAVES[1::2], [f"C{1 + k // 12}" for k in OCTAVES[1::2]], fontsize=9)
