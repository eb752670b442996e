"""How well recordings of the same work find each other: MAP, P@10 and MR1 (paper Sec. 4.1 "Metrics", Table 4).

Every track asks for the other recordings of its work; all other tracks are ranked by their similarity to it.

    average precision   mean, over the right answers, of the share of right ones among all down to this one's rank
    MAP                 mean average precision over the queries
    P@10                right answers among the first ten, divided by ten, however many there are: see `ceiling_p10`
    MR1                 mean rank of the first right answer; the only number here of which less is better, and no share

Conventions
    similarity : array [shape=(n, n)], row = query, larger = more alike; the diagonal is never looked at.
    works      : sequence [shape=(n,)] of anything that can be compared: what two recordings of one work share.
    Ranks begin at 1. Of equally similar tracks the one that comes first in the list ranks first (the peers' rule): the
    scores are the same in every run. Tracks in alphabetical order of their works would turn such ties into a hint; a
    system whose embeddings all fall on one point scores what this order gives, not chance.

Queries without a right answer (works recorded once). CQT-Net's published evaluation counts them as average precision 0,
no hit, *and rank 0*, which is better than the best: MR1 is too small by their share. That is `singletons="peer"`, for
comparison with the table; with "drop" they ask nothing, and are only there to be found by mistake.

A `Library` answers single queries: which of 100,000 embeddings are nearest, in milliseconds.

Told in: notebooks/40_cover_songs.ipynb; what a search costs: notebooks/90_speed.ipynb
"""

import faiss
import numpy as np

from pawlib.bench import results, stats

SINGLETONS = ("peer", "drop")
TOP = 10
BLOCK = 256  # queries ranked at once: 10,547 float64 similarities each are 22 MB
EXHAUSTIVE = 10_000  # rows of a library up to which a query is compared with all of them, in about 1 ms
N_LINKS = 32  # of a row in the graph of a larger one
DEPTH = 256  # how many of the nearest a walk through the graph keeps in mind
MEASURES = {"map": "ap", "p10": "p10", "mr1": "rank1"}  # of all queries: of one


def retrieval(similarity, works, singletons="peer"):
    """MAP, P@10 and MR1 of a matrix of similarities.

    Parameters
    ----------
    similarity : array-like [shape=(n, n)]
        Need not be symmetric. Its diagonal may hold anything, NaN too.
    works : sequence [shape=(n,)]
    singletons : "peer" | "drop"
        What becomes of queries without a right answer: see the module's head.

    Returns
    -------
    dict
        `map`, `p10`, `mr1` : float.
        `ceiling_p10` : float, the P@10 of a perfect ranking: 0.1 where every work is recorded twice.
        `n_queries`, `n_singletons` : int, queries that count, and tracks without a right answer.
        `per_query` : dict of arrays [shape=(n,)], `ap`, `p10`, `rank1`, and `n_right`, how many right answers there
        are; where there is none ap, p10 and rank1 are 0, whatever the rule. For `intervals`.

    Raises
    ------
    ValueError
        If the shapes do not fit, a similarity is NaN or infinite (naming query and track), `singletons` is unknown, or
        no track has a right answer.
    """
    similarity = np.asarray(similarity)
    members, n = _members(works)
    if similarity.shape != (n, n):
        raise ValueError(f"similarity has shape {similarity.shape} for {n} works, expected ({n}, {n})")
    return _scored(lambda rows: similarity[rows].astype(np.float64), members, singletons)


def from_embeddings(x, works, singletons="peer", block=BLOCK):
    """The same from embeddings, by their cosine; some queries at a time, so the whole matrix never lies in memory.

    10,547 tracks of 300 numbers take some hundred MB. Cosines are computed in float64 and rounded to 12 digits, so that
    equal embeddings tie whatever `block` is.

    Parameters
    ----------
    x : array or Tensor [shape=(n, width)]
        One row per track, of any length.
    works : sequence [shape=(n,)]
    singletons : "peer" | "drop"
    block : int > 0
        Queries at a time.

    Returns
    -------
    dict
        As `retrieval`.

    Raises
    ------
    ValueError
        As `retrieval`; and if an embedding is zero or not finite, naming its row: it has no cosine.
    """
    members, n = _members(works)
    unit = unit_rows(x)
    if len(unit) != n:
        raise ValueError(f"{len(unit)} embeddings for {n} works, expected one per track")
    if block < 1:
        raise ValueError(f"block={block} queries at a time is none, expected 1 or more")
    return _scored(lambda rows: np.round(unit[rows] @ unit.T, 12), members, singletons, block)


def intervals(found, works, singletons="peer", n_boot=1000, seed=0, level=0.95):
    """Percentile intervals of MAP, P@10 and MR1 over works: what queries for other works might have said.

    A query's ranking stays as it is; drawn again are the works whose recordings ask. That another collection would hold
    other wrong answers, too, is not in these intervals.

    Parameters
    ----------
    found : dict
        What `retrieval` or `from_embeddings` returned.
    works : sequence [shape=(n,)]
        The same as there.
    singletons : "peer" | "drop"
        As there.
    n_boot, seed, level
        As in stats.bootstrap.

    Returns
    -------
    dict {"map" | "p10" | "mr1": {"estimate", "low", "high", "n_units", "n_boot"}}
    """
    per_query = found["per_query"]
    asks = _asks(per_query["n_right"], singletons)
    units = np.asarray(works)[asks].tolist()
    return {
        name: stats.bootstrap(_mean, per_query[one][asks], np.zeros(asks.sum()), units, n_boot, seed, level)
        for name, one in MEASURES.items()
    }


def for_row(found, works, prefix="", n_boot=1000):
    """What a row says about a test set: the three measures under both rules, with intervals over works, and ceilings.

    Parameters
    ----------
    found : dict
        What `retrieval` or `from_embeddings` returned, under either rule.
    works : sequence [shape=(n,)]
        The same as there.
    prefix : str
        Before every name: "covers80_" for a row's second test set.
    n_boot : int
        Resamples behind each interval.

    Returns
    -------
    dict
        "map", "p10", "mr1", "ceiling_p10" by the peers' rule; with "_drop" behind it over the queries that have a right
        answer; "<measure>_interval" is [low, high].
    """
    numbers = {}
    for rule, ending in (("peer", ""), ("drop", results.ANSWERABLE)):
        for name, one in intervals(found, works, rule, n_boot).items():
            numbers[f"{prefix}{name}{ending}"] = one["estimate"]
            numbers[f"{prefix}{name}{ending}_interval"] = [one["low"], one["high"]]
        numbers[f"{prefix}ceiling_p10{ending}"] = ceiling_p10(works, rule)
    return numbers


def ceiling_p10(works, singletons="peer"):
    """The P@10 of a perfect ranking: right answers, at most ten, divided by ten, mean over queries.

    0.1 for Covers80, where every work is recorded twice.
    """
    members, _ = _members(works)
    n_right = _n_right(members)
    return float(np.minimum(n_right[_asks(n_right, singletons)], TOP).mean() / TOP)


def chance_map(works, singletons="peer"):
    """The MAP that rankings drawn by lot have on average: 0.036 for 80 works recorded twice.

    With r right answers among N others, and H the sum of 1/k for k up to N, a query's average precision is expected to
    be (H + (r - 1) (N - H) / (N - 1)) / N.

    Source: Bestgen 2015, "Exact expected average precision of the random baseline for system evaluation".
    """
    members, n = _members(works)
    n_right = _n_right(members)
    asks = _asks(n_right, singletons)
    harmonic = (1 / np.arange(1, n)).sum()
    expected = (harmonic + (n_right - 1) * (n - 1 - harmonic) / max(n - 2, 1)) / (n - 1)
    return float(np.where(n_right > 0, expected, 0)[asks].mean())


class Library:
    """Embeddings to be searched one query at a time, by their cosine.

    Comparing a query with every row takes as long as reading the rows: 120 MB for 100,000 of 300 numbers. So among more
    than `EXHAUSTIVE` rows faiss follows a graph of near neighbours instead (HNSW: Malkov and Yashunin 2018). It reads
    some thousands of rows, and may overlook one: least likely one that is far nearer than the rest, as other recordings
    of a song should be, most likely where thousands are about equally near. Building it takes the processor 0.25 ms a
    row; on several threads two graphs of the same rows differ a little. `retrieval` and `from_embeddings` never use it.

    Parameters
    ----------
    x : array [shape=(n, width)]
        One row per track, of any length. Kept once, in float32, with 260 bytes a row for the graph.

    Raises
    ------
    ValueError
        If an embedding is zero or not finite, naming its row.
    """

    def __init__(self, x):
        rows = unit_rows(x).astype(np.float32)
        if len(rows) <= EXHAUSTIVE:
            self.graph, self.rows = None, faiss.IndexFlatIP(rows.shape[1])
            self.rows.add(rows)
        else:
            self.graph = faiss.IndexHNSWFlat(rows.shape[1], N_LINKS, faiss.METRIC_INNER_PRODUCT)
            self.graph.add(rows)
            self.rows = faiss.downcast_index(self.graph.storage)

    def __len__(self):
        return self.rows.ntotal

    def nearest(self, query, k=10, exact=False):
        """The k rows with the largest cosine, the nearest first.

        Parameters
        ----------
        query : array [shape=(width,)]
            A track that is itself in the library finds itself first.
        k : int, 1..n
        exact : bool
            Compare with every row, however many there are.

        Returns
        -------
        rows : int64 array (k,)
        similarity : float32 array (k,)

        Raises
        ------
        ValueError
            If the query has another width, is zero or not finite, or there are not that many rows.
        """
        query = np.asarray(query)
        if query.shape != (self.rows.d,):
            raise ValueError(f"a query of shape {query.shape} in a library of width {self.rows.d}")
        if not 1 <= k <= len(self):
            raise ValueError(f"k={k} neighbours of {len(self)} embeddings, expected 1 to {len(self)}")
        unit = unit_rows(query[None]).astype(np.float32)
        if self.graph is not None and not exact:
            depth = faiss.SearchParametersHNSW(efSearch=max(DEPTH, 2 * k))
            similarity, rows = self.graph.search(unit, k, params=depth)
            if rows.min() >= 0:  # else the graph has islands, and it found fewer
                return rows[0], similarity[0]
        similarity, rows = self.rows.search(unit, k)
        return rows[0], similarity[0]


def unit_rows(x):
    """Embeddings as float64 rows of length 1: the cosine is then a product.

    Raises
    ------
    ValueError
        If a row is zero or not finite, naming it.
    """
    x = np.asarray(x, dtype=np.float64)
    if x.ndim != 2:
        raise ValueError(f"embeddings have shape {x.shape}, expected (n, width): one row per track")
    length = np.linalg.norm(x, axis=1, keepdims=True)
    bad = np.flatnonzero(~np.isfinite(length[:, 0]) | (length[:, 0] == 0))
    if len(bad):
        raise ValueError(
            f"the embedding of row {bad[0]} is zero or not finite ({len(bad)} rows in all): it has no cosine; "
            "is that track silent, or did training diverge?"
        )
    return x / length


def _scored(similarities, members, singletons, block=BLOCK):
    """Every measure, with `similarities(rows)` giving some rows of the matrix as a new float64 array."""
    n = len(members)
    n_right = _n_right(members)
    asks = _asks(n_right, singletons)
    per_query = {"ap": np.zeros(n), "p10": np.zeros(n), "rank1": np.zeros(n), "n_right": n_right}
    for first in range(0, n, block):
        queries = np.arange(first, min(first + block, n))
        values = similarities(queries)
        values[np.arange(len(queries)), queries] = 0  # so that NaN may stand there
        _refuse_not_finite(values, queries)
        values[np.arange(len(queries)), queries] = -np.inf  # the query itself comes last
        ordered = np.sort(values, axis=1)
        for row, query in enumerate(queries):
            if n_right[query]:
                right = members[query][members[query] != query]
                ranks = _ranks(values[row], ordered[row], right)
                per_query["ap"][query] = (np.arange(1, len(ranks) + 1) / ranks).mean()
                per_query["p10"][query] = (ranks <= TOP).sum() / TOP
                per_query["rank1"][query] = ranks[0]
    means = {name: float(per_query[one][asks].mean()) for name, one in MEASURES.items()}
    return {
        **means,
        "ceiling_p10": float(np.minimum(n_right[asks], TOP).mean() / TOP),
        "n_queries": int(asks.sum()),
        "n_singletons": int((n_right == 0).sum()),
        "per_query": per_query,
    }


def _ranks(values, ordered, right):
    """Ranks of the tracks `right`, the best first; `ordered` are the query's similarities in rising order."""
    wanted = values[right]
    above = np.searchsorted(ordered, wanted, side="right")
    ranks = 1 + len(ordered) - above
    tied = above - np.searchsorted(ordered, wanted, side="left") > 1
    for i in np.flatnonzero(tied):
        ranks[i] += (values[: right[i]] == wanted[i]).sum()
    return np.sort(ranks)


def _members(works):
    """(for each track the tracks of its work, number of tracks); work by work in the order of the list."""
    works = list(works)
    rows = {}
    for i, work in enumerate(works):
        rows.setdefault(work, []).append(i)
    rows = {work: np.array(some) for work, some in rows.items()}
    return [rows[work] for work in works], len(works)


def _n_right(members):
    return np.array([len(some) - 1 for some in members], dtype=np.int64)


def _asks(n_right, singletons):
    """Which tracks count as queries."""
    if singletons not in SINGLETONS:
        raise ValueError(f"singletons={singletons!r} is unknown, expected one of {SINGLETONS}")
    if not (n_right > 0).any():
        raise ValueError(
            f"none of the {len(n_right)} tracks has another recording of its work: are these works, or ids of tracks?"
        )
    return np.ones(len(n_right), dtype=bool) if singletons == "peer" else n_right > 0


def _mean(values, _):
    return float(values.mean())


def _refuse_not_finite(values, queries):
    bad = ~np.isfinite(values)
    if bad.any():
        row, column = np.argwhere(bad)[0]
        raise ValueError(
            f"the similarity of query {queries[row]} to track {column} is {values[row, column]}: "
            "did training diverge, or is one of them silent?"
        )
