"""TUT Acoustic Scenes 2016 (Mesaros et al. 2016; DCASE2016 task 1) and its twin: 30-second recordings of 15 scenes.

Conventions, D for TUT-acoustic-scenes-2016-development and E for TUT-acoustic-scenes-2016-evaluation
    root/D/audio/a001_0_30.wav                recording a001, seconds 0 to 30; 44.1 kHz, 24 bit, stereo; 1,170 files
    root/D/meta.txt                           tab-separated: audio/file, scene
    root/D/error.txt                          file, onset [s], offset [s], what: microphone failures, radio interference
    root/D/evaluation_setup/fold1_train.txt   file, scene                   .. fold4_train.txt
                            fold1_test.txt    file
                            fold1_evaluate.txt  file, scene
    root/E/audio/1.wav                        390 files
    root/E/evaluation_setup/test.txt          file
                            evaluate.txt      file, scene, original name (which tells the recording)
    root/twin.json                            only in the twin: its name and its classes

Splits (Table 5, Table 6)
    fold1 .. fold4   the development set's four folds: train, test
    evaluation       all of the development set for training, the evaluation set as test

Neither the paper nor the challenge names a validation part. Here (reading R42) it is drawn out of the training part by
recording, without a seed: of each scene, the recordings in the order of their name's SHA-256, as many as fit into a
fifth of the scene's files, at least one, never all. The order is the same in every fold.
"""

import dataclasses
import hashlib
import os
import re
import warnings
from collections import defaultdict
from pathlib import Path, PurePosixPath

import numpy as np

from pawlib.bench.datasets import Splits, Track
from pawlib.bench.files import read_json

DEVELOPMENT, EVALUATION = "TUT-acoustic-scenes-2016-development", "TUT-acoustic-scenes-2016-evaluation"
FOLDS = ("fold1", "fold2", "fold3", "fold4")
SPLITS = (*FOLDS, "evaluation")
CLASSES = (
    "beach", "bus", "cafe/restaurant", "car", "city_center", "forest_path", "grocery_store", "home", "library",
    "metro_station", "office", "park", "residential_area", "train", "tram",
)  # fmt: skip
COUNTS = {DEVELOPMENT: 1170, EVALUATION: 390}
ERRORS = ("keep", "drop", "cut")
VALID_SHARE = 0.2

# Where the archives lie, and their MD5 sums as the makers publish them; each is a zip of its own.
ADDRESSES = {
    DEVELOPMENT: "https://zenodo.org/record/45739/files/",
    EVALUATION: "https://zenodo.org/record/165995/files/",
}
MD5 = {
    f"{DEVELOPMENT}.doc.zip": "f94ad46eb36325d9fbce5d60f7fc9926",
    f"{DEVELOPMENT}.meta.zip": "779b33da2ebbf8bde494b3c981827251",
    f"{DEVELOPMENT}.error.zip": "a0d3e0d81b0a36ece87d0f3a9124a386",
    f"{DEVELOPMENT}.audio.1.zip": "e39546e65f2e72517b6335aaf0c8323d",
    f"{DEVELOPMENT}.audio.2.zip": "d36cf3253e2c041f68e937a3fe804807",
    f"{DEVELOPMENT}.audio.3.zip": "0393a9620ab882b1c26d884eccdcffdd",
    f"{DEVELOPMENT}.audio.4.zip": "fb3e4e0cd7ea82120ec07031dee558ce",
    f"{DEVELOPMENT}.audio.5.zip": "a19cf600b33c8f88f6ad607bafd74057",
    f"{DEVELOPMENT}.audio.6.zip": "591aad3219d1155342572cc1f6af5680",
    f"{DEVELOPMENT}.audio.7.zip": "9e6c1897789e6bce13ac69c6caedb7ab",
    f"{DEVELOPMENT}.audio.8.zip": "c4718354f48fcc9dfc7305f6cd8325c8",
    f"{EVALUATION}.doc.zip": "ef315bf912d1124050646888cc3ceba2",
    f"{EVALUATION}.meta.zip": "0d5c131fc3f50c682de62e0e648aceba",
    f"{EVALUATION}.audio.1.zip": "7c6c2e54b8a9c4c37a803b81446d16fe",
    f"{EVALUATION}.audio.2.zip": "7930f1dc26707ab3ba9526073af87333",
    f"{EVALUATION}.audio.3.zip": "17187d633d6402aee4b481122a1b28f0",
}

_MISSING = ("report", "keep", "error")
_GET_IT = "Get the dataset with `pawlib fetch dcase2016`, or make its twin with `pawlib twins dcase2016`"
_NAME = re.compile(r"(?P<recording>.+)_(?P<start>\d+)_(?P<end>\d+)")


@dataclasses.dataclass(frozen=True, eq=False, slots=True)
class SceneTrack(Track):
    """A track, and what of it is not to be heard.

    Attributes
    ----------
    cut : tuple of (float, float) [s]
        Onset and offset of spans to leave out, in order, not overlapping; empty unless read with errors="cut".
    """

    cut: tuple = ()


def read(root, split="fold1", missing="report", errors="keep", errors_in="training", valid_share=VALID_SHARE):
    """Read the files of one fold, or of the final evaluation, with scene and recording.

    Parameters
    ----------
    root : path-like
        Folder that holds D and E (the module's map), or D itself; of the real dataset or of its twin.
    split : one of SPLITS
    missing : "report", "keep" or "error"
        What to do with listed files whose audio is not there: leave them out, list them in `Splits.missing` and warn
        with their number; keep them all (the split can be studied without the audio); or refuse.
    errors : "keep", "drop" or "cut"
        What to do with files that error.txt marks: nothing, as the challenge's baseline; leave them out, listed in
        `Splits.missing`; or name the marked spans in `SceneTrack.cut` (bench.scenes.WithoutSpans then skips them).
    errors_in : "training" | "all"
        Whether that holds for training and validation alone, or for the test files as well: scores are then of another
        test set. The evaluation set has no error.txt.
    valid_share : float in 0..1
        Share of each scene's training files that validates at most, drawn by recording; 0 leaves all for training.

    Returns
    -------
    Splits
        `single_label` is True and targets are one-hot. `Track.id` is "a001_0_30", or "evaluation_1" for E's 1.wav;
        `Track.work` is the recording, "a001".

    Raises
    ------
    FileNotFoundError
        If the root or one of its files or folders is missing, or with missing="error" a file is.
    ValueError
        If an argument is unknown, or a list is not what it should be, naming file, line and value.

    Warns
    -----
    UserWarning
        If files are missing, a recording is on both sides of the split, or the real set is not the released one.
    """
    _check_arguments(split, missing, errors, errors_in, valid_share)
    root = Path(root)
    development, evaluation = _folders(root)
    name, labels = _name_and_labels(root, development)
    scenes = _scenes(development / "meta.txt", labels)
    if name == "dcase2016" and len(scenes) != COUNTS[DEVELOPMENT]:
        warnings.warn(
            f"{development / 'meta.txt'} lists {len(scenes):,} files, the released set has {COUNTS[DEVELOPMENT]:,}: "
            "scores are of another dataset",
            stacklevel=2,
        )
    if split == "evaluation":
        train = [_development_file(one, development, scenes[one]) for one in scenes]
        test = _evaluation_files(evaluation, labels)
    else:
        train, test = _fold(development, split, scenes)
    marked = {} if errors == "keep" else _marked(development / "error.txt", scenes)
    left_out = {}
    if errors == "drop":
        left_out |= _dropped(train if errors_in == "training" else [*train, *test], marked)
    if missing != "keep":
        left_out |= _without_audio([*train, *test], left_out, missing, root)
    _warn_of_crossing(train, test)
    valid_works = _validating(train, valid_share)
    rows = dict(zip(labels, np.eye(len(labels), dtype=np.float32), strict=True))

    def tracks(files, cut):
        kept = [one for one in files if one.id not in left_out]
        spans = marked if errors == "cut" and cut else {}
        return [SceneTrack(f.id, f.path, rows[f.scene], f.work, cut=spans.get(f.id, ())) for f in kept]

    return Splits(
        train=tracks([one for one in train if one.work not in valid_works], cut=True),
        valid=tracks([one for one in train if one.work in valid_works], cut=True),
        test=tracks(test, cut=errors_in == "all"),
        labels=labels,
        name=name,
        split=split,
        missing=list(left_out.values()),
        single_label=True,
    )


def all_tracks(root, missing="report"):
    """Every file of both sets, whatever the split: what a store of this dataset holds.

    Every split then reads from one store, and going from a fold to the final evaluation decodes nothing again.

    Parameters
    ----------
    root, missing
        As in `read`. The evaluation set is left out where its folder is not there.

    Returns
    -------
    list of SceneTrack

    Raises, Warns
    -------------
    As `read`.
    """
    has_evaluation = _folders(Path(root))[1].is_dir()
    splits = read(root, "evaluation" if has_evaluation else "fold1", missing)
    return splits.tracks


# --- lists ------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _File:
    id: str
    path: Path
    scene: str
    work: str


def _check_arguments(split, missing, errors, errors_in, valid_share):
    for name, value, known in (
        ("split", split, SPLITS),
        ("missing", missing, _MISSING),
        ("errors", errors, ERRORS),
        ("errors_in", errors_in, ("training", "all")),
    ):
        if value not in known:
            raise ValueError(f"{name}={value!r} is unknown, expected one of {known}")
    if not 0 <= valid_share < 1:
        raise ValueError(f"valid_share={valid_share} is no share of the training files, expected 0 to below 1")


def _folders(root):
    """(development, evaluation) under a root, or of a root that is the development folder itself."""
    if not root.is_dir():
        raise FileNotFoundError(f"{root} is not there, expected the folder of TUT Acoustic Scenes 2016. {_GET_IT}")
    above = root.parent if (root / "meta.txt").is_file() else root
    development = root if above != root else root / DEVELOPMENT
    if not (development / "meta.txt").is_file():
        packed = sorted(path.name for path in root.glob(f"{DEVELOPMENT}*.zip"))
        hint = (
            f"{len(packed)} archives lie there, not unpacked, e.g. {packed[0]}: run `pawlib fetch dcase2016` (it "
            "checks and unpacks what is there)"
            if packed
            else f"is the root one folder too high or too low? {_GET_IT}"
        )
        raise FileNotFoundError(f"{development / 'meta.txt'} is not there: {hint}")
    return development, above / EVALUATION


def _name_and_labels(root, development):
    """Name of the corpus and its scenes, in order of their columns."""
    for folder in (root, development.parent):
        if (folder / "twin.json").is_file():
            told = read_json(folder / "twin.json")
            classes = told.get("classes")
            if not isinstance(classes, list) or len(set(classes)) != len(classes) or not classes:
                raise ValueError(
                    f"{folder / 'twin.json'} has classes={classes!r}, expected a list of different names: is it the "
                    "twin of another dataset? Make this one with `pawlib twins dcase2016`"
                )
            return str(told.get("name", "dcase2016-twin")), tuple(classes)
    return "dcase2016", CLASSES


def _rows(path, n_columns):
    """[(line number, columns)] of a tab-separated list, each row of so many columns."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there: was the meta archive unpacked? {_GET_IT}")
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        columns = line.split("\t")
        if not line.strip():
            continue
        if len(columns) != n_columns:
            raise ValueError(
                f"{path}, line {number}: {len(columns)} columns, expected {n_columns} with tabs between ({line!r}). "
                "Was the file edited, or saved with blanks? Fetch it again"
            )
        found.append((number, [column.strip() for column in columns]))
    if not found:
        raise ValueError(f"{path} is empty: was unpacking stopped? Unpack it again")
    return found


def _audio_name(path, number, name):
    """ "audio/x.wav" as it is listed, checked."""
    parts = PurePosixPath(name).parts
    if len(parts) != 2 or parts[0] != "audio" or not parts[1].endswith(".wav") or parts[1].startswith("."):
        raise ValueError(f"{path}, line {number}: file {name!r}, expected audio/NAME.wav. Is this a list of this set?")
    return name


def _recording(path, number, name):
    """Recording of a file name a001_0_30.wav."""
    match = _NAME.fullmatch(PurePosixPath(name).stem)
    if not match or int(match["start"]) >= int(match["end"]):
        raise ValueError(
            f"{path}, line {number}: {name!r} names no recording, expected RECORDING_START_END.wav with the start "
            "before the end, as a001_0_30.wav"
        )
    return match["recording"]


def _scene(path, number, scene, labels):
    if scene not in labels:
        raise ValueError(
            f"{path}, line {number}: scene {scene!r} is unknown, expected one of {', '.join(labels)}. Is this the "
            "2016 edition of the dataset?"
        )
    return scene


def _scenes(path, labels):
    """{file: (scene, recording)} of meta.txt."""
    found = {}
    for number, (name, scene) in _rows(path, 2):
        name = _audio_name(path, number, name)
        if name in found:
            raise ValueError(f"{path}, line {number}: {name!r} comes twice, expected each file once")
        found[name] = _scene(path, number, scene, labels), _recording(path, number, name)
    return found


def _development_file(name, folder, known):
    return _File(PurePosixPath(name).stem, folder / name, *known)


def _fold(folder, split, scenes):
    """(train, test) files of a fold; the three lists must agree with each other and with meta.txt."""
    setup = folder / "evaluation_setup"
    train, test = (_labelled(setup / f"{split}_{part}.txt", scenes) for part in ("train", "evaluate"))
    path = setup / f"{split}_test.txt"
    listed = [_audio_name(path, number, name) for number, (name,) in _rows(path, 1)]
    differ = sorted(set(listed) ^ set(test))
    if differ:
        raise ValueError(
            f"{path} and {split}_evaluate.txt beside it list different files, the first is {differ[0]!r} "
            f"({len(differ)} in all): are they of two releases?"
        )
    both = sorted(set(train) & set(test))
    if both:
        raise ValueError(
            f"{setup}: {both[0]!r} is in {split}_train.txt and in {split}_test.txt ({len(both)} files are): no score "
            "would mean anything. Fetch the lists again"
        )
    return tuple([_development_file(one, folder, scenes[one]) for one in part] for part in (train, test))


def _labelled(path, scenes):
    """Files of a list with scenes, in order, each as meta.txt has it."""
    found = {}
    for number, (name, scene) in _rows(path, 2):
        name = _audio_name(path, number, name)
        if name not in scenes:
            raise ValueError(f"{path}, line {number}: {name!r} is not in meta.txt: are the lists of two releases?")
        if scene != scenes[name][0]:
            raise ValueError(
                f"{path}, line {number}: {name!r} is {scene!r} here and {scenes[name][0]!r} in meta.txt: which was "
                "edited? Fetch both again"
            )
        if name in found:
            raise ValueError(f"{path}, line {number}: {name!r} comes twice, expected each file once")
        found[name] = scene
    return list(found)


def _evaluation_files(folder, labels):
    """Files of the evaluation set."""
    path = folder / "evaluation_setup" / "evaluate.txt"
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is not there, and test.txt beside it names no scenes: it came later, in {EVALUATION}.meta.zip. "
            f"{_GET_IT}"
        )
    found, seen = [], set()
    for number, (name, scene, original) in _rows(path, 3):
        name = _audio_name(path, number, name)
        if name in seen:
            raise ValueError(f"{path}, line {number}: {name!r} comes twice, expected each file once")
        seen.add(name)
        scene, work = _scene(path, number, scene, labels), _recording(path, number, original)
        found.append(_File(f"evaluation_{PurePosixPath(name).stem}", folder / name, scene, work))
    return found


# --- marked spans, missing files, validation --------------------------------------------------------------------------


def _marked(path, scenes):
    """{id: ((onset, offset), ...)} of error.txt [s], in order and joined where they overlap."""
    spans = defaultdict(list)
    for number, (name, onset, offset, _) in _rows(path, 4):
        name = name if name.startswith("audio/") else f"audio/{name}"
        if _audio_name(path, number, name) not in scenes:
            raise ValueError(f"{path}, line {number}: {name!r} is not in meta.txt: are the lists of two releases?")
        try:
            span = float(onset), float(offset)
        except ValueError:
            span = 1.0, 0.0
        if not 0 <= span[0] < span[1]:
            raise ValueError(
                f"{path}, line {number}: onset {onset!r} and offset {offset!r}, expected seconds with the onset before "
                "the offset"
            )
        spans[PurePosixPath(name).stem].append(span)
    return {track_id: _merged(some) for track_id, some in spans.items()}


def _merged(spans):
    """Spans in order, overlapping ones joined."""
    joined = []
    for onset, offset in sorted(spans):
        if joined and onset <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(joined[-1][1], offset)
        else:
            joined.append((onset, offset))
    return tuple(joined)


def _dropped(files, marked):
    """Rows of `Splits.missing` for files that error.txt marks."""
    found = {}
    for one in files:
        if one.id in marked:
            seconds = sum(offset - onset for onset, offset in marked[one.id])
            reason = f"error.txt marks {seconds:.1f} s of it, and errors='drop'"
            found[one.id] = {"id": one.id, "path": str(one.path), "reason": reason}
    return found


def _without_audio(files, known, missing, root):
    """Rows of `Splits.missing` for listed files that are not there."""
    folders = {one.path.parent for one in files}
    absent = sorted(folder for folder in folders if not folder.is_dir())
    if absent:
        packed = sorted(path.name for path in root.glob("*.audio.*.zip"))
        hint = f" ({', '.join(packed)} lie there, not unpacked)" if packed else ""
        raise FileNotFoundError(
            f"{absent[0]} is not there{hint}. Run `pawlib fetch dcase2016`: it does what is missing"
        )
    there = {folder: set(os.listdir(folder)) for folder in folders}
    reason = "listed in the split, but the file is not there"
    lost = {
        one.id: {"id": one.id, "path": str(one.path), "reason": reason}
        for one in files
        if one.path.name not in there[one.path.parent] and one.id not in known
    }
    if not lost:
        return lost
    told = f"{len(lost):,} of {len(files):,} listed files have no audio, e.g. {next(iter(lost.values()))['path']}"
    if missing == "error":
        raise FileNotFoundError(
            f"{told}. Was unpacking stopped? Run `pawlib fetch dcase2016`, or read with missing='report'"
        )
    if len(lost) >= len(files) - len(known):
        raise FileNotFoundError(f"{told}: all of them. {_GET_IT}")
    warnings.warn(f"{told}: left out and listed in Splits.missing; scores are then of another set", stacklevel=3)
    return lost


def _warn_of_crossing(train, test):
    """Say so if a recording is heard in training and tested."""
    both = sorted({one.work for one in train} & {one.work for one in test})
    if both:
        warnings.warn(
            f"{len(both)} recordings have files in training and in test, e.g. {both[0]}: the score rewards knowing a "
            "recording, not a scene",
            stacklevel=3,
        )


def _validating(files, share):
    """The recordings that validate: of each scene the first by hash, up to a share of its files."""
    by_scene = defaultdict(lambda: defaultdict(int))
    for one in files:
        by_scene[one.scene][one.work] += 1
    chosen = set()
    for works in by_scene.values():
        order = sorted(works, key=lambda work: hashlib.sha256(work.encode()).hexdigest())
        room, taken = share * sum(works.values()), 0
        for i, work in enumerate(order[:-1]):  # never all of them
            if share > 0 and (i == 0 or taken + works[work] <= room):
                chosen.add(work)
                taken += works[work]
    return chosen
