"""MAP, P@10 and MR1: hand-worked rankings, a slow reference on a thousand random cases, and no matrix in memory."""

import itertools
import tracemalloc

import numpy as np
import pytest
from sklearn import neighbors

from pawlib.bench import retrieval

TOLERANCE = 1e-12
MEASURES = ("map", "p10", "mr1", "ceiling_p10", "n_queries", "n_singletons")


def slow(similarity, works, singletons):
    """The definitions, one query and one rank at a time."""
    n, ap, p10, rank1, ceilings, n_alone = len(works), [], [], [], [], 0
    for query in range(n):
        others = sorted((k for k in range(n) if k != query), key=lambda k: (-similarity[query][k], k))
        hits = [works[k] == works[query] for k in others]
        n_alone += not any(hits)
        if not any(hits) and singletons == "drop":
            continue
        precisions = [sum(hits[: i + 1]) / (i + 1) for i, hit in enumerate(hits) if hit]
        ap.append(sum(precisions) / len(precisions) if precisions else 0.0)
        p10.append(sum(hits[:10]) / 10)
        rank1.append(hits.index(True) + 1 if precisions else 0)
        ceilings.append(min(sum(hits), 10) / 10)
    means = [sum(some) / len(some) for some in (ap, p10, rank1, ceilings)]
    return dict(zip(MEASURES, (*means, len(ap), n_alone), strict=True))


def assert_same(found, expected):
    for name in MEASURES:
        assert found[name] == pytest.approx(expected[name], abs=TOLERANCE), name


# --- by hand ---


def test_hand_worked_ranking():
    works = ["yesterday", "help", "yesterday", "help", "michelle"]
    similarity = [
        [9, 5, 4, 3, 2],  # help 5, yesterday 4: its cover at rank 2, precision 1/2
        [1, 9, 2, 4, 3],  # help at rank 1: precision 1
        [1, 4, 9, 3, 2],  # yesterday at rank 4: precision 1/4
        [5, 4, 3, 9, 2],  # help at rank 2: precision 1/2
        [1, 2, 3, 4, 9],  # alone
    ]
    peer, drop = (retrieval.retrieval(similarity, works, rule) for rule in ("peer", "drop"))
    assert drop["map"] == pytest.approx((1 / 2 + 1 + 1 / 4 + 1 / 2) / 4, abs=TOLERANCE)
    assert drop["mr1"] == pytest.approx((2 + 1 + 4 + 2) / 4, abs=TOLERANCE)
    assert drop["p10"] == drop["ceiling_p10"] == pytest.approx(0.1, abs=TOLERANCE)
    assert peer["map"] == pytest.approx(2.25 / 5, abs=TOLERANCE)
    assert peer["mr1"] == pytest.approx(9 / 5, abs=TOLERANCE)  # rank 0 for the one that is alone flatters it
    assert (peer["n_queries"], drop["n_queries"], peer["n_singletons"], drop["n_singletons"]) == (5, 4, 1, 1)
    assert peer["per_query"]["n_right"].tolist() == [1, 1, 1, 1, 0]


def test_two_right_answers_at_ranks_1_and_3():
    similarity = np.zeros((4, 4))
    similarity[0] = [0, 0.9, 0.5, 0.4]
    found = retrieval.retrieval(similarity, [7, 7, 8, 7], "drop")
    assert found["per_query"]["ap"][0] == pytest.approx((1 / 1 + 2 / 3) / 2, abs=TOLERANCE)
    assert found["per_query"]["rank1"][0] == 1 and found["per_query"]["p10"][0] == pytest.approx(0.2)


def test_a_perfect_covers80_gives_1_and_a_tenth_and_1():
    works = np.repeat(np.arange(80), 2)
    found = retrieval.retrieval((works[:, None] == works).astype(float), works)
    assert (found["map"], found["p10"], found["mr1"]) == (1.0, pytest.approx(0.1, abs=TOLERANCE), 1.0)
    assert found["ceiling_p10"] == retrieval.ceiling_p10(works) == pytest.approx(0.1, abs=TOLERANCE)


def test_ceiling_counts_at_most_ten_right_answers():
    works = ["a"] * 15 + ["b"] * 4 + ["c"]
    assert retrieval.ceiling_p10(works) == pytest.approx((15 * 1.0 + 4 * 0.3 + 0) / 20, abs=TOLERANCE)
    assert retrieval.ceiling_p10(works, "drop") == pytest.approx((15 * 1.0 + 4 * 0.3) / 19, abs=TOLERANCE)
    perfect = retrieval.retrieval(np.equal.outer(works, works).astype(float), works)
    assert perfect["p10"] == pytest.approx(perfect["ceiling_p10"], abs=TOLERANCE)


def test_a_reversed_ranking_finds_its_covers_last():
    works = np.repeat(np.arange(5), 2)
    found = retrieval.retrieval(-(works[:, None] == works).astype(float), works)
    assert found["mr1"] == 9 and found["map"] == pytest.approx(1 / 9, abs=TOLERANCE)


def test_of_equal_similarities_the_first_in_the_list_ranks_first():
    found = retrieval.retrieval(np.zeros((4, 4)), ["a", "b", "b", "a"])
    assert found["per_query"]["rank1"].tolist() == [3, 2, 2, 1]
    one_point = retrieval.from_embeddings(np.ones((4, 3)), ["a", "b", "b", "a"])
    assert one_point["per_query"]["rank1"].tolist() == [3, 2, 2, 1]


# --- against the slow reference ---


def test_a_thousand_random_cases_equal_the_slow_reference():
    random = np.random.default_rng(0)
    n_tied = 0
    for case in range(1000):
        n = int(random.integers(2, 40))
        works = random.integers(0, max(1, n // int(random.integers(1, 5))), n)
        if len(set(works.tolist())) == n:
            works[-1] = works[0]
        similarity = random.normal(size=(n, n))
        if case % 2:
            similarity, n_tied = np.round(similarity), n_tied + 1
        for rule in retrieval.SINGLETONS:
            assert_same(retrieval.retrieval(similarity, works, rule), slow(similarity.tolist(), works.tolist(), rule))
    assert n_tied == 500


@pytest.mark.parametrize("block", [1, 7, 64, 1000])
def test_embeddings_in_blocks_equal_the_whole_matrix(block):
    random = np.random.default_rng(1)
    x, works = random.normal(size=(60, 8)), random.integers(0, 20, 60)
    x[5], x[40] = x[17], 3 * x[17]  # the same direction three times: they tie
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    whole = retrieval.retrieval(np.round(unit @ unit.T, 12), works)
    found = retrieval.from_embeddings(x, works, block=block)
    assert_same(found, whole)
    assert all(np.array_equal(found["per_query"][k], whole["per_query"][k]) for k in whole["per_query"])


def test_the_whole_matrix_is_never_in_memory():
    random = np.random.default_rng(2)
    n = 3000
    x, works = random.normal(size=(n, 16)).astype(np.float32), np.arange(n) // 3
    tracemalloc.start()
    retrieval.from_embeddings(x, works, block=64)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 0.25 * n * n * 8  # of float64


# --- invariants ---


def test_length_of_embeddings_and_any_rising_function_change_nothing():
    random = np.random.default_rng(3)
    x, works = random.normal(size=(30, 5)), random.integers(0, 10, 30)
    expected = retrieval.from_embeddings(x, works)
    assert_same(retrieval.from_embeddings(x * random.uniform(0.1, 10, (30, 1)), works), expected)
    unit = retrieval.unit_rows(x)
    assert_same(retrieval.retrieval(np.exp(unit @ unit.T), works), expected)


def test_names_and_order_of_works_do_not_matter_without_ties():
    random = np.random.default_rng(4)
    similarity, works = random.normal(size=(25, 25)), random.integers(0, 8, 25)
    order = random.permutation(25)
    named = [f"work {w}" for w in works[order]]
    assert_same(retrieval.retrieval(similarity[np.ix_(order, order)], named), retrieval.retrieval(similarity, works))


def test_the_diagonal_is_never_looked_at():
    random = np.random.default_rng(5)
    similarity, works = random.normal(size=(12, 12)), np.arange(12) // 2
    expected = retrieval.retrieval(similarity, works)
    for there in (np.nan, np.inf, -5.0):
        np.fill_diagonal(similarity, there)
        assert_same(retrieval.retrieval(similarity, works), expected)
    assert np.isneginf(similarity).sum() == 0  # what was given is left as it was


def test_random_embeddings_are_near_chance():
    works = np.arange(200) // 2
    found = retrieval.from_embeddings(np.random.default_rng(6).normal(size=(200, 300)), works)
    expected = np.mean(1 / np.arange(1, 200))  # one right answer anywhere among 199
    assert found["map"] == pytest.approx(expected, abs=0.03)
    assert found["mr1"] == pytest.approx(100, abs=15)


# --- intervals ---


def test_intervals_hold_their_estimate_and_draw_whole_works():
    random = np.random.default_rng(7)
    works = np.repeat(np.arange(30), 3).tolist() + ["alone"]
    x = np.eye(31)[[*np.repeat(np.arange(30), 3), 30]] + 0.5 * random.normal(size=(91, 31))
    for rule in retrieval.SINGLETONS:
        found = retrieval.from_embeddings(x, works, rule)
        said = retrieval.intervals(found, works, rule, n_boot=200)
        for name in ("map", "p10", "mr1"):
            assert said[name]["estimate"] == pytest.approx(found[name], abs=1e-9)
            assert said[name]["low"] <= found[name] <= said[name]["high"] and said[name]["low"] < said[name]["high"]
        assert said["map"]["n_units"] == (31 if rule == "peer" else 30)


# --- errors ---


@pytest.mark.parametrize(
    ("similarity", "works", "message"),
    [
        (np.zeros((3, 2)), [1, 1, 2], r"shape \(3, 2\) for 3 works, expected \(3, 3\)"),
        (np.zeros((2, 2)), [1, 2], "none of the 2 tracks has another recording"),
        (np.full((3, 3), np.nan), [1, 1, 2], "query 0 to track 1 is nan"),
        (np.array([[0, 1, 0], [1, 0, np.inf], [0, 1, 0]]), [1, 1, 2], "query 1 to track 2 is inf"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(similarity, works, message):
    with pytest.raises(ValueError, match=message):
        retrieval.retrieval(similarity, works)


def test_unknown_rules_and_embeddings_without_a_cosine_are_refused():
    with pytest.raises(ValueError, match="singletons='keep' is unknown"):
        retrieval.retrieval(np.zeros((2, 2)), [1, 1], "keep")
    x = np.ones((3, 4))
    x[1] = 0
    with pytest.raises(ValueError, match="embedding of row 1 is zero or not finite"):
        retrieval.from_embeddings(x, [1, 1, 2])
    with pytest.raises(ValueError, match="3 embeddings for 2 works"):
        retrieval.from_embeddings(np.ones((3, 4)), [1, 1])
    with pytest.raises(ValueError, match="block=0"):
        retrieval.from_embeddings(np.ones((2, 4)), [1, 1], block=0)
    with pytest.raises(ValueError, match=r"shape \(3,\), expected \(n, width\)"):
        retrieval.from_embeddings(np.ones(3), [1, 1, 2])


# --- what a row says ---


def test_a_row_has_both_rules_with_their_intervals_and_ceilings():
    works = [*"aabbcc", "d"]
    x = np.random.default_rng(0).standard_normal((7, 5))
    found = retrieval.from_embeddings(x, works)
    numbers = retrieval.for_row(found, works, "covers80_", n_boot=50)
    for rule, ending in (("peer", ""), ("drop", "_drop")):
        direct = retrieval.from_embeddings(x, works, rule)
        for name in ("map", "p10", "mr1", "ceiling_p10"):
            assert numbers[f"covers80_{name}{ending}"] == pytest.approx(direct[name])
        low, high = numbers[f"covers80_map{ending}_interval"]
        assert low <= direct["map"] <= high
    assert numbers["covers80_map_drop"] == pytest.approx(numbers["covers80_map"] * 7 / 6)
    assert numbers["covers80_ceiling_p10_drop"] == pytest.approx(0.1)


# --- searching a library ---


@pytest.mark.parametrize("spread", [1.0, 0.1, 1e-3], ids=["apart", "near", "nearly one point"])
def test_a_library_finds_what_sorting_all_cosines_finds(spread):
    random = np.random.default_rng(0)
    x = (random.standard_normal(40) + spread * random.standard_normal((500, 40))).astype(np.float32)
    library, unit = retrieval.Library(x), retrieval.unit_rows(x)
    for query in (x[7], x[7] + 0.1 * spread, -x[7], 1000 * x[8]):
        rows, similarity = library.nearest(query, k=20)
        cosines = unit @ (query / np.linalg.norm(query))
        np.testing.assert_allclose(similarity, np.sort(cosines)[::-1][:20], atol=1e-6)
        np.testing.assert_allclose(cosines[rows], similarity, atol=1e-6)
        assert len(set(rows.tolist())) == 20
    assert library.nearest(x[7], k=1)[0].tolist() == [7] or spread < 0.1


def test_a_large_library_finds_the_recordings_of_a_song_through_its_graph(monkeypatch):
    monkeypatch.setattr(retrieval, "EXHAUSTIVE", 100)
    random = np.random.default_rng(1)
    x = np.repeat(random.standard_normal((600, 40)), 5, axis=0) + 0.3 * random.standard_normal((3000, 40))
    library = retrieval.Library(x)
    assert library.graph is not None and len(library) == 3000
    for query in range(0, 3000, 100):
        rows, similarity = library.nearest(x[query], k=5)
        wanted, cosines = library.nearest(x[query], k=5, exact=True)
        assert rows.tolist() == wanted.tolist() and rows[0] == query
        assert sorted(rows) == list(range(query, query + 5))  # the five recordings of its song
        np.testing.assert_allclose(similarity, cosines, atol=1e-6)
        np.testing.assert_allclose(similarity, retrieval.unit_rows(x)[rows] @ retrieval.unit_rows(x)[query], atol=1e-6)


def test_a_graph_that_ends_too_early_is_searched_exhaustively(monkeypatch):
    monkeypatch.setattr(retrieval, "EXHAUSTIVE", 100)
    x = np.ones((200, 4)) * np.arange(1, 201)[:, None]  # one direction: nothing leads a walk on
    rows, similarity = retrieval.Library(x).nearest(x[0], k=200)
    assert sorted(rows) == list(range(200))
    np.testing.assert_allclose(similarity, 1, atol=1e-6)


@pytest.mark.parametrize("k", [1, 10, 500])
def test_a_library_answers_as_an_exhaustive_search_by_scikit_learn(k):
    random = np.random.default_rng(2)
    centres = random.standard_normal((100, 24))
    x = np.repeat(centres, 5, axis=0) + 0.3 * random.standard_normal((500, 24))
    exhaustive = neighbors.NearestNeighbors(n_neighbors=k, algorithm="brute", metric="cosine").fit(x)
    distances, rows = exhaustive.kneighbors(x[::50])
    library = retrieval.Library(x)
    for query, wanted, far in zip(x[::50], rows, distances, strict=True):
        found, similarity = library.nearest(query, k)
        assert found.tolist() == wanted.tolist()
        np.testing.assert_allclose(similarity, 1 - far, atol=1e-6)


def test_a_library_refuses_what_it_cannot_search():
    library = retrieval.Library(np.eye(3))
    with pytest.raises(ValueError, match=r"a query of shape \(4,\) in a library of width 3"):
        library.nearest(np.ones(4))
    with pytest.raises(ValueError, match="k=4 neighbours of 3"):
        library.nearest(np.ones(3), k=4)
    with pytest.raises(ValueError, match="row 0 is zero or not finite"):
        library.nearest(np.zeros(3), k=1)
    with pytest.raises(ValueError, match="row 1 is zero"):
        retrieval.Library([[1.0, 0], [0, 0]])


@pytest.mark.parametrize("works", ["aab", "aabb", "aaab", "aaaab", "aa", "aabc"])
def test_chance_is_the_mean_over_all_rankings(works):
    expected = []
    for query, work in enumerate(works):
        others = [other == work for k, other in enumerate(works) if k != query]
        n_right = sum(others)
        precisions = [
            np.mean([sum(order[: k + 1]) / (k + 1) for k in range(len(order)) if order[k]]) if n_right else 0
            for order in itertools.permutations(others)
        ]
        expected.append(np.mean(precisions))
    assert retrieval.chance_map(works) == pytest.approx(np.mean(expected))
    answerable = [one for one, work in zip(expected, works, strict=True) if works.count(work) > 1]
    assert retrieval.chance_map(works, "drop") == pytest.approx(np.mean(answerable))
