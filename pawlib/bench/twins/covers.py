"""The twins of the two collections of cover songs: one melody in several settings, in two tiers that are never mixed.

    real        settings that people wrote down: a tune in several tune books, a melody that Bach harmonised anew. That
                it is one melody is confirmed by the notes (interval 4-grams), not by the title.
    synthetic   one score, played again with other structure and ornaments: a second, easier tier, named so everywhere.

Which works and settings they are stands in covers-v1.csv, chosen by twins.covers_table. `plan(dataset, size, seed)`
decides from it what each recording will be, without reading a score; `make(dataset, ...)` renders it. A change of any
of these needs a new VERSION.

Any two recordings of a work differ in
    instrument   another family; in test by General MIDI programs that no training or validation recording has
    key          1 to 6 semitones, as it sounds
    tempo        5 to 28 %, as it sounds: one book writes a tune in eighths, another in quarters
    form         in the tier synthetic: its halves repeated or exchanged, and turns; in the tier real as it was written
and of two of Bach's settings the bass differs, too. One to four voices are drawn for each: the melody alone, or in
parallel thirds and octaves, or as many of Bach's voices. Works last about as long; in each list every metre is that of
several works; no work is in two lists, or in another split than its own in the registry of all twins.

The sound font is played in tune (twins.soundfont): as symusic reads it, most programs play other notes than are
written, and no two recordings of a work would have a melody in common.

Why so many works (200 to train, 32, 40): a system that is trained to tell songs apart learns what covers share only
from many songs, and all works of the registry's test that two people set are enough for two lists. 483 training
recordings of half a minute are 31 batches of 16 an epoch.

Conventions
    A *setting* is a score of the registry (an excerpt of it, in quarter notes of its own).
    `shift` : its pitch less that of the work's first setting [semitones].
    `stretch` : its quarter notes for one of the first setting.

Told in: notebooks/40_cover_songs.ipynb
"""

import collections
import csv
import dataclasses
import functools
import hashlib
import math
from pathlib import Path

import numpy as np
import soundfile

from pawlib import paths
from pawlib.bench.files import atomic, locked, read_json, write_json
from pawlib.bench.twins import arrange, making, mtat, registry, render, scores

VERSION = 1
FILE = Path(__file__).with_name(f"covers-v{VERSION}.csv")
TIERS = ("real", "synthetic")
WORKS = {  # works of each tier, at most, in the list of each dataset
    "covers80": {"test": {"real": 50, "synthetic": 30}},
    "shs100k": {
        "train": {"real": 150, "synthetic": 50},
        "valid": {"real": 24, "synthetic": 8},
        "test": {"real": 30, "synthetic": 10},
    },
}
TOY = {"covers80": {"test": 8}, "shs100k": {"train": 6, "valid": 4, "test": 6}}  # works, the first of the lists
VERSIONS = {"covers80": (2, 2), "shs100k": (2, 5)}
METRES = {  # as books write them; each class by its usual name
    "2/4": ("2/4", "4/4", "2/2", "4/8"),
    "3/4": ("3/4", "3/8", "3/2"),
    "6/8": ("6/8", "12/8"),
    "9/8": ("9/8",),
}
SECONDS = {"real": (26.0, 34.0), "synthetic": (20.0, 26.0)}  # of a work at its middle tempo, played once straight on
TEMPO = (1.05, 1.28)  # ratio of neighbouring versions at least, of the slowest and the fastest at most
KEYS = 6  # semitones
CENTRE = (62.0, 66.0)  # MIDI pitch of the melody's mean in the lowest key of a work
VOICES = {1: 0.3, 2: 0.3, 3: 0.2, 4: 0.2}
FORMS = ("AAB", "ABA", "BA")  # beside AB, of the halves of the excerpt
ORNAMENTS = (0.05, 0.15)
LEVEL_DB = (-24.0, -18.0)
VELOCITY = {"melody": 92, "other": 66, "jitter": 8}
GATE = 0.95
TAIL_S = 0.5
MP3_QUALITY = 0.85  # gives about 32 kbps at 16 kHz
LICENCE = (
    "Audio made on your own machine from scores that come with the music21 package (traditional tunes and Bach's "
    "chorales; the editions' terms are in music21's corpus) and TimGM6mb.sf2 (GPL-2.0), which comes with pretty_midi. "
    "Neither is part of this repository; do not redistribute the audio without reading both."
)


@dataclasses.dataclass(frozen=True)
class Setting:
    """One line of the table: a setting of a work, in the list it belongs to.

    Attributes
    ----------
    dataset, split, tier : str
    work : str
        Of the registry.
    score : str
        Its id in the registry.
    metre : str
        One of METRES.
    shift : int [semitones]
    stretch : float
    first_q, last_q : float [quarter notes]
        The excerpt that is played.
    n_notes : int
        Of the melody in it.
    mean_pitch : float
        Of the melody in it, as written.
    overlap : float
        The smallest with another setting of the work, excerpt with excerpt; 1 in the tier synthetic.
    nearest : float
        The largest with a setting of another work of the table.
    """

    dataset: str
    split: str
    tier: str
    work: str
    score: str
    metre: str
    shift: int
    stretch: float
    first_q: float
    last_q: float
    n_notes: int
    mean_pitch: float
    overlap: float
    nearest: float


@functools.cache
def table(path=FILE):
    """The settings of all works of all lists: tuple of Setting, in the order of the file.

    Raises
    ------
    ValueError
        If the file has other columns than this version knows.
    """
    kinds = {field.name: field.type for field in dataclasses.fields(Setting)}
    with open(path, newline="", encoding="utf-8") as file:
        rows = csv.DictReader(file)
        if rows.fieldnames != list(kinds):
            raise ValueError(f"{path} has the columns {rows.fieldnames}, expected {list(kinds)}: of another version?")
        return tuple(Setting(**{key: kinds[key](value) for key, value in row.items()}) for row in rows)


def drawn(name):
    """What works and recordings are ordered by: as if drawn, and the same on every machine."""
    return hashlib.sha256(f"covers-v{VERSION}:{name}".encode()).hexdigest()


# --- plan -------------------------------------------------------------------------------------------------------------


def plan(dataset, size="small", seed=0):
    """What each recording of a twin will be, without reading a score.

    Parameters
    ----------
    dataset : "covers80" | "shs100k"
    size : "small" | "toy"
        All works of the table, or the first of each list.
    seed : int

    Returns
    -------
    list of dict
        One recipe per recording, work by work: dataset, split, tier, work, version (from 0), score, path, number,
        title, collection, metre, first_q, last_q, shift, stretch, mode, tonic_written, texture, n_voices, family,
        program, key [semitones above the work's lowest], transpose [semitones, of the score], tempo (1 is the work's
        middle), q_per_s [of the score], form, ornaments (share of notes), level_db, seed.

    Raises
    ------
    ValueError
        If dataset or size is not known.
    """
    if dataset not in WORKS:
        raise ValueError(f"dataset={dataset!r} has no twin here, expected one of {tuple(WORKS)}")
    if size not in ("small", "toy"):
        raise ValueError(f"size={size!r} is unknown, expected small or toy")
    by_id = {score.id: score for score in registry.read()}
    recipes = []
    for split in WORKS[dataset]:
        works = _works(dataset, split)
        if size == "toy":
            works = _few(works, TOY[dataset][split])
        for settings in works:
            recipes += _versions(dataset, settings, by_id, seed)
    return recipes


def _works(dataset, split):
    """The settings of each work of a list: list of lists, in the order of the table."""
    found = collections.defaultdict(list)
    for setting in table():
        if (setting.dataset, setting.split) == (dataset, split):
            found[setting.work].append(setting)
    return list(found.values())


def _few(works, n):
    """The first works of a list: a quarter or a third of them synthetic, and every metre that of two or more."""
    n_synthetic, n_jigs = n // 3, 2 if n > 4 else 0
    wanted = {("real", "2/4"): n - n_synthetic - n_jigs, ("real", "6/8"): n_jigs, ("synthetic", "2/4"): n_synthetic}
    return [
        settings
        for kind, n_kind in wanted.items()
        for settings in [found for found in works if (found[0].tier, found[0].metre) == kind][:n_kind]
    ]


def _versions(dataset, settings, by_id, seed):
    """Recipes of the versions of one work."""
    first = settings[0]
    rng = making.generator(VERSION, seed, f"{dataset}/{first.work}", "versions")
    low, high = VERSIONS[dataset]
    n = min(len(settings), high) if first.tier == "real" else int(rng.integers(low, min(high, 4) + 1))
    if first.tier == "synthetic":
        settings = settings * n
    families = [str(family) for family in rng.permutation(list(mtat.FAMILIES))[:n]]
    keys = rng.permutation(rng.permutation(KEYS + 1)[:n]).tolist()
    width = rng.uniform((n - 1) * math.log(TEMPO[0]), math.log(TEMPO[1]))
    tempos = np.exp(rng.permutation(np.linspace(-width / 2, width / 2, n)))
    forms = ["AB", *rng.permutation(FORMS).tolist()]
    seconds, centre = rng.uniform(*SECONDS[first.tier]), rng.uniform(*CENTRE)
    base = round(centre - first.mean_pitch)
    recipes = []
    for k, setting in enumerate(settings[:n]):
        score = by_id[setting.score]
        synthetic = setting.tier == "synthetic"
        q_per_s = tempos[k] * (first.last_q - first.first_q) / seconds * setting.stretch
        recipes.append(
            {
                "dataset": dataset,
                "split": setting.split,
                "tier": setting.tier,
                "work": setting.work,
                "version": k,
                "score": score.id,
                "path": score.path,
                "number": score.number,
                "title": score.title,
                "collection": score.collection,
                "metre": setting.metre,
                "first_q": setting.first_q,
                "last_q": setting.last_q,
                "shift": setting.shift,
                "stretch": setting.stretch,
                "mode": score.mode,
                "tonic_written": score.tonic,
                "texture": "score" if score.n_voices > 1 else "parallel",
                "n_voices": min(making.draw(rng, VOICES), score.n_voices if score.n_voices > 1 else 4),
                "family": families[k],
                "program": int(rng.choice(mtat.FAMILIES[families[k]][setting.split == "test"])),
                "key": int(keys[k]),
                "transpose": int(base + keys[k] - setting.shift),
                "tempo": round(float(tempos[k]), 4),
                "q_per_s": round(float(q_per_s), 5),
                "form": forms[k] if synthetic else "AB",
                "ornaments": round(float(rng.uniform(*ORNAMENTS)), 3) if synthetic and k else 0.0,
                "level_db": round(float(rng.uniform(*LEVEL_DB)), 2),
                "seed": int(rng.integers(2**32)),
            }
        )
    return recipes


# --- from notes to audio ----------------------------------------------------------------------------------------------


def arranged(notes, recipe):
    """The timed notes of a recording.

    Parameters
    ----------
    notes : np.ndarray [shape=(n_notes, 4)]
        Of the whole score, as `scores.load` gives it.
    recipe : dict
        One entry of `plan`.

    Returns
    -------
    list of (program, start_s, end_s, pitch, velocity)
        The melody's first.
    np.ndarray, float64 [shape=(n_melody, 2)]
        The melody as it sounds: onset [s], MIDI pitch.
    float [s]
        How long it lasts.
    """
    rng = np.random.default_rng(recipe["seed"])
    lines = arrange.voices(notes, {**recipe, "tonic_written": recipe["tonic_written"]})
    lines, length_q = _formed(lines, recipe)
    lines[0] = _ornamented(lines[0], recipe["ornaments"], rng)
    played, melody = [], []
    for voice, line in enumerate(lines):
        loudness = VELOCITY["melody" if voice == 0 else "other"]
        for onset, duration, pitch in line:
            start_s, end_s = onset / recipe["q_per_s"], (onset + GATE * duration) / recipe["q_per_s"]
            pitch = arrange.in_range(pitch + recipe["transpose"])
            velocity = loudness + int(rng.integers(-VELOCITY["jitter"], VELOCITY["jitter"] + 1))
            played.append((recipe["program"], start_s, end_s, pitch, velocity))
            if voice == 0:
                melody.append((start_s, pitch))
    return played, np.array(melody, dtype=np.float64), length_q / recipe["q_per_s"]


def to_audio(notes, recipe):
    """`arranged`, rendered at the recipe's `level_db` (RMS): float32 [shape=(n_samples,)]; and the melody."""
    played, melody, seconds = arranged(notes, recipe)
    audio = render.render(played, round((seconds + TAIL_S) * render.SAMPLE_RATE))
    audio *= 10 ** (recipe["level_db"] / 20) / np.sqrt(np.mean(audio**2))
    return (audio * min(1.0, 0.98 / np.abs(audio).max())).astype(np.float32), melody


def _formed(lines, recipe):
    """The excerpt's halves in the order of the form: list of arrays with onsets from 0, and the length in quarters."""
    first_q, last_q = recipe["first_q"], recipe["last_q"]
    half_q = (last_q - first_q) / 2
    begins = {"A": first_q, "B": first_q + half_q}
    made = []
    for line in lines:
        parts = []
        for k, name in enumerate(recipe["form"]):
            inside = line[(line[:, 0] >= begins[name] - 1e-6) & (line[:, 0] < begins[name] + half_q - 1e-6)]
            moved = inside + [k * half_q - begins[name], 0, 0]
            moved[:, 1] = np.minimum(moved[:, 1], (k + 1) * half_q - moved[:, 0])
            parts.append(moved)
        made.append(np.concatenate(parts))
    return made, half_q * len(recipe["form"])


def _ornamented(line, share, rng):
    """Some of the longer notes with a turn: the note, its upper neighbour among the line's notes, the note."""
    if not share:
        return line
    steps = np.unique(line[:, 2])
    rows = []
    for onset, duration, pitch in line:
        above = steps[(steps > pitch) & (steps <= pitch + 2)]
        if duration >= np.median(line[:, 1]) and len(above) and rng.random() < share:
            third = duration / 3
            rows += [[onset, third, pitch], [onset + third, third, above[0]], [onset + 2 * third, third, pitch]]
        else:
            rows.append([onset, duration, pitch])
    return np.array(rows, dtype=np.float64)


# --- folders ----------------------------------------------------------------------------------------------------------


def make(dataset, layout, root=None, size="small", seed=0, n_workers=None):
    """Make a twin, or what is still missing of it.

    Parameters
    ----------
    dataset : "covers80" | "shs100k"
    layout : module
        `name(recipes)` gives the recipes with "id", "song" and "file"; `write_lists(root, recipes)` the dataset's own
        lists: twins.covers80, twins.shs100k.
    root : path-like, optional
        Folder to make it in; by default where `paths.twins(dataset, size)` says.
    size : "small" | "toy"
    seed : int
    n_workers : int, optional
        Processes; all cores this process may use if not given.

    Returns
    -------
    pathlib.Path
        `root`, in the dataset's layout, a JSON beside each recording, and `twin.json` written last: a folder without it
        is not complete. Finished recordings are kept when a stopped run is started again. A work of which fewer than
        two recordings could be rendered is left out, and listed there (`making.render_all`).

    Raises
    ------
    ValueError
        If an argument is unknown, or the folder holds a twin of another version, size or seed.
    """
    root = Path(root) if root is not None else paths.twins(dataset, size)
    recipes = layout.name(plan(dataset, size, seed))
    identity = {"name": f"{dataset}-twin", "version": VERSION, "seed": seed, "size": size, "n_tracks": len(recipes)}
    root.mkdir(parents=True, exist_ok=True)
    with locked(root, "making this twin"):
        if making.complete(root, identity):
            return root
        write_json(root / "making.json", identity)
        missing = [recipe for recipe in recipes if not _finished(root, recipe)]
        missing.sort(key=lambda recipe: (recipe["path"], recipe["file"]))
        one, what = functools.partial(_render_one, root), f"rendering the twin of {dataset}"
        left_out = making.render_all(one, missing, n_workers, what)
        lost = [recipe["file"] for recipe in left_out]
        kept = [recipe for recipe in recipes if recipe["file"] not in lost]
        n_left = collections.Counter(recipe["work"] for recipe in kept)
        left_out += [recipe for recipe in kept if n_left[recipe["work"]] < 2]
        recipes = [recipe for recipe in kept if n_left[recipe["work"]] > 1]
        layout.write_lists(root, recipes)
        write_json(root / "twin.json", {**identity, **_card(recipes), **making.told_left_out(left_out)})
        (root / "making.json").unlink()
    return root


def _card(recipes):
    """What twin.json says beside the twin's identity."""
    songs = {split: {} for split in registry.SPLITS}
    for recipe in recipes:
        songs[recipe["split"]][recipe["song"]] = recipe["work"]
    counts = collections.Counter((recipe["split"], recipe["tier"]) for recipe in recipes)
    return {
        "n_per_split": {split: sum(counts[split, tier] for tier in TIERS) for split in registry.SPLITS},
        "n_per_tier": {tier: {split: counts[split, tier] for split in registry.SPLITS} for tier in TIERS},
        "sample_rate": render.SAMPLE_RATE,
        "registry": registry.FILE.name,
        "table": FILE.name,
        "sound_font": "TimGM6mb.sf2, in tune (twins.soundfont)",
        "licence": LICENCE,
        "tiers": {recipe["id"]: recipe["tier"] for recipe in recipes},
        "files": {recipe["id"]: recipe["file"] for recipe in recipes},
        "works": {song: work for split in registry.SPLITS for song, work in songs[split].items()},
    }


def _finished(root, recipe):
    """Whether a recording is there: its JSON is written after its audio."""
    path = root / recipe["file"]
    return path.is_file() and path.with_suffix(".json").is_file()


def _render_one(root, recipe):
    """Render one recording: audio first, then what it holds."""
    audio, melody = to_audio(scores.load(recipe["path"], recipe["number"]), recipe)
    path = root / recipe["file"]
    with atomic(path) as temporary:
        if path.suffix == ".mp3":
            how = {"format": "MP3", "subtype": "MPEG_LAYER_III", "compression_level": MP3_QUALITY}
            soundfile.write(temporary, audio, render.SAMPLE_RATE, bitrate_mode="CONSTANT", **how)
        else:
            soundfile.write(temporary, audio, render.SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    kept = ("id", "song", "tier", "work", "score", "title", "collection", "split", "metre", "n_voices", "texture")
    kept += ("family", "program", "key", "transpose", "tempo", "form", "ornaments")
    told = {key: recipe[key] for key in kept}
    notes = [[round(float(onset), 4), int(pitch)] for onset, pitch in melody]
    write_json(
        path.with_suffix(".json"), {**told, "seconds": round(len(audio) / render.SAMPLE_RATE, 4), "melody": notes}
    )


# --- what a twin knows ------------------------------------------------------------------------------------------------


def truth(root):
    """What is known of each recording of a twin.

    Parameters
    ----------
    root : path-like
        Of a twin of either dataset.

    Returns
    -------
    dict of str to dict
        Track id to: id, song, tier, work (of the registry), score, title, collection, split, metre, n_voices, texture,
        family, program, key, transpose, tempo, form, ornaments, seconds, melody.

    Raises
    ------
    FileNotFoundError
        If the folder holds no finished twin.
    ValueError
        If a JSON beside a recording is of another recording.

    Told in: notebooks/40_cover_songs.ipynb
    """
    root = Path(root)
    if not (root / "twin.json").is_file():
        raise FileNotFoundError(
            f"{root / 'twin.json'} is not there: only twins know tier and melody of a recording. Make one with "
            "`pawlib twins shs100k` or `pawlib twins covers80`"
        )
    found = {}
    for track_id, file in read_json(root / "twin.json")["files"].items():
        told = read_json((root / file).with_suffix(".json"))
        if told.get("id") != track_id:
            raise ValueError(
                f"{(root / file).with_suffix('.json')} tells of {told.get('id')!r}, expected {track_id!r}: are files "
                "of two twins mixed? Make the twin again with `pawlib twins`"
            )
        found[track_id] = told
    return found


def tiers(root):
    """Tier of each recording of a twin: dict of track id to "real" or "synthetic"."""
    path = Path(root) / "twin.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there: only twins have tiers. Make one with `pawlib twins`")
    return read_json(path)["tiers"]


def melodies(root):
    """The melody of each recording as it sounds: what a perfect transcription would know.

    Returns
    -------
    dict of str to np.ndarray, float64 [shape=(n_notes, 2)]
        Track id to onsets [s] and MIDI pitches, in order.

    Told in: notebooks/40_cover_songs.ipynb
    """
    return {track_id: np.array(told["melody"], dtype=np.float64) for track_id, told in truth(root).items()}


def symbolic(found, how="alignment"):
    """How alike melodies are, note by note, in any key and at any tempo: the ceiling of what can be heard of a melody.

    Parameters
    ----------
    found : sequence of np.ndarray [shape=(n_notes, 2)]
        As `melodies` gives them, in the order of the tracks.
    how : "alignment" | "grams"
        The best local alignment of the intervals (Smith and Waterman 1981: +1 for an equal interval, -1 for another,
        -0.7 for one left out), divided by the square root of the product of the lengths; or the overlap of interval
        4-grams by which the registry joins melodies.

    Returns
    -------
    np.ndarray, float64 [shape=(n, n)]
        Symmetric, 1 on the diagonal, between 0 and 1.

    Raises
    ------
    ValueError
        If `how` is unknown, or a melody has fewer than two notes.

    Told in: notebooks/40_cover_songs.ipynb
    """
    if how not in ("alignment", "grams"):
        raise ValueError(f"how={how!r} is unknown, expected alignment or grams")
    pitches = [np.asarray(melody)[:, 1].astype(np.int64) for melody in found]
    short = [k for k, one in enumerate(pitches) if len(one) < 2]
    if short:
        raise ValueError(
            f"melody {short[0]} has {len(pitches[short[0]])} notes, expected at least 2: it has no interval"
        )
    if how == "grams":
        sets = [registry.grams(one) for one in pitches]
        similarity = np.array([[registry.overlap(a, b) for b in sets] for a in sets])
    else:
        similarity = _aligned([np.diff(one) for one in pitches])
    np.fill_diagonal(similarity, 1.0)
    return similarity


def _aligned(sequences, miss=-1.0, gap=0.7):
    """Scores of the best local alignments of all pairs, by rows: one sequence with all others at once."""
    lengths = np.array([len(one) for one in sequences])
    padded = np.full((len(sequences), lengths.max()), 999)  # no interval: matches nothing
    for row, one in enumerate(sequences):
        padded[row, : len(one)] = one
    slope = gap * np.arange(padded.shape[1] + 1)
    best = np.zeros((len(sequences), len(sequences)))
    for query, one in enumerate(sequences):
        row = np.zeros((len(sequences), padded.shape[1] + 1))
        for interval in one:
            new = np.zeros_like(row)
            new[:, 1:] = np.maximum(row[:, :-1] + np.where(padded == interval, 1.0, miss), row[:, 1:] - gap)
            new = np.maximum(new, 0)
            row = np.maximum.accumulate(new + slope, axis=1) - slope  # intervals of the other left out
            best[query] = np.maximum(best[query], row.max(axis=1))
    return best / np.sqrt(np.outer(lengths, lengths))
