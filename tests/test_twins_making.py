"""pawlib.bench.twins.making: rendering goes on, whatever one track does to its worker."""

import csv
import ctypes
import functools
import os
import time

import numpy as np
import pytest
import soundfile

from pawlib.bench.datasets import gtzan as gtzan_reader
from pawlib.bench.datasets import mtat as reader
from pawlib.bench.files import read_json, write_json
from pawlib.bench.twins import arrange, gtzan, making, mtat, render

LIMIT_S = 2.0


def recipes(n, **odd):
    """n recipes; `odd` says what the one of that number does: sleep, hold, die or fail."""
    return [{"file": f"{k}.flac", "does": odd.get(f"n{k}", "render")} for k in range(n)]


def play(folder, recipe):
    """A renderer that may hang as a synthesiser in C does."""
    with open(folder / f"{recipe['file']}.tries", "a") as file:
        file.write("x")
    if recipe["does"] == "sleep":
        time.sleep(60)
    if recipe["does"] == "hold":  # and never lets another thread of Python run
        ctypes.PyDLL(None).sleep(60)
    if recipe["does"] == "die":
        os._exit(7)
    if recipe["does"] == "fail" or (recipe["does"] == "die once" and not (folder / "died").exists()):
        if recipe["does"] == "fail":
            raise ValueError(f"no note in {recipe['file']}")
        (folder / "died").touch()
        os._exit(7)
    (folder / recipe["file"]).write_text("music")


def tries(folder, recipe):
    return (folder / f"{recipe['file']}.tries").stat().st_size


@pytest.mark.parametrize(("n_workers", "does"), [(1, "hold"), (3, "sleep")])
def test_a_track_that_hangs_is_tried_twice_and_left_out_and_all_others_are_made(tmp_path, n_workers, does):
    asked = recipes(9, n2=does)
    with pytest.warns(UserWarning, match=r"left out 1 of 9 tracks: 2.flac was not done after 2 s\. twin.json lists"):
        left_out = making.render_all(functools.partial(play, tmp_path), asked, n_workers, "playing", LIMIT_S)
    assert left_out == [asked[2]]
    assert sorted(path.name for path in tmp_path.glob("*.flac")) == [f"{k}.flac" for k in range(9) if k != 2]
    assert [tries(tmp_path, recipe) for recipe in asked] == [1, 1, 2, 1, 1, 1, 1, 1, 1]


def test_a_track_that_ends_its_process_is_left_out_and_one_that_did_it_once_is_made(tmp_path):
    asked = recipes(20, n0="die", n11="die once")
    with pytest.warns(UserWarning, match=r"left out 1 of 20 tracks: 0.flac ended its process \(exit code 7\)"):
        left_out = making.render_all(functools.partial(play, tmp_path), asked, 2, "playing", 30)
    assert left_out == asked[:1] and len(list(tmp_path.glob("*.flac"))) == 19
    assert [tries(tmp_path, asked[k]) for k in (0, 1, 11, 12)] == [2, 1, 2, 1]


@pytest.mark.parametrize("n", [0, 1, 5])
def test_nothing_is_left_out_as_a_rule(tmp_path, n, recwarn):
    assert making.render_all(functools.partial(play, tmp_path), recipes(n), None, "playing") == []
    assert len(list(tmp_path.glob("*.flac"))) == n and not recwarn.list


def test_an_error_of_the_renderer_is_raised_with_where_it_was(tmp_path):
    with pytest.raises(ValueError, match="no note in 3.flac") as raised:
        making.render_all(functools.partial(play, tmp_path), recipes(6, n3="fail"), 2, "playing")
    assert "in play" in raised.value.__notes__[0]


class Awkward(Exception):
    """Cannot be made again from its arguments."""

    def __init__(self, a, b):
        super().__init__(f"{a} and {b}")


def awkward(recipe):
    raise Awkward("one", "two")


def test_an_error_that_cannot_travel_is_told():
    with pytest.raises(RuntimeError, match="Awkward: one and two"):
        making.render_all(awkward, recipes(1), 1, "playing")


def test_where_every_worker_dies_it_is_not_the_tracks(tmp_path):
    asked = recipes(4, n0="die", n1="die", n2="die", n3="die")
    with pytest.raises(RuntimeError, match="none of 4 tracks could be rendered: .*exit code 7"):
        making.render_all(functools.partial(play, tmp_path), asked, 2, "playing")


# --- a twin without one of its tracks ---


def _play_some(root, bad, recipe, hangs=True):
    """What a maker's _render_one leaves, without its music; one track hangs, or ends its process."""
    if recipe["file"] == bad:
        time.sleep(60) if hangs else os._exit(7)
    path = root / recipe["file"]
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.full(1000, 0.1), render.SAMPLE_RATE)
    write_json(path.with_suffix(".json"), {"duration_s": arrange.DURATION_S, "events": recipe.get("events", [])})


def test_a_twin_is_finished_without_the_track_that_hangs_and_says_so(tmp_path, monkeypatch):
    toy = mtat.plan("toy")[:12]
    bad = toy[4]["file"]
    monkeypatch.setattr(mtat, "plan", lambda size, seed: toy)
    monkeypatch.setattr(mtat, "_render_one", lambda root, recipe: _play_some(root, bad, recipe))
    monkeypatch.setattr(making, "LIMIT_S", LIMIT_S)
    with pytest.warns(UserWarning, match=f"left out 1 of 12 tracks: {bad} was not done"):
        root = mtat.make(tmp_path, "toy", n_workers=2)
    twin = read_json(root / "twin.json")
    assert twin["left_out"] == [bad] and twin["n_tracks"] == 12 and sum(twin["n_per_split"].values()) == 11
    with open(root / "annotations_final.csv", newline="", encoding="utf-8") as file:
        files = [row["mp3_path"] for row in csv.DictReader(file, delimiter="\t")]
    assert len(files) == 11 and bad not in files
    assert len(reader.read(root, missing="error").tracks) == 11
    assert mtat.make(tmp_path, "toy", n_workers=2) == root  # whole: nothing hangs a second time


def test_so_is_one_of_classes_and_its_card_counts_what_is_there(tmp_path, monkeypatch):
    toy = [recipe for recipe in gtzan.plan("toy") if recipe["class"] == "air"]
    bad = toy[-1]["file"]  # of the test split
    monkeypatch.setattr(gtzan, "plan", lambda size, seed: toy)
    monkeypatch.setattr(gtzan, "CLASSES", ("air",))
    monkeypatch.setattr(gtzan, "_render_one", lambda root, recipe: _play_some(root, bad, recipe, hangs=False))
    with pytest.warns(UserWarning, match=f"left out 1 of 12 tracks: {bad} ended its process"):
        root = gtzan.make(tmp_path, "toy", n_workers=2)
    twin = read_json(root / "twin.json")
    assert twin["left_out"] == [bad] and twin["n_per_class"]["air"] == {"train": 4, "valid": 4, "test": 3}
    assert gtzan_reader.read(root, missing="error").counts == (4, 4, 3)
