"""MagnaTagATune (Law et al. 2009) and its twin: 29-second clips, 188 tags, split by folder.

Conventions
    root/annotations_final.csv   tab-separated, double-quoted: clip_id, one column of 0/1 per tag, mp3_path last
    root/clip_info_final.csv     tab-separated: clip_id, ..., artist, ..., original_url, mp3_path
    root/{0..f}/name.mp3         the folder's hex digit decides the split: 0-b train, c valid, d-f test
    root/twin.json, name.json    only in the twin: groups of its tags, and when each tag holds

Two splits are in use, and papers seldom say which:
    all      every annotated clip less three that cannot be decoded: 18,706 / 1,825 / 5,329 (Pons 2017, CLMR, PEMR)
    tagged   of those, clips with at least one of the 50 tags:       15,247 / 1,529 / 4,332 (Won 2020)

Labels are the 50 most frequent tags, synonyms unmerged, most frequent first, ties by column order.
"""

import csv
import os
import warnings
from collections import Counter
from pathlib import Path, PurePosixPath

import numpy as np

from pawlib.bench.datasets import Splits, Track
from pawlib.bench.files import read_json

SPLITS = ("all", "tagged")
FOLDERS = "0123456789abcdef"
SPLIT_OF = {digit: "train" for digit in "0123456789ab"} | {"c": "valid"} | {digit: "test" for digit in "def"}
COUNTS = {"all": (18706, 1825, 5329), "tagged": (15247, 1529, 4332)}
# Clip ids of the mp3s of the release that hold no decodable audio; all three are tagged training clips.
BAD_CLIPS = ("35644", "55753", "57881")
TOP_50 = (
    "guitar", "classical", "slow", "techno", "strings", "drums", "electronic", "rock", "fast", "piano",
    "ambient", "beat", "violin", "vocal", "synth", "female", "indian", "opera", "male", "singing",
    "vocals", "no vocals", "harpsichord", "loud", "quiet", "flute", "woman", "male vocal", "pop", "no vocal",
    "soft", "sitar", "solo", "man", "classic", "choir", "voice", "new age", "dance", "male voice",
    "female vocal", "beats", "harp", "cello", "no voice", "weird", "country", "female voice", "metal", "choral",
)  # fmt: skip

_MISSING = ("report", "keep", "error")
_GET_IT = "Get the dataset with `pawlib fetch mtat`, or make its twin with `pawlib twins`"


def read(root, split="all", missing="report"):
    """Read the clips, their tags and their split.

    Parameters
    ----------
    root : path-like
        Folder of the real dataset or of its twin (the one with a twin.json).
    split : "all" or "tagged"
        See the module's map.
    missing : "report", "keep" or "error"
        What to do with annotated clips whose audio is not there: leave them out, list them in `Splits.missing` and
        warn with their number; keep them all (labels can be studied without the audio); or refuse.

    Returns
    -------
    Splits
        `Track.work` is clip_info's original_url: the recording a clip was cut from (real), or "work:<registry id>",
        the score it was made from (twin). `Track.artist` is clip_info's artist; a twin has none (its clip_info names
        the score's collection there), so "".

    Raises
    ------
    FileNotFoundError
        If the root or one of its files or folders is missing, or with missing="error" a clip is.
    ValueError
        If an argument is unknown or a file is not what it should be, naming file and line.

    Warns
    -----
    UserWarning
        If clips are missing, or if the real annotations are not the released ones.

    Told in: notebooks/01_data.ipynb
    """
    if split not in SPLITS:
        raise ValueError(f"split={split!r} is unknown, expected one of {SPLITS}")
    if missing not in _MISSING:
        raise ValueError(f"missing={missing!r} is unknown, expected one of {_MISSING}")
    root = Path(root)
    _check_root(root)
    ids, paths, columns, tags = _annotations(root / "annotations_final.csv")
    twin = read_json(root / "twin.json") if is_twin(root) else None
    labels = _labels(columns, tags, real=twin is None, path=root / "annotations_final.csv")
    works, artists_of = _works_and_artists(root / "clip_info_final.csv", ids)
    target = tags[:, [columns.index(label) for label in labels]].astype(np.float32)  # (n_clips, n_labels)
    left_out = _bad_clips(root, ids, paths) if twin is None else {}
    if missing != "keep":
        left_out |= _without_audio(root, ids, paths, missing, left_out)
    parts = {"train": [], "valid": [], "test": []}
    for row, (clip_id, path) in enumerate(zip(ids, paths, strict=True)):
        if clip_id not in left_out and (split == "all" or target[row].any()):
            artist = artists_of[clip_id] if twin is None else ""
            parts[SPLIT_OF[path[0]]].append(Track(clip_id, root / path, target[row], works[clip_id], artist))
    return Splits(
        **parts,
        labels=labels,
        name="mtat" if twin is None else str(twin.get("name", "mtat-twin")),
        split=split,
        groups={} if twin is None else _groups(root, twin, columns, labels),
        missing=list(left_out.values()),
    )


def is_twin(root):
    """Whether a folder holds a stand-in (it has a twin.json) and not the real dataset."""
    return (Path(root) / "twin.json").is_file()


def events(track):
    """When each tag of a twin's track holds.

    Parameters
    ----------
    track : Track
        Of a twin: beside its audio lies a JSON of the same name.

    Returns
    -------
    list of dict
        "tag", "group", "start_s", "end_s" [s], in order of start.

    Raises
    ------
    FileNotFoundError
        If there is no such JSON: the real dataset tags whole clips and knows no times.
    ValueError
        If the JSON is broken, of another clip, or an event ends before it starts.
    """
    path = Path(track.path).with_suffix(".json")
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is not there: only twins know when a tag holds, the real dataset tags whole clips. "
            "If this is a twin, make it again with `pawlib twins`"
        )
    told = read_json(path)
    if str(told.get("clip_id")) != str(track.id):
        raise ValueError(
            f"{path} tells of clip {told.get('clip_id')}, expected {track.id}: are files of two twins mixed?"
        )
    found = sorted(told.get("events", []), key=lambda event: (event["start_s"], event["end_s"], event["tag"]))
    for event in found:
        if not 0 <= event["start_s"] <= event["end_s"]:
            raise ValueError(f"{path}: event {event} does not end after it starts: make the twin again")
    return found


def artists(root):
    """Artist of each clip, as in clip_info_final.csv: dict of clip id to str.

    45 of the real set's 230 artists are heard in more than one split; `crossing` counts it.
    """
    path = Path(root) / "clip_info_final.csv"
    return {row["clip_id"]: row["artist"] for row in _clip_info(path, needed=("clip_id", "artist"))}


def crossing(splits, of):
    """How much of the test set is by somebody, or from something, heard in training.

    Parameters
    ----------
    splits : Splits
    of : dict of str to str
        Clip id to artist (`artists(root)`), album, work, ...

    Returns
    -------
    dict
        "n" how many of them there are, "n_crossing" how many lie in more than one split, "n_test_heard" how many test
        clips belong to one that training has.
    """
    sides = [{of[track.id] for track in part} for part in (splits.train, splits.valid, splits.test)]
    shared = Counter(one for side in sides for one in side)
    return {
        "n": len(shared),
        "n_crossing": sum(n_sides > 1 for n_sides in shared.values()),
        "n_test_heard": sum(of[track.id] in sides[0] for track in splits.test),
    }


# --- files ------------------------------------------------------------------------------------------------------------


def _check_root(root):
    if not root.is_dir():
        raise FileNotFoundError(f"{root} is not there, expected the folder of MagnaTagATune. {_GET_IT}")
    parts = sorted(root.glob("mp3.zip*"))
    if parts and not any((root / digit).is_dir() for digit in FOLDERS):
        raise FileNotFoundError(
            f"{root} holds {', '.join(part.name for part in parts)} but none of the folders 0 to f: the audio is not "
            f"unpacked. Run `pawlib fetch mtat` (it does only what is missing), or by hand in that folder: "
            f"`cat mp3.zip.001 mp3.zip.002 mp3.zip.003 > mp3.zip && unzip mp3.zip`"
        )
    for name in ("annotations_final.csv", "clip_info_final.csv"):
        if not (root / name).is_file():
            raise FileNotFoundError(f"{root / name} is not there. {_GET_IT}; both put it beside the folders 0 to f")


def _rows(path):
    """Header and rows of a tab-separated, double-quoted file; every row is as long as the header."""
    with open(path, encoding="utf-8", errors="replace", newline="") as file:
        reader = csv.reader(file, delimiter="\t", quotechar='"')
        header = next(reader, None)
        if not header or len(header) < 2:
            raise ValueError(
                f"{path} has no tab-separated header (found {header}): is it empty, a web page, or saved with "
                "commas by "
                "a spreadsheet? Fetch the original again"
            )
        rows = []
        try:
            for row in reader:
                if len(row) != len(header):
                    raise ValueError(
                        f"{path}, line {reader.line_num}: {len(row)} columns, expected {len(header)} as in the header. "
                        "Was the file cut off or edited? Fetch it again"
                    )
                rows.append(row)
        except csv.Error as error:
            raise ValueError(f"{path}, line {reader.line_num}: {error}. Is this a text file? Fetch it again") from error
    if not rows:
        raise ValueError(f"{path} has a header and no rows: was the download cut off? Fetch it again")
    return header, rows


def _annotations(path):
    """(ids, relative paths, tag columns, uint8 (n_clips, n_tags)), every cell checked."""
    header, rows = _rows(path)
    if header[0] != "clip_id" or header[-1] != "mp3_path" or len(header) < 3:
        raise ValueError(
            f"{path}: columns run from {header[0]!r} to {header[-1]!r}, expected clip_id, the tags, mp3_path. "
            "Is this annotations_final.csv?"
        )
    columns = header[1:-1]
    repeated = [name for name, n in Counter(columns).items() if n > 1]
    if repeated:
        raise ValueError(f"{path}: column {repeated[0]!r} comes twice, expected each tag once")
    ids, paths, cells = [], [], []
    for row in rows:
        if not {"0", "1"}.issuperset(row[1:-1]):
            odd = next(i for i, cell in enumerate(row[1:-1]) if cell not in ("0", "1"))
            raise ValueError(f"{path}, clip {row[0]}: tag {columns[odd]!r} is {row[1 + odd]!r}, expected 0 or 1")
        ids.append(row[0])
        paths.append(_safe_path(path, row[0], row[-1]))
        cells.append("".join(row[1:-1]))
    repeated = [clip_id for clip_id, n in Counter(ids).items() if n > 1]
    if repeated:
        raise ValueError(f"{path}: clip {repeated[0]} comes twice ({len(repeated)} clips do): are two files joined?")
    tags = np.frombuffer("".join(cells).encode("ascii"), np.uint8).reshape(len(rows), len(columns)) - ord("0")
    return ids, paths, columns, tags


def _safe_path(path, clip_id, name):
    parts = PurePosixPath(name).parts
    if len(parts) != 2 or parts[0] not in FOLDERS or len(parts[0]) != 1 or parts[1] == "..":
        raise ValueError(
            f"{path}, clip {clip_id}: mp3_path is {name!r}, expected one of the folders 0 to f and a file name"
        )
    return name


def _clip_info(path, needed):
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there. {_GET_IT}")
    header, rows = _rows(path)
    absent = [name for name in needed if name not in header]
    if absent:
        raise ValueError(
            f"{path}: no column {absent[0]!r} (columns: {', '.join(header)}). Is this clip_info_final.csv?"
        )
    return [dict(zip(header, row, strict=True)) for row in rows]


def _works_and_artists(path, ids):
    """Clip id -> work, and clip id -> artist; a work without original_url is named by artist, album and title."""
    rows = {row["clip_id"]: row for row in _clip_info(path, needed=("clip_id", "original_url"))}
    absent = [clip_id for clip_id in ids if clip_id not in rows]
    if absent:
        raise ValueError(
            f"{path}: no row for {len(absent)} of {len(ids)} annotated clips, the first is {absent[0]}. "
            "Are the two csv files of one dataset?"
        )
    works = {clip_id: _work(rows[clip_id]) for clip_id in ids}
    return works, {clip_id: rows[clip_id].get("artist", "") for clip_id in ids}


def _work(row):
    name = "/".join(row.get(key, "") for key in ("artist", "album", "title"))
    return row["original_url"] or (f"track:{name}" if name.strip("/") else f"clip:{row['clip_id']}")


# --- labels and audio -------------------------------------------------------------------------------------------------


def _labels(columns, tags, real, path):
    """The 50 most frequent columns; for the real set the canonical order, with a warning where the file disagrees."""
    order = np.argsort(-tags.sum(axis=0, dtype=np.int64), kind="stable")[:50]  # stable: ties stay in column order
    found = tuple(columns[i] for i in order)
    if not real or found == TOP_50:
        return found
    absent = [tag for tag in TOP_50 if tag not in columns]
    if absent:
        raise ValueError(
            f"{path} lacks {len(absent)} of the 50 canonical tags, the first is {absent[0]!r}: is it the released "
            "file? "
            "(a twin has a twin.json beside it)"
        )
    differ = next(i for i, (here, there) in enumerate(zip(found, TOP_50, strict=True)) if here != there)
    warnings.warn(
        f"{path} is not the released file: by its own counts tag {differ + 1} is {found[differ]!r}, expected "
        f"{TOP_50[differ]!r}. The canonical 50 tags are used, so that checkpoints and tables fit",
        stacklevel=3,
    )
    return TOP_50


def _groups(root, twin, columns, labels):
    groups = twin.get("groups", {})
    unknown = [tag for tags in groups.values() for tag in tags if tag not in columns]
    if unknown:
        raise ValueError(
            f"{root / 'twin.json'} names tag {unknown[0]!r}, which annotations_final.csv has not: are they of two "
            "runs? "
            "Make the twin again with `pawlib twins`"
        )
    return {group: tuple(label for label in labels if label in set(tags)) for group, tags in groups.items()}


def _bad_clips(root, ids, paths):
    reason = "one of the three mp3s of the release that hold no decodable audio"
    return {
        clip_id: {"id": clip_id, "path": str(root / path), "reason": reason}
        for clip_id, path in zip(ids, paths, strict=True)
        if clip_id in BAD_CLIPS
    }


def _without_audio(root, ids, paths, missing, known):
    """Annotated clips whose file is not there, by id, less the known bad ones; whole folders missing are an error."""
    named = sorted({path[0] for path in paths})
    absent = [digit for digit in named if not (root / digit).is_dir()]
    if absent:
        raise FileNotFoundError(
            f"{root} is half unpacked: of the folders the annotations name, {len(absent)} are missing "
            f"({', '.join(absent)}), so the splits would be others. Unpack the rest (`pawlib fetch mtat` does "
            "only what "
            "is missing), or read labels alone with missing='keep'"
        )
    there = {f"{digit}/{name}" for digit in named for name in os.listdir(root / digit)}
    lost = {
        clip_id: {"id": clip_id, "path": str(root / path), "reason": "annotated, but the file is not there"}
        for clip_id, path in zip(ids, paths, strict=True)
        if path not in there and clip_id not in known
    }
    if not lost:
        return lost
    told = (
        f"{len(lost):,} of {len(ids):,} annotated clips of {root} have no audio file, e.g. "
        f"{next(iter(lost.values()))['path']}"
    )
    if missing == "error":
        raise FileNotFoundError(
            f"{told}. Was unpacking stopped? Run `pawlib fetch mtat`, or read with missing='report'"
        )
    if len(lost) == len(ids) - len(known):
        raise FileNotFoundError(f"{told}: all of them. Does the root lie one folder higher or lower? {_GET_IT}")
    warnings.warn(f"{told}: left out and listed in Splits.missing; scores are then of another test set", stacklevel=3)
    return lost
