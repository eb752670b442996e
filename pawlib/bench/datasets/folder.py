"""Anybody's own folder of audio: tracks without targets, file names in any script.

Conventions
    Track.id      the path below the folder, with forward slashes, in Unicode's composed form (NFC), so that the same
                  folder copied from a Mac gives the same ids
    Track.work    the id: nothing is known about which files are of one piece
    Track.target  empty
"""

import os
import unicodedata
import warnings
from collections import Counter
from pathlib import Path

import numpy as np

from pawlib.bench.audio import EXTENSIONS, printable
from pawlib.bench.datasets import Splits, Track


def read(root, recursive=True, extensions=EXTENSIONS):
    """List the audio files of a folder; nothing is decoded.

    Parameters
    ----------
    root : path-like
    recursive : bool
        Whether to look into subfolders (links to folders are not followed).
    extensions : tuple of str
        What counts as audio, upper or lower case.

    Returns
    -------
    list of Track
        In order of id.

    Raises
    ------
    FileNotFoundError
        If the folder is missing.
    ValueError
        If it holds no audio; it says what it holds instead.

    Warns
    -----
    UserWarning
        With the number and the first names of the files that are not audio; `left_out` lists them all.

    Told in: notebooks/81_your_music.ipynb
    """
    tracks, others = _scan(root, recursive, extensions)
    if others:
        told = ", ".join(Path(other["path"]).name for other in others[:3])
        warnings.warn(f"{root}: {len(others)} files are not audio and left out: {told}, ...", stacklevel=2)
    return tracks


def left_out(root, recursive=True, extensions=EXTENSIONS):
    """The files `read` leaves out: list of {"id", "path", "reason"}, in order of id."""
    return _scan(root, recursive, extensions)[1]


def splits(root, valid=0.1, test=0.0, seed=0, name=None, recursive=True, extensions=EXTENSIONS):
    """Split a folder by seed, so that it can be pretrained on.

    Parameters
    ----------
    root, recursive, extensions
        As in `read`.
    valid, test : float in [0, 1)
        Shares of the files, each rounded; what is left trains.
    seed : int
    name : str, optional
        What rows and stores call it; the folder's name if not given.

    Returns
    -------
    Splits
        Without labels. `missing` lists what is not audio.

    Raises
    ------
    ValueError
        If the shares are not possible or leave no track to train on.
    """
    if not (0 <= valid < 1 and 0 <= test < 1 and valid + test < 1):
        raise ValueError(
            f"valid={valid} and test={test} are shares of the files, expected each and their sum in [0, 1)"
        )
    tracks, others = _scan(root, recursive, extensions)
    n_valid, n_test = round(valid * len(tracks)), round(test * len(tracks))
    if n_valid + n_test >= len(tracks):
        raise ValueError(
            f"{root} has {len(tracks)} audio files: valid={valid} and test={test} leave none to train on, ask for less"
        )
    order = np.random.default_rng(seed).permutation(len(tracks))
    shares = np.split(order, [len(tracks) - n_valid - n_test, len(tracks) - n_test])
    train, held_out, tested = ([tracks[i] for i in sorted(share)] for share in shares)
    return Splits(
        train, held_out, tested, labels=(), name=name or Path(root).resolve().name, split=f"seed {seed}", missing=others
    )


def _scan(root, recursive, extensions):
    """(tracks, files left out), both in order of id."""
    root = Path(root)
    if not root.exists():
        raise FileNotFoundError(f"{root} is not there, expected a folder of audio: is the path spelt right?")
    if not root.is_dir():
        raise ValueError(f"{root} is a file, expected a folder of audio: give the folder it lies in")
    extensions = {extension.lower() for extension in extensions}
    tracks, others = [], []
    for path in _files(root, recursive):
        name = path.relative_to(root).as_posix()
        reason = _why_not(path, extensions)
        if reason:
            others.append({"id": printable(name), "path": printable(path), "reason": reason})
        else:
            tracks.append((name, path))
    if not tracks:
        what = f"{len(others)} files, none of them audio" if others else "nothing"
        deeper = "" if recursive else " (subfolders were not looked into: recursive=False)"
        raise ValueError(f"{root} holds {what}{deeper}, expected {', '.join(sorted(extensions))}")
    no_target = np.zeros(0, np.float32)
    found = [Track(track_id, path, no_target, track_id) for track_id, path in _with_ids(tracks)]
    return sorted(found, key=lambda track: track.id), sorted(others, key=lambda other: other["id"])


def _files(root, recursive):
    for here, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith(".")) if recursive else []
        yield from (Path(here) / name for name in sorted(names))


def _why_not(path, extensions):
    """Why a file is no track; "" if it is one."""
    if path.name.startswith("."):
        return "hidden file"
    if path.suffix.lower() not in extensions:
        return f"extension {path.suffix or '(none)'} is none of {', '.join(sorted(extensions))}"
    return ""


def _with_ids(named_paths):
    """Ids in composed form, unless two names differ only by composition."""
    composed = [unicodedata.normalize("NFC", printable(name)) for name, _ in named_paths]
    times = Counter(composed)
    for (name, path), short in zip(named_paths, composed, strict=True):
        yield (printable(name) if times[short] > 1 else short), path
