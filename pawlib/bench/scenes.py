"""Scores of acoustic scenes, the vote of a file's windows, and the challenge's own baseline (DCASE2016 task 1).

Conventions
    A file of 30 s is one test sample; classes are column numbers of the targets.
    accuracy    : right files / files, of one fold; a table's "average" is the plain mean of its folds (Table 5)
    class_mean  : the mean over classes of the share of a class's files that is right: what the challenge's own script
                  reports. Equal to accuracy where every class has as many files, as in the evaluation set (Table 6)
    Windows vote: every window of a file names a class, the most frequent one is the file's answer (Kong 2016).

The baseline models the frames of each scene with a mixture of 16 Gaussians over 60 numbers a frame (20 MFCC with the
zeroth, their deltas and accelerations) and answers with the likeliest scene for all frames of a file together. On the
real set its makers report 72.5 % on the four folds and 77.2 % on the evaluation set.

Sources: Mesaros, Heittola and Virtanen 2016, "TUT database for acoustic scene classification and sound event
detection", and the published baseline's settings (github TUT-ARG/DCASE2016-baseline-system-python).
"""

import functools
import math
import warnings

import numpy as np
import torch
import torchaudio

from pawlib.bench import datasets, scoring
from pawlib.bench.progress import progress

FRAME_S, HOP_S, N_FFT, N_MELS, N_MFCC, DELTA_FRAMES = 0.04, 0.02, 2048, 40, 20, 9
SAMPLE_RATE = 44_100
N_COMPONENTS, N_ITERATIONS, MIN_VARIANCE = 16, 40, 1e-3


# --- scores ---


def fold_scores(answers, classes, labels):
    """File-wise accuracy and the mean over classes, of one fold or of the evaluation set.

    Parameters
    ----------
    answers, classes : array-like of int [shape=(n_files,)]
        What was answered, and what is right: columns of `labels`.
    labels : sequence of str

    Returns
    -------
    dict
        `accuracy`, `class_mean` : float, see the module's map. `per_class` : {label: share right, None without files}.
        `confusion` : list of lists of int, rows the right class, columns the answer. `n_files` : int.

    Raises
    ------
    ValueError
        If there are no files, the numbers differ, or a class is out of range.

    Warns
    -----
    UserWarning
        Naming classes without a file: they are left out of the mean (the challenge's script counts them as 0).
    """
    from sklearn.metrics import confusion_matrix

    answers, classes = np.asarray(answers), np.asarray(classes)
    if answers.ndim != 1 or answers.shape != classes.shape or len(classes) == 0:
        raise ValueError(
            f"{answers.shape} answers for {classes.shape} files: need one answer per file, and at least one"
        )
    for what, values in (("answer", answers), ("class", classes)):
        if not np.issubdtype(values.dtype, np.integer) or values.min() < 0 or values.max() >= len(labels):
            bad = values[(values < 0) | (values >= len(labels))]
            raise ValueError(
                f"{what} {bad[0] if len(bad) else values[0]} is no column of {len(labels)} labels: expected 0 to "
                f"{len(labels) - 1}; are these scores and not answers?"
            )
    confusion = confusion_matrix(classes, answers, labels=np.arange(len(labels)))
    n_files, right = confusion.sum(axis=1), confusion.diagonal()
    heard = n_files > 0
    if not heard.all():
        absent = ", ".join(label for label, yes in zip(labels, heard, strict=True) if not yes)
        warnings.warn(f"no test file of {absent}: left out of the class mean", stacklevel=2)
    shares = [float(r / n) if n else None for r, n in zip(right, n_files, strict=True)]
    return {
        "accuracy": float(right.sum() / n_files.sum()),
        "class_mean": float(np.mean([share for share in shares if share is not None])),
        "per_class": dict(zip(labels, shares, strict=True)),
        "confusion": confusion.tolist(),
        "n_files": int(n_files.sum()),
    }


def over_folds(scores):
    """The averages of Table 5: plain means over folds, and the confusions added up.

    Parameters
    ----------
    scores : sequence of dict
        What `fold_scores` gave, one per fold.

    Returns
    -------
    dict
        `accuracy`, `class_mean`, `per_class` (mean over the folds that have the class), `confusion`, `n_files`.

    Raises
    ------
    ValueError
        If there are no folds, or they have different labels.
    """
    if not scores:
        raise ValueError("no folds to average, expected at least one")
    labels = list(scores[0]["per_class"])
    if any(list(one["per_class"]) != labels for one in scores):
        raise ValueError("the folds have different labels: are they of different datasets?")
    per_class = {}
    for label in labels:
        found = [one["per_class"][label] for one in scores if one["per_class"][label] is not None]
        per_class[label] = float(np.mean(found)) if found else None
    return {
        "accuracy": float(np.mean([one["accuracy"] for one in scores])),
        "class_mean": float(np.mean([one["class_mean"] for one in scores])),
        "per_class": per_class,
        "confusion": np.sum([one["confusion"] for one in scores], axis=0).tolist(),
        "n_files": sum(one["n_files"] for one in scores),
    }


# --- the vote ---


def majority_vote(scores):
    """The class that most windows of a file name.

    Parameters
    ----------
    scores : array-like [shape=(n_windows, n_classes)]
        Logits; the largest of a row is that window's answer.

    Returns
    -------
    int
        Among classes with equally many votes the one with the largest mean probability, so that no class wins by its
        place in the alphabet.

    Raises
    ------
    ValueError
        If there is no window, or a score is not finite.
    """
    scores = torch.as_tensor(scores).double()
    if scores.ndim != 2 or len(scores) == 0 or not torch.isfinite(scores).all():
        raise ValueError(
            f"scores of shape {tuple(scores.shape)}: expected (n_windows, n_classes), at least one window, all finite; "
            "is the file shorter than a window, or did training diverge?"
        )
    votes = torch.bincount(scores.argmax(dim=1), minlength=scores.shape[1])
    tied = votes == votes.max()
    return int(torch.where(tied, scores.softmax(dim=1).mean(dim=0), -1.0).argmax())


@torch.inference_mode()
def vote(model, store, tracks):
    """Answers of a network of short windows for whole files: all windows are asked, the majority counts.

    Parameters
    ----------
    model : Module
        With `sample_rate` and windows(wave (B, n_samples)) -> (B, n_windows, n_classes).
    store : bench.store.Store, or WithoutSpans of it
    tracks : sequence of Track

    Returns
    -------
    answers : np.ndarray of int [shape=(n_tracks,)]
    share : np.ndarray, float [shape=(n_tracks,)]
        Of the windows that agree with the answer.
    """
    device, was_training = next(model.parameters()).device, model.training
    model.eval()
    answers, shares = [], []
    try:
        for track in progress(tracks, what="voting", unit="files"):
            wave = scoring.read_track(store, track, model.sample_rate)
            scores = model.windows(wave.unsqueeze(0).to(device))[0].float().cpu()
            answers.append(majority_vote(scores))
            shares.append(float((scores.argmax(dim=1) == answers[-1]).float().mean()))
    finally:
        model.train(was_training)
    return np.array(answers, dtype=np.int64), np.array(shares)


@torch.inference_mode()
def votes(model, store, tracks):
    """What the windows of whole files say, as scores: the vote of `vote` with numbers of every class.

    Parameters
    ----------
    model, store, tracks
        As in `vote`.

    Returns
    -------
    np.ndarray, float32 [shape=(n_tracks, n_classes)]
        Shares of the windows, those of a file adding up to one. The file's mean probability counts as one more window,
        so that the largest share is the answer of `majority_vote`, ties included.

    Told in: notebooks/50_scene_systems.ipynb
    """
    device, was_training = next(model.parameters()).device, model.training
    model.eval()
    rows = []
    try:
        for track in progress(tracks, what="voting", unit="files"):
            wave = scoring.read_track(store, track, model.sample_rate)
            scores = model.windows(wave.unsqueeze(0).to(device))[0].double().cpu()
            rows.append(vote_shares(scores))
    finally:
        model.train(was_training)
    return np.stack(rows).astype(np.float32)


def vote_shares(scores):
    """Logits of a file's windows (n_windows, n_classes) as shares of the vote: np.ndarray (n_classes,)."""
    majority_vote(scores)  # its checks
    scores = torch.as_tensor(scores).double()
    counts = torch.bincount(scores.argmax(dim=1), minlength=scores.shape[1])
    return ((counts + scores.softmax(dim=1).mean(dim=0)) / (len(scores) + 1)).numpy()


class WithoutSpans:
    """A store seen without the spans that its tracks are to be heard without: a view, nothing is decoded or copied.

    Positions and lengths are those of what remains, joined; so a crop never holds a marked span, and may cross a joint.

    Parameters
    ----------
    store : bench.store.Store
    tracks : sequence of Track
        `dcase2016.SceneTrack` with their `cut`; tracks without one are as in the store.

    Raises
    ------
    ValueError
        If the spans of a track cover all of it.
    """

    def __init__(self, store, tracks):
        self.store = store
        self.pieces = {track.id: self._remains(track) for track in tracks if getattr(track, "cut", ())}

    def _remains(self, track):
        """[(first, end)] of what remains of a track [samples]."""
        rate, n_samples = self.store.sample_rate(track.id), self.store.n_samples(track.id)
        found, at = [], 0
        for onset, offset in track.cut:
            found.append((at, min(int(onset * rate), n_samples)))
            at = min(math.ceil(offset * rate), n_samples)
        found = [(first, end) for first, end in [*found, (at, n_samples)] if end > first]
        if not found:
            raise ValueError(f"the spans {track.cut} cover all of track {track.id}: read with errors='drop'")
        return found

    @property
    def ids(self):
        return self.store.ids

    @property
    def folder(self):
        return self.store.folder

    @property
    def failed(self):
        return self.store.failed

    def __len__(self):
        return len(self.store)

    def __contains__(self, track_id):
        return track_id in self.store

    def sample_rate(self, track_id):
        """Native rate of a track [Hz]."""
        return self.store.sample_rate(track_id)

    def n_channels(self, track_id):
        """Channels of a track."""
        return self.store.n_channels(track_id)

    def n_samples(self, track_id):
        """Length of what remains of a track at its native rate [samples]."""
        if track_id not in self.pieces:
            return self.store.n_samples(track_id)
        return sum(end - first for first, end in self.pieces[track_id])

    def read(self, track_id, start=0, n_samples=None, mono=True):
        """Read a clip of what remains, as bench.store.Store.read does.

        Raises
        ------
        ValueError
            As there.
        """
        if track_id not in self.pieces:
            return self.store.read(track_id, start, n_samples, mono)
        there = self.n_samples(track_id)
        n_samples = there - start if n_samples is None else n_samples
        if start < 0 or n_samples <= 0 or start + n_samples > there:
            raise ValueError(
                f"clip of {n_samples} samples from {start} does not lie in {track_id}, of which {there} samples remain "
                f"at {self.sample_rate(track_id)} Hz: is the track too short, or the start at another rate?"
            )
        found = []
        for first, end in self.pieces[track_id]:
            first, start = first + start, max(0, start - (end - first))
            n_here = min(end - first, n_samples)
            if n_here > 0:
                found.append(self.store.read(track_id, first, n_here, mono))
                n_samples -= n_here
        return np.concatenate(found, axis=-1)


# --- the challenge's baseline ---


class MixtureBaseline:
    """One Gaussian mixture per scene over standardised MFCC frames; a file is the likeliest scene of all its frames.

    Parameters
    ----------
    n_components : int
        Gaussians per scene, each with a diagonal covariance.
    seed : int
        Of the initialisation by k-means.

    Attributes
    ----------
    mixtures : list of sklearn GaussianMixture, by class
    """

    def __init__(self, n_components=N_COMPONENTS, seed=0):
        self.n_components, self.seed = n_components, seed
        self.mixtures = []

    def fit(self, frames, classes, n_classes):
        """Learn from training files.

        Parameters
        ----------
        frames : sequence of np.ndarray, float [shape=(n_frames, n_features)]
            One per file.
        classes : sequence of int
            One per file.
        n_classes : int

        Returns
        -------
        MixtureBaseline
            Itself.

        Raises
        ------
        ValueError
            If the numbers of files differ, a class has no file or fewer frames than Gaussians, or a number is not
            finite.

        Warns
        -----
        UserWarning
            Counting the scenes whose mixture was still changing after 40 iterations, the baseline's limit.
        """
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.mixture import GaussianMixture

        if len(frames) != len(classes) or not len(frames):
            raise ValueError(
                f"{len(frames)} files for {len(classes)} classes: need one class per file, and at least one"
            )
        everything = np.concatenate(frames)
        if not np.isfinite(everything).all():
            raise ValueError("a frame holds NaN or infinite numbers: is a file damaged?")
        self.mean, self.deviation = everything.mean(axis=0), everything.std(axis=0, ddof=1)
        self.deviation = np.where(self.deviation > 0, self.deviation, 1.0)
        self.mixtures, n_unfinished = [], 0
        for scene in progress(range(n_classes), what="fitting mixtures", unit="scenes"):
            own = [one for one, its in zip(frames, classes, strict=True) if its == scene]
            n_frames = sum(map(len, own))
            if n_frames < max(2, self.n_components):
                raise ValueError(
                    f"class {scene} has {len(own)} training files with {n_frames} frames, expected at least "
                    f"{self.n_components} frames for as many Gaussians: take more files or fewer components"
                )
            mixture = GaussianMixture(
                self.n_components, covariance_type="diag", tol=1e-3, reg_covar=MIN_VARIANCE, max_iter=N_ITERATIONS,
                random_state=self.seed,
            )  # fmt: skip
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                mixture.fit((np.concatenate(own) - self.mean) / self.deviation)
            n_unfinished += not mixture.converged_
            self.mixtures.append(mixture)
        if n_unfinished:
            warnings.warn(
                f"the mixtures of {n_unfinished} of {n_classes} scenes had not settled after {N_ITERATIONS} "
                "iterations, where the challenge's baseline stops",
                stacklevel=2,
            )
        return self

    def log_likelihoods(self, frames):
        """Log likelihood of a file's frames (n_frames, n_features) under each scene: np.ndarray (n_classes,).

        Raises
        ------
        ValueError
            If nothing was fitted yet.
        """
        if not self.mixtures:
            raise ValueError("the baseline has not been fitted: call fit(frames, classes, n_classes) first")
        frames = (frames - self.mean) / self.deviation
        return np.array([mixture.score_samples(frames).sum() for mixture in self.mixtures])

    def answer(self, frames):
        """The scene of a file: int."""
        return int(self.log_likelihoods(frames).argmax())


def mfcc_frames(wave, sample_rate=SAMPLE_RATE):
    """The baseline's 60 numbers a frame: 20 MFCC with the zeroth, their deltas, the deltas of these.

    Frames of 40 ms every 20 ms, Hamming window, 40 mel bands on Slaney's scale up to half the rate, dB with at most
    80 dB below the loudest; deltas are regressions over nine frames.

    Parameters
    ----------
    wave : array-like, float [shape=(n_samples,)]
    sample_rate : int [Hz]

    Returns
    -------
    np.ndarray, float32 [shape=(n_frames, 60)]

    Raises
    ------
    ValueError
        If the audio is not one-dimensional, not finite, or too short for nine frames.
    """
    wave = torch.as_tensor(wave, dtype=torch.float32)
    least = int(DELTA_FRAMES * HOP_S * sample_rate)
    if wave.ndim != 1 or len(wave) < least:
        raise ValueError(f"audio of shape {tuple(wave.shape)}: expected (n_samples,), mono, at least {least} samples")
    if not torch.isfinite(wave).all():
        raise ValueError("the audio holds NaN or infinite samples: is the file damaged?")
    mfcc = _mfcc(sample_rate)(wave)
    delta = torchaudio.functional.compute_deltas(mfcc, DELTA_FRAMES)
    acceleration = torchaudio.functional.compute_deltas(delta, DELTA_FRAMES)
    return torch.cat([mfcc, delta, acceleration]).T.contiguous().numpy()


def mixture_answers(train, test, store, n_components=N_COMPONENTS, seed=0):
    """Train the baseline on some tracks and answer for others: the largest of `mixture_scores`.

    Returns
    -------
    np.ndarray of int [shape=(n_test,)]
    """
    return mixture_scores(train, test, store, n_components, seed).argmax(axis=1)


def mixture_scores(train, test, store, n_components=N_COMPONENTS, seed=0):
    """Train the baseline on some tracks and score others.

    Parameters
    ----------
    train, test : sequence of Track
        With one-hot targets.
    store : bench.store.Store, or WithoutSpans of it
    n_components, seed
        As in MixtureBaseline.

    Returns
    -------
    np.ndarray, float32 [shape=(n_test, n_classes)]
        Probabilities of a frame's mean log likelihood under each scene. Over all frames together the likeliest scene is
        the same, but its probability would be 1 to the last digit.

    Told in: notebooks/50_scene_systems.ipynb
    """

    def frames(tracks, what):
        return [
            mfcc_frames(scoring.read_track(store, track, SAMPLE_RATE))
            for track in progress(tracks, what=what, unit="files")
        ]

    classes = datasets.targets(train)
    baseline = MixtureBaseline(n_components, seed)
    baseline.fit(frames(train, "MFCC of training files"), classes.argmax(axis=1), classes.shape[1])
    heard = frames(test, "MFCC of test files")
    means = np.stack([baseline.log_likelihoods(one) / len(one) for one in heard])
    return torch.from_numpy(means).softmax(dim=1).numpy().astype(np.float32)


@functools.cache
def _mfcc(sample_rate):
    """The transform from wave to MFCC (20, n_frames)."""
    return torchaudio.transforms.MFCC(
        sample_rate,
        N_MFCC,
        melkwargs={
            "n_fft": max(N_FFT, 1 << (int(FRAME_S * sample_rate) - 1).bit_length()),
            "win_length": int(FRAME_S * sample_rate),
            "hop_length": int(HOP_S * sample_rate),
            "n_mels": N_MELS,
            "window_fn": torch.hamming_window,
            "norm": "slaney",
            "mel_scale": "slaney",
        },
    )
