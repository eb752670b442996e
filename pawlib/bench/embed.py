"""Every track of a store through a frozen encoder, once: clip features for the probes.

    features = embed.splits(model, corpus, levels="shortest")       # {"train": ClipFeatures, "valid": ..., "test": ...}

Which clips (reading R11). A track is cut into clips of a level's length, side by side; where they do not fill it, one
more clip ends with the track, so that no tail is dropped and, but for tracks shorter than a clip, nothing is repeated.
    "shortest"   the clips of the last level: 11 of 2.8 s in 29.124 s (the paper's protocol, as PEMR and CLMR have it)
    "top"        the wholes: 2 of 22.4 s
    "concat"     one row per track: the mean of each level's clips, side by side
    2            the clips of level 2, whatever the model calls its last

Told in: notebooks/30_linear_probe_mtat.ipynb
"""

import contextlib
import hashlib
import inspect
import json
import math

import numpy as np
import safetensors
import safetensors.torch
import torch

from pawlib import augment, crops, paths
from pawlib.bench import datasets, loop, scoring
from pawlib.bench.files import atomic
from pawlib.bench.progress import progress
from pawlib.bench.protocols import ClipFeatures, one_thread, pool_tracks

LEVELS = ("shortest", "top", "concat")
BATCH_CLIPS = 64
SAME = 0.01  # relative distance of a track's features, kept and made again, see _still_made


def splits(model, corpus, levels="shortest", cache=True):
    """Clip features of the three splits of a corpus.

    Parameters
    ----------
    model : MusicPAW, or any module with sample_rate, n_levels, n_parts, n_whole and embed_clips(clips, level)
        Where crops of training are longer than the clips that are embedded, n_clip says how long those are.
    corpus : corpora.Corpus
    levels : "shortest" | "top" | "concat" | int
        By name, or a single level by its number, 0 .. n_levels - 1; the last is "shortest", 0 is "top".
    cache : bool
        Keep the features beside the store, under the fingerprint of weights, settings and tracks, and take them from
        there next time, if this code still makes the same of the first track: ten probes of a checkpoint cost one pass.

    Returns
    -------
    dict {"train" | "valid" | "test": protocols.ClipFeatures}

    Raises
    ------
    ValueError
        For an unknown `levels`, or a level that the model has not.
    """
    chosen = _chosen(levels, model)
    parts = {part: getattr(corpus.splits, part) for part in ("train", "valid", "test")}
    per_level = {
        part: [_features(model, corpus, tracks, level, f"{part} level {level}", cache) for level in chosen]
        for part, tracks in parts.items()
    }
    return {part: _joined(features, parts[part], levels) for part, features in per_level.items()}


def statistics(function, corpus, cache=True):
    """Features that need no encoder, one row per track: `function(wave, sample_rate)`, e.g. of bench.baselines.

    Parameters
    ----------
    function : callable (wave [shape=(n_samples,)], sample_rate) -> array [shape=(width,)]
    corpus : corpora.Corpus
    cache : bool
        As in `splits`, under the function's name and source.

    Returns
    -------
    dict {"train" | "valid" | "test": protocols.ClipFeatures}
    """
    source = inspect.getsource(inspect.getmodule(function))
    made = {}
    for part in ("train", "valid", "test"):
        tracks = getattr(corpus.splits, part)
        name = hashlib.sha256(json.dumps([function.__name__, source, [t.id for t in tracks]]).encode()).hexdigest()[:32]

        def compute(tracks=tracks, part=part):
            what = f"{function.__name__.replace('_', ' ')}, {part}"
            with one_thread():  # a track is too little work to share
                rows = [
                    function(corpus.store.read(t.id), corpus.store.sample_rate(t.id))
                    for t in progress(tracks, what=what, unit="tracks")
                ]
            return torch.from_numpy(np.stack(rows).astype(np.float32)), torch.arange(len(tracks))

        made[part] = _as_clips(*_kept(corpus, name, compute, cache), tracks)
    return made


@torch.no_grad()
def calibrate(model, corpus, n_batches=50, seed=0):
    """Give an encoder that was never trained the batch-norm statistics of the training songs; no weight changes.

    Without them its layers would add up whatever scale the random weights have, and a random encoder would be a worse
    rival than it is. Each batch holds every clip of every level of two songs, as joint batches in training do (R14);
    of a system with one length of clip, the clips of one crop.

    Parameters
    ----------
    model : MusicPAW, or a system of `systems/pretraining`
    corpus : corpora.Corpus
    n_batches : int > 0
        With batch norm's momentum of 0.1, 50 leave half a per cent of where it began.
    seed : int
        Of the songs and their crops.
    """
    tracks = corpus.splits.train
    n_clip = getattr(model, "n_clip", None)
    model.train() if n_clip else model.encoder.train()
    for step in range(n_batches):
        keys = [augment.sample_key(seed, step, song) for song in range(2)]
        songs = [tracks[key % len(tracks)].id for key in keys]
        waves = [
            loop.crop(corpus.store, s, model.sample_rate, model.n_whole, k) for s, k in zip(songs, keys, strict=True)
        ]
        waves = torch.from_numpy(np.stack(waves))
        with computing_fast(model):
            if n_clip:
                model.embed_clips(torch.cat([clips_of(wave, n_clip) for wave in waves]))
            else:
                tree = crops.hierarchical_crops(waves, model.n_levels, model.n_parts)
                model.encoder(torch.cat([model.mels.level(n, level).flatten(0, 1) for n, level in enumerate(tree)]))
    model.eval()


def encode_clips(tracks, clips, encode, batch, what):
    """Encode the clips of tracks, some tracks together.

    Parameters
    ----------
    tracks : list of Track
    clips : callable (Track) -> Tensor [shape=(n_clips of the track, n_samples)]
    encode : callable (Tensor [shape=(K, n_samples)]) -> Tensor [shape=(K, D)]
        Gets whole tracks, as many as give `batch` clips or more.
    batch : int > 0
    what : str
        For the progress line.

    Returns
    -------
    x : Tensor [shape=(n_clips, D)]
    track_index : int Tensor [shape=(n_clips,)]
        Row of `tracks` that each clip is of.
    """
    rows, index, waiting = [], [], []
    for i, track in enumerate(progress(tracks, what=what, unit="tracks")):
        waiting.append(clips(track))
        index.append(torch.full((len(waiting[-1]),), i))
        if sum(map(len, waiting)) >= batch or i == len(tracks) - 1:
            rows.append(encode(torch.cat(waiting)))
            waiting = []
    return torch.cat(rows), torch.cat(index)


def hash_weights(digest, module):
    """Add the names and values of a module's weights and statistics to a hash, whatever device and order they have."""
    for name, value in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().float().numpy().tobytes())


def clips_of(wave, n_clip):
    """Clips of `n_clip` samples that cover a track: side by side, and a last one that ends with it.

    Parameters
    ----------
    wave : Tensor [shape=(n_samples,)]
    n_clip : int [samples]

    Returns
    -------
    Tensor [shape=(ceil(n_samples / n_clip), n_clip)]
        A track shorter than one clip is repeated to fill it.
    """
    n_samples = wave.shape[-1]
    if n_samples < n_clip:
        return wave.repeat(math.ceil(n_clip / n_samples))[:n_clip].unsqueeze(0)
    clips = wave.unfold(0, n_clip, n_clip)
    if n_samples % n_clip:
        clips = torch.cat([clips, wave[-n_clip:].unsqueeze(0)])
    return clips


def _chosen(levels, model):
    """Numbers of the levels asked for."""
    named = {"shortest": [model.n_levels - 1], "top": [0], "concat": list(range(model.n_levels))}
    if levels in LEVELS:
        return named[levels]
    if isinstance(levels, bool) or levels not in range(model.n_levels):
        raise ValueError(
            f"levels={levels!r} is unknown, expected one of {LEVELS}, or a level of this model by number, "
            f"0 to {model.n_levels - 1} (reading R11)"
        )
    return [levels]


def _features(model, corpus, tracks, level, what, cache):
    """(x, track_index) of one level, from the cache or by a pass over the tracks."""
    name = _fingerprint(model, tracks, level)

    def still_made(x, track_index):
        return _still_made(model, corpus.store, tracks[0], level, x[track_index == 0])

    return _kept(corpus, name, lambda: _pass(model, corpus.store, tracks, level, what), cache, still_made)


def _kept(corpus, name, compute, cache, good=lambda *_: True):
    """What was computed under this name before, or now; what is damaged or no longer good is made again."""
    path = paths.store(corpus.name) / "features" / f"{name}.safetensors"
    kept = None
    if cache and path.is_file():
        with contextlib.suppress(safetensors.SafetensorError):
            kept = safetensors.torch.load_file(path)
    if kept and good(kept["x"], kept["track_index"]):
        return kept["x"], kept["track_index"]
    x, track_index = compute()
    if cache:
        with atomic(path) as part:
            safetensors.torch.save_file({"x": x, "track_index": track_index}, part)
    return x, track_index


def _still_made(model, store, track, level, kept):
    """Whether kept features of a track are what this code makes of it today.

    Weights, settings and tracks are in the name of the file, the code is not. Its text would be a poor key: a comment
    in a module would cost every corpus a new pass, and PyTorch, the resampler and the store, on which features depend
    as much, are not in it. So the first track is embedded once more, a quarter of a second, and compared. bf16 against
    float32 moves features by 0.3 to 0.5 %, a louder or shifted wave or one rounded to bf16 by more than SAME. What
    changes other tracks alone (a rule for short ones) is not seen: delete the store's `features` then.
    """
    model.eval()
    with torch.inference_mode(), computing_fast(model):
        again = model.embed_clips(_clips(model, store, track, level), level).float().cpu()
    return kept.shape == again.shape and bool((kept - again).norm() <= SAME * again.norm())


def _clips(model, store, track, level):
    """The clips of a track at a level, (n_clips, n_clip), at the model's rate."""
    n_clip = getattr(model, "n_clip", None) or model.n_whole // model.n_parts**level
    return clips_of(scoring.read_track(store, track, model.sample_rate), n_clip)


def _pass(model, store, tracks, level, what):
    """Embed tracks at a level: float32 (n_clips, D) and the track of each clip (n_clips,), on the CPU."""
    model.eval()
    with torch.inference_mode(), computing_fast(model):
        x, track_index = encode_clips(
            tracks,
            lambda track: _clips(model, store, track, level),
            lambda clips: model.embed_clips(clips, level),
            BATCH_CLIPS,
            f"embedding, {what}",
        )
    return x.float().cpu(), track_index


@contextlib.contextmanager
def computing_fast(model):
    """The memory order and, where the device has it, the bf16 products that make a frozen encoder fast."""
    model.to(memory_format=torch.channels_last)
    device = next(model.parameters()).device.type
    with torch.autocast(device, dtype=torch.bfloat16, enabled=loop.has_bf16(device)):
        yield


def _joined(features, tracks, levels):
    if levels != "concat":
        return _as_clips(*features[0], tracks)
    pooled = [pool_tracks(x, index, len(tracks))[0] for x, index in features]
    return _as_clips(torch.cat(pooled, dim=1), torch.arange(len(tracks)), tracks)


def _as_clips(x, track_index, tracks):
    return ClipFeatures(x, track_index, torch.from_numpy(datasets.targets(tracks)), tuple(t.id for t in tracks))


def _fingerprint(model, tracks, level):
    told = [model.settings, level, [t.id for t in tracks]]
    digest = hashlib.sha256(json.dumps(told, default=str).encode())
    hash_weights(digest, model.encoder)
    if hasattr(model, "pre_norm"):  # what an encoder hears may depend on statistics, too
        hash_weights(digest, model.pre_norm)
    return digest.hexdigest()[:32]
