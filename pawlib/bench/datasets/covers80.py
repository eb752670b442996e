"""Covers80 (Ellis and Cotton 2007) and its twin: 80 songs, each in two recordings, for retrieval alone.

Conventions
    root/coversongs/covers32k/list1.list, list2.list      80 lines each, `<Song_Name>/<file without .mp3>`; line k of
                                                          both is one song
    root/coversongs/covers32k/<Song_Name>/<artist>+<Album>+NN-<Song>.mp3      16 kHz, 32 kbps, mono
    root/twin.json, <track>.json                          only in the twin

The root may also be `coversongs` or `covers32k` itself. **The lists are the dataset**: they name 160 recordings, while
the folder holds 164 mp3s (three songs have more than two). Every one of the 160 asks for the one other recording of its
song, so that P@10 cannot exceed 0.100. There is nothing to train on: all are in `Splits.test`.

Told in: notebooks/40_cover_songs.ipynb
"""

import os
import warnings
from collections import Counter
from pathlib import Path, PurePosixPath

import numpy as np

from pawlib.bench.datasets import Splits, Track
from pawlib.bench.files import read_json

LISTS = ("list1.list", "list2.list")
N_SONGS = 80
EXTENSION = ".mp3"
PLACES = (".", "coversongs", "coversongs/covers32k", "covers32k")  # where the lists may lie, under the root

_MISSING = ("report", "keep", "error")
_GET_IT = "Get the dataset with `pawlib fetch covers80`, or make its twin with `pawlib twins covers80`"


def read(root, missing="report"):
    """Read the recordings that the two lists name.

    Parameters
    ----------
    root : path-like
        Folder of the real dataset or of its twin: see the module's map.
    missing : "report", "keep" or "error"
        What to do with listed recordings whose audio is not there: leave them out, list them in `Splits.missing` and
        warn with their number; keep them all; or refuse.

    Returns
    -------
    Splits
        All in `test`, first those of list 1, then those of list 2; no labels. `Track.id` is
        "<Song_Name>/<file without .mp3>", `Track.work` the song, `Track.artist` what stands before the first "+".

    Raises
    ------
    FileNotFoundError
        If the root or a list is missing, no recording is there, or with missing="error" one is not.
    ValueError
        If an argument is unknown, or a list is not what it should be, naming file, line and value.

    Warns
    -----
    UserWarning
        If recordings are missing, or the real lists have not 80 lines.

    Told in: notebooks/40_cover_songs.ipynb
    """
    if missing not in _MISSING:
        raise ValueError(f"missing={missing!r} is unknown, expected one of {_MISSING}")
    root = Path(root)
    folder = _folder(root)
    listed = [_lines(folder / name) for name in LISTS]
    _check_pairs(folder, *listed)
    twin = read_json(root / "twin.json") if (root / "twin.json").is_file() else None
    if twin is None and len(listed[0]) != N_SONGS:
        warnings.warn(
            f"{folder / LISTS[0]} has {len(listed[0])} songs, the released list {N_SONGS}: scores are of another set",
            stacklevel=2,
        )
    ids = [one for part in listed for one in part]
    left_out = {} if missing == "keep" else _without_audio(folder, ids, missing)
    no_target = np.zeros(0, np.float32)
    tracks = [
        Track(one, folder / f"{one}{EXTENSION}", no_target, one.split("/")[0], _artist(one))
        for one in ids
        if one not in left_out
    ]
    return Splits(
        train=[],
        valid=[],
        test=tracks,
        labels=(),
        name="covers80" if twin is None else str(twin.get("name", "covers80-twin")),
        split="all",
        missing=list(left_out.values()),
    )


def unlisted(root):
    """Recordings that lie in the folder and that no list names: four in the released set.

    Returns
    -------
    list of str
        "<Song_Name>/<file without .mp3>", in alphabetical order.
    """
    folder = _folder(Path(root))
    listed = {one for name in LISTS for one in _lines(folder / name)}
    there = {
        f"{song}/{name.removesuffix(EXTENSION)}"
        for song in os.listdir(folder)
        if (folder / song).is_dir()
        for name in os.listdir(folder / song)
        if name.endswith(EXTENSION) and not name.startswith(".")
    }
    return sorted(there - listed)


def _folder(root):
    """The folder that holds the lists and one folder for each song."""
    if not root.is_dir():
        raise FileNotFoundError(f"{root} is not there, expected the folder of Covers80. {_GET_IT}")
    for place in PLACES:
        there = [name for name in LISTS if (root / place / name).is_file()]
        if len(there) == len(LISTS):
            return root / place
        if there:
            absent = next(name for name in LISTS if name not in there)
            raise FileNotFoundError(
                f"{root / place} holds {there[0]} and no {absent}: which recordings are meant stands in both. "
                "Unpack covers80.tgz again"
            )
    if (root / "covers80.tgz").is_file():
        raise FileNotFoundError(
            f"{root} holds covers80.tgz, not unpacked. Run `pawlib fetch covers80`, or by hand in that folder: "
            "`tar xzf covers80.tgz`"
        )
    raise FileNotFoundError(
        f"{root} holds no {' and '.join(LISTS)}, neither itself nor in coversongs/covers32k: is the root one folder "
        f"too high or too low? {_GET_IT}"
    )


def _lines(path):
    """The recordings of a list, checked: "<Song_Name>/<file without .mp3>"."""
    raw = path.read_bytes()
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        text = raw.decode("latin-1")
    found = []
    for k, line in enumerate(text.splitlines(), 1):
        name = line.strip().removesuffix(EXTENSION)
        parts = PurePosixPath(name).parts
        if not name:
            continue
        if len(parts) != 2 or ".." in parts or name.startswith("/"):
            raise ValueError(
                f"{path}, line {k}: {line!r} is no recording, expected <Song_Name>/<file>: was the list edited?"
            )
        found.append(name)
    if not found:
        raise ValueError(f"{path} names no recording: was it cut off? Unpack covers80.tgz again")
    return found


def _check_pairs(folder, first, second):
    """Line k of both lists must be one song, and no recording or song may come twice."""
    if len(first) != len(second):
        raise ValueError(
            f"{folder}: {LISTS[0]} has {len(first)} recordings and {LISTS[1]} {len(second)}, expected as many: was one "
            "cut off?"
        )
    for k, (one, other) in enumerate(zip(first, second, strict=True), 1):
        if one.split("/")[0] != other.split("/")[0]:
            raise ValueError(
                f"{folder}, line {k} of the lists: {one!r} and {other!r} are of two songs, expected one: are the lists "
                "in another order?"
            )
    repeated = [one for one, n in Counter(first + second).items() if n > 1]
    repeated += [song for song, n in Counter(one.split("/")[0] for one in first).items() if n > 1]
    if repeated:
        raise ValueError(f"{folder}: {repeated[0]!r} comes twice in the lists, expected every song once in each")


def _artist(one):
    """Who plays, as the file's name says: what stands before the first plus sign."""
    name = one.split("/")[1]
    return name.split("+")[0] if "+" in name else ""


def _without_audio(folder, ids, missing):
    """Listed recordings whose file is not there, by id."""
    lost = {
        one: {"id": one, "path": str(folder / f"{one}{EXTENSION}"), "reason": "listed, but the file is not there"}
        for one in ids
        if not (folder / f"{one}{EXTENSION}").is_file()
    }
    if not lost:
        return lost
    told = f"{len(lost)} of {len(ids)} listed recordings of {folder} have no audio file, e.g. {min(lost)}{EXTENSION}"
    if missing == "error":
        raise FileNotFoundError(f"{told}. Was unpacking stopped? Unpack covers80.tgz again, or read with 'report'")
    if len(lost) == len(ids):
        raise FileNotFoundError(f"{told}: all of them. {_GET_IT}")
    alone = len({one.split("/")[0] for one in lost})
    warnings.warn(
        f"{told}: left out and listed in Splits.missing; {alone} songs lack a recording, so that whoever asks for it "
        "has no right answer, and scores are of another test set",
        stacklevel=3,
    )
    return lost
