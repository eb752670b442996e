"""GTZAN (Tzanetakis and Cook 2002) and its twin: 30-second tracks of ten genres, one genre each.

Conventions
    root/genres/<genre>/<genre>.00000.wav   22,050 Hz mono, about 30 s, 10 x 100; .au in the older build. The root may
                                            also be the folder `genres` itself. `._*.wav` beside them are no audio.
    root/twin.json, <track>.json            only in the twin: its classes, splits and works, and what a track holds

The split is the fault-filtered one (Kereliuk, Sturm and Larsen 2015), without repetitions, distortions and wrong
labels, and with no artist in two parts; its lists are torchaudio's. It names jazz.00054, which cannot be decoded: 442
tracks are left to train on. The twin's split is the one of its works.
"""

import os
import warnings
from pathlib import Path

import numpy as np

from pawlib.bench.datasets import Splits, Track
from pawlib.bench.files import read_json

SPLITS = ("fault_filtered",)
GENRES = ("blues", "classical", "country", "disco", "hiphop", "jazz", "metal", "pop", "reggae", "rock")
COUNTS = {"fault_filtered": (442, 197, 290)}
BAD_TRACKS = {"jazz.00054": "the one file of the release that cannot be decoded"}
EXTENSIONS = (".wav", ".au")

_MISSING = ("report", "keep", "error")
_GET_IT = (
    "Get the dataset with `pawlib fetch gtzan` (or place genres/<genre>/<genre>.00000.wav and so on there by hand), "
    "or make its twin with `pawlib twins gtzan`"
)


def read(root, split="fault_filtered", missing="report"):
    """Read the tracks, their genre and their split.

    Parameters
    ----------
    root : path-like
        Folder of the real dataset or of its twin (the one with a twin.json).
    split : "fault_filtered"
        See the module's map; a twin has its own lists, and `Splits.split` says "by_work".
    missing : "report", "keep" or "error"
        What to do with listed tracks whose audio is not there: leave them out, list them in `Splits.missing` and warn
        with their number; keep them all (the split can be studied without the audio); or refuse.

    Returns
    -------
    Splits
        `single_label` is True and targets are one-hot. `Track.id` is "blues.00000". `Track.work` is the id (which
        tracks are of one recording is not known; the split keeps them together), in a twin the pair of tunes.

    Raises
    ------
    FileNotFoundError
        If the root or one of its genre folders is missing, or with missing="error" a track is.
    ValueError
        If an argument is unknown, or twin.json is not what it should be.

    Warns
    -----
    UserWarning
        If tracks are missing.

    Told in: notebooks/01_data.ipynb
    """
    if split not in SPLITS:
        raise ValueError(f"split={split!r} is unknown, expected one of {SPLITS}")
    if missing not in _MISSING:
        raise ValueError(f"missing={missing!r} is unknown, expected one of {_MISSING}")
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"{root} is not there, expected the folder of GTZAN. {_GET_IT}")
    twin = _twin(root)
    labels, lists, works = twin or (GENRES, fault_filtered(), {})
    folder = _genres_folder(root, labels, missing)
    ids = [track_id for part in lists.values() for track_id in part]
    found = _files(folder, labels)
    left_out = {} if twin else {track_id: _entry(folder, track_id, reason) for track_id, reason in BAD_TRACKS.items()}
    if missing != "keep":
        left_out |= _without_audio(folder, ids, found, missing, left_out)
    rows = dict(zip(labels, np.eye(len(labels), dtype=np.float32), strict=True))

    def track(track_id):
        genre = track_id.split(".")[0]
        path = folder / genre / found.get(track_id, f"{track_id}.wav")
        return Track(track_id, path, rows[genre], works.get(track_id, track_id))

    return Splits(
        **{part: [track(one) for one in listed if one not in left_out] for part, listed in lists.items()},
        labels=tuple(labels),
        name="gtzan" if twin is None else str(read_json(root / "twin.json").get("name", "gtzan-twin")),
        split=split if twin is None else "by_work",
        missing=list(left_out.values()),
        single_label=True,
    )


def fault_filtered():
    """The fault-filtered lists, jazz.00054 included: dict of "train", "valid", "test" to 443, 197 and 290 ids."""
    from torchaudio.datasets import gtzan

    return {
        "train": list(gtzan.filtered_train),
        "valid": list(gtzan.filtered_valid),
        "test": list(gtzan.filtered_test),
    }


def _twin(root):
    """Classes, lists and works of a twin, checked; None for the real dataset."""
    path = root / "twin.json"
    if not path.is_file():
        return None
    told = read_json(path)
    try:
        classes, lists, works = told["classes"], told["splits"], told["works"]
        lists = {part: list(lists[part]) for part in ("train", "valid", "test")}
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"{path} lacks {error}, expected classes, splits (train, valid, test) and works: is it the twin of another "
            "dataset? Make this one with `pawlib twins gtzan`"
        ) from error
    strange = [one for part in lists.values() for one in part if one.split(".")[0] not in classes or one not in works]
    if strange:
        raise ValueError(
            f"{path} lists {strange[0]!r}, whose class or work it does not name: was it edited? Make the twin again "
            "with `pawlib twins gtzan`"
        )
    return tuple(classes), lists, works


def _genres_folder(root, labels, missing):
    """The folder that holds one folder per genre."""
    folder = root / "genres" if (root / "genres").is_dir() else root
    absent = [genre for genre in labels if not (folder / genre).is_dir()]
    if missing == "keep" or not absent:
        return folder
    if len(absent) < len(labels):
        raise FileNotFoundError(
            f"{folder} is half unpacked: of the {len(labels)} genre folders {len(absent)} are missing "
            f"({', '.join(absent)}), so the splits would be others. Unpack the rest; `pawlib fetch gtzan` does only "
            "what is missing"
        )
    packed = root / "genres.tar.gz"
    if packed.is_file():
        raise FileNotFoundError(
            f"{root} holds {packed.name}, not unpacked. Run `pawlib fetch gtzan` (it checks and unpacks what is "
            f"there), or by hand in that folder: `tar xzf {packed.name}`"
        )
    raise FileNotFoundError(
        f"{root} holds no genre folder, neither genres/{labels[0]} nor {labels[0]}: is the root one folder too high or "
        f"too low? {_GET_IT}"
    )


def _files(folder, labels):
    """File name of each track that is there, .wav before .au; `._*` files of other systems are no tracks."""
    found = {}
    for genre in labels:
        names = os.listdir(folder / genre) if (folder / genre).is_dir() else []
        for extension in reversed(EXTENSIONS):
            found |= {n.removesuffix(extension): n for n in names if n.endswith(extension) and not n.startswith("._")}
    return found


def _entry(folder, track_id, reason):
    """One row of `Splits.missing`."""
    return {"id": track_id, "path": str(folder / track_id.split(".")[0] / f"{track_id}.wav"), "reason": reason}


def _without_audio(folder, ids, found, missing, known):
    """Listed tracks whose file is not there, by id, less the known bad one."""
    reason = "listed in the split, but the file is not there"
    lost = {i: _entry(folder, i, reason) for i in ids if i not in found and i not in known}
    if not lost:
        return lost
    told = f"{len(lost):,} of {len(ids):,} listed tracks of {folder} have no audio file, e.g. {min(lost)}"
    if missing == "error":
        raise FileNotFoundError(
            f"{told}. Was unpacking stopped? Run `pawlib fetch gtzan`, or read with missing='report'"
        )
    if len(lost) >= len(ids) - len(known):
        raise FileNotFoundError(f"{told}: all of them. {_GET_IT}")
    warnings.warn(f"{told}: left out and listed in Splits.missing; scores are then of another test set", stacklevel=3)
    return lost
