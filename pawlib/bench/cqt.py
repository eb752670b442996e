"""The constant-Q spectrogram that all cover-song systems hear, computed once and kept (Yu 2019, 2020; Table 4).

Conventions
    wave : float32 (n_samples,), mono, any rate; resampled to 22,050 Hz.
    cqt  : float32 (84, n_frames): magnitude of 84 semitones from C1 (32.7 Hz) to B7, hop 512, then the mean of every 20
           frames (0.464 s), then divided by the song's maximum. A rest of fewer than 20 frames is dropped.
    So a song of 4 minutes is 84 x 516 numbers, loudness is gone, and a song a semitone higher is the same picture a row
    higher.

Files, beside the store's shards
    cqt/<key>.npy   one track; the key tells rate, length and a second of the track, settings, and librosa's version.
                    Written atomically: whoever is stopped goes on with the next track.
"""

import dataclasses
import functools
import hashlib
import importlib.metadata
import json
import os
import signal
import threading
import time
from concurrent.futures import ProcessPoolExecutor

import numpy as np

from pawlib.bench import audio
from pawlib.bench.files import atomic
from pawlib.bench.progress import progress

SAMPLE_RATE, HOP_LENGTH, N_BINS, N_MEAN = 22_050, 512, 84, 20
MIN_SECONDS = 1.0  # the lowest semitone's filter is 0.5 s long
SILENCE = 1e-5  # -100 dB of a full-scale sine
VERSION = 1
FEW = 8  # tracks that one process has done before others have started


@dataclasses.dataclass
class Cqts:
    """Constant-Q spectrograms of some tracks.

    ids      : tuple of str, the tracks that have one, in the order asked for
    cqts     : list of float32 arrays (84, n_frames)
    left_out : list of {"id", "path", "reason"}, tracks that have none
    """

    ids: tuple
    cqts: list
    left_out: list


def cqt(wave, sample_rate, n_mean=N_MEAN):
    """The feature of one wave.

    Parameters
    ----------
    wave : array-like, float [shape=(n_samples,)]
    sample_rate : int [Hz]
    n_mean : int > 0
        Frames of 512 samples that become one; 20 as published. Fewer for excerpts of some seconds.

    Returns
    -------
    np.ndarray, float32 [shape=(84, n_frames)]
        Between 0 and 1, 1 where it is loudest.

    Raises
    ------
    ValueError
        If the wave is not one-dimensional, not finite, shorter than 1 s, or silent.

    Source: Yu et al. 2020, Sec. 2; librosa (McFee 2015) for the transform.
    """
    import librosa  # takes seconds to import, and whoever reads kept features does not need it

    wave = audio.resample(_checked(wave, sample_rate), sample_rate, SAMPLE_RATE)
    magnitude = np.abs(librosa.cqt(wave, sr=SAMPLE_RATE, hop_length=HOP_LENGTH, n_bins=N_BINS, bins_per_octave=12))
    n_frames = magnitude.shape[1] // n_mean
    if n_frames == 0:
        raise ValueError(
            f"a wave of {len(wave) / SAMPLE_RATE:.2f} s has {magnitude.shape[1]} frames, too few for one mean of "
            f"{n_mean}: take a smaller n_mean, or a longer wave"
        )
    means = magnitude[:, : n_frames * n_mean].reshape(N_BINS, n_frames, n_mean).mean(axis=2)
    loudest = means.max()
    if loudest <= SILENCE:
        raise ValueError(f"the wave is silent: its loudest semitone is {loudest:.1e}")
    return (means / loudest).astype(np.float32)


def features(tracks, store, n_mean=N_MEAN, n_workers=None, cache=True):
    """The feature of every track, in parallel, from the store or from where it was kept.

    Nothing that is kept is computed again, and a run that was stopped loses the tracks it was working on. What cannot
    be used (too short, silent) is named and left out; it never ends the run.

    Parameters
    ----------
    tracks : sequence of Track
    store : bench.store.Store
    n_mean : int > 0
    n_workers : int, optional
        Processes; all cores if not given, 0 computes in this process.
    cache : bool
        Keep the features in the store's folder, and take them from there.

    Returns
    -------
    Cqts
        In memory: 175 kB for 4 minutes, 2 GB for SHS100K-SUB.

    Raises
    ------
    ValueError
        If no track is left.
    """
    tracks = list(tracks)
    paths = {track.id: _path(store, track.id, n_mean) for track in tracks if track.id in store}
    there = {track_id for track_id, path in paths.items() if cache and path.is_file()}
    found = {track_id: kept for track_id in there if (kept := _kept(paths[track_id])) is not None}
    missing = [track_id for track_id in paths if track_id not in found]
    reasons = {track.id: "is not in the store: it could not be decoded" for track in tracks if track.id not in store}
    work = functools.partial(_compute, store, n_mean, paths if cache else None)
    told = progress(_run(work, missing, n_workers), total=len(missing), what="CQT", unit="songs")
    for track_id, made, reason in told:
        if reason is None:
            found[track_id] = made
        else:
            reasons[track_id] = reason
    left_out = [
        {"id": t.id, "path": audio.printable(t.path), "reason": reasons[t.id]} for t in tracks if t.id in reasons
    ]
    ids = tuple(track.id for track in tracks if track.id in found)
    if not ids:
        first = f", the first because it {left_out[0]['reason']}" if left_out else ""
        raise ValueError(f"none of {len(tracks)} tracks has a CQT{first}")
    return Cqts(ids, [found[track_id] for track_id in ids], left_out)


# --- one track, in whatever process ---


def _checked(wave, sample_rate):
    wave = np.asarray(wave, dtype=np.float32)
    if wave.ndim != 1:
        raise ValueError(f"the wave has shape {wave.shape}, expected (n_samples,): mix it down first")
    if len(wave) < MIN_SECONDS * sample_rate:
        raise ValueError(f"the wave is too short: {len(wave) / sample_rate:.2f} s, expected at least {MIN_SECONDS:g} s")
    if not np.isfinite(wave).all():
        raise ValueError(f"sample {int(np.argmin(np.isfinite(wave)))} is NaN or infinite: is the file damaged?")
    return wave


def _compute(store, n_mean, paths, track_id):
    """(id, feature or None, reason or None); the feature is kept where `paths` says."""
    try:
        made = cqt(store.read(track_id), store.sample_rate(track_id), n_mean)
    except ValueError as error:
        return track_id, None, str(error)
    if paths is not None:
        with atomic(paths[track_id]) as part, open(part, "wb") as file:
            np.save(file, made, allow_pickle=False)
    return track_id, made, None


def _run(work, missing, n_workers):
    """Work on the tracks; results in whatever order they are ready."""
    n_workers = len(os.sched_getaffinity(0)) if n_workers is None else n_workers
    if n_workers == 0 or len(missing) <= FEW:
        yield from map(work, missing)
        return
    n_workers = min(n_workers, len(missing))
    with ProcessPoolExecutor(n_workers, initializer=_start_worker, initargs=(os.getpid(),)) as pool:
        try:
            yield from pool.map(work, missing, chunksize=4)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _start_worker(parent):
    """Leave Ctrl-C to the parent, and end with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch():
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


# --- what is kept ---


def _path(store, track_id, n_mean):
    """File of a track's feature, under everything it depends on."""
    n_samples, rate = store.n_samples(track_id), store.sample_rate(track_id)
    middle = store.read(track_id, max(0, (n_samples - rate) // 2), min(rate, n_samples))
    settings = [VERSION, SAMPLE_RATE, HOP_LENGTH, N_BINS, n_mean, importlib.metadata.version("librosa")]
    digest = hashlib.sha256(json.dumps([*settings, track_id, n_samples, rate]).encode())
    digest.update(middle.tobytes())
    return store.folder / "cqt" / f"{digest.hexdigest()[:32]}.npy"


def _kept(path):
    """A kept feature, or None where the file is damaged: it is then made again."""
    try:
        return np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError):
        return None
