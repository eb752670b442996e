"""Numbers beside the picture of the hierarchy: what an embedding space knows of songs, levels, wholes, parts and times.

Conventions
    levels : dict or list, level n -> array [shape=(n_songs, M**n, D)], the clips of some songs in time order, encoded.
    The same songs at every level, from level 0, the wholes. Nothing has to be normalised: similarity is the cosine.
    All numbers are taken in the embedding space itself; a map in the plane (`tsne`) is for the eye alone.
    per_song : array [shape=(n_songs,)], a song's mean over its clips. Songs have equally many clips, so its mean is the
    number itself; intervals draw songs again (`stats.bootstrap`), with all distances left as they are.
    spans : array [shape=(n_clips, 2)], start and end of clips in seconds.

Told in: notebooks/71_figure4_hierarchy_tsne.ipynb, notebooks/72_figure5_tags_in_time.ipynb
"""

import math
import re

import numpy as np
from sklearn.metrics import roc_auc_score, silhouette_samples

from pawlib.bench import embed, results, stats

TIE = 1e-9  # cosines closer than this are equal: a collapsed encoder must score chance, not luck


def part_to_whole(levels):
    """Does each clip find its own song's whole among the wholes of all songs?

    Parameters
    ----------
    levels : dict or list, level n -> array [shape=(n_songs, M**n, D)]
        Level 0 is needed; any other levels may be there. A song with several wholes is given as several songs.

    Returns
    -------
    dict {level n >= 1: {"accuracy", "chance", "per_song"}}
        accuracy : share of the level's clips whose most similar whole is their own; k equal candidates share the point.
        chance : 1 / n_songs. per_song : float array (n_songs,), its share of right clips.

    Raises
    ------
    ValueError
        If level 0 is missing, a level is of other songs or another width, a value is not finite, or there is no second
        song to be mistaken for.

    Told in: notebooks/71_figure4_hierarchy_tsne.ipynb
    """
    levels = _checked(levels)
    wholes, found = levels[0][:, 0], {}  # (n_songs, D)
    for n, clips in levels.items():
        if n == 0:
            continue
        similarity = clips @ wholes.T  # (n_songs, M**n, n_songs)
        best = similarity >= similarity.max(axis=-1, keepdims=True) - TIE
        own = np.take_along_axis(best, np.arange(len(wholes))[:, None, None], axis=-1)[..., 0]
        per_song = (own / best.sum(axis=-1)).mean(axis=1)
        found[n] = {"accuracy": float(per_song.mean()), "chance": 1 / len(wholes), "per_song": per_song}
    return found


def silhouettes(levels):
    """How clearly clips fall into songs, and into levels: silhouettes over all clips of all levels (Rousseeuw 1987).

    A clip's silhouette is (b - a) / max(a, b): a its mean distance to clips of its own kind, b to those of the nearest
    other kind; 1 far from all others, 0 between two kinds, negative among the wrong ones. Distance is 1 - cosine.

    Parameters
    ----------
    levels : dict or list, level n -> array [shape=(n_songs, M**n, D)]

    Returns
    -------
    dict {"song" | "level" | "level within song": {"score", "per_song"}}
        "song" : the kind is the song. "level" : the kind is the level, over all songs. "level within song" : the kind
        is the level, and a clip is compared with clips of its own song only (what Figure 4 shows in one colour).

    Raises
    ------
    ValueError
        As `part_to_whole`; and if there is a single level.

    Told in: notebooks/71_figure4_hierarchy_tsne.ipynb
    """
    levels = _checked(levels)
    if len(levels) < 2:
        raise ValueError(f"level {next(iter(levels))} alone: silhouettes by level need at least two levels")
    clips, song, level = _stacked(levels)
    distance = np.maximum(1 - clips @ clips.T, 0)
    np.fill_diagonal(distance, 0)
    found = {
        "song": silhouette_samples(distance, song, metric="precomputed"),
        "level": silhouette_samples(distance, level, metric="precomputed"),
        "level within song": np.empty(len(clips)),
    }
    for one in np.unique(song):
        own = np.flatnonzero(song == one)
        within = silhouette_samples(distance[np.ix_(own, own)], level[own], metric="precomputed")
        found["level within song"][own] = within
    return {kind: _by_song(values, song) for kind, values in found.items()}


def neighbourhood_hit(levels, k=5, overlapping=False):
    """Share of a clip's k most similar clips, of any level, that are of its own song.

    Parameters
    ----------
    levels : dict or list, level n -> array [shape=(n_songs, M**n, D)]
    k : int > 0
    overlapping : bool
        Whether clips that share audio with it (what it is a part of, and its own parts) may be neighbours. Without
        them a hit says that two different places of a song are alike; wholes, which share audio with every clip of
        their song, are then neighbours of others but not asked themselves.

    Returns
    -------
    dict {"score", "chance", "per_song"}
        Clips that are equally similar share their places. chance : that of neighbours drawn at random.

    Raises
    ------
    ValueError
        As `part_to_whole`; and if a clip has fewer than k candidates.

    Told in: notebooks/71_figure4_hierarchy_tsne.ipynb
    """
    levels = _checked(levels)
    clips, song, _ = _stacked(levels)
    same_song = song[:, None] == song
    allowed = ~np.eye(len(clips), dtype=bool)
    if not overlapping:
        place = np.concatenate([_places(level) for level in levels.values()])  # (n_clips, 2), as shares of the whole
        shares = (place[:, None, 0] < place[None, :, 1] - 1e-9) & (place[None, :, 0] < place[:, None, 1] - 1e-9)
        allowed &= ~(same_song & shares)
    asked = (allowed & same_song).any(axis=1)
    n_candidates = allowed.sum(axis=1)
    if not 0 < k <= n_candidates[asked].min(initial=len(clips)) or not asked.any():
        raise ValueError(
            f"k={k} neighbours of {n_candidates[asked].min(initial=len(clips))} candidates, {int(asked.sum())} clips "
            "to ask: need at least one of each, so a smaller k, more levels or more songs"
        )
    similarity = np.where(allowed, clips @ clips.T, -np.inf)
    least = np.sort(similarity, axis=1)[:, -k, None]  # similarity of the k-th neighbour
    nearer, tied = similarity > least + TIE, np.abs(similarity - least) <= TIE
    places_left = k - nearer.sum(axis=1)
    hits = (nearer & same_song).sum(axis=1) + places_left * (tied & same_song).sum(axis=1) / tied.sum(axis=1)
    chance = float(((allowed & same_song).sum(axis=1) / n_candidates)[asked].mean())
    return _by_song(hits[asked] / k, song[asked]) | {"chance": chance}


def numbers(levels, k=5, n_boot=1000, seed=0):
    """Every number that goes with the picture, each with its interval over songs.

    Parameters
    ----------
    levels : dict or list, level n -> array [shape=(n_songs, M**n, D)]
    k : int > 0
        Neighbours of `neighbourhood_hit`.
    n_boot, seed : int
        Of the bootstrap.

    Returns
    -------
    dict {name: {"estimate", "low", "high", "chance", "per_song"}}
        Names: "silhouette by song", "silhouette by level", "silhouette by level within song",
        "level n finds its whole" for n >= 1, "k neighbours of the song". chance is None for silhouettes, which have
        none; 0 says that the kinds cannot be told apart.

    Told in: notebooks/71_figure4_hierarchy_tsne.ipynb
    """
    found = {f"silhouette by {kind}": one for kind, one in silhouettes(levels).items()}
    found |= {f"level {n} finds its whole": one for n, one in part_to_whole(levels).items()}
    found[f"{k} neighbours of the song"] = neighbourhood_hit(levels, k)
    return {
        name: over_songs(one["per_song"], n_boot, seed) | {"chance": one.get("chance"), "per_song": one["per_song"]}
        for name, one in found.items()
    }


def over_songs(per_song, n_boot=1000, seed=0, minus=None, units=None):
    """Mean over songs and its 95 % interval, songs drawn again; with `minus`, of the difference on the same songs.

    Parameters
    ----------
    per_song : array [shape=(n_songs,)]
    n_boot, seed : int
    minus : array [shape=(n_songs,)], optional
        The same number of another system, of the same songs.
    units : sequence [shape=(n_songs,)], optional
        The work of each song, where several are of one: whole works are drawn.

    Returns
    -------
    dict {"estimate", "low", "high"}
    """
    none = np.zeros(len(per_song))
    if minus is None:
        drawn = stats.bootstrap(_mean, per_song, none, units=units, n_boot=n_boot, seed=seed)
    else:
        drawn = stats.paired_bootstrap(_mean, per_song, minus, none, units=units, n_boot=n_boot, seed=seed)
    return {name: drawn[name] for name in ("estimate", "low", "high")}


def row(dataset, system, encoder, protocol, scale, seed, found, n_tracks, minus=None, tag=None, settings=None):
    """A row of evidence of one system's numbers, and of their differences to the same numbers of other systems.

    Parameters
    ----------
    dataset, system, encoder : str
    protocol : "hierarchy" | "tags_in_time"
        Of chapters 71 and 72.
    scale : str
    seed, n_tracks : int
    found : dict {name: {"estimate", "low", "high"}}
        A name in words becomes a metric: "level 1 finds its whole" is "level_1_finds_its_whole". What has no estimate
        is left out.
    minus : dict {other: dict like found}, optional
        This system minus another, over the same drawn songs.
    tag : str, optional
        For a run off the chapter's defaults.
    settings : dict, optional

    Returns
    -------
    dict, as `results.row` makes it

    Told in: notebooks/71_figure4_hierarchy_tsne.ipynb, notebooks/72_figure5_tags_in_time.ipynb
    """
    differences = {other: _metrics(numbers) for other, numbers in (minus or {}).items()}
    return results.row(
        system=system, backbone=encoder, dataset=dataset, split="all", protocol=protocol, scale=scale, seed=seed,
        metrics=_metrics(found), n_tracks=n_tracks, tag=tag,
        settings=({"minus": differences} if minus else {}) | (settings or {}),
    )  # fmt: skip


def of_row(numbers, names):
    """Back from a row's metrics to {name: {"estimate", "low", "high"}}, in the order of the names.

    Parameters
    ----------
    numbers : dict
        A row's "metrics", or one of its settings' "minus".
    names : sequence of str
        In words; those that the row has not are left out.
    """
    found = {}
    for name in names:
        if _metric(name) in numbers:
            low, high = numbers.get(f"{_metric(name)}_interval") or (None, None)
            found[name] = {"estimate": numbers[_metric(name)], "low": low, "high": high}
    return found


def _metrics(found):
    """As rows keep numbers: a metric and its interval."""
    known = {_metric(name): one for name, one in found.items() if one["estimate"] is not None}
    spans = {name: one for name, one in known.items() if one["low"] is not None}
    return results.with_intervals({name: one["estimate"] for name, one in known.items()}, spans)


def _metric(name):
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def tsne(levels, perplexity=15, seed=0, like=None):
    """A map of all clips of all levels in the plane: t-SNE by cosine distance, begun at the two principal components.

    Parameters
    ----------
    levels : dict or list, level n -> array [shape=(n_songs, M**n, D)]
    perplexity : float
        About how many neighbours a clip has; 15 is a song's clips on four levels.
    seed : int
        Of openTSNE's random state.
    like : dict, optional
        A map of the same clips: this one is turned and mirrored to lie as it does (Procrustes, nothing is stretched);
        the axes of a t-SNE map have no meaning.

    Returns
    -------
    dict {level n: array [shape=(n_songs, M**n, 2)]}

    Raises
    ------
    ValueError
        As `part_to_whole`; and for a perplexity that so few clips cannot have.

    Told in: notebooks/71_figure4_hierarchy_tsne.ipynb
    """
    import openTSNE
    from scipy.linalg import orthogonal_procrustes

    levels = _checked(levels)
    clips, _, _ = _stacked(levels)
    if not 1 <= perplexity <= (len(clips) - 1) / 3:
        raise ValueError(
            f"perplexity={perplexity} with {len(clips)} clips, expected 1 to {(len(clips) - 1) / 3:.1f}: "
            "take more songs or fewer neighbours"
        )
    made = openTSNE.TSNE(
        perplexity=perplexity, metric="cosine", initialization="pca", neighbors="exact", n_jobs=1, random_state=seed
    ).fit(clips)
    made = np.asarray(made) - np.asarray(made).mean(axis=0)  # (n_clips, 2)
    if like is not None:
        target = np.concatenate([np.asarray(like[n]).reshape(-1, 2) for n in levels])
        made = made @ orthogonal_procrustes(made, target)[0]
    ends = np.cumsum([level.shape[0] * level.shape[1] for level in levels.values()])[:-1]
    return {
        n: part.reshape(*level.shape[:2], 2)
        for (n, level), part in zip(levels.items(), np.split(made, ends), strict=True)
    }


def level_features(model, corpus, n):
    """Clip features of the three splits at level n: `embed.splits(model, corpus, n)`.

    Told in: notebooks/72_figure5_tags_in_time.ipynb
    """
    return embed.splits(model, corpus, n)


def spans(n_samples, n_clip, sample_rate):
    """When the clips of a track sound that `embed.clips_of` cuts: side by side, the last one ending with the track.

    Parameters
    ----------
    n_samples, n_clip : int > 0 [samples]
    sample_rate : int [Hz]

    Returns
    -------
    array [shape=(n_clips, 2)] of start and end [s]; a track shorter than a clip ends where it ends.
    """
    n_clips = max(1, math.ceil(n_samples / n_clip))
    starts = np.minimum(np.arange(n_clips) * n_clip, max(0, n_samples - n_clip))
    return np.stack([starts, np.minimum(starts + n_clip, n_samples)], axis=1) / sample_rate


def holds(clip_spans, events, least=0.5):
    """Whether a tag holds in each clip of a track, by the seconds they share.

    Parameters
    ----------
    clip_spans : array [shape=(n_clips, 2)] [s]
    events : sequence of (start, end) [s]
        When the tag holds.
    least : float in [0, 1]
        A clip is inside when it shares at least this much of the shorter of the two, itself or an event; 0 counts every
        touch. A clip that shares less, but not nothing, is neither.

    Returns
    -------
    array [shape=(n_clips,)] of 1 (inside), 0 (outside) and -1 (neither)
    """
    clip_spans, events = np.asarray(clip_spans, dtype=np.float64), np.asarray(events, dtype=np.float64).reshape(-1, 2)
    starts, ends = clip_spans[:, None].T  # (1, n_clips) each
    shared = np.minimum(ends, events[:, 1:]) - np.maximum(starts, events[:, :1])  # (n_events, n_clips)
    shorter = np.minimum(ends - starts, events[:, 1:] - events[:, :1])
    inside = ((shared > 0) & (shared >= least * shorter)).any(axis=0)
    return np.where(inside, 1, np.where((shared > 0).any(axis=0), -1, 0))


def localisation(answers, clip_spans, events, labels, tags, units=None, least=0.5, n_boot=1000, seed=0, minus=None):
    """Does the probability of a tag rise where the tag holds? ROC-AUC of clips inside an event against those outside.

    Asked within each track that carries the tag, so that nothing is gained by knowing which tracks carry it; then the
    mean over the tag's tracks, and over tags. Only a corpus that knows times, a twin, can be asked.

    Parameters
    ----------
    answers : sequence of arrays [shape=(n_clips, n_labels)], one per track
        Probabilities of the track's clips at one level.
    clip_spans : sequence of arrays [shape=(n_clips, 2)], one per track [s]
    events : sequence of lists of dict, one per track
        From `datasets.mtat.events`: "tag", "start_s", "end_s".
    labels : sequence of str
        Names of the columns of `answers`.
    tags : sequence of str
        Those to be asked about.
    units : sequence of str, optional
        The work of each track, drawn again as a whole; tracks by default.
    least : float
        As in `holds`.
    n_boot, seed : int
    minus : sequence of arrays, optional
        Another system's answers for the same clips: all numbers are then differences, over the same drawn tracks.

    Returns
    -------
    dict
        "estimate", "low", "high" : float, or None where no track has clips both inside and outside (wholes have not).
        "per_tag" : {tag: {"roc_auc", "n_tracks"}}; "n_tracks" : tracks that could be asked about any tag.

    Raises
    ------
    ValueError
        If the lists differ in length, a track's clips and answers in number, or a tag is no label.

    Told in: notebooks/72_figure5_tags_in_time.ipynb
    """
    labels = list(labels)
    unknown = [tag for tag in tags if tag not in labels]
    if unknown or not len(answers) == len(clip_spans) == len(events):
        raise ValueError(
            f"{len(answers)} answers, {len(clip_spans)} spans, {len(events)} lists of events, unknown tags "
            f"{unknown or 'none'}: expected one of each per track, and tags that are labels"
        )
    found = _inside_against_outside(answers, clip_spans, events, labels, tags, least)
    if minus is not None:
        if len(minus) != len(answers):
            raise ValueError(f"{len(answers)} answers minus {len(minus)}: expected the same tracks")
        found = found - _inside_against_outside(minus, clip_spans, events, labels, tags, least)
    return _over_tags(found, tags, units, n_boot, seed)


def _inside_against_outside(answers, clip_spans, events, labels, tags, least):
    """ROC-AUC of each track's clips for each tag, (n_tracks, n_tags); NaN where there is nothing to tell apart."""
    found = np.full((len(answers), len(tags)), np.nan)
    for i, (answer, when, held) in enumerate(zip(answers, clip_spans, events, strict=True)):
        answer = np.asarray(answer, dtype=np.float64)
        if answer.shape != (len(when), len(labels)):
            raise ValueError(f"track {i} has answers {answer.shape}, expected {(len(when), len(labels))}")
        for j, tag in enumerate(tags):
            times = [(event["start_s"], event["end_s"]) for event in held if event["tag"] == tag]
            inside = holds(when, times, least)
            if times and (inside == 1).any() and (inside == 0).any():
                clear = inside >= 0
                found[i, j] = roc_auc_score(inside[clear], answer[clear, labels.index(tag)])
    return found


def _over_tags(found, tags, units, n_boot, seed):
    """Mean over the tracks of each tag, then over tags, of a table (n_tracks, n_tags) with holes."""
    asked = np.flatnonzero(np.isfinite(found).any(axis=1))
    per_tag = {
        tag: {"roc_auc": float(np.nanmean(column)) if np.isfinite(column).any() else None,
              "n_tracks": int(np.isfinite(column).sum())}
        for tag, column in zip(tags, found.T, strict=True)
    }  # fmt: skip
    drawn = {"estimate": None, "low": None, "high": None}
    if len(asked):
        drawn["estimate"] = _mean_of_tags(found[asked])
    units = asked if units is None else np.asarray(units)[asked]
    if len(set(units.tolist())) > 1:  # a bootstrap of one work says nothing

        def mean_of(rows, _):
            return _mean_of_tags(found[rows.astype(int)])

        drawn |= stats.bootstrap(mean_of, asked, asked, units=units, n_boot=n_boot, seed=seed)
    return {name: drawn[name] for name in ("estimate", "low", "high")} | {"per_tag": per_tag, "n_tracks": len(asked)}


def _mean_of_tags(table):
    """Mean over tags of the mean over tracks; tags without a track are left out."""
    there = np.isfinite(table)
    n_tracks = there.sum(axis=0)
    sums = np.where(there, table, 0).sum(axis=0)
    return float((sums[n_tracks > 0] / n_tracks[n_tracks > 0]).mean())


def _mean(values, _):
    return float(np.mean(values))


def _stacked(levels):
    """All clips (n_clips, D), level after level, with the song and the level of each."""
    clips = np.concatenate([level.reshape(-1, level.shape[-1]) for level in levels.values()])
    song = np.concatenate([np.repeat(np.arange(len(level)), level.shape[1]) for level in levels.values()])
    return clips, song, np.concatenate([np.full(level[..., 0].size, n) for n, level in levels.items()])


def _places(level):
    """Start and end of a level's clips as shares of the whole, (n_songs * M**n, 2)."""
    n_songs, n_clips, _ = level.shape
    starts = np.arange(n_clips) / n_clips
    return np.tile(np.stack([starts, starts + 1 / n_clips], axis=1), (n_songs, 1))


def _by_song(values, song):
    """A number per clip as {"score", "per_song"}."""
    per_song = np.bincount(song, values) / np.bincount(song)
    return {"score": float(values.mean()), "per_song": per_song}


def _checked(levels):
    """Levels as a dict of float64 arrays of unit vectors, in order; zero vectors stay zero."""
    given = levels if isinstance(levels, dict) else dict(enumerate(levels))
    found = {}
    for n in sorted(given):
        clips = np.asarray(given[n], dtype=np.float64)
        if clips.ndim != 3 or 0 in clips.shape:
            raise ValueError(f"level {n} has shape {clips.shape}, expected (n_songs, M**{n}, D)")
        if not np.isfinite(clips).all():
            song = int(np.argmin(np.isfinite(clips).all(axis=(1, 2))))
            raise ValueError(f"level {n} of song {song} holds NaN or infinite values: did training diverge?")
        norms = np.linalg.norm(clips, axis=-1, keepdims=True)
        found[n] = clips / np.where(norms > 0, norms, 1)
    if 0 not in found or found[0].shape[1] != 1:
        there = f"{found[0].shape[1]} wholes a song" if 0 in found else f"levels {sorted(found)}"
        raise ValueError(f"{there}, expected one whole per song at level 0: give each whole of a long song as a song")
    n_songs, _, width = found[0].shape
    for n, clips in found.items():
        if clips.shape[0] != n_songs or clips.shape[2] != width:
            raise ValueError(
                f"level {n} has shape {clips.shape}, level 0 {found[0].shape}: are they of the same songs and encoder?"
            )
    if n_songs < 2:
        raise ValueError("one song alone cannot be mistaken for another: give at least two songs")
    return found
