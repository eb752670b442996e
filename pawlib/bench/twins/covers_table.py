"""Choosing the works and settings of the cover twins, from the scores themselves: writes covers-v1.csv.

    python -m pawlib.bench.twins.covers_table     in about two minutes

Only a new version (covers.VERSION) may change the file. twins.covers says what is in it.

A work is *real* if at least two people set its melody: scores of two collections, or two chorales of Bach with another
bass. They are aligned by their common interval 4-grams, which tell how many semitones and how many times longer one is
written than the other; then the excerpts that would be heard are compared: their overlap must lie within OVERLAP. A
work is *synthetic* if one score of it will do.

Works are dealt to the lists by a hash of their names, within their split of the registry. A metre that only few works
of a list have is left out of it, and so is a work whose melody is too like that of a work before it.

Told in: notebooks/40_cover_songs.ipynb
"""

import argparse
import collections
import concurrent.futures
import csv
import dataclasses
import itertools
import math

import numpy as np

from pawlib.bench.files import atomic
from pawlib.bench.progress import progress
from pawlib.bench.twins import covers, registry, scores

SOURCES = ("aird", "bach", "folk", "oneill", "ryan")
LEAST_WORKS = 4  # of a metre in a list: fewer, and the metre would tell the work
OVERLAP = (0.4, 0.97)  # of two settings: above the registry's measure of one melody, below a copy
OTHERS = 0.4  # overlap with the settings of other works, at most
BASS = 0.5  # overlap of the basses of two chorales, at most
N_NOTES = {"real": (28, 132), "synthetic": (28, 80)}  # of the melody in an excerpt, at least and at most
WHOLE = 0.6  # share of the first setting's excerpt that the others must have
STRETCHES = (0.25, 1 / 3, 0.5, 2 / 3, 1.0, 1.5, 2.0, 3.0, 4.0)


def build(n_workers=None):
    """Choose works and settings for all lists, by reading some 2,000 scores.

    Parameters
    ----------
    n_workers : int, optional
        Processes; all cores if not given.

    Returns
    -------
    list of Setting
        List by list; within a list works come in an order drawn by a hash of their names, real ones first.
    """
    by_work = collections.defaultdict(list)
    for score in registry.read():
        if score.collection in SOURCES and _metre(score):
            by_work[score.work].append(score)
    notes = _read([score for found in by_work.values() if len(found) > 1 for score in found], n_workers)
    real = {work: _settings(found, notes) for work, found in by_work.items() if len(found) > 1}
    real = {work: found for work, found in real.items() if len(found) > 1}
    others = _candidates([found[0] for work, found in sorted(by_work.items()) if work not in real])
    notes |= _read([score for score in others if score.id not in notes], n_workers)
    synthetic = {score.work: [found] for score in others if (found := _setting(score, score, notes, "synthetic"))}
    return _with_nearest(_dealt(real, synthetic), notes)


def _read(found, n_workers):
    """Melody, bass and bars of scores: dict of id to three arrays."""
    found = sorted(found, key=lambda score: (score.path, score.number or 0))
    with concurrent.futures.ProcessPoolExecutor(n_workers) as pool:
        told = progress(pool.map(_lines, found, chunksize=16), len(found), "reading", "scores")
        return dict(zip([score.id for score in found], told, strict=True))


def _lines(score):
    parsed = scores.parse(score.path, score.number)
    notes = scores.notes_of(parsed)
    return scores.melody(notes), notes[notes[:, scores.VOICE] == notes[:, scores.VOICE].max()], scores.bars_of(parsed)


def _metre(score):
    """Class of a score's metre, or None."""
    return next((name for name, written in covers.METRES.items() if score.metre in written), None)


def _candidates(found):
    """Scores for the tier synthetic, as many of each split and metre as could be wanted."""
    most = 2 * max(counts["synthetic"] for lists in covers.WORKS.values() for counts in lists.values())
    taken = collections.Counter()
    chosen = []
    for score in sorted(found, key=lambda score: covers.drawn(score.work)):
        kind = score.split, _metre(score)
        if score.n_onsets >= N_NOTES["synthetic"][0] and taken[kind] < most:
            taken[kind] += 1
            chosen.append(score)
    return chosen


def _settings(found, notes):
    """The most settings of a work of which every two are covers: list of (score, fields of Setting)."""
    best = []
    for first in found:
        taken = [(first, _setting(first, first, notes))]
        if taken[0][1] is None:
            continue
        for score in found:
            made = _setting(score, first, notes) if score is not first else None
            if made and all(_covers(score, made, *other, notes) for other in taken):
                taken.append((score, made))
        best = max(best, taken, key=len)
    return [made for _, made in best]


def _setting(score, first, notes, tier="real"):
    """Fields of a score as a setting of the work of `first`; None if it has no such excerpt."""
    melody, bars = notes[score.id][0], notes[score.id][2]
    shift, stretch = (0, 1.0) if score is first else _relation(notes[first.id][0], melody)
    if shift is None:
        return None
    length_q, wanted = _length(notes[first.id][0], tier)
    begins = melody[:1, scores.ONSET] if score is first else np.append(melody[0, scores.ONSET], bars)
    found = []
    for begin_q in begins.tolist():
        inside = _excerpt(melody, begin_q, begin_q + stretch * length_q)
        ends_q = (melody[:, scores.ONSET] + melody[:, scores.DURATION]).max()
        if len(inside) >= N_NOTES[tier][0] and ends_q - begin_q >= WHOLE * stretch * length_q:
            alike = registry.overlap(registry.grams(inside[:, scores.PITCH]), wanted)
            found.append((round(alike, 3), -begin_q, inside))
    if not found:
        return None
    _, begin_q, inside = max(found, key=lambda one: one[:2])
    end_q = min(stretch * length_q - begin_q, float((melody[:, scores.ONSET] + melody[:, scores.DURATION]).max()))
    return {
        "work": score.work,
        "score": score.id,
        "split": score.split,
        "metre": _metre(score),
        "shift": shift,
        "stretch": stretch,
        "first_q": round(-begin_q, 4),
        "last_q": round(end_q, 4),
        "n_notes": len(inside),
        "mean_pitch": round(float(inside[:, scores.PITCH].mean()), 3),
    }


def _length(melody, tier):
    """Quarter notes and 4-grams of the first setting's excerpt, from its first note on.

    A tune of too many notes is cut, in the tier synthetic into halves, so that its form stays.
    """
    begin_q, most = melody[0, scores.ONSET], N_NOTES[tier][1]
    length_q = (melody[:, scores.ONSET] + melody[:, scores.DURATION]).max() - begin_q
    if tier == "real" and len(melody) > most:
        length_q = melody[most, scores.ONSET] - begin_q
    while len(_excerpt(melody, begin_q, begin_q + length_q)) > most:
        length_q /= 2
    inside = _excerpt(melody, begin_q, begin_q + length_q)
    return float(length_q), registry.grams(inside[:, scores.PITCH])


def _excerpt(melody, first_q, last_q):
    """Notes that begin in [first_q, last_q)."""
    return melody[(melody[:, scores.ONSET] >= first_q - 1e-6) & (melody[:, scores.ONSET] < last_q - 1e-6)]


def _relation(a, b):
    """Shift and stretch of melody `b` against `a`, as most of their common 4-grams have it; (None, None) if unclear."""
    places = collections.defaultdict(list)
    for k, gram in enumerate(_grams_in_order(a)):
        places[gram].append(k)
    pairs = [(i, j) for j, gram in enumerate(_grams_in_order(b)) for i in places.get(gram, [])]
    if not pairs:
        return None, None
    i, j = np.array(pairs).T
    shift = collections.Counter((b[j, scores.PITCH] - a[i, scores.PITCH]).astype(int).tolist()).most_common(1)[0][0]
    spans = [np.diff(one[:, scores.ONSET][[k, k + registry.N_GRAM]], axis=0)[0] for one, k in ((a, i), (b, j))]
    ratio = float(np.median(spans[1] / spans[0]))
    stretch = min(STRETCHES, key=lambda one: abs(math.log(ratio / one)))
    return (shift, stretch) if abs(math.log(ratio / stretch)) < 0.1 else (None, None)


def _grams_in_order(melody):
    intervals = np.diff(melody[:, scores.PITCH]).astype(int).tolist()
    return [tuple(intervals[k : k + registry.N_GRAM]) for k in range(len(intervals) - registry.N_GRAM + 1)]


def _covers(score, setting, other, other_setting, notes):
    """Whether two scores are two settings of one melody, by different people or with another bass."""
    if _metre(score) != _metre(other) or score.collection == other.collection != "bach":
        return False
    if score.collection == other.collection:
        basses = [registry.grams(notes[one.id][1][:, scores.PITCH]) for one in (score, other)]
        if registry.overlap(*basses) > BASS:
            return False
    return OVERLAP[0] < _alike(setting, other_setting, notes) < OVERLAP[1]


def _alike(a, b, notes):
    """Overlap of the melodies of two settings, excerpt with excerpt."""
    return registry.overlap(_grams(a, notes), _grams(b, notes))


def _grams(setting, notes):
    inside = _excerpt(notes[setting["score"]][0], setting["first_q"], setting["last_q"])
    return registry.grams(inside[:, scores.PITCH])


def _dealt(real, synthetic):
    """Works dealt to the lists, none to two: (dataset, split, tier, settings), list by list."""
    used, dealt = set(), []
    for dataset, lists in covers.WORKS.items():
        for split, counts in lists.items():
            chosen = collections.Counter()
            for tier, found in (("real", real), ("synthetic", synthetic)):
                there = [w for w in sorted(found, key=covers.drawn) if w not in used and found[w][0]["split"] == split]
                for work in _chosen(there, [found[w][0]["metre"] for w in there], counts[tier], tier, chosen):
                    used.add(work)
                    chosen[found[work][0]["metre"]] += 1
                    dealt.append((dataset, split, tier, found[work]))
            few = {metre for metre, n in chosen.items() if n < LEAST_WORKS}
            dealt = [one for one in dealt if one[:2] != (dataset, split) or one[3][0]["metre"] not in few]
    return dealt


def _chosen(works, metres, n, tier, there):
    """The first n works; in the tier synthetic those first whose metre has too few real works."""
    if tier == "real":
        return works[:n]
    needed = {metre: LEAST_WORKS - count for metre, count in there.items()}
    first = [
        work
        for metre in needed
        for work in [w for w, m in zip(works, metres, strict=True) if m == metre][: max(0, needed[metre])]
    ]
    rest = [w for w, m in zip(works, metres, strict=True) if w not in first and m in there]
    return (first + rest)[:n]


def _with_nearest(dealt, notes):
    """The table's rows; a work that is too like one before it is left out."""
    rows, kept = [], []
    for dataset, split, tier, settings in dealt:
        grams = [_grams(setting, notes) for setting in settings]
        nearest = max((registry.overlap(a, b) for a in grams for b in kept), default=0.0)
        if nearest > OTHERS:
            continue
        kept += grams
        pairs = list(itertools.combinations(grams, 2))
        for setting, mine in zip(settings, grams, strict=True):
            overlap = min([registry.overlap(*pair) for pair in pairs if mine in pair], default=1.0)
            rows.append((dataset, split, tier, setting, overlap, mine))
    made = []
    for dataset, split, tier, setting, overlap, mine in rows:
        others = [grams for *_, other, _, grams in rows if other["work"] != setting["work"]]
        nearest = max(registry.overlap(mine, grams) for grams in others)
        made.append(
            covers.Setting(
                dataset=dataset,
                tier=tier,
                overlap=round(overlap, 3),
                nearest=round(nearest, 3),
                **{**setting, "split": split},
            )
        )
    return made


def write(settings, path=covers.FILE):
    """Write the table as CSV, atomically."""
    with atomic(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        rows = csv.DictWriter(file, [field.name for field in dataclasses.fields(covers.Setting)], lineterminator="\n")
        rows.writeheader()
        rows.writerows(dataclasses.asdict(setting) for setting in settings)


def main():
    """Choose works and settings, and write the table beside this module."""
    argparse.ArgumentParser(description=__doc__.split("\n")[0]).parse_args()
    settings = build()
    write(settings)
    counts = collections.Counter((s.dataset, s.split, s.tier) for s in {s.work: s for s in settings}.values())
    for (dataset, split, tier), n in counts.items():
        print(f"{dataset} {split} {tier}: {n} works")


if __name__ == "__main__":
    main()
