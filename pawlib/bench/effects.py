"""What a change is worth: differences between runs, over seeds and over test works (Figure 3, the sensitivity chapter).

    rows = results.read("committed", dataset="mtat-twin", scale="small", protocol="linear_probe", tag=None)
    effects.ablation(rows)                           of them, those of Figure 3
    effects.points(rows)                             {system: {seed: 0.67}}
    effects.between_seeds(points)                    how far two seeds of one system lie apart
    effects.compare(points, "music_paw", others)     paired by seed, exact sign-flip tests, Holm over all of them
    effects.interval(rows, "music_paw", "cousins")   with interval over works and seeds, from the kept answers

Two things are left to chance. Another seed would have given another network: differences of runs with the same seed
(the same songs in the same order) are tested by flipping signs, which assumes nothing but symmetry and cannot say less
than 2 / 2**k with k seeds. Other test works would have given other scores: works are drawn again, and seeds with them.

Told in: notebooks/70_figure3_ablation.ipynb
"""

import numpy as np

from pawlib import model
from pawlib.bench import kept_answers, results, stats

SAME = 1e-3  # ROC-AUC of a row and of its answers
VARIANTS = (*model.VARIANTS, "random")  # of Figure 3, from the top
EXPLORED = (0,)  # seeds that choices were made on; conclusions come from others
CHOSEN = {"baseline": "temperature=1.0", "baseline_multicrop": "temperature=1.0"}  # on validation, chapter 73


def ablation(rows, level=""):
    """Of `rows`, those of Figure 3: its variants and random weights, each with the readings chosen for it.

    Parameters
    ----------
    rows : list of dict
        Of linear probes.
    level : "" or "top"
        Asked of clips of the shortest level, or of wholes.
    """
    tags = {system: results.tag_of(level, CHOSEN.get(system)) for system in VARIANTS}
    return [row for row in rows if row["system"] in tags and row["tag"] == tags[row["system"]]]


def points(rows, metric="roc_auc", group=None):
    """One number per system and seed: {system: {seed: score}}, systems in the order of the rows.

    Parameters
    ----------
    rows : list of dict
        Of one dataset, protocol, scale, backbone and tag.
    metric : str
    group : str, optional
        A group of tags instead of all.

    Raises
    ------
    ValueError
        If two rows are of one system and seed: they differ in something that was not filtered.
    """
    found = {}
    for row in rows:
        numbers = row["metrics"] if group is None else row["groups"].get(group, {})
        if numbers.get(metric) is None:
            continue
        seeds = found.setdefault(row["system"], {})
        if row["seed"] in seeds:
            raise ValueError(
                f"two rows of {row['system']} with seed {row['seed']}, the second is {row['id']}: filter by dataset, "
                "protocol, scale, backbone and tag first"
            )
        seeds[row["seed"]] = numbers[metric]
    return found


def summary(seeds):
    """Mean, standard deviation (None for one seed) and number of {seed: score}."""
    values = list(seeds.values())
    return {"mean": float(np.mean(values)), "sd": float(np.std(values, ddof=1)) if len(values) > 1 else None,
            "k": len(values)}  # fmt: skip


def between_seeds(found):
    """By how much two trainings that differ in nothing but their seed differ: a standard deviation.

    What is pooled is the scatter of each system's seeds about its own mean; a difference of two has twice its variance.

    Parameters
    ----------
    found : dict
        Of `points`; systems of one seed say nothing.

    Returns
    -------
    float or None
        None where no system has two seeds.
    """
    apart = [np.array(list(seeds.values())) - np.mean(list(seeds.values())) for seeds in found.values()]
    freedom = sum(len(one) - 1 for one in apart)
    return float(np.sqrt(2 * sum((one**2).sum() for one in apart) / freedom)) if freedom else None


def compare(found, system, others):
    """Differences of a system to others, paired by seed.

    Parameters
    ----------
    found : dict
        Of `points`.
    system : str
    others : sequence of str

    Returns
    -------
    dict {other: {"seeds", "differences", "mean", "p", "p_holm"}}
        Others that share no seed with the system are left out. p is that of `stats.sign_flip`, None for a single
        seed; p_holm is corrected for all comparisons that were asked for, also those that could not be made.
    """
    made = {}
    for other in others:
        seeds = sorted(set(found.get(system, {})) & set(found.get(other, {})))
        if not seeds:
            continue
        differences = [found[system][seed] - found[other][seed] for seed in seeds]
        p = stats.sign_flip(differences) if len(seeds) > 1 else None
        made[other] = {"seeds": seeds, "differences": differences, "mean": float(np.mean(differences)), "p": p}
    known = {other: one["p"] for other, one in made.items() if one["p"] is not None}
    corrected = stats.holm({other: known.get(other, 1.0) for other in others})
    return {other: one | {"p_holm": corrected[other] if other in known else None} for other, one in made.items()}


def least_p(n_seeds):
    """The smallest p-value that so many seeds can give."""
    return 2 / 2**n_seeds


def interval(rows, system, other=None, metric="roc_auc", group=None, n_boot=1000, source="all"):
    """Mean over seeds, or difference of two means, with its interval over works and seeds, from the kept answers.

    Parameters
    ----------
    rows : list of dict
        As in `points`.
    system : str
    other : str, optional
    metric, group
        As in `points`.
    n_boot : int
    source : "committed" | "mine" | "all"
        Whose answers, as the rows were read.

    Returns
    -------
    dict or None
        Of `stats.hierarchical_bootstrap`; None where a row kept no answers.

    Raises
    ------
    ValueError
        If runs were scored on other tracks or labels, or answers are not those of their row.
    """
    first, heard = _answers(rows, system, group, source)
    if first is None:
        return None
    scores, targets = first
    against = None
    if other is not None:
        second, also = _answers(rows, other, group, source)
        if second is None:
            return None
        _check_same(heard, also, system, other)
        against = second[0]
    return stats.hierarchical_bootstrap(metric, scores, targets, against, units=heard.works, n_boot=n_boot)


def difference(id, other, metric="roc_auc", group=None, n_boot=1000, source="all"):
    """Difference of two runs by their ids, with its interval over works: None where one kept no answers.

    Returns
    -------
    dict
        Of `stats.paired_bootstrap`.

    Raises
    ------
    ValueError
        If the two were scored on other tracks or labels.
    """
    first, second = kept_answers.read(id, source), kept_answers.read(other, source)
    if first is None or second is None:
        return None
    _check_same(first, second, id, other)
    (a, targets), (b, _) = first.of(group), second.of(group)
    return stats.paired_bootstrap(metric, a, b, targets, units=first.works, n_boot=n_boot)


def _answers(rows, system, group, source):
    """((scores per seed, targets), one of the answers) of a system, (None, None) if any is missing."""
    rows = [row for row in rows if row["system"] == system]
    kept = [kept_answers.read(row["id"], source) for row in rows]
    if not kept or any(one is None for one in kept):
        return None, None
    for row, one in zip(rows, kept, strict=True):
        score = stats.once("roc_auc", one.scores, one.targets)
        if abs(score - row["metrics"].get("roc_auc", score)) > SAME:
            raise ValueError(
                f"the answers of {row['id']} give a ROC-AUC of {score:.4f}, its row says "
                f"{row['metrics']['roc_auc']:.4f}: was the run repeated after its row was published?"
            )
    for one in kept[1:]:
        _check_same(kept[0], one, system, system)
    return ([one.of(group)[0] for one in kept], kept[0].of(group)[1]), kept[0]


def _check_same(a, b, name_a, name_b):
    if not all(np.array_equal(getattr(a, what), getattr(b, what)) for what in ("ids", "labels", "targets", "works")):
        raise ValueError(
            f"{name_a} and {name_b} were scored on other tracks or labels ({len(a.ids)} and {len(b.ids)} tracks, "
            f"{len(a.labels)} and {len(b.labels)} labels), or against another truth: was the twin made anew?"
        )
