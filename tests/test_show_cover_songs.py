"""Cover songs to look at and to hear: what is ranked, what was missed worst, and pictures with their units."""

import types

import numpy as np
import pytest
from matplotlib import pyplot as plt

from pawlib.bench import covers
from pawlib.show import cover_songs, figures


def song(seed, n_frames):
    one = np.random.default_rng(seed).random((84, n_frames), dtype=np.float32) ** 6
    return one / one.max()


def test_others_are_ranked_without_the_query_and_ties_in_the_order_of_the_list():
    similarity = np.array([[9, 1, 3, 1], [1, 0, 1, 1], [0, 0, 0, 5], [2, 2, 2, 2]], dtype=float)
    assert [cover_songs.ranked(similarity, q).tolist() for q in range(4)] == [
        [2, 1, 3],
        [0, 2, 3],
        [3, 0, 1],
        [0, 1, 2],
    ]


def test_the_worst_misses_by_hand():
    works = ["a", "a", "b", "b", "c"]
    similarity = np.array(
        [[0, 1, 9, 8, 7], [5, 0, 1, 1, 1], [9, 1, 0, 5, 1], [1, 1, 9, 0, 1], [1, 1, 1, 1, 0]], dtype=float
    )
    misses = cover_songs.worst_misses(similarity, works)
    assert misses == [(0, 2, 1, 4), (2, 0, 3, 2)]  # 1 and 3 were answered well, 4 has no right answer
    assert cover_songs.worst_misses(similarity, works, n=1) == misses[:1]


def test_a_pair_is_drawn_in_seconds_with_the_key_it_was_moved_by():
    a = song(0, 50)
    fig, ax = cover_songs.pair(a, np.roll(a, 3, axis=0), 0.5, ("one", "other"))
    assert [one.get_title() for one in ax[:2]] == ["one", "other"] and ax[0].get_xlim()[1] == pytest.approx(25)
    assert "3 semitones down" in ax[2].get_xlabel() and ax[2].get_title() == "alike, 4.5 s at a time"
    assert len(figures.show(fig).data) < 100_000 and not plt.get_fignums()


def test_songs_of_different_lengths_share_one_axis():
    cqts = [[song(1, 20), song(2, 40)], [song(3, 30), song(4, 10)]]
    fig, ax = cover_songs.side_by_side(cqts, [["a", "b"], ["c", "d"]], 0.5, heads=("left", "right"))
    assert ax.shape == (2, 2) and {one.get_xlim() for one in ax.ravel()} == {(0, 20)}
    assert ax[0, 1].get_title() == "right\nb" and ax[1, 0].get_title() == "c"
    plt.close(fig)


def test_songs_are_heard_at_one_rate_and_short_ones_whole():
    waves = {"s0": (8000, np.ones(4000, np.float32)), "s1": (22_050, np.ones(44_100, np.float32))}

    def read(track_id, start=0, n_samples=None):
        assert n_samples <= len(waves[track_id][1])
        return waves[track_id][1][start:][:n_samples]

    kept = types.SimpleNamespace(
        sample_rate=lambda one: waves[one][0], n_samples=lambda one: len(waves[one][1]), read=read
    )
    some = covers.Songs(("s0", "s1"), ("w0", "w0"), [song(0, 5), song(1, 5)], kept)
    shown = cover_songs.heard(some, (1, 0), ("first", "second"), seconds=1.0, heading="both").data
    assert shown.count("<audio") == 2 and shown.index("first") < shown.index("second") and "both" in shown
