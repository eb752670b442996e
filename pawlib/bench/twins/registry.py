"""The one registry of works that all twins share: labels, doubles joined by melody, split by work.

    python -m pawlib.bench.twins.registry         rebuild works-v1.csv in minutes
    python -m pawlib.bench.twins.registry essen   rebuild its appendix works-v1-essen.csv in minutes

Only a new version number may change the files.

Conventions
    A *score* is one row: a file of music21's corpus, or one tune of a book.
    A *work* is what scores have in common that have the same melody: alternate titles, transposed chorales, tunes that
    several books print. Its name is the id of its first score in alphabetical order.
    The split belongs to the work and is drawn by a hash of its name, so no work that one twin trains on is in the test
    of this or any other twin.

Two melodies are compared as sets of interval 4-grams, which do not change when a tune is transposed: overlap is twice
the number of 4-grams that both have, divided by the sum of the sizes (Dice). Scores join above 0.4; scores of equal
title above 0.2. (Divided by the smaller set alone, scale runs would join 2,000 scores into one work.)
Palestrina (rights reserved) is not in it. Essen songs (for non-commercial use) are in the appendix alone, so that only
a twin that asks for them has them: a song whose melody is in the registry is that work and in its split.

Told in: notebooks/01_data.ipynb
"""

import argparse
import collections
import concurrent.futures
import csv
import dataclasses
import functools
import hashlib
import re
from pathlib import Path

import numpy as np

from pawlib.bench.files import atomic
from pawlib.bench.progress import progress
from pawlib.bench.twins import scores

VERSION = 1
FILE = Path(__file__).with_name(f"works-v{VERSION}.csv")
ESSEN_FILE = Path(__file__).with_name(f"works-v{VERSION}-essen.csv")
SPLITS = ("train", "valid", "test")
SHARES = {"train": 0.7, "valid": 0.1, "test": 0.2}
OVERLAP = 0.4
OVERLAP_OF_EQUAL_TITLES = 0.2
N_GRAM = 4
COLLECTIONS = {
    "bach": "bach/*.mxl",
    "ryan": "ryansMammoth/*.abc",
    "oneill": "oneills1850/*.abc",
    "aird": "airdsAirs/*.abc",
    "folk": "miscFolk/*.abc",
    "trecento": "trecento/*.xml",
    "monteverdi": "monteverdi/*.mxl",
}
ESSEN = {"china": "essenFolksong/han1.abc", "luxembourg": "essenFolksong/lux.abc"}  # region: book
POLYPHONIC = ("monteverdi", "trecento")  # slow to parse, and no folk song is a madrigal
DANCES = {
    "slip jig": r"slip ?jig|hop jig",
    "jig": r"\bjig\b|double jig|single jig",
    "strathspey": r"strathspey",
    "hornpipe": r"hornpipe|\bclog\b",
    "reel": r"\breel\b",
    "waltz": r"\bwaltz\b",
    "march": r"\bmarch\b|quick ?step|\bmarche\b",
    "minuet": r"minuet|menuet",
    "polka": r"polka",
    "air": r"\bair\b",
}
MODES = ("major", "minor", "dorian", "mixolydian")


@dataclasses.dataclass(frozen=True)
class Work:
    """One score of the registry.

    Attributes
    ----------
    id, collection, path, title : str
        `path` is inside music21's corpus.
    number : int or None
        Tune number inside a book.
    dance : str
        One of DANCES or "".
    metre : str
        As written, e.g. "6/8", or "".
    mode : str
        One of MODES or "" where the score does not say.
    tonic : int or None
        Pitch class, 0 is C.
    n_voices, n_onsets : int
        Voices; different onset times of all voices, each bar read once.
    length_q : float [quarter notes]
    dotted : float in 0..1
        Share of neighbouring notes of the melody whose durations are as 3 : 1 or 1 : 3.
    work, split : str
    """

    id: str
    collection: str
    path: str
    number: int | None
    title: str
    dance: str
    metre: str
    mode: str
    tonic: int | None
    n_voices: int
    n_onsets: int
    length_q: float
    dotted: float
    work: str
    split: str


@functools.cache
def read(path=FILE):
    """The registry.

    Parameters
    ----------
    path : path-like

    Returns
    -------
    tuple of Work, in the order of the file

    Raises
    ------
    ValueError
        If the file has other columns than this version knows, or names a split that does not exist.
    """
    names = [field.name for field in dataclasses.fields(Work)]
    with open(path, newline="", encoding="utf-8") as file:
        rows = csv.DictReader(file)
        if rows.fieldnames != names:
            raise ValueError(f"{path} has the columns {rows.fieldnames}, expected {names}: is it of another version?")
        works = tuple(_work(row) for row in rows)
    wrong = [work.id for work in works if work.split not in SPLITS]
    if wrong:
        raise ValueError(
            f"{path}: {wrong[0]} is in no known split, expected one of {SPLITS}: was the file edited by hand?"
        )
    return works


def grams(pitches, n=N_GRAM):
    """Interval n-grams of a melody, the same in every key.

    Parameters
    ----------
    pitches : array-like of int [shape=(n_notes,)]
    n : int > 0

    Returns
    -------
    frozenset of tuple of int
    """
    intervals = np.diff(np.asarray(pitches, dtype=np.int64)).tolist()
    return frozenset(tuple(intervals[i : i + n]) for i in range(len(intervals) - n + 1))


def overlap(a, b):
    """Twice the shared n-grams over the n-grams of both (Dice); 0 if both are empty."""
    return 2 * len(a & b) / (len(a) + len(b)) if a or b else 0.0


def join(melodies, titles):
    """Join scores that have the same melody.

    Parameters
    ----------
    melodies : dict id -> frozenset
        Interval n-grams of each score.
    titles : dict id -> str

    Returns
    -------
    dict id -> str
        The work each score belongs to: the first id, in alphabetical order, of all that are joined to it.
    """
    parents = {name: name for name in melodies}

    def root(name):
        while parents[name] != name:
            name = parents[name]
        return name

    for a, b in _alike(melodies, titles):
        first, second = sorted((root(a), root(b)))
        parents[second] = first
    return {name: root(name) for name in melodies}


def split_of(work):
    """The split a work is in, by a hash of its name: the same on every machine and in every twin."""
    draw = int.from_bytes(hashlib.sha256(f"works-v{VERSION}:{work}".encode()).digest()[:8], "big") / 2**64
    edge = 0.0
    for split, share in SHARES.items():
        edge += share
        if draw < edge:
            return split
    return SPLITS[-1]


def build(n_workers=None):
    """Read every score of COLLECTIONS, join doubles and draw splits.

    Parameters
    ----------
    n_workers : int, optional
        Processes; all cores if not given.

    Returns
    -------
    list of Work
        Sorted by id. Scores that music21 cannot parse, and those with fewer than 16 onsets, are left out.
    """
    jobs = [
        (collection, str(path.relative_to(scores.corpus_folder())), number)
        for collection, pattern in COLLECTIONS.items()
        for path in sorted(scores.corpus_folder().glob(pattern))
        for number in (_tune_numbers(path) or [None])
    ]
    with concurrent.futures.ProcessPoolExecutor(n_workers) as pool:
        told = progress(pool.map(_describe, *zip(*jobs, strict=True), chunksize=16), len(jobs), "registry", "scores")
        found = [row for row in told if row is not None]
    return assemble(found)


def assemble(found):
    """Join and split what `_describe` found: list of Work, sorted by id."""
    melodies = {row["id"]: row["grams"] for row in found}
    works = join(melodies, {row["id"]: row["title"] for row in found})
    labels = [{key: value for key, value in row.items() if key != "grams"} for row in found]
    made = (Work(**row, work=works[row["id"]], split=split_of(works[row["id"]])) for row in labels)
    return sorted(made, key=lambda work: work.id)


def build_essen(n_workers=None):
    """Read the Essen songs of ESSEN and place them among the registry's works.

    Parameters
    ----------
    n_workers : int, optional
        Processes; all cores if not given.

    Returns
    -------
    list of Work
        Sorted by id, `collection` "essen". Left out are songs that music21 cannot parse, that have fewer than 16 onsets
        or several voices, or whose melody joins several works of the registry (they may lie in different splits).
    """
    jobs = [
        ("essen", book, number) for book in ESSEN.values() for number in scores.tunes_of(scores.corpus_folder() / book)
    ]
    known = [work for work in read() if work.collection not in POLYPHONIC]
    with concurrent.futures.ProcessPoolExecutor(n_workers) as pool:
        told = progress(pool.map(_describe, *zip(*jobs, strict=True), chunksize=16), len(jobs), "essen", "songs")
        songs = [row for row in told if row is not None and row["n_voices"] == 1]
        told = progress(pool.map(_grams_of, known, chunksize=16), len(known), "melodies of the registry", "scores")
        melodies = {work.id: found for work, found in zip(known, told, strict=True)}
    return place(songs, known, melodies)


def place(songs, known, melodies):
    """Works of songs beside those that the registry has: list of Work, sorted by id.

    Parameters
    ----------
    songs : list of dict
        As `_describe` gives them.
    known : sequence of Work
    melodies : dict id -> frozenset
        Interval n-grams of the known scores.
    """
    of_known = {work.id: work.work for work in known}
    titles = {work.id: work.title for work in known} | {row["id"]: row["title"] for row in songs}
    joined = join(melodies | {row["id"]: row["grams"] for row in songs}, titles)
    works = collections.defaultdict(set)
    for name, group in joined.items():
        if name in of_known:
            works[group].add(of_known[name])
    firsts = {}
    for row in sorted(songs, key=lambda row: row["id"]):
        firsts.setdefault(joined[row["id"]], row["id"])
    placed = []
    for row in songs:
        group = joined[row["id"]]
        if len(works[group]) <= 1:
            work = next(iter(works[group]), firsts[group])
            labels = {key: value for key, value in row.items() if key != "grams"}
            placed.append(Work(**{**labels, "dance": ""}, work=work, split=split_of(work)))
    return sorted(placed, key=lambda work: work.id)


def _grams_of(work):
    """Interval n-grams of a known score's melody."""
    return grams(scores.melody(scores.load(work.path, work.number))[:, scores.PITCH])


def write(works, path=FILE):
    """Write the registry as CSV, atomically."""
    with atomic(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        rows = csv.DictWriter(file, [field.name for field in dataclasses.fields(Work)], lineterminator="\n")
        rows.writeheader()
        for work in works:
            row = dataclasses.asdict(work)
            rows.writerow({key: "" if value is None else value for key, value in row.items()})


def _work(row):
    """A Work from a row of the CSV."""
    kinds = {"number": int, "tonic": int, "n_voices": int, "n_onsets": int, "length_q": float, "dotted": float}
    return Work(
        **{
            key: (None if not value else kinds.get(key, str)(value)) if key in kinds else value
            for key, value in row.items()
        }
    )


def _alike(melodies, titles):
    """Pairs of scores whose melodies overlap enough, found through the n-grams they share."""
    holders = collections.defaultdict(list)
    for name in sorted(melodies):
        for gram in melodies[name]:
            holders[gram].append(name)
    for name in sorted(melodies):
        mine = melodies[name]
        shared = collections.Counter(other for gram in mine for other in holders[gram] if other > name)
        for other, count in shared.items():
            equal = _plain(titles[name]) == _plain(titles[other]) != ""
            least = OVERLAP_OF_EQUAL_TITLES if equal else OVERLAP
            if 2 * count > least * (len(mine) + len(melodies[other])):
                yield name, other


def _plain(title):
    """A title without article, kind of dance and punctuation, to compare with others."""
    words = re.sub(r"[^a-z0-9 ]", "", re.sub(r"--.*", "", title.lower())).split()
    return " ".join(sorted(word for word in words if word not in {"the", "a", "reel", "jig", "hornpipe", "strathspey"}))


def _tune_numbers(path):
    """Tune numbers of an ABC book; empty for any other file and for a book of one tune."""
    numbers = list(scores.tunes_of(path)) if path.suffix == ".abc" else []
    return numbers if len(numbers) > 1 else []


def _describe(collection, path, number):
    """What the registry says of one score, with its n-grams; None if it cannot be used."""
    try:
        score = scores.parse(path, number)
        notes = scores.notes_of(score)
    except Exception as error:  # music21 raises many kinds on faulty ABC
        print(f"left out {path} {number or ''}: {type(error).__name__}: {error}")
        return None
    if scores.n_onsets(notes) < 16:
        return None
    fields = _abc_fields(path, number)
    mode, tonic = _key(score, notes, fields)
    first = scores.melody(notes)
    lengths = first[:, scores.DURATION]
    ratio = lengths[1:] / lengths[:-1]
    title = " ".join(_title(score, fields, path).split())
    stem = f"{collection}/{Path(path).stem}"
    return {
        "id": f"{stem}/{number}" if number else stem,
        "collection": collection,
        "path": path,
        "number": number,
        "title": title,
        "dance": _dance(title, fields),
        "metre": _metre(score),
        "mode": mode,
        "tonic": tonic,
        "n_voices": len(np.unique(notes[:, scores.VOICE])),
        "n_onsets": scores.n_onsets(notes),
        "length_q": round(float((notes[:, scores.ONSET] + notes[:, scores.DURATION]).max()), 3),
        "dotted": round(float(np.mean((np.abs(ratio - 3) < 0.02) | (np.abs(ratio - 1 / 3) < 0.005))), 3)
        if len(ratio)
        else 0.0,
        "grams": grams(first[:, scores.PITCH]),
    }


def _abc_fields(path, number):
    """Header fields of an ABC tune, letter -> list of texts; empty for other formats."""
    file = scores.corpus_folder() / path
    if file.suffix != ".abc":
        return {}
    tunes = scores.tunes_of(file)
    text = tunes[number] if number is not None else next(iter(tunes.values()), "")
    fields = collections.defaultdict(list)
    for letter, value in re.findall(r"(?m)^([A-Z]):\s*(.*?)\s*$", text):
        fields[letter].append(value)
    return fields


def _title(score, fields, path):
    """The title the score gives, or its file's name."""
    if fields.get("T"):
        return fields["T"][0]
    title = score.metadata.title if score.metadata is not None else None
    return title or Path(path).stem


def _dance(title, fields):
    """Kind of dance from the rhythm field, the other titles, or the end of the title."""
    for text in [*fields.get("R", []), *fields.get("G", []), *fields.get("T", [])[1:], title]:
        for dance, pattern in DANCES.items():
            if re.search(pattern, text.lower()):
                return dance
    return ""


def _metre(score):
    """The first time signature, as written."""
    signatures = score.recurse().getElementsByClass("TimeSignature")
    return next((signature.ratioString for signature in signatures), "")


def _key(score, notes, fields):
    """Mode and tonic: from the K: field, else from the key signature and the last bass note, else unknown."""
    from music21 import abcFormat, key

    signature = next(iter(score.recurse().getElementsByClass(key.KeySignature)), None)
    sharps = signature.sharps if signature is not None else 0
    if fields.get("K"):
        metadata = abcFormat.ABCMetadata(f"K:{fields['K'][0]}")
        metadata.preParse()
        try:
            sharps, mode = metadata.getKeySignatureParameters()
        except Exception:  # music21 raises several kinds for keys it does not know (bagpipes, none)
            return "", None
        mode = mode or "major"
        if mode not in MODES:
            return "", None
        steps = {"major": 0, "minor": 9, "dorian": 2, "mixolydian": 7}[mode]
        return mode, (7 * sharps + steps) % 12
    last = notes[notes[:, scores.ONSET] >= notes[:, scores.ONSET].max() - 1e-6]
    final = int(last[:, scores.PITCH].min()) % 12
    for mode, steps in (("major", 0), ("minor", 9)):
        if final == (7 * sharps + steps) % 12:
            return mode, final
    return "", None


def main():
    """Build the registry, or its appendix of Essen songs, and write it beside this module."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("part", nargs="?", choices=("works", "essen"), default="works")
    essen = parser.parse_args().part == "essen"
    works, path = (build_essen(), ESSEN_FILE) if essen else (build(), FILE)
    write(works, path)
    counts = collections.Counter(work.collection for work in works)
    print(f"{len(works)} scores of {len({w.work for w in works})} works -> {path.name}: {dict(counts)}")


if __name__ == "__main__":
    main()
