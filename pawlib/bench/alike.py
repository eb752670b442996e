"""What in a collection is alike: neighbours, the same recording twice, and what may be a cover.

    found = folders.read("embeddings.parquet")
    rows, similarity = alike.neighbours(found, level=0, k=5)

A row is a clip, `track` its row in `tracks`; level 0 is the whole of 22.4 s (bench.folders).

Told in: notebooks/81_your_music.ipynb
"""

import dataclasses
from typing import NamedTuple

import numpy as np

SAME_COURSE = 0.4  # see near_duplicates
SAME_WHOLE = 0.9  # see possible_covers


@dataclasses.dataclass(frozen=True, eq=False)
class Embeddings:
    """The rows of an embeddings file as arrays.

    tracks : tuple of str (n_tracks,)
    track : int64 (n_rows,), row of `tracks`
    level, index : int32 (n_rows,)
    start_s, end_s : float64 (n_rows,)
    repeated : bool (n_rows,)
    vectors : float32 (n_rows, 512)
    """

    tracks: tuple
    track: np.ndarray
    level: np.ndarray
    index: np.ndarray
    start_s: np.ndarray
    end_s: np.ndarray
    repeated: np.ndarray
    vectors: np.ndarray

    def at(self, level):
        """The rows of one level.

        Raises
        ------
        ValueError
            If there are none, naming the levels there are.
        """
        chosen = self.level == level
        if not chosen.any():
            there = sorted(map(int, set(self.level.tolist())))
            raise ValueError(f"no vector of level {level}, only of levels {there}: was the folder embedded with these?")
        columns = {f.name: getattr(self, f.name)[chosen] for f in dataclasses.fields(self) if f.name != "tracks"}
        return dataclasses.replace(self, **columns)

    def means(self, level):
        """Mean vector of each track at a level: float32 (n_tracks, 512).

        Over the clips that hold no repeated audio; over all where every clip does.
        """
        rows = self.at(level)
        own = np.bincount(rows.track[~rows.repeated], minlength=len(self.tracks))
        weight = (~rows.repeated | (own[rows.track] == 0)).astype(np.float32)
        sums = np.zeros((len(self.tracks), self.vectors.shape[1]), np.float32)
        np.add.at(sums, rows.track, rows.vectors * weight[:, None])
        return sums / np.bincount(rows.track, weight, minlength=len(self.tracks)).astype(np.float32)[:, None]


class Pair(NamedTuple):
    """Two tracks (rows of `Embeddings.tracks`, a < b) and how similar they are, at most 1."""

    a: int
    b: int
    similarity: float


def neighbours(embeddings, level, k=5):
    """The most similar other tracks of each track: cosine between mean vectors.

    Parameters
    ----------
    embeddings : Embeddings
    level : int
    k : int > 0
        At most as many as there are other tracks.

    Returns
    -------
    rows : int array (n_tracks, k)
        Of `embeddings.tracks`, the most similar first.
    similarity : float array (n_tracks, k)

    Raises
    ------
    ValueError
        If there are fewer than two tracks, or no vector of that level.

    Told in: notebooks/81_your_music.ipynb
    """
    from sklearn.neighbors import NearestNeighbors

    means = embeddings.means(level)
    if len(means) < 2 or k < 1:
        raise ValueError(f"{k} neighbours among {len(means)} tracks: need at least two tracks and one neighbour")
    found = NearestNeighbors(n_neighbors=min(k, len(means) - 1), metric="cosine").fit(means)
    distance, rows = found.kneighbors()
    return rows, 1 - distance


def near_duplicates(embeddings, threshold=SAME_COURSE, min_clips=3):
    """Tracks that are the same recording in another file: another bit rate, format, or loudness.

    Compared is the course in time at the shortest level: a track's clips, in order, less their own mean. What a codec
    or a gain does to every clip alike drops out. What changes in most tracks (they grow louder, they pause) is made
    small: the directions in which the folder's tracks change are brought to about equal strength. Two different songs
    have nothing in common then, however similar they sound: at most 0.26 among the toy twin's 64 tracks of 28 s,
    against 0.49 or more of copies as quieter mp3 at 64 kbit/s, from encoders that learned little or nothing.

    Clips are aligned from the beginning: a copy that begins a second later is not found, and tracks of a constant
    sound are not compared.

    Parameters
    ----------
    embeddings : Embeddings
    threshold : float
        Least cosine of two courses.
    min_clips : int > 1
        Tracks with fewer clips of their own are too short to have a course and are left out.

    Returns
    -------
    list of Pair, the most similar first
        Of tracks whose lengths differ by one clip at most.

    Told in: notebooks/81_your_music.ipynb
    """
    rows = embeddings.at(int(embeddings.level.max()))
    own = np.flatnonzero(~rows.repeated)
    own = own[np.lexsort((rows.index[own], rows.track[own]))]
    clips = {}  # number of clips -> {track: its vectors (n_clips, 512), in time order}
    for same in np.split(own, np.flatnonzero(np.diff(rows.track[own])) + 1):
        if len(same) >= min_clips:
            clips.setdefault(len(same), {})[int(rows.track[same[0]])] = rows.vectors[same]
    if not clips:
        return []
    even = _evening([vectors for same in clips.values() for vectors in same.values()])
    found = []
    for n_clips, same in sorted(clips.items()):
        longer = clips.get(n_clips + 1, {})
        names = [*same, *longer]
        vectors = [*same.values(), *longer.values()]
        courses = np.stack([_course(one[:n_clips], even) for one in vectors])  # (n_same + n_longer, n_clips * 512)
        for i in range(len(same)):
            similarity = courses[i + 1 :] @ courses[i]
            for j in np.flatnonzero(similarity >= threshold):
                a, b = sorted((names[i], names[i + 1 + j]))
                found.append(Pair(a, b, float(similarity[j])))
    return sorted(found, key=lambda pair: (-pair.similarity, pair))


def possible_covers(embeddings, threshold=SAME_WHOLE, duplicates=None, at_most=50):
    """Pairs of tracks with wholes that are much alike though the recordings differ: worth a listen, no more.

    Compared are wholes (level 0) less the folder's mean, the best pair of two tracks counts. The encoder was not
    trained to know a song in another key, tempo or arrangement: most of what is listed is the same band, or the same
    sound.

    Parameters
    ----------
    embeddings : Embeddings
    threshold : float
        Least cosine.
    duplicates : list of Pair, optional
        Left out; by default what `near_duplicates` finds.
    at_most : int

    Returns
    -------
    list of Pair, the most similar first

    Told in: notebooks/81_your_music.ipynb
    """
    rows = embeddings.at(0)
    duplicates = near_duplicates(embeddings) if duplicates is None else duplicates
    known = {(pair.a, pair.b) for pair in duplicates}
    x = _unit(rows.vectors - embeddings.means(0).mean(axis=0))
    best = {}
    for i in range(len(x)):  # one row of the matrix at a time: 100,000 wholes squared would be 40 GB
        similarity = x[i + 1 :] @ x[i]
        for j in np.flatnonzero(similarity >= threshold):
            a, b = sorted((int(rows.track[i]), int(rows.track[i + 1 + j])))
            if a != b and (a, b) not in known:
                best[a, b] = max(best.get((a, b), -1.0), float(similarity[j]))
    found = [Pair(a, b, similarity) for (a, b), similarity in best.items()]
    return sorted(found, key=lambda pair: (-pair.similarity, pair))[:at_most]


def _course(clips, even):
    """How a track changes from clip to clip, without its mean: (n_clips * 512,), length 1, or 0 if it never changes."""
    course = ((clips - clips.mean(axis=0)) @ even).reshape(-1)
    return course / max(float(np.linalg.norm(course)), 1e-9)


def _evening(tracks, at_most=20_000, damping=0.1):
    """A matrix (512, 512) that brings the directions in which tracks change to about one strength, the weakest less.

    tracks : list of arrays (n_clips, 512); the first ones, of `at_most` clips together, are looked at
    damping : share of the strongest that is added to every strength, so that mere noise is not brought up
    """
    change, n_rows = [], 0
    for clips in tracks:
        change.append(clips - clips.mean(axis=0))
        n_rows += len(clips)
        if n_rows >= at_most:
            break
    change = np.concatenate(change).astype(np.float64)
    variance, directions = np.linalg.eigh(change.T @ change / n_rows)
    strength = np.sqrt(np.maximum(variance, 0))
    return (directions / (strength + damping * strength[-1] + 1e-12)).astype(np.float32)


def _unit(x):
    """Rows of length 1; zeros stay zeros."""
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-9)
