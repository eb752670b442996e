"""Hierarchical audio cropping (paper Sec. 3.1).

Conventions
    A song is cut into N levels: level 0 is the whole, level n holds M**n clips of equal length.
    B songs in a batch, L samples each; clips[n] : Tensor [shape=(B, M**n, L // M**n)], in time order.
    The M parts of clip m at level n are the clips m*M .. m*M + M-1 at level n+1.
    A path through that tree (reading R36) has M clips per level below the whole: the parts of the clip followed, that
    which is followed further coming first; 7 clips instead of 15 for N = 4, M = 2.
    A whole of the paper lasts 22.4 s at 16 kHz here, its shortest clips 2.8 s (reading R1).

Told in: notebooks/02_crops.ipynb
"""

import math

import torch


def hierarchical_crops(wave, n_levels=4, n_parts=2):
    """Cut songs into a tree of clips: each clip into M parts, level after level.

    Parameters
    ----------
    wave : Tensor [shape=(B, L)]
        Mono audio; L must be divisible by M**(N-1), so that no sample is lost.
    n_levels, n_parts : int > 0
        N and M of the paper.

    Returns
    -------
    list of N Tensors, [n] of shape (B, M**n, L // M**n)
        Views of `wave`, nothing is copied: the crops of a level, joined in order, are the song.

    Raises
    ------
    ValueError
        If `wave` is not (B, L), or L does not divide evenly; it names the nearest length that does.

    Told in: notebooks/02_crops.ipynb
    """
    if wave.ndim != 2:
        raise ValueError(f"wave has shape {tuple(wave.shape)}, expected (B, n_samples): is the batch axis missing?")
    _check_tree(n_levels, n_parts)
    n_samples = wave.shape[-1]
    n_leaves = n_parts ** (n_levels - 1)
    if n_samples == 0 or n_samples % n_leaves:
        raise ValueError(
            f"{n_samples} samples do not divide into {n_leaves} equal clips ({n_levels} levels of {n_parts} parts): "
            f"crop the song to {max(1, n_samples // n_leaves) * n_leaves} samples first"
        )
    return [wave.unflatten(-1, (n_parts**n, n_samples // n_parts**n)) for n in range(n_levels)]


def whole_length(whole_seconds, sample_rate, n_levels=4, n_parts=2, hop_length=128):
    """Samples of a whole: `whole_seconds`, rounded so that every level has a whole number of hops.

    The shortest clip holds a multiple of `hop_length` samples; 22.4 s at 16 kHz is 358,400 samples, 8 clips of 44,800.

    Raises
    ------
    ValueError
        If the whole would be shorter than one hop of its shortest clip.
    """
    _check_tree(n_levels, n_parts)
    unit = hop_length * n_parts ** (n_levels - 1)
    n_units = round(whole_seconds * sample_rate / unit)
    if n_units < 1:
        raise ValueError(
            f"a whole of {whole_seconds} s at {sample_rate} Hz has no hop of {hop_length} samples in its shortest clip "
            f"({n_levels} levels of {n_parts} parts): take a longer whole or fewer levels"
        )
    return n_units * unit


def split_wholes(wave, n_whole):
    """Cut a song of any length into wholes of `n_whole` samples; the last is completed by repeating the song.

    Parameters
    ----------
    wave : Tensor [shape=(B, L)]
    n_whole : int > 0 [samples]

    Returns
    -------
    wholes : Tensor [shape=(B, W, n_whole)]
        W = ceil(L / n_whole).
    n_real : int [samples]
        How many samples of the last whole are the song's own; n_whole where nothing was repeated.

    Raises
    ------
    ValueError
        If the song is empty.
    """
    n_samples = wave.shape[-1]
    if n_samples == 0:
        raise ValueError("the song has no samples: is the file empty?")
    n_wholes = math.ceil(n_samples / n_whole)
    missing = n_wholes * n_whole - n_samples
    if missing:
        repeated = wave.repeat(1, math.ceil(missing / n_samples))[:, :missing]
        wave = torch.cat([wave, repeated], dim=-1)  # (B, W * n_whole)
    return wave.unflatten(-1, (n_wholes, n_whole)), n_whole - missing


def follow(clips, choices):
    """One path down the tree of each song: from every level the parts of the clip that was followed so far.

    Parameters
    ----------
    clips : list of N Tensors, [n] of shape (B, M**n, ...)
        A tree, as `hierarchical_crops` makes it.
    choices : integer Tensor [shape=(B, N-1)]
        choices[b, n] in 0..M-1: which part of the clip at level n is followed (the last one decides its place only).

    Returns
    -------
    list of N Tensors, [0] of shape (B, 1, ...), the others (B, M, ...)
        Parts of one clip; the followed one first, the others in time order (turned round by its place).

    Raises
    ------
    ValueError
        If `choices` is not (B, N-1).

    Told in: notebooks/06_loss.ipynb
    """
    n_songs, n_parts = clips[0].shape[0], clips[1].shape[1] if len(clips) > 1 else 2
    if choices.shape != (n_songs, len(clips) - 1):
        raise ValueError(
            f"choices of shape {tuple(choices.shape)}, expected one for each of {n_songs} songs and {len(clips) - 1} "
            "levels with parts"
        )
    song = torch.arange(n_songs, device=choices.device)
    path, whole = [clips[0]], torch.zeros_like(song)
    for n, choice in enumerate(choices.unbind(1)):
        turn = (choice[:, None] + torch.arange(n_parts, device=choices.device)) % n_parts  # (B, M), the followed first
        path.append(clips[n + 1][song[:, None], whole[:, None] * n_parts + turn])
        whole = whole * n_parts + choice
    return path


def check_levels(levels, n_levels, n_parts, tree="own"):
    """Check that a list of per-level tensors is a tree: N of them, [n] with M**n clips, all of the same songs.

    With tree="path", one path down a tree: M clips at every level below the first.

    Raises
    ------
    ValueError
        Naming the level that has another number of clips than expected.
    """
    if len(levels) != n_levels:
        raise ValueError(f"{len(levels)} levels, expected {n_levels}: were the crops made with another N?")
    for n, level in enumerate(levels):
        power = min(n, 1) if tree == "path" else n
        if level.ndim < 2 or level.shape[1] != n_parts**power or level.shape[0] != levels[0].shape[0]:
            raise ValueError(
                f"level {n} has {level.shape[1] if level.ndim > 1 else 'no'} clips of {level.shape[0]} songs, expected "
                f"M**{power} = {n_parts**power} of {levels[0].shape[0]}: were the crops made with another M?"
            )


def families(parts, n_wholes, tree="own", back=False):
    """The parts of each whole, (B, K * M, D) -> (B, K, M, D).

    Parameters
    ----------
    parts : Tensor [shape=(B, K * M, D)]
        Clips of level n+1 in time order.
    n_wholes : int
        K, the clips of level n.
    tree : "own" | "cousins" | "path"
        "cousins" gives each whole the parts of its sibling, the next clip of the same parent (the last takes the
        first's). The top level has no sibling and keeps its own parts: within one song its tree cannot be wrong.
        "path", of what `follow` returns, is the family of the first whole alone: (B, M, D) -> (B, 1, M, D).
    back : bool
        Undo the exchange: families dealt out with the same `tree` return to where they came from.

    Raises
    ------
    ValueError
        For an unknown `tree`.
    """
    if tree not in ("own", "cousins", "path"):
        raise ValueError(
            f'tree={tree!r} is unknown, expected "own", "cousins" (the control with the wrong tree) or "path"'
        )
    if tree == "path":
        return parts.unsqueeze(1)
    families = parts.unflatten(1, (n_wholes, parts.shape[1] // n_wholes))  # (B, K, M, D)
    if tree == "own" or n_wholes == 1:
        return families
    n_parts = families.shape[2]
    siblings = families.unflatten(1, (n_wholes // n_parts, n_parts))  # (B, K / M, M, M, D)
    return siblings.roll(1 if back else -1, dims=2).flatten(1, 2)


def _check_tree(n_levels, n_parts):
    if n_levels < 1 or n_parts < 2:
        raise ValueError(f"n_levels={n_levels}, n_parts={n_parts}: a tree needs at least 1 level and 2 parts per whole")
