"""What is alike in a collection: neighbours, copies and possible covers among made-up vectors.

Copies among real files: test_folders.py.
"""

import numpy as np
import pytest

from pawlib.bench import alike


def made_up(tracks, level=1):
    """Embeddings of tracks given as arrays (n_clips, width), every clip its own."""
    track = np.concatenate([np.full(len(x), k) for k, x in enumerate(tracks)])
    index = np.concatenate([np.arange(len(x)) for x in tracks])
    n = len(track)
    names = tuple(f"track {k}" for k in range(len(tracks)))
    return alike.Embeddings(
        names,
        track,
        np.full(n, level),
        index,
        index * 2.8,
        index * 2.8 + 2.8,
        np.zeros(n, bool),
        np.concatenate(tracks),
    )


def test_means_leave_out_what_is_repeated_unless_all_is():
    e = made_up([np.float32([[1, 0], [3, 0], [50, 0]]), np.float32([[7, 7]])])
    e.repeated[[2, 3]] = True
    assert e.means(1).tolist() == [[2, 0], [7, 7]]


def test_neighbours_are_those_of_slow_loops():
    random = np.random.default_rng(0)
    tracks = [random.standard_normal((n, 6)).astype(np.float32) for n in (3, 5, 2, 4)]
    rows, similarity = alike.neighbours(made_up(tracks), level=1, k=2)
    means = [x.mean(axis=0) for x in tracks]
    for i, a in enumerate(means):
        cosines = {j: a @ b / np.linalg.norm(a) / np.linalg.norm(b) for j, b in enumerate(means) if j != i}
        wanted = sorted(cosines, key=cosines.get, reverse=True)[:2]
        assert rows[i].tolist() == wanted
        assert similarity[i] == pytest.approx([cosines[j] for j in wanted], abs=1e-5)
    assert alike.neighbours(made_up(tracks), level=1, k=99)[0].shape == (4, 3)
    with pytest.raises(ValueError, match="5 neighbours among 1 tracks"):
        alike.neighbours(made_up(tracks[:1]), level=1)


def test_a_copy_is_found_whatever_is_added_to_every_clip_alike():
    random = np.random.default_rng(0)
    tracks = [10 + random.standard_normal((n, 32)).astype(np.float32) for n in (8, 8, 9, 20)]
    louder = tracks[1] + 3 * random.standard_normal(32).astype(np.float32)  # what another gain or codec does
    shorter = tracks[2][:8] + 0.1 * random.standard_normal((8, 32)).astype(np.float32)
    found = alike.near_duplicates(made_up([*tracks, louder, shorter]))
    assert {(pair.a, pair.b) for pair in found} == {(1, 4), (2, 5)}
    assert found[0].similarity == pytest.approx(1, abs=1e-5)


def test_the_same_clips_in_another_order_are_no_copy():
    clips = np.random.default_rng(0).standard_normal((8, 32)).astype(np.float32)
    assert alike.near_duplicates(made_up([clips, clips[::-1].copy()])) == []


def test_constant_and_short_tracks_have_no_course():
    clips = np.ones((5, 8), np.float32)
    short = np.random.default_rng(0).standard_normal((2, 8)).astype(np.float32)
    assert alike.near_duplicates(made_up([clips, clips, short, short])) == []


def test_possible_covers_are_alike_as_wholes_and_no_copies():
    random = np.random.default_rng(0)
    wholes = [random.standard_normal((2, 64)).astype(np.float32) for _ in range(12)]
    wholes[5] = wholes[3][::-1] + 0.05 * random.standard_normal((2, 64)).astype(np.float32)  # another order of parts
    wholes[7] = wholes[6].copy()
    found = alike.possible_covers(made_up(wholes, level=0), duplicates=[alike.Pair(6, 7, 1.0)])
    assert [(pair.a, pair.b) for pair in found] == [(3, 5)]


def test_possible_covers_are_those_of_slow_loops():
    random = np.random.default_rng(1)
    wholes = [random.standard_normal((n, 8)).astype(np.float32) for n in (1, 3, 2, 2)]
    centre = np.mean([x.mean(axis=0) for x in wholes], axis=0)
    best = {}
    for a in range(4):
        for b in range(a + 1, 4):
            pairs = [(x - centre, y - centre) for x in wholes[a] for y in wholes[b]]
            best[a, b] = max(x @ y / np.linalg.norm(x) / np.linalg.norm(y) for x, y in pairs)
    found = alike.possible_covers(made_up(wholes, level=0), threshold=0.2, duplicates=[])
    assert {(pair.a, pair.b) for pair in found} == {pair for pair, cosine in best.items() if cosine >= 0.2}
    for pair in found:
        assert pair.similarity == pytest.approx(best[pair.a, pair.b], abs=1e-5)
    assert [pair.similarity for pair in found] == sorted((pair.similarity for pair in found), reverse=True)
    assert alike.possible_covers(made_up(wholes, level=0), threshold=0.2, duplicates=[], at_most=1) == found[:1]


def test_an_empty_level_names_those_there_are():
    with pytest.raises(ValueError, match=r"no vector of level 3, only of levels \[1\]"):
        made_up([np.ones((2, 4), np.float32)]).at(3)
