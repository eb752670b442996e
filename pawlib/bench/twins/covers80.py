"""The Covers80 twin: 80 works in two versions each, in the layout of Covers80.

Two lists, 16 kHz mono mp3 of about 32 kbps, one folder per song. What is in it stands in twins.covers.

Told in: notebooks/40_cover_songs.ipynb
"""

import re
import sys
import unicodedata

from pawlib.bench.files import atomic
from pawlib.bench.twins import covers

FOLDER = "coversongs/covers32k"
LISTS = ("list1.list", "list2.list")


def plan(size="small", seed=0):
    """As `covers.plan`, with id, song and file."""
    return name(covers.plan("covers80", size, seed))


def make(root=None, size="small", seed=0, n_workers=None):
    """Make the Covers80 twin, or what is still missing of it: as `covers.make`."""
    return covers.make("covers80", sys.modules[__name__], root, size, seed, n_workers)


def name(recipes):
    """Recipes with what Covers80 calls them.

    Parameters
    ----------
    recipes : list of dict
        As `covers.plan` gives them.

    Returns
    -------
    list of dict
        With `song` ("The_Soldiers_Joy", after the work's first setting; no two works share one), `id`
        ("<song>/<artist>+<Album>+NN-<title>": the book, the instruments, the version) and `file`.
    """
    songs = {}
    for recipe in recipes:
        if recipe["version"] == 0:
            song = _plain(recipe["title"])
            songs[recipe["work"]] = song if song not in songs.values() else f"{song}_{len(songs)}"
    named = []
    for recipe in recipes:
        song = songs[recipe["work"]]
        title = f"{recipe['version'] + 1:02d}-{_plain(recipe['title'])}"
        track_id = f"{song}/{recipe['collection']}+{recipe['family'].capitalize()}+{title}"
        named.append({**recipe, "id": track_id, "song": song, "file": f"{FOLDER}/{track_id}.mp3"})
    return named


def write_lists(root, recipes):
    """list1.list and list2.list: the first and the second version of every song, in the same order."""
    for version, file in enumerate(LISTS):
        lines = [recipe["id"] for recipe in recipes if recipe["version"] == version]
        with atomic(root / FOLDER / file) as temporary:
            temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _plain(title):
    """A title as Covers80 spells it: letters and digits, joined by underscores."""
    letters = unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9]+", "_", letters.replace("'", "")).strip("_") or "Untitled"
