"""Cover songs: training that tells songs apart, and an embedding per recording (paper Sec. 4.4, Table 4).

What it asks of a system (all of systems.names("covers") have it)
    model(cqt (B, 1, 84, n_frames)) -> embedding (B, 300); model.logits(embedding) -> (B, n_classes)
    model.min_frames      shorter songs are filled with zeros to so many frames, as published
    model.needs_clips     model(cqt, clips) instead: log-mels (B, n_clips, 1, 128, 351), from model.log_mels(waves
                          (B, n_clips, n_samples)) at model.sample_rate; or features (B, n_clips, 512)
    model.settings        what builds it again, for the checkpoint's card

Training as CQT-Net's (Yu 2020): classes are the training songs (works), cross-entropy; each batch has crops of one
length, 200, 300 and 400 frames in turn; a song is slowed down or sped up by interpolation, cropped, and loses two bands
of up to 24 semitones to zeros; Adam. Validation songs are others than the training songs: what is asked of them is
retrieval. Where ours differs: the rate falls on the validation MAP (theirs on the training loss), and the weights
with the best validation MAP are kept. At small, where 483 recordings are heard in minutes, songs are also moved to
other keys, the rate falls by a cosine, and CQT-Net is narrow: one recipe for all systems, chosen on the validation list
(reading R55).

The loop is that of training.py: files, resuming. What finds covers without learning stands in cover_baselines.py.

Randomness. For each length songs come in passes, each in an order drawn from (seed, length, pass); a song's speed,
crop, key, bands and clips are drawn from (seed, length, pass, song).

Told in: notebooks/40_cover_songs.ipynb
"""

import dataclasses
import hashlib
import itertools
import json
import math
from pathlib import Path

import numpy as np
import torch

from pawlib import augment, checkpoints, systems
from pawlib.bench import embed as embedding
from pawlib.bench import loop, retrieval, training
from pawlib.bench.progress import progress

KIND = "cover"  # of checkpoints
BATCH_SONGS, BATCH_CLIPS = 8, 64  # embedded at once
PUBLISHED = {
    "lengths": (200, 300, 400),
    "speed": (0.7, 1.3),
    "n_masks": 2,
    "mask_bins": 24,
    "n_epochs": 100,
    "batch_size": 32,
    "learning_rate": 1e-3,
    "weight_decay": 1e-5,
    "n_clips": 8,  # of 2.8 s; ours: the paper does not say what its FCN-4 hears of a song
}
SCALES = {
    "toy": {**PUBLISHED, "lengths": (200,), "n_epochs": 2, "batch_size": 4, "steps_per_epoch": 2, "n_clips": 1},
    "small": {
        **PUBLISHED,
        "lengths": (200,),
        "n_epochs": 50,
        "batch_size": 16,
        "n_clips": 1,
        "semitones": 6,
        "schedule": "cosine",
    },  # reading R55
    "paper": PUBLISHED,
}
PLATEAU, FALL, LEAST_RATE = 3, 0.8, 5e-6  # published: the rate times .8 after more than two epochs not better
WARM_UP = 50  # steps in which the rate of the schedule "cosine" rises to its height
VALID_CLIPS = 4  # of a song that a validation hears at least: one says little of a song that is heard whole in the test
SCHEDULES = ("plateau", "cosine")
ORDER, DRAW, CLIP, KEY = 1, 2, 3, 4  # what keys are mixed with, so that their draws share nothing


@dataclasses.dataclass(eq=False)
class Songs:
    """What systems and baselines hear of some recordings.

    ids           : tuple of str (n,)
    works         : tuple of str (n,), what covers of one song share
    cqts          : list of n float32 arrays (84, n_frames), from bench.cqt
    store         : bench.store.Store, for systems that hear clips, too
    clip_features : list of n float32 arrays (n_clips, 512), in place of the clips: what a frozen encoder made of them
    """

    ids: tuple
    works: tuple
    cqts: list
    store: object = None
    clip_features: list | None = None

    def __len__(self):
        return len(self.ids)


def songs(tracks, found, store=None, clip_features=None):
    """Tracks and their CQTs as `Songs`; tracks without a CQT are left out.

    Parameters
    ----------
    tracks : sequence of Track
    found : cqt.Cqts
    store : bench.store.Store, optional
    clip_features : dict {track id: array (n_clips, 512)}, optional
    """
    cqts = dict(zip(found.ids, found.cqts, strict=True))
    heard = [track for track in tracks if track.id in cqts]
    return Songs(
        tuple(track.id for track in heard),
        tuple(track.work for track in heard),
        [cqts[track.id] for track in heard],
        store,
        None if clip_features is None else [clip_features[track.id] for track in heard],
    )


def recipe(scale, **changes):
    """Arguments of `train` at a scale, with changes.

    Raises
    ------
    ValueError
        For an unknown scale.
    """
    if scale not in SCALES:
        raise ValueError(f"scale={scale!r} is unknown, expected one of {', '.join(SCALES)}")
    return {**SCALES[scale], **changes}


def start(slug, n_classes, seed, init=None, scale="paper"):
    """A system with random weights, or with the encoder of a checkpoint where it takes one.

    Parameters
    ----------
    slug : str
        One of systems.names("covers").
    n_classes : int
        Different works among the training songs.
    seed : int
    init : path-like, optional
        A checkpoint whose encoder begins there; None is the table's "Random init".
    scale : "toy" | "small" | "paper"
        At small some networks are narrow (reading R55).

    Raises
    ------
    ValueError
        If the system is no cover-song system, or takes no encoder.
    """
    if slug not in systems.names("covers"):
        raise ValueError(f"{slug!r} is no cover-song system, expected one of {', '.join(systems.names('covers'))}")
    made = systems.system(slug)
    if init is not None:
        if not made.needs_clips:
            raise ValueError(f"{slug} has no pretrained encoder in it: init={str(init)!r} cannot be used")
        return made.from_checkpoint(init, n_classes, seed, **made.at_scale(scale))[0]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return systems.build(slug, n_classes=n_classes, **made.at_scale(scale))


def load(path_or_name):
    """A trained cover-song system from its checkpoint, in evaluation mode.

    Raises
    ------
    FileNotFoundError
        If there is no such checkpoint.
    ValueError
        If it holds something else, or is damaged.
    """
    path = checkpoints.find(path_or_name)
    card = checkpoints.read_card(path)
    if card.get("kind") != KIND:
        raise ValueError(f"{path} holds a {card.get('kind', 'foreign')!r} checkpoint, not a cover-song system")
    model = systems.build(**card["settings"])
    checkpoints.load_weights(model, path)
    return model.eval()


# --- what a song undergoes in training ---


def crop(cqt, n_frames, key, speed=(0.7, 1.3), n_masks=2, mask_bins=24, semitones=0):
    """A song at another speed, in another key, a piece of it, some bands of it silent: all by `key` alone.

    Parameters
    ----------
    cqt : np.ndarray, float32 [shape=(84, n_frames of the song)]
    n_frames : int > 0
        A song that is shorter, at its new speed, is followed by zeros.
    key : int
    speed : (float, float)
        The song's new length, as a share of the old one, lies between these; (1, 1) leaves it as it is.
    n_masks, mask_bins : int >= 0
        Bands set to zero, each of 0 to `mask_bins` semitones anywhere; they may overlap.
    semitones : int >= 0
        The song is moved up or down by at most so many rows before; what leaves the picture is lost. Not published:
        0 leaves it in its key.

    Returns
    -------
    np.ndarray, float32 [shape=(84, n_frames)]

    Source: Yu et al. 2020, Sec. 3.1; Park et al. 2019 (SpecAugment) for the bands.
    """
    u = torch.rand(2 + 2 * n_masks, generator=torch.Generator().manual_seed(key), dtype=torch.float64).numpy()
    new_length = max(1, int(cqt.shape[1] * (speed[0] + (speed[1] - speed[0]) * u[0])))
    n_heard = min(n_frames, new_length)
    first = int(u[1] * (new_length - n_heard + 1))
    out = np.zeros((cqt.shape[0], n_frames), np.float32)
    out[:, :n_heard] = _at_speed(cqt, new_length, first, n_heard)
    if semitones:
        out = _moved(out, augment.sample_key(key, KEY) % (2 * semitones + 1) - semitones)
    for where, width in u[2:].reshape(-1, 2):
        n_bins = int(width * (mask_bins + 1))
        low = int(where * (cqt.shape[0] - n_bins + 1))
        out[low : low + n_bins] = 0
    return out


def filled(cqt, n_frames):
    """A CQT of at least `n_frames` frames: followed by zeros where it is shorter, as published."""
    return np.pad(cqt, ((0, 0), (0, max(0, n_frames - cqt.shape[1]))))


def _moved(cqt, semitones):
    """The picture so many rows higher, or lower; the rows that become free are silent."""
    out = np.zeros_like(cqt)
    n_left = max(0, len(cqt) - abs(semitones))
    if semitones >= 0:
        out[len(cqt) - n_left :] = cqt[:n_left]
    else:
        out[:n_left] = cqt[len(cqt) - n_left :]
    return out


def _at_speed(cqt, new_length, first, n_heard):
    """Frames first .. first + n_heard of a song stretched to `new_length` frames by linear interpolation."""
    n_frames = cqt.shape[1]
    at = np.clip((np.arange(first, first + n_heard) + 0.5) * n_frames / new_length - 0.5, 0, n_frames - 1)
    left = at.astype(np.int64)
    share = (at - left).astype(np.float32)
    return cqt[:, left] * (1 - share) + cqt[:, np.minimum(left + 1, n_frames - 1)] * share


# --- embedding ---


@torch.inference_mode()
def embed(model, features, n_clips=None, precision="auto", what="embedding"):
    """Every song, whole, as one embedding.

    Parameters
    ----------
    model : Module
        With the interface of the module's map; set to evaluation while it works.
    features : Songs, or a list of CQTs (84, n_frames)
        Songs of one length go together; what else is in the list changes nothing.
    n_clips : int, optional
        For systems that hear clips, too: so many of those that cover a song, evenly spread; all if not given.
    precision : "auto" | "32-true" | "bf16-mixed"
    what : str
        For the progress lines.

    Returns
    -------
    np.ndarray, float32 [shape=(n, 300)]
        Not normalised; compare them by their cosine (retrieval.from_embeddings).

    Raises
    ------
    ValueError
        If there are no songs, or an embedding is not finite, naming the song.
    """
    if not isinstance(features, Songs):
        features = Songs(tuple(map(str, range(len(features)))), (), list(features))
    if not len(features):
        raise ValueError("no songs to embed: is this split empty?")
    _check_clips(model, features)
    fabric, device, was_training = loop.fabric(precision), next(model.parameters()).device, model.training
    model.eval()
    out = np.zeros((len(features), model.width), np.float32)
    try:
        for rows in progress(_together(model, features), what=what, unit="batches"):
            cqts = np.stack([filled(features.cqts[i], model.min_frames) for i in rows])
            inputs = [torch.from_numpy(cqts).unsqueeze(1).to(device)]
            with fabric.autocast():
                if model.needs_clips:
                    inputs.append(_whole_clips(model, features, rows[0], n_clips, device))
                out[rows] = model(*inputs).float().cpu().numpy()
    finally:
        model.train(was_training)
    bad = np.flatnonzero(~np.isfinite(out).all(axis=1))
    if len(bad):
        raise ValueError(f"the embedding of {features.ids[bad[0]]} is not finite: did training diverge?")
    return out


def _together(model, features):
    """Rows that are embedded at once: songs of one length, or one song where clips come with it."""
    if model.needs_clips:
        return [[i] for i in range(len(features))]
    lengths = [max(cqt.shape[1], model.min_frames) for cqt in features.cqts]
    batches = []
    for _, same in itertools.groupby(sorted(range(len(features)), key=lambda i: lengths[i]), key=lambda i: lengths[i]):
        same = list(same)
        batches += [same[i : i + BATCH_SONGS] for i in range(0, len(same), BATCH_SONGS)]
    return batches


def _whole_clips(model, features, row, n_clips, device):
    """What the encoder hears of a whole song: FCN-4's features of its clips, (1, n_clips, 512)."""
    if features.clip_features is not None:
        return torch.from_numpy(features.clip_features[row]).unsqueeze(0).to(device)
    store, track_id = features.store, features.ids[row]
    wave = loop.resampled(torch.from_numpy(store.read(track_id)), store.sample_rate(track_id), model.sample_rate)
    clips = embedding.clips_of(wave, model.n_samples)
    if n_clips is not None and n_clips < len(clips):
        clips = clips[np.linspace(0, len(clips) - 1, n_clips).round().astype(int)]
    parts = [model.encoder(model.log_mels(some.unsqueeze(0).to(device))[0]) for some in clips.split(BATCH_CLIPS)]
    return torch.cat(parts).unsqueeze(0)


def _check_clips(model, features):
    if model.needs_clips and features.store is None and features.clip_features is None:
        raise ValueError(
            f"{model.settings['slug']} hears clips beside the CQT: give the songs a store, or features of their clips"
        )


# --- training ---


def train(
    model,
    train_songs,
    valid_songs,
    out,
    *,
    lengths,
    speed,
    n_masks,
    mask_bins,
    n_epochs,
    batch_size,
    learning_rate,
    weight_decay,
    n_clips,
    semitones=0,
    schedule="plateau",
    steps_per_epoch=None,
    seed=0,
    precision="auto",
    save_every_s=120.0,
    card=None,
    stop_after_steps=None,
    report=print,
):
    """Train a cover-song system to tell songs apart, or go on where an earlier call was stopped.

    Parameters
    ----------
    model : Module
        With the interface of the module's map, and as many classes as there are works among the training songs;
        afterwards it has the weights with the best validation MAP.
    train_songs, valid_songs : Songs
        Of different works.
    out : path-like
        The run's folder.
    lengths : sequence of int
        Frames of the crops; a batch has one length, and they take turns.
    speed, n_masks, mask_bins, semitones
        As in `crop`.
    n_epochs : int
    batch_size : int
        At most the number of training songs.
    learning_rate, weight_decay : float
    n_clips : int
        Clips of a song at each step, for systems that hear them.
    schedule : "plateau" | "cosine"
        The rate times .8 after three epochs without a better validation MAP, as published; or a short rise and half a
        cosine down to nothing at the last step, for runs too short to wait for a plateau.
    steps_per_epoch : int, optional
        By default as many as every song takes to be heard once at each length.
    seed : int
        Of order, crops and clips. The model was initialised by the caller.
    precision : "auto" | "32-true" | "bf16-mixed"
    save_every_s : float [s]
        How often last.safetensors is written within an epoch.
    card : dict, optional
        What else the checkpoint's card should say.
    stop_after_steps : int, optional
        Stop (resumable) after so many steps of this call: for tests.
    report : callable
        Gets one line per epoch.

    Returns
    -------
    list of dict
        The history: per epoch loss, validation MAP, learning rate, songs per second, waiting share.

    Raises
    ------
    ValueError
        If the works do not fit the classes, a work is in both splits, no validation song has another recording, crops
        are too short for the network, or the folder holds another run's files.
    FloatingPointError
        If the loss is not finite: it names step and songs; the best weights so far are kept.
    """
    works = tuple(dict.fromkeys(train_songs.works))
    _check(model, train_songs, valid_songs, works, lengths)
    if schedule not in SCHEDULES:
        raise ValueError(f"schedule={schedule!r} is unknown, expected one of {', '.join(SCHEDULES)}")
    batch_size = min(batch_size, len(train_songs))
    identity = {
        "settings": model.settings,
        "songs": _digest(train_songs),
        "valid_songs": _digest(valid_songs),
        "n_songs": len(train_songs),
        "n_works": len(works),
        "lengths": list(lengths),
        "speed": list(speed),
        "n_masks": n_masks,
        "mask_bins": mask_bins,
        **({"semitones": semitones} if semitones else {}),
        "n_epochs": n_epochs,
        "batch_size": batch_size,
        "steps_per_epoch": steps_per_epoch or len(lengths) * math.ceil(len(train_songs) / batch_size),
        "learning_rate": learning_rate,
        **({} if schedule == "plateau" else {"schedule": schedule}),
        "weight_decay": weight_decay,
        "seed": seed,
        **(_of_clips(model, train_songs, n_clips) if model.needs_clips else {}),
    }
    plateau = PLATEAU if schedule == "plateau" else None
    out, stage = Path(out), training.Stage("adam", learning_rate, n_epochs, n_epochs, plateau)

    def make():
        return _Run(model, train_songs, valid_songs, works, out, identity, stage, precision)

    return training.to_the_end(make, model, out, identity, card, save_every_s, stop_after_steps, report)


class _Run(training.Run):
    """Which song a crop is of; judged by how validation songs, others than these, find each other."""

    kind, select = KIND, "map"
    fall, least_rate = FALL, LEAST_RATE

    def __init__(self, model, train_songs, valid_songs, works, out, identity, stage, precision):
        self.songs, self.valid = train_songs, valid_songs
        places = {work: i for i, work in enumerate(works)}
        self.targets = torch.tensor([places[work] for work in train_songs.works])
        super().__init__(model, out, identity, (stage,), list(works), identity["n_epochs"], precision)

    def _batches(self, first_step):
        """Batches without end: each length has passes of its own over the songs, one after the other."""
        told = self.identity
        size, seed, lengths = told["batch_size"], told["seed"], told["lengths"]
        passes = [training.Passes(len(self.songs), seed, ORDER, which) for which in range(len(lengths))]
        for step in itertools.count(first_step):
            turn, which = divmod(step, len(lengths))
            places = [passes[which].at(turn * size + i) for i in range(size)]
            rows = [row for _, row in places]
            keys = [augment.sample_key(seed, DRAW, which, number, row) for number, row in places]
            cut = (told["speed"], told["n_masks"], told["mask_bins"], told.get("semitones", 0))
            cqts = [crop(self.songs.cqts[i], lengths[which], key, *cut) for i, key in zip(rows, keys, strict=True)]
            inputs = [torch.from_numpy(np.stack(cqts)).unsqueeze(1)]  # (B, 1, 84, n_frames)
            if self.bare.needs_clips:
                inputs.append(torch.from_numpy(np.stack([self._clips(*one) for one in zip(rows, keys, strict=True)])))
            yield rows, inputs

    def _clips(self, row, key):
        """Waves (n_clips, n_samples) from anywhere in the song, or some of its clips' features (n_clips, 512)."""
        keys = [augment.sample_key(key, CLIP, i) for i in range(self.identity["n_clips"])]
        if self.songs.clip_features is not None:
            there = self.songs.clip_features[row]
            return there[[k % len(there) for k in keys]]
        size = self.bare.sample_rate, self.bare.n_samples
        return np.stack([loop.crop(self.songs.store, self.songs.ids[row], *size, k) for k in keys])

    def _loss(self, batch):
        rows, inputs = batch
        inputs = [one.to(self.fabric.device, non_blocking=True) for one in inputs]
        if self.bare.needs_clips and self.songs.clip_features is None:
            inputs[1] = self.bare.log_mels(inputs[1])
        logits = self.bare.logits(self.model(*inputs)).float()
        return torch.nn.functional.cross_entropy(logits, self.targets[rows].to(logits.device))

    def _told(self, batch):
        named = ", ".join(self.songs.ids[i] for i in batch[0][:4])
        return f"songs {named}...: is the learning rate too high?"

    def _one_step(self, batch, waited):
        if self.identity.get("schedule") == "cosine":
            told = self.identity
            self._set_rate(cosine(self.step, told["n_epochs"] * told["steps_per_epoch"], told["learning_rate"]))
        super()._one_step(batch, waited)

    def _validate(self):
        what = f"validation, epoch {self.epoch + 1}"
        n_clips = max(self.identity.get("n_clips", 0), VALID_CLIPS)
        found = embed(self.bare, self.valid, n_clips, self.precision, what)
        return retrieval.from_embeddings(found, self.valid.works, "drop")["map"]


def cosine(step, n_steps, height):
    """Learning rate of a step, 0 .. n_steps - 1: up to `height` in WARM_UP steps, and half a cosine down to nothing."""
    return height * min(1.0, (step + 1) / WARM_UP) * 0.5 * (1 + math.cos(math.pi * step / n_steps))


def _check(model, train_songs, valid_songs, works, lengths):
    """What would otherwise fail after an hour."""
    if not len(train_songs) or not len(valid_songs):
        raise ValueError(f"{len(train_songs)} training and {len(valid_songs)} validation songs: have they CQTs?")
    if model.settings["n_classes"] != len(works):
        raise ValueError(
            f"the network tells {model.settings['n_classes']} songs apart, the training recordings are of "
            f"{len(works)}: build it with n_classes=len(set(works))"
        )
    both = sorted(set(works) & set(valid_songs.works))
    if both:
        raise ValueError(
            f"{len(both)} works are in training and validation, {', '.join(both[:3])} among them: split by work"
        )
    retrieval.ceiling_p10(valid_songs.works, "drop")  # refuses works of which none was recorded twice
    if min(lengths) < model.min_frames:
        raise ValueError(
            f"crops of {min(lengths)} frames are too short for {model.settings['slug']}, which needs "
            f"{model.min_frames}: take longer ones (short songs are filled with zeros)"
        )
    for some in (train_songs, valid_songs):
        _check_clips(model, some)


def _digest(some):
    """Which recordings, of which works, and how long: another mean of frames is another feature."""
    told = [some.ids, some.works, [one.shape[1] for one in some.cqts]]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]


def _of_clips(model, some, n_clips):
    """How clips are heard, and the weights it begins with: a pretraining done anew is another start."""
    start = hashlib.sha256()
    embedding.hash_weights(start, model)
    kind = "waves" if some.clip_features is None else "features"
    return {"n_clips": n_clips, "clips": kind, "start": start.hexdigest()[:16]}
