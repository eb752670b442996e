"""The GTZAN twin: tunes of ten kinds, one line on one instrument, in the layout of GTZAN.

`plan(size, seed)` decides everything that can be decided without reading a score; `make(root, ...)` renders it. A
change of either needs a new VERSION.

A track is a pair of tunes of its class, one after the other as players do, TUNE_S each, from a bar line on and never
looped. Melody alone tells the class: scale, rhythm, metre (the first note of a bar is louder, of a beat a little),
ambitus, how phrases begin and end. Nothing else does: in each class and split, instruments are dealt in turn, and
number of notes, mean pitch (and with it the key), level, articulation and room are spread evenly over the same ranges.

The setting is not the pretraining twin's: other programs, accents, a room, 22,050 Hz.

Split. A tune is in the split of its work in the registry, as in every twin; so what the MTAT twin trains on is never
tested here. A pair is of one split. Where a class has few works, a pair gives two tracks (the other order, other
excerpts, another instrument and key) and no more: such a class has fewer tracks. `Track.work` is the pair.

Told in: notebooks/01_data.ipynb
"""

import collections
import functools
from pathlib import Path

import numpy as np
import soundfile

from pawlib import paths
from pawlib.bench.files import atomic, locked, write_json
from pawlib.bench.twins import arrange, making, registry, render, scores

VERSION = 2  # 1 had the same plan, played out of tune: see twins.soundfont
PLAN_VERSION = 1  # what every draw of the plan hangs on
SIZES = {  # tracks of a class, at most
    "small": {"train": 50, "valid": 20, "test": 30},
    "toy": {"train": 4, "valid": 4, "test": 4},
}
SAMPLE_RATE = 22_050
DURATION_S = 30.0
N_SAMPLES = 661_500
TUNES = 2
TUNE_S = DURATION_S / TUNES
TRACKS_PER_PAIR = 2
RATE_HZ = (2.4, 2.6)
LEAST_ONSETS = 48  # more than RATE_HZ asks of a tune, wherever its first bar line is
LEAST_CHORALE_Q = 48.0  # the registry counts onsets of all voices; a chorale's melody moves in quarter notes
CENTRE = (66.0, 69.0)  # mean pitch of a tune as played; its key follows from it
LEVEL_DB = (-21.0, -19.0)
GATE = (0.9, 1.0)
ROOM_S = (0.3, 0.4)
ROOM_DB = (-18.0, -14.0)
VELOCITY, BAR_ACCENT, BEAT_ACCENT, JITTER = 62, 36, 14, 4
PROGRAMS = (46, 105, 110)  # harp, banjo, fiddle: none of the MTAT twin's
DUPLE, COMPOUND = ("2/4", "4/4", "2/2", "4/8"), ("6/8", "12/8")
LAST_AIR = 625  # O'Neill prints his airs first, numbers 1 to 625
CLASSES = ("air", "china", "chorale", "hornpipe", "jig", "luxembourg", "march", "reel", "slip_jig", "strathspey")
LICENCE = (
    "Audio made on your own machine from scores that come with the music21 package and TimGM6mb.sf2 (GPL-2.0), which "
    "comes with pretty_midi. Tune books and chorales: traditional tunes and music before 1800; the editions' terms are "
    "in music21's corpus. The classes china and luxembourg are Essen folk songs, which may be used and passed on for "
    "NON-COMMERCIAL purposes only. None of it is part of this repository; do not redistribute the audio without "
    "reading these terms."
)


def plan(size="small", seed=0):
    """What each track of the twin will be, without reading a score.

    Parameters
    ----------
    size : "small" or "toy"
        Up to 50, 20 and 30 tracks of each class to train, validate and test; or the first 4 of each of these.
    seed : int

    Returns
    -------
    list of dict
        One recipe per track, by class, then split: clip_id ("reel.00000"), class, split, file, pair, tunes [{id, work,
        path, number, title, metre}], program, and what is spread: rate_hz, centre, level_db, gate, room_s, room_db.

    Raises
    ------
    ValueError
        If `size` is not known.
    """
    if size not in SIZES:
        raise ValueError(f"size={size!r} is unknown, expected one of {tuple(SIZES)}")
    found = works()
    recipes = []
    for name in CLASSES:
        mine = [
            recipe
            for split in registry.SPLITS
            for recipe in _recipes(name, split, found[name, split], seed)[: SIZES[size][split]]
        ]
        for k, recipe in enumerate(mine):
            clip_id = f"{name}.{k:05d}"
            recipes.append({"clip_id": clip_id, "file": f"genres/{name}/{clip_id}.wav", **recipe})
    return recipes


def works():
    """The works of each class in each split, one score of each: dict (class, split) -> list of registry.Work.

    Left out are works whose scores are of two classes, and scores that are too short.
    """
    classes = collections.defaultdict(set)
    first = {}
    for score in (*registry.read(), *registry.read(registry.ESSEN_FILE)):
        name = class_of(score)
        if name is None:
            continue
        classes[score.work].add(name)
        long_enough = score.length_q >= LEAST_CHORALE_Q if name == "chorale" else score.n_onsets >= LEAST_ONSETS
        if long_enough:
            first.setdefault(score.work, score)
    found = {(name, split): [] for name in CLASSES for split in registry.SPLITS}
    for score in first.values():
        if len(classes[score.work]) == 1:
            found[class_of(score), score.split].append(score)
    return found


def class_of(score):
    """The class of a score of the registry, or None.

    A jig in 9/8 is a slip jig, whatever its book calls it; a dance in a metre that is not its own is of no class.
    """
    if score.collection == "essen":
        return next(region for region, book in registry.ESSEN.items() if book == score.path) if score.metre else None
    if score.collection == "bach":
        return "chorale" if score.n_voices == 4 and score.metre else None
    if score.n_voices > 1 or not score.metre:
        return None
    if score.dance in ("reel", "hornpipe", "strathspey"):
        return score.dance if score.metre in DUPLE else None
    if score.dance in ("jig", "slip jig"):
        return "slip_jig" if score.metre == "9/8" else "jig" if score.metre in COMPOUND else None
    if score.dance in ("march", "air"):
        return score.dance
    of_the_airs = score.collection == "oneill" and score.number is not None and score.number <= LAST_AIR
    return "air" if of_the_airs and not score.dance else None


def make(root=None, size="small", seed=0, n_workers=None):
    """Make the GTZAN twin, or what is still missing of it.

    Parameters
    ----------
    root : path-like, optional
        Folder to make it in; by default where `paths.twins("gtzan", size)` says.
    size : "small" or "toy"
    seed : int
    n_workers : int, optional
        Processes; all cores this process may use if not given.

    Returns
    -------
    pathlib.Path
        `root`, in GTZAN's layout (22,050 Hz mono 16-bit wav of 661,500 samples), a JSON beside each track, and
        `twin.json` with classes, splits and works, written last: a folder without it is not complete. Finished tracks
        are kept when a stopped run is started again; of two runs at once the second waits for the first. A track that
        cannot be rendered is left out, and listed there (`making.render_all`).

    Raises
    ------
    ValueError
        If `size` is unknown, or the folder holds a twin of another version, size or seed.
    """
    root = Path(root) if root is not None else paths.twins("gtzan", size)
    recipes = plan(size, seed)
    identity = {"name": "gtzan-twin", "version": VERSION, "seed": seed, "size": size, "n_tracks": len(recipes)}
    root.mkdir(parents=True, exist_ok=True)
    with locked(root, "making this twin"):
        if making.complete(root, identity):
            return root
        write_json(root / "making.json", identity)
        missing = [recipe for recipe in recipes if not _finished(root, recipe)]
        one, what = functools.partial(_render_one, root), "rendering the GTZAN twin"
        left_out = making.render_all(one, missing, n_workers, what)
        recipes = [recipe for recipe in recipes if recipe not in left_out]
        write_json(root / "twin.json", {**identity, **_card(recipes), **making.told_left_out(left_out)})
        (root / "making.json").unlink()
    return root


def arranged(tunes, recipe):
    """The timed notes of a track.

    A note lasts until the next one begins (times `gate`): books differ in whether they write a breath as a rest.

    Parameters
    ----------
    tunes : sequence of (np.ndarray [shape=(n_notes, 4)], np.ndarray [shape=(n_bars,)], str)
        Melody, bar starts [quarter notes] and metre of each of the recipe's tunes.
    recipe : dict
        One entry of `plan`.

    Returns
    -------
    list of (program, start_s, end_s, pitch, velocity)
    """
    rng = np.random.default_rng(recipe["seed"])
    n_onsets = round(recipe["rate_hz"] * TUNE_S)
    played = []
    for k, (melody, bars, metre) in enumerate(tunes):
        first, last = excerpt(melody[:, scores.ONSET], bars, n_onsets, rng)
        notes = melody[first:last]
        begin_q = notes[0, scores.ONSET]
        end_q = melody[last, scores.ONSET] if last < len(melody) else (notes[:, 1] + notes[:, 2]).max()
        second_q = TUNE_S / (end_q - begin_q)
        shift = round(recipe["centre"] - float(notes[:, scores.PITCH].mean()))
        velocities = accents(notes[:, scores.ONSET], bars, metre) + rng.integers(-JITTER, JITTER + 1, len(notes))
        starts_s = k * TUNE_S + (np.append(notes[:, scores.ONSET], end_q) - begin_q) * second_q
        ends_s = starts_s[:-1] + recipe["gate"] * np.diff(starts_s)
        rows = zip(starts_s[:-1], ends_s, notes[:, scores.PITCH], velocities, strict=True)
        for start_s, end_s, pitch, velocity in rows:
            played.append((recipe["program"], start_s, end_s, arrange.in_range(pitch + shift), int(velocity)))
    return played


def excerpt(onsets, bars, n_onsets, rng):
    """First and last + 1 of `n_onsets` notes that begin with a bar, drawn among all that fit.

    The whole tune, so slower, if it has no more; its last notes, if none that fit begins with a bar.
    """
    if len(onsets) <= n_onsets:
        return 0, len(onsets)
    starts = np.flatnonzero(np.isin(np.round(onsets, 3), np.round(bars, 3)))
    starts = starts[starts + n_onsets <= len(onsets)]
    first = int(rng.choice(starts)) if len(starts) else len(onsets) - n_onsets
    return first, first + n_onsets


def accents(onsets, bars, metre):
    """Velocity of each note: more on the first of a bar, a little more on a beat: int64 [shape=(n_notes,)]."""
    beat_q = _beat(metre)
    bar = np.searchsorted(bars, onsets + 1e-3) - 1  # -1 before the first bar
    into_q = onsets - np.where(bar >= 0, np.append(bars, 0.0)[bar], np.nan)
    on_bar = np.abs(into_q) < 1e-2
    on_beat = np.abs(into_q / beat_q - np.round(into_q / beat_q)) < 1e-2  # NaN before the first bar: no beat
    return VELOCITY + BAR_ACCENT * on_bar + BEAT_ACCENT * (on_beat & ~on_bar)


def to_audio(tunes, recipe):
    """`arranged`, rendered in its room: float32 [shape=(N_SAMPLES,)] at the recipe's `level_db` (RMS, full scale)."""
    audio = in_room(render.render(arranged(tunes, recipe), N_SAMPLES, SAMPLE_RATE), recipe)
    audio *= 10 ** (recipe["level_db"] / 20) / np.sqrt(np.mean(audio**2))
    return (audio * min(1.0, 0.98 / np.abs(audio).max())).astype(np.float32)


def in_room(audio, recipe):
    """Audio with its reverberation: noise that falls by 60 dB in `room_s`, `room_db` below the sound itself."""
    import scipy.signal

    n_samples = int(recipe["room_s"] * SAMPLE_RATE)
    rng = np.random.default_rng([recipe["seed"], 1])
    response = rng.standard_normal(n_samples) * 10 ** (-3 * np.arange(n_samples) / n_samples)
    response *= 10 ** (recipe["room_db"] / 20) / np.sqrt(np.sum(response**2))
    return audio + scipy.signal.fftconvolve(audio.astype(np.float64), response)[: len(audio)]


def _recipes(name, split, found, seed):
    """Recipes of one class and split, at the size small."""
    rng = functools.partial(making.generator, PLAN_VERSION, seed, f"{name}/{split}")
    order = rng("pairs").permutation(len(found))
    pairs = [[found[i] for i in order[k : k + TUNES]] for k in range(0, len(found) - TUNES + 1, TUNES)]
    n = min(SIZES["small"][split], TRACKS_PER_PAIR * len(pairs))
    pairs = pairs[:n]
    dealt = np.resize(rng("programs").permutation(PROGRAMS), n)
    values = {
        key: making.spread(rng(key), n, *limits).round(4).tolist()
        for key, limits in {
            "rate_hz": RATE_HZ,
            "centre": CENTRE,
            "level_db": LEVEL_DB,
            "gate": GATE,
            "room_s": ROOM_S,
            "room_db": ROOM_DB,
        }.items()
    }
    seeds = rng("seeds").integers(2**32, size=n).tolist()
    return [
        {
            "class": name,
            "split": split,
            "pair": f"work:{pairs[k % len(pairs)][0].work}",
            "tunes": [_tune(score) for score in pairs[k % len(pairs)][:: -1 if k >= len(pairs) else 1]],
            "program": int(dealt[k]),
            **{key: drawn[k] for key, drawn in values.items()},
            "seed": seeds[k],
        }
        for k in range(n)
    ]


def _tune(score):
    """What a recipe keeps of a score."""
    return {key: getattr(score, key) for key in ("id", "work", "path", "number", "title", "metre")}


def _beat(metre):
    """Length of a beat [quarter notes]: three of the lower number in compound metres, else one."""
    n, unit = (int(part) for part in metre.split("/"))
    return (3 if n % 3 == 0 and n > 3 else 1) * 4 / unit


def _card(recipes):
    """What twin.json says beside the twin's identity."""
    by_split = {split: [r["clip_id"] for r in recipes if r["split"] == split] for split in registry.SPLITS}
    counts = collections.Counter((recipe["class"], recipe["split"]) for recipe in recipes)
    return {
        "classes": list(CLASSES),
        "n_per_split": {split: len(ids) for split, ids in by_split.items()},
        "n_per_class": {name: {split: counts[name, split] for split in registry.SPLITS} for name in CLASSES},
        "sample_rate": SAMPLE_RATE,
        "duration_s": DURATION_S,
        "registry": [registry.FILE.name, registry.ESSEN_FILE.name],
        "sound_font": "TimGM6mb.sf2, in tune (twins.soundfont)",
        "licence": LICENCE,
        "splits": by_split,
        "works": {recipe["clip_id"]: recipe["pair"] for recipe in recipes},
    }


def _finished(root, recipe):
    """Whether a track is there: its JSON is written after its audio."""
    path = root / recipe["file"]
    return path.is_file() and path.with_suffix(".json").is_file()


def _load(tune):
    """Melody, bar starts and metre of a tune."""
    score = scores.parse(tune["path"], tune["number"])
    return scores.melody(scores.notes_of(score)), scores.bars_of(score), tune["metre"]


def _render_one(root, recipe):
    """Render one track: audio first, then what it holds."""
    audio = to_audio([_load(tune) for tune in recipe["tunes"]], recipe)
    path = root / recipe["file"]
    with atomic(path) as temporary:
        soundfile.write(temporary, audio, SAMPLE_RATE, format="WAV", subtype="PCM_16")
    truth = {key: value for key, value in recipe.items() if key not in ("file", "tunes", "seed")}
    tunes = [
        {"work": tune["work"], "score": tune["id"], "title": tune["title"], "start_s": k * TUNE_S}
        for k, tune in enumerate(recipe["tunes"])
    ]
    write_json(path.with_suffix(".json"), {**truth, "duration_s": DURATION_S, "tunes": tunes})
