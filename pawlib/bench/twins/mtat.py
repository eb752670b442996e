"""The MTAT twin: real scores rendered to clips, with tags in four groups, in the layout of MagnaTagATune.

`plan(size, seed)` decides everything that can be decided without reading a score: which works, which tags, which
programs, what happens when. `make(root, ...)` renders the plan. A change of either needs a new VERSION.

Groups of tags, drawn independently of each other
    timbre    instrument families; test tracks use General MIDI programs that no training or validation track uses
    musical   mode in any key, metre, dotted rhythm, dance (of the score); texture and number of voices (arranged)
    part      true in 10 to 35 % of the clip, always inside EVENT_WINDOW_S, so inside any crop of 22.4 s
    order     pairs of schemes with the same contents in another order over the whole clip, so in any crop of 22.4 s

Key, note rate, level, instruments and number of voices are drawn alike for all classes; no work is looped; a work of
the registry gives one clip, and its split is the registry's.

Told in: notebooks/01_data.ipynb
"""

import collections
import csv
import functools
import zlib
from pathlib import Path

import soundfile

from pawlib import paths
from pawlib.bench.files import atomic, locked, write_json
from pawlib.bench.twins import arrange, making, registry, render, scores

VERSION = 2  # 1 had the same plan, played out of tune: see twins.soundfont
PLAN_VERSION = 1  # what every draw of the plan hangs on
SIZES = {"small": 1600, "toy": 64}
FOLDERS = {"train": "0123456789ab", "valid": "c", "test": "def"}
EVENT_WINDOW_S = (6.8, 22.3)
LEAST_ONSETS = 72
RATE_HZ = (1.7, 2.4)
LEVEL_DB = (-24.0, -18.0)

FAMILIES = {  # family: (programs of train and valid, programs of test), General MIDI from 0
    "piano": ((0, 3, 4, 6), (2, 5, 7)),
    "mallets": ((8, 11, 12, 14), (10, 13, 15)),
    "organ": ((16, 19, 21), (17, 18, 20)),
    "guitar": ((24, 26, 27), (25, 28)),
    "strings": ((40, 42, 48), (41, 49)),
    "brass": ((56, 57, 61), (59, 60)),
    "reeds": ((64, 66, 68, 71), (69, 70)),
    "flutes": ((73, 75, 79), (72, 74)),
}
STRUCK, BLOWN = ("piano", "mallets", "guitar"), ("organ", "strings", "brass", "reeds", "flutes")
METRES = {
    "duple": ("2/4", "4/4", "2/2", "4/8"),
    "triple": ("3/4", "3/8", "3/2"),
    "compound": ("6/8", "9/8", "12/8", "6/4"),
}
DANCES = ("reel", "jig", "hornpipe", "march", "strathspey")
VOICES = {1: "one voice", 2: "two voices", 3: "three voices", 4: "four voices"}
DOTTED = 0.2
PARTS = {  # tag: probability where it can be
    "silence": 0.2,
    "solo": 0.35,
    "drums": 0.22,
    "choir pad": 0.22,
    "pizzicato": 0.22,
    "tremolo": 0.22,
    "trill": 0.22,
    "pedal note": 0.22,
    "octave doubling": 0.22,
}
PAIRS = {  # layer of the recipe: the two schemes of each pair with their tags
    "instruments": {"struck first": "struck to blown", "blown first": "blown to struck"},
    "form": {"aba": "ABA", "aab": "AAB", "abab": "ABAB", "aabb": "AABB"},
    "loudness": {"crescendo": "crescendo", "diminuendo": "diminuendo"},
    "pace": {"accelerando": "accelerando", "ritardando": "ritardando"},
    "entries": {"entering": "voices entering", "leaving": "voices leaving"},
    "pitch": {
        "rising": "register rising",
        "falling": "register falling",
        "up": "modulation up",
        "down": "modulation down",
    },
}
GROUPS = {
    "timbre": tuple(FAMILIES),
    "musical": ("major", "minor", *METRES, "dotted rhythm", "homophonic", "canon", *VOICES.values(), *DANCES),
    "part": tuple(PARTS),
    "order": tuple(tag for schemes in PAIRS.values() for tag in schemes.values()),
}
TAGS = tuple(tag for tags in GROUPS.values() for tag in tags)
LICENCE = (
    "Audio made on your own machine from scores that come with the music21 package (traditional tunes and music before "
    "1800; the editions' terms are in music21's corpus) and TimGM6mb.sf2 (GPL-2.0), which comes with pretty_midi. "
    "Neither is part of this repository; do not redistribute the audio without reading both."
)


def plan(size="small", seed=0):
    """What each track of the twin will be, without reading a score.

    Parameters
    ----------
    size : "small" or "toy"
        1,600 works, or 64 of the same tracks, chosen so that all tags occur in train and as many as can in the others.
    seed : int

    Returns
    -------
    list of dict
        One recipe per track, in the order of clip_id: clip_id, work (id of the score), path, number, split, file,
        title, collection, tags, events [{tag, group, start_s, end_s}], and the schemes that `arrange` carries out.

    Raises
    ------
    ValueError
        If `size` is not known.
    """
    if size not in SIZES:
        raise ValueError(f"size={size!r} is unknown, expected one of {tuple(SIZES)}")
    recipes = [_recipe(work, seed) for work in _chosen(SIZES["small"], seed)]
    if size == "toy":
        recipes = _covering(recipes, SIZES["toy"])
    return [{"clip_id": k + 1, **recipe} for k, recipe in enumerate(sorted(recipes, key=lambda recipe: recipe["work"]))]


def make(root=None, size="small", seed=0, n_workers=None):
    """Make the MTAT twin, or what is still missing of it.

    Parameters
    ----------
    root : path-like, optional
        Folder to make it in; by default where `paths.twins("mtat", size)` says.
    size : "small" or "toy"
    seed : int
    n_workers : int, optional
        Processes; all cores this process may use if not given.

    Returns
    -------
    pathlib.Path
        `root`, in MTAT's layout (16 kHz mono flac of 465,984 samples), with `twin.json` written last: a folder without
        it is not complete. Finished tracks are kept when a stopped run is started again; of two runs at once the second
        waits for the first. A track that cannot be rendered is left out, and listed there (`making.render_all`).

    Raises
    ------
    ValueError
        If `size` is unknown, or the folder holds a twin of another version, size or seed.
    """
    root = Path(root) if root is not None else paths.twins("mtat", size)
    recipes = plan(size, seed)
    identity = {"name": "mtat-twin", "version": VERSION, "seed": seed, "size": size, "n_tracks": len(recipes)}
    root.mkdir(parents=True, exist_ok=True)
    with locked(root, "making this twin"):
        if making.complete(root, identity):
            return root
        write_json(root / "making.json", identity)
        missing = [recipe for recipe in recipes if not _finished(root, recipe)]
        missing.sort(key=lambda recipe: (recipe["path"], recipe["clip_id"]))
        one, what = functools.partial(_render_one, root), "rendering the MTAT twin"
        left_out = making.render_all(one, missing, n_workers, what)
        recipes = [recipe for recipe in recipes if recipe not in left_out]
        _write_tables(root, recipes)
        groups = {group: list(tags) for group, tags in GROUPS.items()}
        pairs = {layer: _tag_pairs(schemes) for layer, schemes in PAIRS.items()}
        counts = collections.Counter(recipe["split"] for recipe in recipes)
        write_json(
            root / "twin.json",
            {
                **identity,
                "groups": groups,
                "pairs": [pair for found in pairs.values() for pair in found],
                "n_per_split": dict(counts),
                "sample_rate": render.SAMPLE_RATE,
                "duration_s": arrange.DURATION_S,
                "event_window_s": list(EVENT_WINDOW_S),
                "registry": registry.FILE.name,
                "sound_font": "TimGM6mb.sf2, in tune (twins.soundfont)",
                "licence": LICENCE,
                **making.told_left_out(left_out),
            },
        )
        (root / "making.json").unlink()
    return root


def _tag_pairs(schemes):
    """Tags of the schemes, two by two."""
    tags = list(schemes.values())
    return [tags[k : k + 2] for k in range(0, len(tags), 2)]


def _chosen(n, seed):
    """Works for the twin, one score of each, rare labels first by weight.

    The weight of a score is the highest of 1 / (how many have its dance, its mode, its metre, its collection), and the
    draw is weighted sampling without replacement (Efraimidis and Spirakis 2006).
    """
    labels = ("dance", "mode", "metre", "collection")
    usable = [work for work in registry.read() if work.n_onsets >= LEAST_ONSETS and work.metre]
    counts = {label: collections.Counter(getattr(work, label) for work in usable) for label in labels}
    best = {}
    for work in usable:
        weight = max(1 / max(counts[label][getattr(work, label)], 20) for label in labels)
        key = _generator(seed, work.id, "choice").uniform() ** (1 / (1e4 * weight))
        if work.work not in best or key > best[work.work][0]:
            best[work.work] = (key, work)
    ranked = sorted(best.values(), key=lambda pair: (-pair[0], pair[1].id))
    return [work for _, work in ranked[:n]]


def _recipe(work, seed):
    """Everything that is drawn for one track."""
    rng = _generator(seed, work.work, "recipe")
    n_voices, texture = _voices(work, rng)
    form = making.draw(rng, {"straight": 0.4, "aba": 0.15, "aab": 0.15, "abab": 0.15, "aabb": 0.15})
    entries = making.draw(rng, {"all": 0.3, "entering": 0.35, "leaving": 0.35})
    pitch = making.draw(rng, {"steady": 0.3, "rising": 0.175, "falling": 0.175, "up": 0.175, "down": 0.175})
    instruments = making.draw(rng, {"one": 0.4, "struck first": 0.2, "blown first": 0.2, "in turn": 0.2})
    families = _families(instruments, rng)
    tonic = int(rng.integers(12))
    shift = tonic - work.tonic if work.tonic is not None else tonic
    recipe = {
        "work": work.id,
        "path": work.path,
        "number": work.number,
        "title": work.title,
        "collection": work.collection,
        "split": work.split,
        "file": f"{_folder(work)}/{work.id.replace('/', '-').replace(' ', '_').lower()}.flac",
        "seed": int(rng.integers(2**32)),
        "n_voices": n_voices,
        "texture": texture,
        "canon_q": 2,
        "form": form,
        "entries": entries if n_voices > 2 else "all",
        "pitch": pitch,
        "modulation": int(rng.integers(3, 6)),
        "pace": making.draw(rng, {"steady": 0.5, "accelerando": 0.25, "ritardando": 0.25}),
        "loudness": making.draw(rng, {"level": 0.5, "crescendo": 0.25, "diminuendo": 0.25}),
        "instruments": instruments,
        "families": families,
        "programs": [int(rng.choice(FAMILIES[family][work.split == "test"])) for family in families],
        "mode": work.mode,
        "tonic_written": work.tonic,
        "tonic": tonic if work.tonic is not None else None,
        "key_shift": shift,
        "rate_hz": round(float(rng.uniform(*RATE_HZ)), 4),
        "level_db": round(float(rng.uniform(*LEVEL_DB)), 2),
    }
    recipe["events"] = [*_whole_events(work, recipe), *_part_events(recipe, rng)]
    recipe["tags"] = [tag for tag in TAGS if tag in {event["tag"] for event in recipe["events"]}]
    return recipe


def _voices(work, rng):
    """Number of voices and where they come from: the score, parallel thirds and octaves, or a canon."""
    n_voices = making.draw(rng, {1: 0.25, 2: 0.25, 3: 0.2, 4: 0.3})
    texture = making.draw(rng, {"parallel": 0.5, "canon": 0.5})
    if n_voices == 1:
        return 1, "score"
    if work.n_voices > 1 and (texture == "parallel" or work.collection != "bach"):
        return min(n_voices, work.n_voices), "score"
    return n_voices, texture


def _families(instruments, rng):
    """The instrument family or the two, in the order they are heard."""
    struck, blown = str(rng.choice(STRUCK)), str(rng.choice(BLOWN))
    if instruments == "one":
        return [str(rng.choice(tuple(FAMILIES)))]
    return (
        [struck, blown]
        if instruments == "struck first" or (instruments == "in turn" and rng.random() < 0.5)
        else [blown, struck]
    )


def _whole_events(work, recipe):
    """Events of the groups timbre, musical and order."""
    end_s = arrange.DURATION_S
    tags = [("musical", work.mode)] if work.mode in ("major", "minor") else []
    tags += [("musical", tag) for tag, metres in METRES.items() if work.metre in metres]
    tags += [("musical", "dotted rhythm")] if work.dotted >= DOTTED else []
    tags += [("musical", "canon")] if recipe["texture"] == "canon" else []
    parallel = recipe["texture"] == "parallel" or (work.collection == "bach" and recipe["texture"] == "score")
    tags += [("musical", "homophonic")] if parallel and recipe["n_voices"] > 1 else []
    tags += [("musical", VOICES[recipe["n_voices"]])] if recipe["n_voices"] in VOICES else []
    tags += [("musical", work.dance)] if work.dance in DANCES else []
    tags += [("order", schemes[recipe[layer]]) for layer, schemes in PAIRS.items() if recipe[layer] in schemes]
    events = [{"tag": tag, "group": group, "start_s": 0.0, "end_s": end_s} for group, tag in tags]
    return [*_timbre_events(recipe), *events]


def _timbre_events(recipe):
    """When each instrument family plays."""
    families, end_s = recipe["families"], arrange.DURATION_S
    if recipe["instruments"] == "in turn":
        spans = [(families[k % 2], k * end_s / 8, (k + 1) * end_s / 8) for k in range(8)]
    else:
        width_s = end_s / len(families)
        spans = [(family, k * width_s, (k + 1) * width_s) for k, family in enumerate(families)]
    return [{"tag": tag, "group": "timbre", "start_s": round(a, 3), "end_s": round(b, 3)} for tag, a, b in spans]


def _part_events(recipe, rng):
    """Part events at random times inside EVENT_WINDOW_S; silence overlaps none, a solo none that adds notes."""
    events = []
    for tag, probability in PARTS.items():
        wanted = rng.random() < probability
        if tag == "solo" and (recipe["n_voices"] == 1 or recipe["entries"] != "all"):
            continue
        for _ in range(100 if wanted else 0):
            length_s = rng.uniform(3.0, 3.5) if tag == "silence" else rng.uniform(3.0, 10.0)
            start_s = rng.uniform(EVENT_WINDOW_S[0], EVENT_WINDOW_S[1] - length_s)
            event = {"tag": tag, "group": "part", "start_s": round(start_s, 3), "end_s": round(start_s + length_s, 3)}
            if not any(_clash(event, other) for other in events):
                events.append(event)
                break
    return events


def _clash(a, b):
    """Whether two part events may not overlap, and do."""
    tags = {a["tag"], b["tag"]}
    apart = "silence" in tags or ("solo" in tags and tags & {"drums", "choir pad", "pedal note", "octave doubling"})
    return bool(apart) and a["start_s"] < b["end_s"] and b["start_s"] < a["end_s"]


def _covering(recipes, n):
    """A small choice of recipes in which every tag occurs in each split where that can be (greedy cover)."""
    quick = [recipe for recipe in recipes if recipe["collection"] not in ("monteverdi", "trecento")]
    slow = [
        recipe
        for recipe in recipes
        if recipe["collection"] in ("monteverdi", "trecento") and recipe["split"] == "train"
    ]
    chosen = []
    for split, share in registry.SHARES.items():
        left = [recipe for recipe in quick if recipe["split"] == split]
        open_tags, taken = set(TAGS), []
        quota = (
            round(n * share) if split != "train" else n - sum(round(n * registry.SHARES[s]) for s in ("valid", "test"))
        )
        if split == "train":
            taken = [next(r for r in slow if r["collection"] == name) for name in ("monteverdi", "trecento")]
            open_tags -= {tag for recipe in taken for tag in recipe["tags"]}
        while len(taken) < quota:
            best = max(left, key=lambda recipe: len(open_tags.intersection(recipe["tags"])))
            left.remove(best)
            taken.append(best)
            open_tags.difference_update(best["tags"])
            open_tags = open_tags or set(TAGS)
        chosen += taken
    return chosen


def _generator(seed, name, purpose):
    """A random generator that depends on these three and nothing else."""
    return making.generator(PLAN_VERSION, seed, name, purpose)


def _folder(work):
    """The folder of a work: one of its split's hex digits."""
    digits = FOLDERS[work.split]
    return digits[zlib.crc32(work.work.encode()) % len(digits)]


def _finished(root, recipe):
    """Whether a track is there: its JSON is written after its audio."""
    path = root / recipe["file"]
    return path.is_file() and path.with_suffix(".json").is_file()


def _render_one(root, recipe):
    """Render one track: audio first, then what it holds."""
    audio = arrange.to_audio(scores.load(recipe["path"], recipe["number"]), recipe)
    path = root / recipe["file"]
    with atomic(path) as temporary:
        soundfile.write(temporary, audio, render.SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    kept = ("clip_id", "work", "title", "collection", "split", "programs", "tonic", "rate_hz", "n_voices", "texture")
    truth = {key: recipe[key] for key in kept}
    write_json(path.with_suffix(".json"), {**truth, "duration_s": arrange.DURATION_S, "events": recipe["events"]})


def _write_tables(root, recipes):
    """annotations_final.csv and clip_info_final.csv, as MagnaTagATune has them."""
    info = (
        "clip_id",
        "track_number",
        "title",
        "artist",
        "album",
        "url",
        "segmentStart",
        "segmentEnd",
        "original_url",
        "mp3_path",
    )
    clips = [
        (r["clip_id"], 1, r["title"], r["collection"], r["path"], "", 0, 29, f"work:{r['work']}", r["file"])
        for r in recipes
    ]
    tags = [(r["clip_id"], *(int(tag in r["tags"]) for tag in TAGS), r["file"]) for r in recipes]
    for name, header, rows in (
        ("clip_info_final.csv", info, clips),
        ("annotations_final.csv", ("clip_id", *TAGS, "mp3_path"), tags),
    ):
        with atomic(root / name) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
            table = csv.writer(file, delimiter="\t", quoting=csv.QUOTE_ALL, lineterminator="\n")
            table.writerow(header)
            table.writerows(rows)
