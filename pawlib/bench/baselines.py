"""Cheap baselines: what can be heard without learning a representation.

    log_mel_statistics, mfcc_statistics    waveform -> mean and standard deviation over time
    random_fcn_4                           waveforms -> features of an FCN-4 that was never trained
    logistic_probe                         features -> scores, one logistic regression per tag

A learned encoder is worth something on a task only where it beats these. The generator of a twin is frozen on their
scores alone, see `pawlib/bench/twins/freeze.py`.

Told in: notebooks/01_data.ipynb, notebooks/30_linear_probe_mtat.ipynb
"""

import functools
import warnings

import numpy as np
import torch
import torchaudio

from pawlib import encoders, mels

N_FFT, HOP_LENGTH, N_MELS, N_MFCC = 1024, 512, 128, 20
CS = (0.001, 0.01, 0.1, 1.0)
CLIP_SAMPLES, WHOLE_SAMPLES = 44_800, 358_400


def log_mel_statistics(wave, sample_rate):
    """Mean and standard deviation over time of each band of a log-mel spectrogram: the average sound.

    Parameters
    ----------
    wave : array-like, float [shape=(n_samples,)]
    sample_rate : int [Hz]

    Returns
    -------
    np.ndarray, float32 [shape=(256,)]
        128 means, then 128 standard deviations, in dB.

    Raises
    ------
    ValueError
        If the audio is not one-dimensional, not finite, or shorter than one window.

    Told in: notebooks/01_data.ipynb
    """
    return _statistics(_front("mel", sample_rate)(_checked(wave)))


def mfcc_statistics(wave, sample_rate):
    """Mean and standard deviation over time of 20 MFCCs.

    Parameters, errors and what it is for: as `log_mel_statistics`.

    Returns
    -------
    np.ndarray, float32 [shape=(40,)]
    """
    return _statistics(_front("mfcc", sample_rate)(_checked(wave)))


@torch.inference_mode()
def random_fcn_4(waves, seed, clips="short", n_clips=8, batch=32):
    """Features of an untrained FCN-4, its batch norms calibrated on the first waveforms.

    Parameters
    ----------
    waves : sequence of float arrays [shape=(n_samples,)], at 16 kHz
        Only their first 22.4 s are heard.
    seed : int
        Of the encoder's weights.
    clips : "short" | "whole"
        "short": the mean over `n_clips` evenly spread clips of 2.8 s. "whole": one embedding of the 22.4 s, its hop
        eight times as long.
    n_clips : int in 1..8
    batch : int
        Songs at a time.

    Returns
    -------
    np.ndarray, float32 [shape=(n_waves, 512)]

    Raises
    ------
    ValueError
        If `clips` is not known.

    Told in: notebooks/01_data.ipynb
    """
    if clips not in ("short", "whole"):
        raise ValueError(f'clips={clips!r} is unknown, expected "short" or "whole"')
    torch_state = torch.random.get_rng_state()
    torch.manual_seed(seed)
    encoder = encoders.FCN4().to(memory_format=torch.channels_last)
    torch.random.set_rng_state(torch_state)
    front = mels.LogMel(hop_length=128 if clips == "short" else 1024)
    chosen = np.linspace(0, 7, n_clips).round().astype(int)

    def heard(some):
        """(songs * clips, 1, 128, 351)"""
        x = torch.stack([torch.as_tensor(np.asarray(wave[:WHOLE_SAMPLES]), dtype=torch.float32) for wave in some])
        if clips == "short":
            x = x.unflatten(-1, (8, CLIP_SAMPLES))[:, chosen].flatten(0, 1)
        return front(x).unsqueeze(1)

    def encode(some):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return encoder(heard(some)).float()

    for module in encoder.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0  # the statistics of the one calibration batch
    encoder.train()
    encode([waves[k] for k in range(min(batch, len(waves)))])
    encoder.eval()
    found = [encode([waves[j] for j in range(k, min(k + batch, len(waves)))]) for k in range(0, len(waves), batch)]
    features = torch.cat(found)
    return features.unflatten(0, (len(waves), -1)).mean(1).numpy()


def logistic_probe(train_x, train_y, valid_x, valid_y, test_x, cs=CS):
    """One logistic regression per tag on standardised features; C is chosen on validation, one for all tags.

    Parameters
    ----------
    train_x, valid_x, test_x : np.ndarray, float [shape=(n, n_features)]
    train_y, valid_y : np.ndarray of 0 and 1 [shape=(n, n_tags)]
    cs : sequence of float > 0
        Values of C to try, inverse strength of the L2 penalty.

    Returns
    -------
    np.ndarray, float64 [shape=(n_test, n_tags)]
        Scores (log odds) of the test clips. A tag that has one class only in training gets 0 everywhere.

    Raises
    ------
    ValueError
        If features and targets do not fit each other, naming both shapes.

    Told in: notebooks/01_data.ipynb
    """
    from sklearn.preprocessing import StandardScaler

    for name, x, y in (("train", train_x, train_y), ("valid", valid_x, valid_y)):
        if len(x) != len(y) or np.ndim(y) != 2:
            raise ValueError(
                f"{name}: features {np.shape(x)} and targets {np.shape(y)}, expected one row of targets each"
            )
    scale = StandardScaler().fit(train_x)
    train_x, valid_x, test_x = (scale.transform(x) for x in (train_x, valid_x, test_x))
    tried = [(_macro_roc_auc(valid_y, _fit(train_x, train_y, valid_x, c)), -c, c) for c in cs]
    return _fit(train_x, train_y, test_x, max(tried)[2])


def _fit(train_x, train_y, x, c):
    """Log odds of every tag for x."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    scores = np.zeros((len(x), train_y.shape[1]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for tag in range(train_y.shape[1]):
            if 0 < train_y[:, tag].sum() < len(train_y):
                model = LogisticRegression(C=c, max_iter=200).fit(train_x, train_y[:, tag])
                scores[:, tag] = model.decision_function(x)
    return scores


def _macro_roc_auc(targets, scores):
    """Mean ROC-AUC of the tags that have both classes; 0.5 if none has."""
    from sklearn.metrics import roc_auc_score

    both = [tag for tag in range(targets.shape[1]) if 0 < targets[:, tag].sum() < len(targets)]
    return float(np.mean([roc_auc_score(targets[:, tag], scores[:, tag]) for tag in both])) if both else 0.5


def _checked(wave):
    """The waveform as a float32 tensor."""
    wave = torch.as_tensor(np.asarray(wave), dtype=torch.float32)
    if wave.ndim != 1 or len(wave) < N_FFT:
        raise ValueError(
            f"audio of shape {tuple(wave.shape)}: expected (n_samples,), at least {N_FFT}; was it mixed down to mono?"
        )
    if not torch.isfinite(wave).all():
        raise ValueError("the audio holds NaN or infinite samples: is the file damaged?")
    return wave


@functools.cache
def _front(kind, sample_rate):
    """The transform from waveform to a picture [shape=(n_rows, n_frames)]."""
    mel = {"n_fft": N_FFT, "hop_length": HOP_LENGTH, "n_mels": N_MELS}
    if kind == "mfcc":
        return torchaudio.transforms.MFCC(sample_rate, N_MFCC, log_mels=False, melkwargs=mel)
    return torch.nn.Sequential(
        torchaudio.transforms.MelSpectrogram(sample_rate, **mel), torchaudio.transforms.AmplitudeToDB(top_db=80)
    )


def _statistics(picture):
    """Mean and standard deviation over time, one after the other."""
    return torch.cat([picture.mean(-1), picture.std(-1, correction=0)]).numpy()
