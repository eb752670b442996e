"""Numbers beside the picture of the hierarchy: slow loops, hand-worked cases, invariants, edges, errors."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.metrics import silhouette_score

from pawlib.bench import embed, hierarchy

TOLERANCE = 1e-9


@pytest.fixture
def levels():
    """Six songs on four levels, each clip its song's direction plus its level's and noise."""
    random = np.random.default_rng(0)
    songs, kinds = random.normal(size=(6, 1, 12)), random.normal(size=(4, 12))
    return {n: songs + kinds[n] + random.normal(size=(6, 2**n, 12)) for n in range(4)}


def cosine(a, b):
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def flat(levels):
    """(song, level, start, end, vector) of every clip, as a list."""
    return [
        (song, n, m / clips.shape[1], (m + 1) / clips.shape[1], clips[song, m])
        for n, clips in levels.items()
        for song in range(len(clips))
        for m in range(clips.shape[1])
    ]


# part to whole


def test_part_to_whole_is_the_search_written_as_loops(levels):
    found = hierarchy.part_to_whole(levels)
    assert sorted(found) == [1, 2, 3]
    for n, one in found.items():
        for song in range(6):
            right = 0
            for clip in levels[n][song]:
                similarity = [cosine(clip, whole) for whole in levels[0][:, 0]]
                right += int(np.argmax(similarity)) == song
            assert one["per_song"][song] == pytest.approx(right / 2**n, abs=TOLERANCE)
        assert one["accuracy"] == pytest.approx(one["per_song"].mean(), abs=TOLERANCE)
        assert one["chance"] == pytest.approx(1 / 6)


def test_parts_that_point_where_their_whole_points_all_find_it():
    wholes = np.eye(4)[:, None]
    found = hierarchy.part_to_whole([wholes, np.repeat(3 * wholes, 2, axis=1), -np.repeat(wholes, 4, axis=1)])
    assert found[1]["accuracy"] == 1 and found[1]["per_song"].tolist() == [1, 1, 1, 1]
    assert found[2]["accuracy"] == 0  # the opposite of the own whole is farther than any other


def test_a_collapsed_encoder_scores_chance_and_not_luck():
    found = hierarchy.part_to_whole([np.ones((5, 1, 3)), np.ones((5, 2, 3))])
    assert found[1]["accuracy"] == pytest.approx(0.2) and found[1]["per_song"].tolist() == pytest.approx([0.2] * 5)


def test_two_wholes_that_are_equally_near_share_the_point():
    wholes = np.array([[[1.0, 0.0]], [[1.0, 0.0]], [[0.0, 1.0]]])
    found = hierarchy.part_to_whole({0: wholes, 1: np.repeat(wholes, 2, axis=1)})
    assert found[1]["per_song"].tolist() == [0.5, 0.5, 1]


def test_length_of_vectors_and_order_of_songs_change_nothing(levels):
    order = np.random.default_rng(1).permutation(6)
    lengths = np.random.default_rng(2).uniform(0.1, 9, size=(6, 8, 1))
    moved = {n: (clips * lengths[:, : clips.shape[1]])[order] for n, clips in levels.items()}
    for before, after in zip(hierarchy.numbers(levels).values(), hierarchy.numbers(moved).values(), strict=True):
        np.testing.assert_allclose(before["per_song"][order], after["per_song"], atol=1e-7)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({1: np.ones((3, 2, 4))}, r"levels \[1\], expected one whole per song"),
        ([np.ones((3, 2, 4)), np.ones((3, 4, 4))], "2 wholes a song.*as a song"),
        ([np.ones((3, 1, 4)), np.ones((4, 2, 4))], "level 1 has shape.*same songs and encoder"),
        ([np.ones((3, 1, 4)), np.ones((3, 2, 5))], "same songs and encoder"),
        ([np.ones((1, 1, 4)), np.ones((1, 2, 4))], "at least two songs"),
        ([np.ones((3, 1, 4)), np.full((3, 2, 4), np.nan)], "level 1 of song 0 holds NaN"),
        ([np.ones((3, 4))], r"level 0 has shape \(3, 4\)"),
    ],
)
def test_what_is_no_tree_of_embeddings_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        hierarchy.part_to_whole(given)


# silhouettes


def test_silhouettes_are_scikit_learns_on_cosine_distances(levels):
    rows = flat(levels)
    clips = np.stack([row[4] for row in rows])
    song, level = (np.array([row[k] for row in rows]) for k in (0, 1))
    found = hierarchy.silhouettes(levels)
    assert found["song"]["score"] == pytest.approx(silhouette_score(clips, song, metric="cosine"), abs=1e-6)
    assert found["level"]["score"] == pytest.approx(silhouette_score(clips, level, metric="cosine"), abs=1e-6)
    for one in range(6):
        own = song == one
        within = silhouette_score(clips[own], level[own], metric="cosine")
        assert found["level within song"]["per_song"][one] == pytest.approx(within, abs=1e-6)


def test_songs_that_are_points_have_a_silhouette_of_one_and_levels_of_none():
    levels = {n: np.repeat(np.eye(3)[:, None], 2**n, axis=1) for n in range(3)}
    found = hierarchy.silhouettes(levels)
    assert found["song"]["score"] == pytest.approx(1)
    assert found["level within song"]["score"] == pytest.approx(0)
    assert found["level"]["score"] < 0.1


def test_levels_that_are_points_have_a_silhouette_of_one_but_for_lone_wholes():
    levels = {n: np.tile(np.eye(3)[n], (4, 2**n, 1)) for n in range(3)}
    found = hierarchy.silhouettes(levels)
    assert found["level"]["score"] == pytest.approx(1)
    assert found["level within song"]["score"] == pytest.approx(6 / 7)  # a whole alone of its kind counts 0
    assert found["song"]["score"] < 0.1


def test_a_single_level_has_no_silhouette():
    with pytest.raises(ValueError, match="at least two levels"):
        hierarchy.silhouettes([np.ones((3, 1, 4))])


# neighbours


@pytest.mark.parametrize("overlapping", [True, False])
@pytest.mark.parametrize("k", [1, 3])
def test_neighbourhood_hit_is_the_ranking_written_as_loops(levels, k, overlapping):
    rows, shares, chances = flat(levels), [], []
    for i, (song, _, start, end, vector) in enumerate(rows):
        candidates = [
            (cosine(vector, other[4]), other[0])
            for j, other in enumerate(rows)
            if j != i and (overlapping or other[0] != song or other[2] >= end or other[3] <= start)
        ]
        if not any(one == song for _, one in candidates):
            continue
        nearest = sorted(candidates, reverse=True)[:k]
        shares.append(np.mean([one == song for _, one in nearest]))
        chances.append(np.mean([one == song for _, one in candidates]))
    found = hierarchy.neighbourhood_hit(levels, k, overlapping)
    assert found["score"] == pytest.approx(np.mean(shares), abs=TOLERANCE)
    assert found["chance"] == pytest.approx(np.mean(chances), abs=TOLERANCE)
    assert len(shares) == (90 if overlapping else 84)  # wholes share audio with all of their song


def test_equally_near_neighbours_share_their_places():
    found = hierarchy.neighbourhood_hit({n: np.ones((4, 2**n, 3)) for n in range(3)}, k=2)
    assert found["score"] == pytest.approx(found["chance"])


def test_more_neighbours_than_clips_are_refused(levels):
    with pytest.raises(ValueError, match="k=100 neighbours"):
        hierarchy.neighbourhood_hit(levels, k=100)


# all numbers


def test_every_number_has_its_interval_around_it(levels):
    found = hierarchy.numbers(levels, k=3, n_boot=200)
    assert [name for name in found if name.startswith("level")] == [f"level {n} finds its whole" for n in (1, 2, 3)]
    for one in found.values():
        assert one["low"] <= one["estimate"] <= one["high"]
        assert one["estimate"] == pytest.approx(one["per_song"].mean())


def test_a_difference_to_oneself_is_nothing(levels):
    per_song = hierarchy.part_to_whole(levels)[3]["per_song"]
    same = hierarchy.over_songs(per_song, minus=per_song)
    assert (same["estimate"], same["low"], same["high"]) == (0, 0, 0)
    shifted = hierarchy.over_songs(per_song + 0.25, minus=per_song)
    assert (shifted["low"], shifted["high"]) == pytest.approx((0.25, 0.25))


def test_songs_of_one_work_are_drawn_together():
    per_song = np.repeat([0.0, 1.0], 20)
    apart = hierarchy.over_songs(per_song, n_boot=200)
    together = hierarchy.over_songs(per_song, n_boot=200, units=["a"] * 20 + ["b"] * 20)
    assert together["estimate"] == apart["estimate"] == 0.5
    assert (together["low"], together["high"]) == (0, 1) and 0.3 < apart["low"] < apart["high"] < 0.7


# the map


def test_the_map_is_repeated_by_its_seed_and_keeps_neighbours(levels):
    made, again = (hierarchy.tsne(levels, perplexity=5, seed=3) for _ in range(2))
    assert {n: one.shape for n, one in made.items()} == {n: (6, 2**n, 2) for n in range(4)}
    assert all(np.array_equal(made[n], again[n]) for n in made)
    with pytest.raises(ValueError, match="perplexity=40 with 90 clips"):
        hierarchy.tsne(levels, perplexity=40)


def test_a_map_that_is_laid_like_another_is_only_turned(levels):
    plain = hierarchy.tsne(levels, perplexity=5)
    turn = np.array([[0, -1], [1, 0]])
    laid = hierarchy.tsne(levels, perplexity=5, like={n: one @ turn for n, one in plain.items()})
    for n in plain:
        np.testing.assert_allclose(laid[n], plain[n] @ turn, atol=1e-6)


# clips in time


def test_spans_are_those_of_the_clips_that_embed_cuts():
    for n_samples in (70, 100, 101, 135, 200, 299, 5, 10):
        clips = embed.clips_of(torch.arange(n_samples).float(), 10)
        found = hierarchy.spans(n_samples, 10, sample_rate=2)
        assert found.shape == (len(clips), 2)
        assert (2 * found[:, 0]).tolist() == clips[:, 0].tolist()
        assert found[-1, 1] == n_samples / 2


def test_a_clip_holds_a_tag_by_the_seconds_they_share():
    clips = [(0, 2), (2, 4), (4, 6), (6, 8), (8, 10)]
    assert hierarchy.holds(clips, [(3, 6.5)]).tolist() == [0, 1, 1, -1, 0]  # 1 of 2 s is half, 0.5 of 2 s is neither
    assert hierarchy.holds(clips, [(3, 6.5)], least=0).tolist() == [0, 1, 1, 1, 0]
    assert hierarchy.holds(clips, [(3, 6.5)], least=1).tolist() == [0, -1, 1, -1, 0]
    assert hierarchy.holds([(0, 10)], [(3, 4)]).tolist() == [1]  # a short event within a long clip
    assert hierarchy.holds(clips, [(0, 2), (8, 10)]).tolist() == [1, 0, 0, 0, 1]
    assert hierarchy.holds(clips, []).tolist() == [0, 0, 0, 0, 0]
    assert hierarchy.holds(clips, [(2, 4)], least=0).tolist() == [0, 1, 0, 0, 0]  # to touch is not to share


SPANS = np.array([(0, 2), (2, 4), (4, 6), (6, 8)])
DRUMS = [{"tag": "drums", "start_s": 2.0, "end_s": 4.0}]


def test_localisation_worked_by_hand():
    answers = [np.array([[0.2], [0.4], [0.3], [0.5]])]  # of the three clips outside, two lie below 0.4
    found = hierarchy.localisation(answers, [SPANS], [DRUMS], ["drums"], ["drums"])
    assert found["estimate"] == pytest.approx(2 / 3)
    assert found["per_tag"] == {"drums": {"roc_auc": pytest.approx(2 / 3), "n_tracks": 1}}
    assert found["low"] is None and found["n_tracks"] == 1  # one track has no interval


def test_localisation_is_a_mean_over_tracks_and_then_over_tags():
    labels = ["trill", "drums"]
    rise, fall = np.array([0.1, 0.9, 0.1, 0.1]), np.array([0.9, 0.1, 0.9, 0.9])
    trill = [{"tag": "trill", "start_s": 2.0, "end_s": 4.0}]
    answers = [np.stack([rise, rise], axis=1), np.stack([rise, fall], axis=1), np.stack([rise, fall], axis=1)]
    events = [DRUMS + trill, DRUMS, DRUMS]  # drums: 1, 0, 0; trill: 1
    found = hierarchy.localisation(answers, [SPANS] * 3, events, labels, labels, n_boot=50)
    assert found["per_tag"]["drums"]["roc_auc"] == pytest.approx(1 / 3)
    assert found["estimate"] == pytest.approx((1 / 3 + 1) / 2)
    assert found["low"] <= found["estimate"] <= found["high"]


def test_minus_is_the_difference_of_two_localisations_over_the_same_tracks():
    random = np.random.default_rng(0)
    labels, events = ["trill", "drums"], [DRUMS, DRUMS + [{"tag": "trill", "start_s": 0.0, "end_s": 2.0}], DRUMS, []]
    mine, other = ([random.random((4, 2)) for _ in events] for _ in range(2))
    asked = ([SPANS] * 4, events, labels, labels)
    one, another = (hierarchy.localisation(answers, *asked, n_boot=50)["estimate"] for answers in (mine, other))
    gap = hierarchy.localisation(mine, *asked, n_boot=50, minus=other)
    assert gap["estimate"] == pytest.approx(one - another) and one != another
    same = hierarchy.localisation(mine, *asked, n_boot=50, minus=mine)
    assert (same["estimate"], same["low"], same["high"]) == (0, 0, 0)
    with pytest.raises(ValueError, match="4 answers minus 3"):
        hierarchy.localisation(mine, *asked, minus=other[:3])


def test_a_row_keeps_numbers_and_differences_and_gives_them_back():
    found = {
        "silhouette by song": {"estimate": -0.25, "low": -0.5, "high": 0.0, "per_song": np.zeros(3), "chance": None},
        "part: where? level 0": {"estimate": None, "low": None, "high": None},
        "5 neighbours of the song": {"estimate": 0.5, "low": None, "high": None},
    }
    minus = {"random": {"silhouette by song": {"estimate": 0.125, "low": 0.0, "high": 0.25}}}
    row = hierarchy.row("mtat-twin", "music_paw", "fcn_4", "hierarchy", "small", 1, found, 20, minus)
    assert row["id"] == "mtat-twin.small.music_paw.fcn_4.hierarchy.seed1"
    assert row["metrics"] == {
        "silhouette_by_song": -0.25, "silhouette_by_song_interval": [-0.5, 0.0], "5_neighbours_of_the_song": 0.5,
    }  # fmt: skip
    back = hierarchy.of_row(row["metrics"], list(found))
    assert back == {
        "silhouette by song": {"estimate": -0.25, "low": -0.5, "high": 0.0},
        "5 neighbours of the song": {"estimate": 0.5, "low": None, "high": None},
    }
    assert hierarchy.of_row(row["settings"]["minus"]["random"], list(found)) == minus["random"]


def test_knowing_which_tracks_carry_a_tag_earns_nothing():
    flat_answers = [np.full((4, 1), p) for p in (0.9, 0.1)]
    found = hierarchy.localisation(flat_answers, [SPANS] * 2, [DRUMS, []], ["drums"], ["drums"])
    assert found["estimate"] == pytest.approx(0.5) and found["n_tracks"] == 1


def test_clips_that_only_graze_an_event_are_not_counted():
    grazed = [{"tag": "drums", "start_s": 2.0, "end_s": 4.1}]
    answers = [np.array([[0.1], [0.9], [1.0], [0.2]])]  # the third grazes: its 1.0 is held against nobody
    assert hierarchy.localisation(answers, [SPANS], [grazed], ["drums"], ["drums"])["estimate"] == 1


def test_wholes_cannot_be_asked_where():
    found = hierarchy.localisation([np.array([[0.3]])], [np.array([(0, 8)])], [DRUMS], ["drums"], ["drums"])
    assert found["estimate"] is None and found["n_tracks"] == 0


def test_localisation_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match=r"unknown tags \['trill'\]"):
        hierarchy.localisation([np.ones((4, 1))], [SPANS], [DRUMS], ["drums"], ["trill"])
    with pytest.raises(ValueError, match=r"track 0 has answers \(3, 1\), expected \(4, 1\)"):
        hierarchy.localisation([np.ones((3, 1))], [SPANS], [DRUMS], ["drums"], ["drums"])
    with pytest.raises(ValueError, match="2 answers, 1 spans"):
        hierarchy.localisation([np.ones((4, 1))] * 2, [SPANS], [DRUMS], ["drums"], ["drums"])


# features


class FakeModel(torch.nn.Module):
    """A clip's mean and its level."""

    sample_rate, n_whole, n_levels, n_parts, settings = 8000, 80, 3, 2, {"fake": 1}

    def __init__(self):
        super().__init__()
        self.encoder = torch.nn.Linear(1, 1)

    def embed_clips(self, clips, level):
        return torch.stack([clips.mean(dim=1), torch.full((len(clips),), float(level))], dim=1)


class FakeStore:
    def read(self, track_id):
        return np.arange(200, dtype=np.float32)

    def sample_rate(self, track_id):
        return 8000


@dataclasses.dataclass
class FakeCorpus:
    name: str
    splits: object
    store: object


def test_features_of_any_level_are_of_the_clips_that_spans_tells_of(tmp_path, monkeypatch):
    monkeypatch.setenv("PAWLIB_DATA", str(tmp_path))
    tracks = [SimpleNamespace(id=str(k), target=np.zeros(1, np.float32)) for k in range(2)]
    corpus = FakeCorpus("fake", SimpleNamespace(train=tracks, valid=tracks[:1], test=tracks[1:]), FakeStore())
    model = FakeModel()
    for n, n_clips in ((0, 3), (1, 5), (2, 10)):
        found = hierarchy.level_features(model, corpus, n)
        assert found["train"].x.shape == (2 * n_clips, 2)
        assert set(found["train"].x[:, 1].tolist()) == {float(n)}
        assert len(hierarchy.spans(200, 80 // 2**n, 8000)) == n_clips
    assert torch.equal(hierarchy.level_features(model, corpus, 2)["test"].x, embed.splits(model, corpus)["test"].x)
    with pytest.raises(ValueError, match="levels=3 is unknown"):
        hierarchy.level_features(model, corpus, 3)
