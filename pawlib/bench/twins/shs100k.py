"""The SHS100K-SUB twin: works in two to five versions each, split by work, in the layout of SHS100K-SUB.

Three arrays of strings, the file `list`, and 16 kHz mono flac in one folder. What is in it stands in twins.covers. In
`list`, title, performer (the book), URL (the score) and status (the tier) follow set and version.

Told in: notebooks/40_cover_songs.ipynb
"""

import sys

import numpy as np

from pawlib.bench.files import atomic
from pawlib.bench.twins import covers

LISTS = {"train": "SHS_TRAIN_SUB.npy", "valid": "SHS_VAL_SUB.npy", "test": "SHS_TEST_SUB.npy"}


def plan(size="small", seed=0):
    """As `covers.plan`, with id, song and file."""
    return name(covers.plan("shs100k", size, seed))


def make(root=None, size="small", seed=0, n_workers=None):
    """Make the SHS100K-SUB twin, or what is still missing of it: as `covers.make`."""
    return covers.make("shs100k", sys.modules[__name__], root, size, seed, n_workers)


def name(recipes):
    """Recipes with what SHS100K calls them: `song` (the set's number), `id` ("<set>_<version>") and `file`."""
    sets = {work: str(number) for number, work in enumerate(dict.fromkeys(r["work"] for r in recipes))}
    named = []
    for recipe in recipes:
        song = sets[recipe["work"]]
        track_id = f"{song}_{recipe['version']}"
        named.append({**recipe, "id": track_id, "song": song, "file": f"audio/{track_id}.flac"})
    return named


def write_lists(root, recipes):
    """The three arrays, in drawn order, and the file `list`."""
    for split, file in LISTS.items():
        ids = np.array(sorted((r["id"] for r in recipes if r["split"] == split), key=covers.drawn))
        with atomic(root / file) as temporary, open(temporary, "wb") as opened:
            np.save(opened, ids, allow_pickle=False)
    rows = [
        (r["song"], str(r["version"]), " ".join(r["title"].split()), r["collection"], f"score:{r['score']}", r["tier"])
        for r in recipes
    ]
    with atomic(root / "list") as temporary:
        temporary.write_text("".join("\t".join(row) + "\n" for row in rows), encoding="utf-8")
