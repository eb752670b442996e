"""SHS100K-SUB (Yao et al. 2022, the paper's Table 4), the full SHS100K2 lists (Yu et al. 2020), and the twin.

Conventions
    root/SHS_TRAIN_SUB.npy, SHS_VAL_SUB.npy, SHS_TEST_SUB.npy     arrays of strings "<set>_<version>"        (split sub)
    root/SHS100K-TRAIN, SHS100K-VAL, SHS100K-TEST                 lines <set> TAB <version>                 (split full)
    root/list                                    optional: set, version, title, performer, URL, status; tab-separated
    root/audio/<set>_<version>.<ext>             what the user has gathered
    root/twin.json, audio/<track>.json           only in the twin

A *set* is a song, a *version* a recording of it. The lists may also lie in root/meta. No audio is published: many
recordings cannot be had any more, so what is missing is counted and left out, never guessed, and a score says how much
of the test set it is of (`surviving`).

In the full lists two songs cross the parts: 5982 is in TRAIN and VAL, 8110 in VAL and TEST. By default such a song
stays in the later part alone. The parts of SUB share no song; 15 of VAL's and 11 of TEST's have one version only, and
P@10 on TEST cannot exceed 0.560.

Told in: notebooks/40_cover_songs.ipynb
"""

import os
import warnings
from collections import Counter
from pathlib import Path

import numpy as np

from pawlib.bench import npy
from pawlib.bench.audio import EXTENSIONS
from pawlib.bench.datasets import Splits, Track
from pawlib.bench.files import read_json

SPLITS = ("sub", "full")
PARTS = ("train", "valid", "test")
FILES = {
    "sub": dict(zip(PARTS, ("SHS_TRAIN_SUB.npy", "SHS_VAL_SUB.npy", "SHS_TEST_SUB.npy"), strict=True)),
    "full": dict(zip(PARTS, ("SHS100K-TRAIN", "SHS100K-VAL", "SHS100K-TEST"), strict=True)),
}
SHA256 = {  # of the published lists of SUB, by which `pawlib fetch` knows them
    "SHS_TRAIN_SUB.npy": "827903eb5b562167214ebab9a4542de57997730557e36e5eb7d167b1df257df1",
    "SHS_VAL_SUB.npy": "7a944d341652222e49bd45974ee47bf358b58e7ec826c3dd67300b2366823c50",
    "SHS_TEST_SUB.npy": "19d87c505942ba3ff914b6ccdafc953cd10afb8706e803af27529dc73f2041c7",
}
TRACKS = {"sub": (10_003, 1_004, 1_004), "full": (87_091, 10_884, 10_547)}  # as published
SONGS = {"sub": (707, 174, 207), "full": (5_324, 1_842, 1_692)}
LEAKING = {"5982": ("train", "valid"), "8110": ("valid", "test")}  # songs of the full lists, and the parts they are in

_MISSING = ("report", "keep", "error")
_GET_IT = (
    "Get the lists with `pawlib fetch shs100k-sub` and place the audio into {audio} as <set>_<version>.mp3 (or wav, "
    "flac, ogg), or make the twin with `pawlib twins shs100k`"
)


def read(root, split="sub", missing="report", leaks="drop"):
    """Read the recordings of the three lists, with the song they are of.

    Parameters
    ----------
    root : path-like
        Folder of the real dataset or of its twin: see the module's map.
    split : "sub" | "full"
        The paper's part of the collection, or all of it.
    missing : "report", "keep" or "error"
        What to do with listed recordings whose audio is not there: leave them out, list them in `Splits.missing` and
        warn with what survives; keep them all (the lists can be studied without audio); or refuse.
    leaks : "drop" | "keep"
        A song that is in two parts: leave it in the later one alone, or in both. It is named in a warning either way.

    Returns
    -------
    Splits
        Without labels. `Track.id` is "<set>_<version>", `Track.work` the set; `Track.artist` the performer, where the
        file `list` is there.

    Raises
    ------
    FileNotFoundError
        If the root, a list or the audio is missing, or with missing="error" a recording is.
    ValueError
        If an argument is unknown, or a list is not what it should be, naming file, line and value.

    Warns
    -----
    UserWarning
        If recordings are missing (with `surviving`), songs cross parts, or the lists are not the published ones.

    Told in: notebooks/40_cover_songs.ipynb
    """
    for name, value, known in (("split", split, SPLITS), ("missing", missing, _MISSING), ("leaks", leaks, _LEAKS)):
        if value not in known:
            raise ValueError(f"{name}={value!r} is unknown, expected one of {known}")
    root = Path(root)
    lists = listed(root, split)
    twin = read_json(root / "twin.json") if (root / "twin.json").is_file() else None
    if twin is None:
        _warn_of_other_lists(root, split, lists)
    left_out = _crossing(root, lists, leaks)
    found = _files(root, missing)
    if missing != "keep":
        left_out |= _without_audio(root, lists, found, left_out, missing)
    about = info(root) if (_place(root, "list") / "list").is_file() else {}
    no_target = np.zeros(0, np.float32)

    def track(one):
        path = root / "audio" / found.get(one, f"{one}{EXTENSIONS[0]}")
        return Track(one, path, no_target, one.split("_")[0], about.get(one, {}).get("performer", ""))

    splits = Splits(
        **{part: [track(one) for one in ids if (part, one) not in left_out] for part, ids in lists.items()},
        labels=(),
        name="shs100k" if twin is None else str(twin.get("name", "shs100k-twin")),
        split=split,
        missing=list(left_out.values()),
    )
    if missing == "report" and any(entry["reason"] == _NOT_THERE for entry in splits.missing):
        warnings.warn(
            f"{root / 'audio'}: {surviving(splits, lists)}. The rest is left out and listed in Splits.missing: scores "
            "are of another test set",
            stacklevel=2,
        )
    return splits


_LEAKS = ("drop", "keep")
_NOT_THERE = "listed, but no audio file of this name is there"


def listed(root, split="sub"):
    """What the three lists name, whether or not the audio is there.

    Parameters
    ----------
    root : path-like
    split : "sub" | "full"

    Returns
    -------
    dict of str to list of str
        "train", "valid", "test": ids "<set>_<version>", in the order of the file.

    Raises
    ------
    FileNotFoundError, ValueError
        As `read`.
    """
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"{root} is not there, expected the folder of SHS100K. {_get_it(root)}")
    lists = {}
    for part, name in FILES[split].items():
        path = _place(root, name) / name
        if not path.is_file():
            raise FileNotFoundError(f"{path} is not there, the list of the part {part!r}. {_get_it(root)}")
        lists[part] = _of_array(path) if name.endswith(".npy") else _of_lines(path)
    return lists


def surviving(splits, lists=None):
    """How much of the lists could be heard, beside the published counts, as one line.

    Parameters
    ----------
    splits : Splits
        As `read` or corpora.open_corpus gives it.
    lists : dict of str to list of str, optional
        As `listed`; the published counts if not given.

    Returns
    -------
    str
        "train 9,100 of 10,003 recordings, 700 of 707 songs; valid ...; 14 songs of test have one recording left"
    """
    told = []
    for k, part in enumerate(PARTS):
        tracks = getattr(splits, part)
        if lists is None:
            n_tracks, n_songs = TRACKS[splits.split][k], SONGS[splits.split][k]
        else:
            n_tracks, n_songs = len(lists[part]), len({one.split("_")[0] for one in lists[part]})
        songs = {track.work for track in tracks}
        told.append(f"{part} {len(tracks):,} of {n_tracks:,} recordings, {len(songs):,} of {n_songs:,} songs")
    alone = sum(n == 1 for n in Counter(track.work for track in splits.test).values())
    return "; ".join([*told, f"{alone} songs of test have one recording left, which asks for nothing"])


def info(root):
    """What the file `list` says of each recording.

    Returns
    -------
    dict of str to dict
        Id to "title", "performer", "url", "status" (whether it could be downloaded when the list was made).

    Raises
    ------
    FileNotFoundError, ValueError
        If there is no such file, or a line has fewer than six columns.
    """
    path = _place(Path(root), "list") / "list"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there: `pawlib fetch shs100k-sub` gets it")
    found = {}
    for k, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        cells = line.split("\t")
        if len(cells) < 6 or not (cells[0].isdigit() and cells[1].isdigit()):
            raise ValueError(
                f"{path}, line {k}: {line[:80]!r} has not the columns set, version, title, performer, URL, status: was "
                "the file cut off, or is it a web page?"
            )
        title, performer = cells[2], " ".join(cells[3:-2])  # a performer's name with a tab in it
        told = {"title": title, "performer": performer, "url": cells[-2].strip(), "status": cells[-1].strip()}
        found.setdefault(f"{int(cells[0])}_{int(cells[1])}", told)
    return found


# --- lists ------------------------------------------------------------------------------------------------------------


def _get_it(root):
    return _GET_IT.format(audio=root / "audio")


def _place(root, name):
    """The folder a list lies in: the root, or `meta` under it."""
    return root / "meta" if not (root / name).is_file() and (root / "meta" / name).is_file() else root


def _of_array(path):
    """Ids of a list of SUB. As published it is an array of Python objects, of which nothing but strings is read."""
    names = npy.strings(path)
    if names.ndim != 1 or not len(names):
        raise ValueError(
            f"{path} holds an array of shape {names.shape}, expected strings in a row: is it another file?"
        )
    return _checked(path, [str(name) for name in names], "entry")


def _of_lines(path):
    """Ids of a full list."""
    names = [
        "_".join(line.split()[:2]) for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if line
    ]
    if not names:
        raise ValueError(f"{path} names no recording: was it cut off? Fetch it again")
    return _checked(path, names, "line")


def _checked(path, names, what):
    """Ids without leading zeros, each of two numbers, none twice."""
    found = []
    for k, name in enumerate(names, 1):
        parts = name.strip().split("_")
        if len(parts) != 2 or not all(part.isdigit() and part.isascii() for part in parts):
            raise ValueError(
                f"{path}, {what} {k}: {name!r} is no recording, expected two numbers, <set> and <version>: is it the "
                "right file?"
            )
        found.append(f"{int(parts[0])}_{int(parts[1])}")
    repeated = [name for name, n in Counter(found).items() if n > 1]
    if repeated:
        raise ValueError(f"{path}: {repeated[0]!r} comes twice ({len(repeated)} do): are two files joined?")
    return found


def _warn_of_other_lists(root, split, lists):
    tracks = tuple(len(lists[part]) for part in PARTS)
    songs = tuple(len({one.split("_")[0] for one in lists[part]}) for part in PARTS)
    if (tracks, songs) != (TRACKS[split], SONGS[split]):
        warnings.warn(
            f"{root} lists {_counts(tracks)} recordings of {_counts(songs)} songs, as published {split!r} has "
            f"{_counts(TRACKS[split])} of {_counts(SONGS[split])}: scores are of another set",
            stacklevel=3,
        )


def _counts(numbers):
    return "/".join(f"{n:,}" for n in numbers)


def _crossing(root, lists, leaks):
    """Recordings of songs that a later part has, too, by (part, id); songs are named in a warning."""
    songs = {part: {one.split("_")[0] for one in ids} for part, ids in lists.items()}
    parts_of = {}
    for part in PARTS:
        for song in songs[part]:
            parts_of.setdefault(song, []).append(part)
    crossing = {song: parts for song, parts in sorted(parts_of.items(), key=lambda pair: int(pair[0])) if parts[1:]}
    if not crossing:
        return {}
    told = ", ".join(f"{song} is in {' and '.join(parts)}" for song, parts in list(crossing.items())[:5])
    what = "left in the later part alone" if leaks == "drop" else "kept in both, so that a score rewards memory"
    warnings.warn(f"{root}: {len(crossing)} songs cross the parts, {told}: {what}", stacklevel=3)
    if leaks == "keep":
        return {}
    return {
        (part, one): {
            "id": one,
            "path": str(root / "audio" / one),
            "reason": f"song {one.split('_')[0]} is in {parts_of[one.split('_')[0]][-1]}, too",
        }
        for part, ids in lists.items()
        for one in ids
        if parts_of[one.split("_")[0]][-1] != part
    }


# --- audio ------------------------------------------------------------------------------------------------------------


def _files(root, missing):
    """File name of each recording that is there; of two the one whose extension stands first in EXTENSIONS."""
    folder = root / "audio"
    if not folder.is_dir():
        if missing == "keep":
            return {}
        raise FileNotFoundError(f"{folder} is not there, so there is nothing to hear. {_get_it(root)}")
    found = {}
    names = os.listdir(folder)
    for extension in reversed(EXTENSIONS):
        for name in names:
            stem, dot = os.path.splitext(name)
            if dot.lower() == extension and not name.startswith("."):
                found[stem] = name
    return found


def _without_audio(root, lists, found, known, missing):
    """Listed recordings whose audio is not there, by (part, id)."""
    n_listed = sum(map(len, lists.values()))
    lost = {
        (part, one): {"id": one, "path": str(root / "audio" / one), "reason": _NOT_THERE}
        for part, ids in lists.items()
        for one in ids
        if one not in found and (part, one) not in known
    }
    if not lost:
        return lost
    told = f"{len(lost):,} of {n_listed:,} listed recordings have no audio file in {root / 'audio'}"
    if missing == "error":
        raise FileNotFoundError(f"{told}, e.g. {next(iter(lost))[1]}. {_get_it(root)}")
    if len(lost) == n_listed - len(known):
        raise FileNotFoundError(f"{told}: all of them. {_get_it(root)}")
    return lost
