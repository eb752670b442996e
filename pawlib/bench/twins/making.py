"""What the makers of all twins share: seeded draws, whose folder it is, and rendering in parallel.

A synthesiser is C code that may never come back, or may take its process with it. So tracks are rendered in worker
processes, each track within LIMIT_S; a worker that is lost costs its track alone (`render_all`).

Told in: notebooks/01_data.ipynb
"""

import collections
import contextlib
import faulthandler
import multiprocessing
import multiprocessing.connection
import os
import pickle
import threading
import time
import traceback
import warnings
import zlib

import numpy as np

from pawlib.bench.files import read_json
from pawlib.bench.progress import progress

LIMIT_S = 300.0  # for a track; most take a second or two, a long score to parse up to a minute on a busy machine
CHUNK = 8  # neighbours in the list that a worker takes: works of one file, which is parsed once


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
                    "delete it, with the runs that heard it, or choose another folder"
                )
    return (root / "twin.json").is_file()


def render_all(one, recipes, n_workers, what, limit_s=None):
    """Render tracks in parallel; a worker takes neighbours in the list.

    A track whose worker does not come back within the limit, or dies, is tried once more at the end and then left out:
    one bad work is not the end of a run.

    Parameters
    ----------
    one : callable
        Renders one recipe; goes to other processes.
    recipes : list of dict
        With "file", by which a track is named.
    n_workers : int or None
        Processes; all cores this process may use if None.
    what : str
        For the progress line.
    limit_s : float [s], optional
        For each track; LIMIT_S by default.

    Returns
    -------
    list of dict
        The recipes that were left out; none, as a rule.

    Raises
    ------
    RuntimeError
        If no track of several could be rendered: then it is not the tracks.
    Exception
        What `one` raised, with the worker's traceback as a note.

    Warns
    -----
    UserWarning
        Naming the tracks that were left out, and why.
    """
    n_workers = n_workers or len(os.sched_getaffinity(0))
    outcomes = _outcomes(one, recipes, n_workers, LIMIT_S if limit_s is None else limit_s)
    left_out = [(r, why) for r, why in progress(outcomes, len(recipes), what, "tracks") if why]
    if not left_out:
        return []
    told = "; ".join(f"{recipe['file']} {why}" for recipe, why in left_out)
    if len(left_out) == len(recipes) > 1:
        raise RuntimeError(f"{what}: none of {len(recipes)} tracks could be rendered: {told}: is memory short?")
    warnings.warn(
        f"{what}: left out {len(left_out)} of {len(recipes)} tracks: {told}. twin.json lists them; delete it and run "
        "again to try once more",
        stacklevel=3,
    )
    return [recipe for recipe, _ in left_out]


def told_left_out(recipes):
    """What twin.json says of tracks that were left out: nothing where there are none, so that bytes do not change."""
    return {"left_out": [recipe["file"] for recipe in recipes]} if recipes else {}


def _outcomes(one, recipes, n_workers, limit_s):
    """Each recipe as it is done, with "" or why there is no track."""
    size = max(1, min(CHUNK, len(recipes) // (4 * n_workers)))
    todo = collections.deque(recipes[k : k + size] for k in range(0, len(recipes), size))
    workers, again = {}, []  # by their pipe; recipes that have lost a worker once
    try:
        while todo or workers:
            while todo and len(workers) < n_workers:
                worker = _Worker(one, limit_s, todo.popleft())
                workers[worker.pipe] = worker
            for pipe in multiprocessing.connection.wait(list(workers)):
                worker = workers[pipe]
                recipe, lost = worker.outcome()
                if not lost:
                    yield recipe, ""
                elif any(recipe is other for other in again):
                    yield recipe, lost
                else:
                    again.append(recipe)
                    todo.append([recipe])
                if lost and worker.chunk:
                    todo.appendleft(worker.chunk)
                if lost or not worker.go_on(todo):
                    workers.pop(pipe).end()
    finally:
        for worker in workers.values():
            worker.end()


class _Worker:
    """A process that renders one recipe after the other, and what it has been given.

    pipe : its end here; readable when a track is done, or the process gone
    chunk : list of recipes, what it shall do after the present one
    """

    def __init__(self, one, limit_s, chunk):
        self.pipe, theirs = multiprocessing.Pipe()
        self.limit_s, self.chunk = limit_s, list(chunk)
        self.process = multiprocessing.Process(target=_work, args=(one, theirs, os.getpid(), limit_s), daemon=True)
        self.process.start()
        theirs.close()  # the last copy is the worker's: when it is gone, the pipe ends
        self.go_on(())

    def go_on(self, todo):
        """Hand over the next recipe; False if there is none."""
        if not self.chunk and todo:
            self.chunk = list(todo.popleft())
        if not self.chunk:
            return False
        self.recipe, self.began = self.chunk.pop(0), time.monotonic()
        with contextlib.suppress(BrokenPipeError):  # a worker that has gone is found by outcome()
            self.pipe.send(self.recipe)
        return True

    def outcome(self):
        """The recipe that is done, and "" or how the worker was lost; raises what rendering it raised."""
        try:
            error = self.pipe.recv()
        except (EOFError, ConnectionResetError):
            self.process.join()
            if time.monotonic() - self.began >= self.limit_s:
                return self.recipe, f"was not done after {self.limit_s:g} s"
            return self.recipe, f"ended its process (exit code {self.process.exitcode})"
        if error is not None:
            raise error
        return self.recipe, ""

    def end(self):
        """Let it finish what it is at, a few seconds at most."""
        with contextlib.suppress(OSError):
            self.pipe.send(None)
        self.pipe.close()
        self.process.join(5)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


def _work(one, pipe, parent, limit_s):
    """What a worker does: render what comes, answer None or the error, until None comes.

    The limit is kept by faulthandler's watchdog, a thread of C: it ends the process even where code that hangs never
    lets Python run again.
    """
    _end_with(parent)
    with open(os.devnull, "w") as nowhere, contextlib.suppress(KeyboardInterrupt, EOFError, BrokenPipeError):
        while (recipe := pipe.recv()) is not None:
            error = None
            faulthandler.dump_traceback_later(limit_s, exit=True, file=nowhere)
            try:
                one(recipe)
            except Exception as raised:
                error = _told(raised)
            faulthandler.cancel_dump_traceback_later()
            pipe.send(error)


def _told(error):
    """An error that can travel, with its traceback as a note."""
    error.add_note("in a worker process:\n" + traceback.format_exc())
    try:
        return pickle.loads(pickle.dumps(error))
    except Exception:  # whatever an error class does when it is copied
        return RuntimeError("".join(traceback.format_exception(error)))


def _end_with(parent):
    """Let a worker end when its parent is killed: an orphan would hold the folder's lock for ever."""

    def watch():
        while os.getppid() == parent:
            time.sleep(0.3)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
