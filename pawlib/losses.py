"""Hierarchical part-whole contrast (paper Sec. 3.3, Eqs. 3-6), and NT-Xent.

Conventions
    B songs in a batch, N levels, M parts per whole; level n holds M**n clips of equal length.
    z[n] : Tensor [shape=(B, M**n, D_p)], projected, not yet normalised: every loss normalises by itself.
    z_aug : Tensor [shape=(B, D_p)], the augmented view of the wholes; it has not passed the block (reading R4).
    Similarity is the cosine. Losses come back one per song, shape (B,); the caller averages.
    Everything is summed in log space and in float32 (float64 stays), so any temperature gives finite numbers.

Told in: notebooks/06_loss.ipynb
"""

import math

import torch
import torch.nn.functional as F

from pawlib import crops

EXPONENTS = ("inside", "printed")


def length_ratio(n_whole, n_part):
    """Weight of a (whole, part) pair in the loss (paper Eq. 4).

    Parameters
    ----------
    n_whole, n_part : int > 0 [samples]
        Lengths of the clip and of one of its parts.

    Returns
    -------
    float
        n_part / n_whole, no unit. With the paper's M = 2 it is 0.5 at every level (reading R7).

    Raises
    ------
    ValueError
        If the part is not shorter than the whole, naming both lengths.

    Told in: notebooks/06_loss.ipynb
    """
    if not 0 < n_part < n_whole:
        raise ValueError(
            f"a part of {n_part} samples in a whole of {n_whole}: expected 0 < part < whole; were they swapped?"
        )
    return n_part / n_whole


def nt_xent(z, z_aug, temperature, symmetric=False):
    """Normalised temperature-scaled cross entropy (Chen 2020): Eqs. 5-6 without a part-whole term.

    Parameters
    ----------
    z, z_aug : Tensor [shape=(B, D_p)]
        Two views of the same songs.
    temperature : float > 0
    symmetric : bool
        Also with the augmented view as anchor, averaged; one direction as printed otherwise (reading R9).

    Returns
    -------
    Tensor [shape=(B,)]

    Raises
    ------
    ValueError
        If the shapes differ or the temperature is not positive.

    Told in: notebooks/06_loss.ipynb
    """
    z, z_aug = _views(z, z_aug, temperature)
    loss = _from_logs(*_top_logs(z, z_aug, temperature))
    if symmetric:
        loss = (loss + _from_logs(*_top_logs(z_aug, z, temperature))) / 2
    return loss


def hierarchical_contrastive(
    z,
    z_aug,
    temperature,
    *,
    pw_exponent="inside",
    reduce="sum",
    symmetric=False,
    tau_pw=None,
    positives="inside_log",
    level_negatives=False,
    tree="own",
):
    """Hierarchical contrastive loss of each song (paper Eqs. 3-6).

    L_pw  = sum over pairs of levels of 1/M * sum over wholes and their parts of exp(sim(whole, part) / tau)   (Eq. 3)
    L_hc  = -log (L_pw + exp(sim(whole, aug) / tau)) / (L_pw + L_neg)                                          (Eq. 5)
    L_neg = sum over all u of exp(sim(whole, aug_u) / tau) + sum over u != b of exp(sim(whole, whole_u) / tau) (Eq. 6)

    Parameters
    ----------
    z : list of N Tensors, [n] of shape (B, M**n, D_p)
        Interacted and projected clips.
    z_aug : Tensor [shape=(B, D_p)]
    temperature : float > 0
        tau (reading R8).
    pw_exponent : "inside" | "printed"
        exp(sim / tau) as in Eqs. 5-6, or exp(sim) / tau as Eq. 3 prints it (reading R6).
    reduce : "sum" | "mean"
        The part-whole term as printed, or divided by its summed weights so that N and M can be compared (reading R15).
    symmetric : bool
        Also with the augmented view as anchor, averaged (reading R9).
    tau_pw : float > 0, optional
        A temperature of its own for the part-whole term (reading R16).
    positives : "inside_log" | "outside_log"
        "outside_log": the part-whole pairs leave the ratio; their mean -log exp(sim / tau_pw) is added (reading R16).
    level_negatives : bool
        The wholes of each level also meet the parts of the other songs, as negatives (reading R16).
    tree : "own" | "cousins" | "flat" | "path"
        Controls: "cousins" pairs each whole with its sibling's parts; "flat" pairs the top whole with every shorter
        clip of its song, with the same summed weight, and knows no tree. "path": z are the clips of one path down
        each tree (`crops.follow`); its sums, times the wholes it stands for, have those of the tree as their mean,
        but -log of a sum has not: the loss is biased (reading R36).

    Returns
    -------
    Tensor [shape=(B,)]

    Raises
    ------
    ValueError
        If a level has another number of clips than M**n, for a temperature that is not positive, or an unknown switch.

    Told in: notebooks/06_loss.ipynb
    """
    if positives not in ("inside_log", "outside_log"):
        raise ValueError(f'positives={positives!r} is unknown, expected "inside_log" (as printed) or "outside_log"')
    if tau_pw is not None and tau_pw <= 0:
        raise ValueError(f"tau_pw={tau_pw} must be positive, or None for the temperature of the ratio (reading R16)")
    z, top, z_aug = _tree_views(z, z_aug, temperature, tree)
    pw = _part_whole_log(z, tau_pw or temperature, pw_exponent, reduce, tree)
    directions = [(top, z_aug), (z_aug, top)] if symmetric else [(top, z_aug)]
    losses = []
    for anchor, other in directions:
        positive, negatives = _top_logs(anchor, other, temperature)
        if level_negatives:
            negatives = torch.logaddexp(
                negatives, _level_negatives_log(z, tau_pw or temperature, pw_exponent, reduce, tree)
            )
        if positives == "outside_log":
            losses.append(_from_logs(positive, negatives) - _mean_part_whole_log(z, tau_pw or temperature, tree))
        else:
            losses.append(_from_logs(torch.logaddexp(pw, positive), torch.logaddexp(pw, negatives)))
    return torch.stack(losses).mean(0)


def multicrop_nt_xent(z, z_aug, temperature, symmetric=False):
    """NT-Xent with every clip of every level as anchor of its song's augmented view, averaged: a control of ours.

    It sees the clips and hops Music-PAW sees, and has no part-whole term.

    Parameters and errors as `hierarchical_contrastive`. Returns a Tensor [shape=(B,)].
    """
    _tree_views(z, z_aug, temperature)
    clips = torch.cat(list(z), dim=1).unbind(1)  # every clip, (B, D_p)
    return torch.stack([nt_xent(clip, z_aug, temperature, symmetric) for clip in clips]).mean(0)


@torch.no_grad()
def part_whole_share(z, z_aug, temperature, *, pw_exponent="inside", reduce="sum", tau_pw=None, tree="own", **_):
    """Share of the part-whole term in the numerator of Eq. 5, (B,), between 0 and 1.

    Near 1 the ratio is 1 whatever the negatives are: the loss is near 0 and nothing more is learnt from them.

    Told in: notebooks/06_loss.ipynb
    """
    z, top, z_aug = _tree_views(z, z_aug, temperature, tree)
    pw = _part_whole_log(z, tau_pw or temperature, pw_exponent, reduce, tree)
    positive, _ = _top_logs(top, z_aug, temperature)
    return torch.exp(pw - torch.logaddexp(pw, positive))


@torch.no_grad()
def part_whole_similarity(z, tree="own"):
    """Mean cosine of the wholes with their parts, one per pair of levels: list of N-1 Tensors [shape=()]."""
    return [sim.mean() for sim in _part_whole_cosines([F.normalize(_wide(level), dim=-1) for level in z], tree)]


@torch.no_grad()
def similarity_of_songs(level):
    """Mean cosine of different songs' clips at the same place, (B, K, D) with B > 1 -> (), 1 where all are alike."""
    n_songs = level.shape[0]
    towards = F.normalize(_wide(level), dim=-1).sum(0).square().sum(-1)  # (K,): all pairs, and each song with itself
    return ((towards - n_songs) / (n_songs * (n_songs - 1))).mean()


def _part_whole_log(z, temperature, pw_exponent, reduce, tree):
    """log L_pw of Eq. 3, (B,), from unit vectors; -inf where there is only one level."""
    terms, weights = _part_whole_terms(z, temperature, pw_exponent, tree)
    if not terms:
        return z[0].new_full(z[0].shape[:1], -torch.inf)
    return torch.logsumexp(torch.cat(terms, dim=1), dim=1) - _log_total(weights, reduce)


def _part_whole_terms(z, temperature, pw_exponent, tree):
    """Per pair of levels: log of weight * exp(...), (B, pairs), and the summed weights."""
    terms, weights = [], []
    weight = length_ratio(z[1].shape[1], z[0].shape[1]) if len(z) > 1 else None  # 1/M: clips per level, reading R7
    for n, sim in enumerate(_part_whole_cosines(z, tree)):
        stands_for = _stands_for(z, n, tree)
        terms.append(math.log(weight * stands_for) + _exponent(sim, temperature, pw_exponent).flatten(1))
        weights.append(weight * stands_for * terms[-1].shape[1])
    return terms, weights


def _part_whole_cosines(z, tree):
    """Cosines of wholes with their parts from unit vectors: list, one (B, K, M) per pair of levels."""
    if tree == "flat":
        return [torch.einsum("bd,bmd->bm", z[0][:, 0], level).unsqueeze(1) for level in z[1:]]
    return [
        torch.einsum("bkd,bkmd->bkm", _wholes(z, n, tree), crops.families(z[n + 1], z[n].shape[1], tree))
        for n in range(len(z) - 1)
    ]


def _wholes(z, n, tree):
    """Clips of level n that are wholes of parts: all, the top one alone, or the one that a path follows."""
    return z[0] if tree == "flat" else z[n][:, :1] if tree == "path" else z[n]


def _stands_for(z, n, tree):
    """How many wholes of level n each whole in `z` stands for: one, or all of them where a path followed one."""
    return z[1].shape[1] ** n if tree == "path" else 1


def _mean_part_whole_log(z, temperature, tree):
    """Mean of log exp(sim / tau) over all (whole, part) pairs, (B,); Eq. 4's weights are all 1/M and drop out."""
    cosines = [sim.flatten(1) for sim in _part_whole_cosines(z, tree)]
    if not cosines:
        return z[0].new_zeros(z[0].shape[0])
    n_wholes = [_stands_for(z, n, tree) for n in range(len(cosines))]
    total = sum(n * sim.sum(1) for n, sim in zip(n_wholes, cosines, strict=True))
    return total / sum(n * sim.shape[1] for n, sim in zip(n_wholes, cosines, strict=True)) / temperature


def _level_negatives_log(z, temperature, pw_exponent, reduce, tree):
    """log of the sum of weight * exp(sim / tau) over every whole and the other songs' parts, one level down, (B,)."""
    n_songs = z[0].shape[0]
    others = ~torch.eye(n_songs, dtype=torch.bool, device=z[0].device)
    weight = length_ratio(z[1].shape[1], z[0].shape[1]) if len(z) > 1 else 1.0
    terms, weights = [], []
    for n in range(len(z) - 1):
        sim = torch.einsum("bkd,umd->bkum", _wholes(z, n, tree), z[n + 1])  # every whole with every song's parts
        stands_for = _stands_for(z, n, tree)  # of the wholes, and of the families of the other songs
        log = math.log(weight * stands_for**2) + _exponent(sim, temperature, pw_exponent)
        log = log.masked_fill(~others[:, None, :, None], -torch.inf)
        terms.append(log.flatten(1))
        weights.append(weight * stands_for * z[n + 1].shape[1])
    if not terms or n_songs == 1:
        return z[0].new_full((n_songs,), -torch.inf)
    return torch.logsumexp(torch.cat(terms, dim=1), dim=1) - _log_total(weights, reduce)


def _log_total(weights, reduce):
    if reduce not in ("sum", "mean"):
        raise ValueError(f'reduce={reduce!r} is unknown, expected "sum" (as printed) or "mean" (reading R15)')
    return math.log(sum(weights)) if reduce == "mean" else 0.0


def _exponent(sim, temperature, pw_exponent):
    if pw_exponent == "inside":
        return sim / temperature
    if pw_exponent == "printed":
        return sim - math.log(temperature)
    raise ValueError(f"pw_exponent={pw_exponent!r} is unknown, expected one of {EXPONENTS} (reading R6)")


def _top_logs(anchor, other, temperature):
    """log of the positive term and log L_neg of Eq. 6 for every anchor, (B,) and (B,), from unit vectors."""
    across = anchor @ other.T / temperature  # (B, B), the diagonal is the positive
    within = anchor @ anchor.T / temperature
    itself = torch.eye(len(anchor), dtype=torch.bool, device=anchor.device)
    within = within.masked_fill(itself, -torch.inf)
    return across.diagonal(), torch.logsumexp(torch.cat([across, within], dim=1), dim=1)


def _from_logs(log_numerator, log_denominator):
    return log_denominator - log_numerator


def _tree_views(z, z_aug, temperature, tree="own"):
    """Check a tree and return its unit vectors, those of its wholes, and those of the augmented views."""
    n_parts = z[1].shape[1] if len(z) > 1 else 2
    crops.check_levels(z, len(z), n_parts, tree)
    top, z_aug = _views(z[0][:, 0], z_aug, temperature)
    return [F.normalize(_wide(level), dim=-1) for level in z], top, z_aug


def _views(z, z_aug, temperature):
    if temperature <= 0:
        raise ValueError(f"temperature={temperature} must be positive")
    if z.ndim != 2 or z.shape != z_aug.shape:
        raise ValueError(
            f"views of shape {tuple(z.shape)} and {tuple(z_aug.shape)}, expected (B, D) twice: does each song have one "
            "augmented view?"
        )
    return F.normalize(_wide(z), dim=-1), F.normalize(_wide(z_aug), dim=-1)


def _wide(x):
    return x if x.dtype == torch.float64 else x.float()
