"""What the makers of all twins share: seeded draws, whose folder it is, and rendering in parallel.

Told in: notebooks/01_data.ipynb
"""

import concurrent.futures
import os
import threading
import time
import zlib

import numpy as np

from pawlib.bench.files import read_json
from pawlib.bench.progress import progress


def generator(version, seed, name, purpose):
    """A random generator that depends on these four and nothing else.

    Parameters
    ----------
    version, seed : int
        Of the twin.
    name, purpose : str
        What is drawn for, e.g. a work, and what is drawn.

    Returns
    -------
    np.random.Generator
    """
    return np.random.default_rng([version, seed, zlib.crc32(name.encode()), zlib.crc32(purpose.encode())])


def draw(rng, shares):
    """One of the keys of `shares`, with these probabilities."""
    return list(shares)[int(rng.choice(len(shares), p=np.array(list(shares.values())) / sum(shares.values())))]


def spread(rng, n, low, high):
    """n values that fill [low, high) evenly, one in each nth of it, in random order: float64 [shape=(n,)]."""
    return low + (high - low) * (rng.permutation(n) + rng.random(n)) / n


def complete(root, identity):
    """Whether the twin of this identity is in a folder, finished.

    Parameters
    ----------
    root : pathlib.Path
    identity : dict
        What twin.json and making.json must agree with: name, version, seed, size, n_tracks.

    Raises
    ------
    ValueError
        If the folder holds another twin.
    """
    for name in ("twin.json", "making.json"):
        if (root / name).is_file():
            found = read_json(root / name)
            other = [f"{key} {found.get(key)!r}" for key in identity if found.get(key) != identity[key]]
            if other:
                raise ValueError(
                    f"{root} holds another twin ({', '.join(other)}), asked for {identity}: "
                    "delete it or choose another folder"
                )
    return (root / "twin.json").is_file()


def render_all(one, recipes, n_workers, what):
    """Render tracks in parallel; a worker takes neighbours in the list.

    Parameters
    ----------
    one : callable
        Renders one recipe; goes to other processes.
    recipes : list
    n_workers : int or None
        Processes; all cores this process may use if None.
    what : str
        For the progress line.
    """
    n_workers = n_workers or len(os.sched_getaffinity(0))
    if n_workers == 1 or len(recipes) < 4:
        for recipe in progress(recipes, what=what, unit="tracks"):
            one(recipe)
        return
    with concurrent.futures.ProcessPoolExecutor(n_workers, initializer=_end_with, initargs=(os.getpid(),)) as pool:
        done = pool.map(one, recipes, chunksize=max(1, min(8, len(recipes) // (4 * n_workers))))
        for _ in progress(done, len(recipes), what, "tracks"):
            pass


def _end_with(parent):
    """Let a worker end when its parent is killed: an orphan would hold the folder's lock for ever."""

    def watch():
        while os.getppid() == parent:
            time.sleep(0.3)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
