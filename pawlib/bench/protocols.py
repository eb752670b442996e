"""What a frozen encoder is worth: a linear classifier on its embeddings (paper Sec. 4.1 Setup, Table 1).

Conventions
    A track is heard as several clips. ClipFeatures hold one row of features per clip and the track each row belongs to.
    x           : float32 (n_clips, width)
    track_index : int64 (n_clips,), row of `targets`; several clips share one, in any order
    targets     : float32 (n_tracks, n_labels), 0 or 1

What the paper leaves unsaid follows PEMR (facts in 00_start_here): binary cross-entropy with logits, Adam at 0.003,
the rate divided by ten after 5 epochs without a better validation score, stop after 10, at most 300.
Three choices are ours, and arguments:
    Features are standardised by the mean and deviation of the training rows, for every encoder alike: a random encoder,
    a trained one and log-mel statistics differ in scale by orders of magnitude, and one learning rate must suit all.
    A batch is 16 tracks with all their clips (PEMR: 64 single clips, about 6 tracks). The loss is the same mean over
    clips; every track has its say once per epoch. Larger batches starve small sets of steps: with 64 of 120 tracks an
    epoch is two steps, and 10 epochs of patience run out before anything is learned. Smaller ones change nothing but
    the time (both tried on made-up features).
    The validation score is macro ROC-AUC over whole tracks (`select`): it is the table's first column, and PR-AUC of a
    tag with a handful of validation positives jumps from epoch to epoch.

With `pool="embeddings"` a track's rows are averaged before training: GTZAN-like protocols, and statistics of a whole
track, which are one row anyway.
"""

import contextlib
import dataclasses
import time
import warnings

import numpy as np
import torch

from pawlib.bench import stats

POOLS = ("probabilities", "embeddings")
SELECTIONS = ("roc_auc", "pr_auc")
WEIGHT_DECAYS = (1e-6, 1e-3, 1e-2, 1e-1)


@dataclasses.dataclass
class ClipFeatures:
    """Features of a split, clip by clip; `ids` (n_tracks,), where given, name tracks in errors."""

    x: torch.Tensor
    track_index: torch.Tensor
    targets: torch.Tensor
    ids: tuple = ()


@dataclasses.dataclass
class Probe:
    """A trained linear classifier and what it said of the test tracks.

    scores  : float32 array (n_tracks, n_labels), probabilities; one row per test track that has a clip
    targets : float32 array (n_tracks, n_labels), of the same tracks
    tracks  : int64 array (n_tracks,), their rows in the test split's targets
    weight_decay, best_epoch, valid_score : what validation chose
    history : {weight decay: [{"epoch", "loss", "valid_score", "learning_rate"}, ...]}
    untrained : {column: constant probability} of labels without a positive (or a negative) in training: by chance
    """

    scores: np.ndarray
    targets: np.ndarray
    tracks: np.ndarray
    weight_decay: float
    best_epoch: int
    valid_score: float
    history: dict
    untrained: dict
    seconds: float
    settings: dict
    mean: torch.Tensor
    deviation: torch.Tensor
    weight: torch.Tensor
    bias: torch.Tensor
    single_label: bool = False

    @property
    def n_tracks(self):
        """Test tracks scored."""
        return len(self.scores)

    def predict(self, x):
        """Probabilities of single clips: (n_clips, width) -> (n_clips, n_labels)."""
        x = (torch.as_tensor(x).cpu().float() - self.mean) / self.deviation
        return _answers(x, self.weight, self.bias, self.single_label, self.untrained)


def linear_probe(
    train,
    valid,
    test,
    n_labels,
    seed,
    pool="probabilities",
    weight_decays=WEIGHT_DECAYS,
    max_epochs=300,
    patience=10,
    learning_rate=3e-3,
    batch_tracks=16,
    select="roc_auc",
    single_label=False,
):
    """Train one linear layer on frozen features, regularised and stopped by validation, and score the test tracks.

    Parameters
    ----------
    train, valid, test : ClipFeatures
    n_labels : int > 0
    seed : int
        Of the first weights and the order of tracks; the same seed gives the same scores.
    pool : "probabilities" or "embeddings"
        Reading R11: a track's score is the mean of its clips' probabilities, or the score of its mean embedding.
    weight_decays : sequence of float >= 0
        Each is trained to the end; the one with the best validation score is kept, the earlier one at a tie.
    max_epochs, patience : int > 0
        Stop when the validation score has not improved for `patience` epochs (paper Sec. 4.1); best weights are kept.
    learning_rate : float
    batch_tracks : int > 0
    select : "roc_auc" or "pr_auc"
        The validation score, macro over the labels that have both kinds of tracks there.
    single_label : bool
        Classes that exclude each other (genres): softmax and cross-entropy instead of a sigmoid for each label.

    Returns
    -------
    Probe

    Raises
    ------
    ValueError
        For an empty split, features with NaN (naming the track), widths or label counts that differ, a track index out
        of range, an unknown `pool` or `select`, or a validation split on which no label can be scored.

    Warns
    -----
    UserWarning
        Counting labels that training never shows, and test tracks without a clip.

    Told in: notebooks/30_linear_probe_mtat.ipynb
    """
    started = time.perf_counter()
    if pool not in POOLS:
        raise ValueError(f"pool={pool!r} is unknown, expected one of {POOLS}")
    if select not in SELECTIONS:
        raise ValueError(f"select={select!r} is unknown, expected one of {SELECTIONS}")
    if not weight_decays or max_epochs < 1 or patience < 1 or batch_tracks < 1:
        raise ValueError("need at least one weight decay, epoch, epoch of patience and track per batch")
    splits = {"train": train, "valid": valid, "test": test}
    splits = {name: _checked(name, split, n_labels, train.x.shape[-1]) for name, split in splits.items()}
    if pool == "embeddings":
        splits = {name: _pooled(split) for name, split in splits.items()}
    mean, deviation = _standard(splits["train"].x)
    splits = {name: dataclasses.replace(split, x=(split.x - mean) / deviation) for name, split in splits.items()}
    constants = {} if single_label else _constants(splits["train"])

    with one_thread():
        runs = [
            _train(
                splits, decay, seed, max_epochs, patience, learning_rate, batch_tracks, select, single_label, constants
            )
            for decay in weight_decays
        ]
    best = max(range(len(runs)), key=lambda run: runs[run]["valid_score"])
    chosen = runs[best]
    scores, tracks = _track_scores(splits["test"], chosen["weight"], chosen["bias"], single_label, constants)
    _tell_unheard(splits["test"], tracks)
    return Probe(
        scores=scores.numpy(),
        targets=splits["test"].targets[tracks].numpy(),
        tracks=tracks.numpy(),
        weight_decay=float(weight_decays[best]),
        best_epoch=chosen["best_epoch"],
        valid_score=chosen["valid_score"],
        history={float(decay): run["history"] for decay, run in zip(weight_decays, runs, strict=True)},
        untrained=constants,
        seconds=time.perf_counter() - started,
        settings={
            "pool": pool,
            "weight_decays": [float(decay) for decay in weight_decays],
            "max_epochs": max_epochs,
            "patience": patience,
            "learning_rate": chosen["learning_rate"],
            "batch_tracks": batch_tracks,
            "select": select,
            "single_label": single_label,
            "optimizer": "Adam",
            "standardised": True,
        },
        mean=mean,
        deviation=deviation,
        weight=chosen["weight"],
        bias=chosen["bias"],
        single_label=single_label,
    )


def logistic(train, valid, test, n_labels, seed, **settings):
    """Logistic regression on one row per track, e.g. log-mel statistics: the same probe, so that only features differ.

    Parameters and return value are those of `linear_probe`; several rows of a track are averaged first.

    Told in: notebooks/01_data.ipynb
    """
    return linear_probe(train, valid, test, n_labels, seed, pool="embeddings", **settings)


def pool_tracks(values, track_index, n_tracks):
    """Mean over the clips of each track.

    Parameters
    ----------
    values : float tensor [shape=(n_clips, width)]
    track_index : int64 tensor [shape=(n_clips,)], in [0, n_tracks)
    n_tracks : int

    Returns
    -------
    means : float tensor [shape=(n_tracks, width)]
        NaN for a track without clips: a missing answer must not look like one.
    n_clips : int64 tensor [shape=(n_tracks,)]

    Raises
    ------
    ValueError
        If an index is out of range or the lengths differ.
    """
    _check_index("values", values, track_index, n_tracks)
    n_clips = torch.bincount(track_index, minlength=n_tracks)
    sums = torch.zeros(n_tracks, values.shape[1], dtype=values.dtype).index_add_(0, track_index, values)
    return sums / n_clips.unsqueeze(1), n_clips  # 0 / 0 is NaN


def only(features, ids):
    """The features of some tracks: what a classifier with few labels may learn from.

    Parameters
    ----------
    features : ClipFeatures
        With `ids`.
    ids : set of str

    Returns
    -------
    ClipFeatures

    Raises
    ------
    ValueError
        If an id is none of the features' tracks.

    Told in: notebooks/31_few_labels_mtat.ipynb
    """
    unknown = sorted(set(ids) - set(features.ids))
    if unknown:
        raise ValueError(f"{len(unknown)} ids are none of these {len(features.ids)} tracks, e.g. {unknown[0]!r}")
    rows = [row for row, track in enumerate(features.ids) if track in ids]
    place = torch.full((len(features.ids),), -1)
    place[rows] = torch.arange(len(rows))
    kept = place[features.track_index] >= 0
    index = place[features.track_index[kept]]
    return ClipFeatures(features.x[kept], index, features.targets[rows], tuple(features.ids[row] for row in rows))


def loss_of(logits, target, single_label):
    """Mean cross-entropy (classes) or binary cross-entropy (tags) of logits and 0/1 targets, both (B, n_labels)."""
    if single_label:
        return torch.nn.functional.cross_entropy(logits, target.argmax(dim=1))
    return torch.nn.functional.binary_cross_entropy_with_logits(logits, target)


def probabilities(logits, single_label):
    """Softmax over classes, or a sigmoid for each tag: (B, n_labels)."""
    return logits.softmax(dim=1) if single_label else logits.sigmoid()


def _train(splits, decay, seed, max_epochs, patience, learning_rate, batch_tracks, select, single_label, constants):
    """One weight decay from first weights to early stop; the best epoch's weights come back."""
    generator = torch.Generator().manual_seed(seed)
    train, valid = splits["train"], splits["valid"]
    clips_of_track = _grouped(train)
    clip_targets = train.targets[train.track_index]  # (n_clips, n_labels)
    head = _linear(train.x.shape[1], train.targets.shape[1], generator)
    optimizer = torch.optim.Adam(head.parameters(), lr=learning_rate, weight_decay=decay, fused=True)
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, mode="max", factor=0.1, patience=5)
    used = {"learning_rate": optimizer.param_groups[0]["lr"]}
    best = {"valid_score": -np.inf}
    history = []
    for epoch in range(1, max_epochs + 1):
        rate = optimizer.param_groups[0]["lr"]
        loss = _epoch(train.x, clip_targets, clips_of_track, head, optimizer, batch_tracks, single_label, generator)
        score = _valid_score(valid, head, single_label, constants, select)
        plateau.step(score)
        history.append({"epoch": epoch, "loss": loss, "valid_score": score, "learning_rate": rate})
        if score > best["valid_score"]:
            weight, bias = head.weight.detach().clone(), head.bias.detach().clone()
            best = {"valid_score": score, "best_epoch": epoch, "weight": weight, "bias": bias}
        elif epoch - best["best_epoch"] >= patience:
            break
    return {**best, **used, "history": history}


def _epoch(x, clip_targets, clips_of_track, head, optimizer, batch_tracks, single_label, generator):
    """Every track once, in drawn order; the mean loss of a clip."""
    order = torch.randperm(len(clips_of_track), generator=generator).tolist()
    total, n_clips = 0.0, 0
    for first in range(0, len(order), batch_tracks):
        rows = torch.cat([clips_of_track[track] for track in order[first : first + batch_tracks]])
        loss = loss_of(head(x[rows]), clip_targets[rows], single_label)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        total, n_clips = total + loss.item() * len(rows), n_clips + len(rows)
    return total / n_clips


def _linear(width, n_labels, generator):
    """nn.Linear with its usual first weights, drawn from `generator`."""
    head = torch.nn.utils.skip_init(torch.nn.Linear, width, n_labels)  # leaves the global generator alone
    bound = width**-0.5
    with torch.no_grad():
        head.weight.uniform_(-bound, bound, generator=generator)
        head.bias.uniform_(-bound, bound, generator=generator)
    return head


def _valid_score(valid, head, single_label, constants, select):
    """Macro score of the validation tracks."""
    scores, tracks = _track_scores(valid, head.weight, head.bias, single_label, constants)
    score = stats.once(select, scores.double().numpy(), valid.targets[tracks].numpy())
    if np.isnan(score):
        raise ValueError(
            f"no label has both a positive and a negative among the {len(tracks)} validation tracks, "
            "so nothing can be chosen on them: is the validation split too small?"
        )
    return score


@contextlib.contextmanager
def one_thread():
    """Products this small gain nothing from a second thread (measured: twice slower), and one adds up in one order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@torch.no_grad()
def _track_scores(split, weight, bias, single_label, constants):
    """Mean probability of each track's clips, for the tracks that have any, and which tracks those are."""
    answers = _answers(split.x, weight, bias, single_label, constants)
    means, n_clips = pool_tracks(answers, split.track_index, len(split.targets))
    tracks = torch.nonzero(n_clips).squeeze(1)
    return means[tracks], tracks


@torch.no_grad()
def _answers(x, weight, bias, single_label, constants):
    """Probabilities from the linear layer; untrained labels get their constant."""
    answers = probabilities(torch.nn.functional.linear(x, weight, bias), single_label)
    for column, constant in constants.items():
        answers[:, column] = constant
    return answers


def _constants(train):
    """{column: 0 or 1} of the labels that training shows only absent, or only present; told once."""
    heard = train.targets[train.track_index.unique()]
    frequency = heard.mean(dim=0)
    constants = {int(column): float(frequency[column]) for column in torch.nonzero((frequency == 0) | (frequency == 1))}
    if constants:
        warnings.warn(
            f"{len(constants)} label(s) have no positive or no negative training track and are scored by chance: "
            f"columns {sorted(constants)}",
            stacklevel=3,
        )
    return constants


def _standard(x):
    """Mean and deviation of each feature over the training rows; a constant feature keeps deviation 1."""
    mean, deviation = x.mean(dim=0), x.std(dim=0, correction=0)
    return mean, torch.where(deviation > 1e-8 * (1 + mean.abs()), deviation, torch.ones_like(deviation))


def _pooled(split):
    """One row per track that has clips: its mean embedding."""
    means, n_clips = pool_tracks(split.x, split.track_index, len(split.targets))
    tracks = torch.nonzero(n_clips).squeeze(1)
    return dataclasses.replace(split, x=means[tracks], track_index=tracks)


def _grouped(split):
    """Rows of each track that has clips: list of int64 (n_clips of the track,)."""
    rows = torch.argsort(split.track_index, stable=True)
    n_clips = torch.bincount(split.track_index)
    return list(torch.split(rows, n_clips[n_clips > 0].tolist()))


def _checked(name, split, n_labels, width):
    """A split as float32 and int64 tensors, with everything the numbers cannot forgive checked."""
    x, index, targets = (torch.as_tensor(value).cpu() for value in (split.x, split.track_index, split.targets))
    if len(x) == 0 or len(targets) == 0:
        raise ValueError(f"the {name} split is empty ({len(x)} clips, {len(targets)} tracks): were its tracks decoded?")
    if x.ndim != 2 or x.shape[1] != width:
        raise ValueError(
            f"{name} features have shape {tuple(x.shape)}, the classifier takes width {width}: "
            "were they made by another encoder?"
        )
    if targets.ndim != 2 or targets.shape[1] != n_labels:
        raise ValueError(f"{name} targets have shape {tuple(targets.shape)}, expected (n_tracks, {n_labels})")
    _check_index(name, x, index, len(targets))
    bad = ~torch.isfinite(x).all(dim=1)
    if bad.any():
        track = int(index[bad][0])
        called = f" ({split.ids[track]})" if len(split.ids) > track else ""
        raise ValueError(
            f"{name} features of track {track}{called} are NaN or infinite, {int(bad.sum())} clip(s) in all: "
            "is its audio broken, or did pretraining diverge?"
        )
    return ClipFeatures(x.float(), index.long(), targets.float(), tuple(split.ids))


def _check_index(name, x, index, n_tracks):
    """One track in range for every clip."""
    if index.shape != (len(x),):
        raise ValueError(f"{name}: {len(x)} clips but track_index of shape {tuple(index.shape)}")
    if len(index) and (index.min() < 0 or index.max() >= n_tracks):
        raise ValueError(
            f"{name}: track_index runs from {int(index.min())} to {int(index.max())}, but there are {n_tracks} tracks"
        )


def _tell_unheard(test, tracks):
    """Warn of test tracks that cannot be scored."""
    missing = len(test.targets) - len(tracks)
    if missing:
        warnings.warn(f"{missing} of {len(test.targets)} test tracks have no clip and are not scored", stacklevel=3)
