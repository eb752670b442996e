"""The twin of TUT Acoustic Scenes 2016: fifteen synthetic scenes in the layout and format of the real set.

`plan(size, seed)` decides everything but the samples; `make(root, ...)` paints them. A change of either, or of
textures.py, needs a new VERSION.

Nothing here was recorded anywhere: a scene is a recipe of noise, resonances and timed events (textures.py), its
parameters drawn anew for every recording. The labels say so, "synthetic_beach"; so does the corpus's name in every row.

What is alike in all classes, so that it tells nothing: the average spectrum of a recording (set to one curve, then to
the curve of its device), level, how loud events are against the bed, passers-by and how loud they are against the
scene's own events, and how the level of the whole drifts. What a class has of its own is in time: how its bed swells
and which events come in which rhythm.

Version 2: version 1 had no drift, passers-by as loud as they came, and no matching above 16 kHz. Its spectra told
nothing, but how much each band's level varies did: MFCC statistics named 52 % of the evaluation set's scenes (the row
is in data/results/v1).

Recordings. A recording is a minute (toy: five seconds), cut into pieces of 30 s that are files; folds split by
recording. Each quarter of a class's recordings was made with one device, a filter of its own, and is tested in one
fold; the evaluation set has a fifth. So no test recording's device was heard in training.

    root/twin.json, root/truth/a001.json     beside the layout of datasets.dcase2016: what each recording holds and when

Some development files have a fault, marked in error.txt: a mobile phone's buzz, or silence.

Told in: notebooks/50_scene_systems.ipynb
"""

import collections
import dataclasses
import functools
from pathlib import Path, PurePosixPath

import numpy as np
import soundfile

from pawlib import paths
from pawlib.bench.datasets.dcase2016 import DEVELOPMENT, EVALUATION, FOLDS
from pawlib.bench.files import atomic, locked, write_json
from pawlib.bench.twins import making, textures

VERSION = 2
SAMPLE_RATE = 44_100
CLASSES = tuple(f"synthetic_{name.replace('/', '_')}" for name in textures.SCENES)
FRONT_DB = (-10.0, 0.0)  # power of a recording's events, passers-by among them, against its bed
PASSING_DB = (-4.0, 10.0)  # power of the passers-by against that of the scene's own events
DRIFT_DB = (0.0, 5.0)  # deviation of the level of everything, as it comes and goes
LEVEL_DB = (-42.0, -30.0)  # RMS against full scale: rooms are quiet, and 24 bits have room for them
SPREAD = {"front": FRONT_DB, "passing": PASSING_DB, "drift": DRIFT_DB, "level": LEVEL_DB}
TILT_DB = -3.5  # of the average spectrum, an octave
DEVICE_DB, OWN_DB = 5.0, 2.5  # deviation of a device's curve, and of what a recording adds to it
KNOTS_HZ = np.geomspace(60, 20_000, 10)  # between which these curves run
FAULT_SHARE = 0.05
LICENCE = (
    "Audio made on your own machine from random numbers by the recipes of pawlib/bench/twins/textures.py; as free as "
    "they are (MIT). It imitates no recording. Do not show numbers made on it as numbers of TUT Acoustic Scenes 2016."
)


@dataclasses.dataclass(frozen=True)
class Size:
    """How much of each class: recordings to develop on (a quarter of them is tested in each fold), to evaluate on,
    pieces of a recording, seconds of a piece."""

    development: int
    evaluation: int
    pieces: int
    piece_s: int


SIZES = {"small": Size(8, 3, 2, 30), "toy": Size(4, 1, 1, 5)}


def plan(size="small", seed=0):
    """What each recording of the twin will be.

    Parameters
    ----------
    size : "small" or "toy"
        240 files of 30 s to develop on and 90 to evaluate on, or 60 and 15 of 5 s.
    seed : int

    Returns
    -------
    list of dict
        One recipe per recording: recording ("a001"), class, fold (1..4, 0 for evaluation), files [{file, start_s,
        end_s, original, fault}] with file as in the lists, below the folder of its set; front_db, passing_db, drift_db,
        level_db, seed.

    Raises
    ------
    ValueError
        If `size` is not known.
    """
    if size not in SIZES:
        raise ValueError(f"size={size!r} is unknown, expected one of {tuple(SIZES)}")
    found = []
    for name in CLASSES:
        found += _recipes(name, SIZES[size], seed)
    rng = making.generator(VERSION, seed, "all", f"names {size}")
    for part, letter in ((DEVELOPMENT, "a"), (EVALUATION, "b")):
        mine = [recipe for recipe in found if recipe["set"] == part]
        for number, k in enumerate(rng.permutation(len(mine)), 1):
            mine[k]["recording"] = f"{letter}{number:03d}"
    _name_files([r for r in found if r["set"] == EVALUATION], rng)
    _name_files([r for r in found if r["set"] == DEVELOPMENT], None)
    return sorted(found, key=lambda recipe: recipe["recording"])


def make(root=None, size="small", seed=0, n_workers=None):
    """Make the twin of TUT Acoustic Scenes 2016, or what is still missing of it.

    Parameters
    ----------
    root : path-like, optional
        Folder to make it in; by default where `paths.twins("dcase2016", size)` says.
    size : "small" or "toy"
        About 2.6 GB, or 100 MB.
    seed : int
    n_workers : int, optional
        Processes; all cores this process may use if not given.

    Returns
    -------
    pathlib.Path
        `root`, in the layout of datasets.dcase2016 (44.1 kHz, 24 bit, stereo wav), and `twin.json`, written last: a
        folder without it is not complete. Finished recordings are kept when a stopped run is started again; of two runs
        at once the second waits for the first.

    Raises
    ------
    ValueError
        If `size` is unknown, or the folder holds a twin of another version, size or seed.
    """
    root = Path(root) if root is not None else paths.twins("dcase2016", size)
    recipes = plan(size, seed)
    n_tracks = sum(len(recipe["files"]) for recipe in recipes)
    identity = {"name": "dcase2016-twin", "version": VERSION, "seed": seed, "size": size, "n_tracks": n_tracks}
    root.mkdir(parents=True, exist_ok=True)
    with locked(root, "making this twin"):
        if making.complete(root, identity):
            return root
        write_json(root / "making.json", identity)
        missing = [{**recipe, "file": recipe["files"][0]["file"]} for recipe in recipes if not _finished(root, recipe)]
        left_out = making.render_all(
            functools.partial(_paint_one, root, seed), missing, n_workers, "painting the synthetic scenes"
        )
        lost = {recipe["recording"] for recipe in left_out}
        recipes = [recipe for recipe in recipes if recipe["recording"] not in lost]
        _write_lists(root, recipes)
        write_json(root / "twin.json", {**identity, **_card(recipes, size), **making.told_left_out(left_out)})
        (root / "making.json").unlink()
    return root


def painted(recipe, seconds, seed=0, rate=SAMPLE_RATE):
    """A whole recording, before its faults, and what was put where.

    Parameters
    ----------
    recipe : dict
        One entry of `plan`.
    seconds : float
        Of the recording.
    seed : int
        The twin's: devices are drawn from it.
    rate : int [Hz]

    Returns
    -------
    wave : np.ndarray, float32 [shape=(2, n_samples)]
    events : list of (what, onset [s])
    """
    canvas = textures.Canvas(seconds, rate, np.random.default_rng([recipe["seed"], VERSION]))
    scene = dict(zip(CLASSES, textures.SCENES.values(), strict=True))[recipe["class"]]
    scene(canvas)
    textures.passers_by(canvas)
    wave = textures.mixed(canvas, recipe["front_db"], recipe["passing_db"], recipe["drift_db"])
    wave = textures.matched(wave, rate, lambda f: wanted_db(f) + filter_db(f, recipe, seed))
    wave *= 10 ** (recipe["level_db"] / 20) / np.sqrt(np.mean(wave**2))
    wave *= min(1.0, 0.98 / np.abs(wave).max())
    return wave, canvas.events


def wanted_db(frequencies_hz):
    """The average spectrum of every recording before its filter [dB of power per Hz]."""
    return TILT_DB * np.log2(np.maximum(frequencies_hz, 100) / 1000)


def filter_db(frequencies_hz, recipe, seed=0):
    """The filter of a recording [dB]: its device's curve, and a little of its own."""
    device = making.generator(VERSION, seed, "device", str(recipe["fold"])).normal(0, DEVICE_DB, len(KNOTS_HZ))
    own = np.random.default_rng([recipe["seed"], VERSION, 1]).normal(0, OWN_DB, len(KNOTS_HZ))
    return np.interp(np.log(np.maximum(frequencies_hz, 20)), np.log(KNOTS_HZ), device + own)


# --- the plan ---------------------------------------------------------------------------------------------------------


def _recipes(name, size, seed):
    """Recipes of one class, without names; what is drawn is spread alike in every class and fold."""
    found = []
    for part, n in ((DEVELOPMENT, size.development), (EVALUATION, size.evaluation)):
        rng = functools.partial(making.generator, VERSION, seed, f"{name}/{part}")
        drawn = {key: making.spread(rng(key), n, *span) for key, span in SPREAD.items()}
        seeds = rng("seeds").integers(2**32, size=n).tolist()
        faults = rng("faults")
        for k in range(n):
            starts = [i * size.piece_s for i in range(size.pieces)]
            files = [{"start_s": start, "end_s": start + size.piece_s, "fault": None} for start in starts]
            for one in files if part == DEVELOPMENT else ():
                one["fault"] = _fault(faults, size.piece_s)
            found.append(
                {
                    "class": name, "set": part, "fold": k * len(FOLDS) // n + 1 if part == DEVELOPMENT else 0,
                    "files": files, "seed": seeds[k],
                    **{f"{key}_db": round(float(values[k]), 3) for key, values in drawn.items()},
                }
            )  # fmt: skip
    return found


def _fault(rng, piece_s):
    """A fault of a piece, or None: {"what", "onset_s", "offset_s"}."""
    chance, onset, length, kind = rng.random(4)
    if chance >= FAULT_SHARE:
        return None
    length = 0.3 + length * min(2.5, 0.3 * piece_s)
    onset = onset * (piece_s - length)
    what = "silence" if kind < 0.5 else "interference"
    return {"what": what, "onset_s": round(float(onset), 2), "offset_s": round(float(onset + length), 2)}


def _name_files(recipes, rng):
    """Names of files: recording_start_end.wav, or with a generator numbers in drawn order."""
    pieces = [(recipe, one) for recipe in sorted(recipes, key=lambda r: r["recording"]) for one in recipe["files"]]
    numbers = rng.permutation(len(pieces)) + 1 if rng is not None else [None] * len(pieces)
    for (recipe, one), number in zip(pieces, numbers, strict=True):
        one["original"] = f"{recipe['recording']}_{one['start_s']}_{one['end_s']}.wav"
        one["file"] = f"audio/{one['original'] if number is None else f'{number}.wav'}"


# --- painting and writing ---------------------------------------------------------------------------------------------


def _finished(root, recipe):
    """Whether a recording is there: its truth is written after its files."""
    return (root / "truth" / f"{recipe['recording']}.json").is_file()


def _paint_one(root, seed, recipe):
    """Paint one recording: its files first, then what it holds."""
    wave, events = painted(recipe, recipe["files"][-1]["end_s"], seed)
    for number, one in enumerate(recipe["files"]):
        piece = wave[:, one["start_s"] * SAMPLE_RATE : one["end_s"] * SAMPLE_RATE].copy()
        if one["fault"]:
            _break(piece, one["fault"], np.random.default_rng([recipe["seed"], VERSION, 2, number]))
        path = root / recipe["set"] / one["file"]
        with atomic(path) as temporary:
            soundfile.write(temporary, piece.T, SAMPLE_RATE, format="WAV", subtype="PCM_24")
    truth = {key: value for key, value in recipe.items() if key not in ("seed", "file")}
    write_json(root / "truth" / f"{recipe['recording']}.json", {**truth, "events": events})


def _break(piece, fault, rng):
    """Put a fault into a piece (2, n_samples), in place."""
    first, last = (round(fault[key] * SAMPLE_RATE) for key in ("onset_s", "offset_s"))
    if fault["what"] == "silence":
        piece[:, first:last] = 0
        return
    t = np.arange(min(last, piece.shape[1]) - first) / SAMPLE_RATE
    bursts = rng.random() * 0.5 + np.sin(2 * np.pi * 3 * t) > 0
    buzz = np.sign(np.sin(2 * np.pi * 217 * t)) * bursts  # a mobile phone near the cable
    piece[:, first:last] += (4 * np.sqrt(np.mean(piece**2)) * buzz).astype(np.float32)


def _write_lists(root, recipes):
    """meta.txt, error.txt, the folds and the evaluation set's lists, as the real set has them."""
    pieces = [(recipe, one) for recipe in recipes for one in recipe["files"]]
    made = [(recipe, one) for recipe, one in pieces if recipe["set"] == DEVELOPMENT]
    development, evaluation = root / DEVELOPMENT, root / EVALUATION
    _write(development / "meta.txt", [(one["file"], recipe["class"]) for recipe, one in made])
    faults = [(one["file"], one["fault"]) for _, one in made if one["fault"]]
    rows = [(file, f"{f['onset_s']:.2f}", f"{f['offset_s']:.2f}", f["what"]) for file, f in faults]
    _write(development / "error.txt", rows)
    for number, fold in enumerate(FOLDS, 1):
        setup = development / "evaluation_setup"
        tested = [(one["file"], recipe["class"]) for recipe, one in made if recipe["fold"] == number]
        trained = [(one["file"], recipe["class"]) for recipe, one in made if recipe["fold"] != number]
        _write(setup / f"{fold}_train.txt", trained)
        _write(setup / f"{fold}_test.txt", [(file,) for file, _ in tested])
        _write(setup / f"{fold}_evaluate.txt", tested)
    rows = [(one["file"], recipe["class"], one["original"]) for recipe, one in pieces if recipe["set"] == EVALUATION]
    rows.sort(key=lambda row: int(PurePosixPath(row[0]).stem))
    _write(evaluation / "evaluation_setup" / "test.txt", [row[:1] for row in rows])
    _write(evaluation / "evaluation_setup" / "evaluate.txt", rows)


def _write(path, rows):
    """A tab-separated list."""
    with atomic(path) as temporary:
        temporary.write_text("".join("\t".join(row) + "\n" for row in rows), encoding="utf-8")


def _card(recipes, size):
    """What twin.json says beside the twin's identity."""
    counts = collections.Counter(recipe["set"] for recipe in recipes for _ in recipe["files"])
    return {
        "synthetic": "noise, resonances and timed events made of random numbers; no recording of any place",
        "classes": list(CLASSES),
        "n_per_set": {part: counts[part] for part in (DEVELOPMENT, EVALUATION)},
        "recordings_per_class": {"development": SIZES[size].development, "evaluation": SIZES[size].evaluation},
        "sample_rate": SAMPLE_RATE,
        "piece_s": SIZES[size].piece_s,
        "licence": LICENCE,
        "devices": {recipe["recording"]: recipe["fold"] for recipe in recipes},
    }
