"""Cover songs: training that tells songs apart, an embedding per recording, and the baselines beside it (Table 4).

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
with the best validation MAP are kept.

Randomness. For each length songs come in passes, each in an order drawn from (seed, length, pass); a song's speed,
crop, bands and clips are drawn from (seed, length, pass, song): a run that was stopped and resumed ends in the same
bits as one that was not.

Files in the run's folder: as bench.supervised has them.

Baselines, none of which learns: `averaged_chroma`, `two_d_fourier`, `qmax`, `random_embeddings`. A trained system that
ranks worse than averaged chroma has a bug, or too little training.
"""

import dataclasses
import hashlib
import itertools
import json
import math
import time
from pathlib import Path

import numpy as np
import torch

from pawlib import augment, checkpoints, systems
from pawlib.bench import embed as embedding
from pawlib.bench import loop, retrieval
from pawlib.bench.files import write_json
from pawlib.bench.progress import progress

KIND = "cover"  # of checkpoints
N_BINS, N_KEYS = 84, 12
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
    "small": {**PUBLISHED, "lengths": (200,), "n_epochs": 10, "batch_size": 16, "n_clips": 2},
    "paper": PUBLISHED,
}
FALL, FALL_PATIENCE, LEAST_RATE = 0.8, 2, 5e-6  # published: the rate times .8 after more than two epochs not better
ORDER, DRAW, CLIP = 1, 2, 3  # what keys are mixed with, so that their draws share nothing


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


def start(slug, n_classes, seed, init=None):
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

    Raises
    ------
    ValueError
        If the system is no cover-song system, or takes no encoder.
    """
    if slug not in systems.names("covers"):
        raise ValueError(f"{slug!r} is no cover-song system, expected one of {', '.join(systems.names('covers'))}")
    if init is not None:
        made = systems.system(slug)
        if not made.needs_clips:
            raise ValueError(f"{slug} has no pretrained encoder in it: init={str(init)!r} cannot be used")
        return made.from_checkpoint(init, n_classes, seed)[0]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return systems.build(slug, n_classes=n_classes)


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


def crop(cqt, n_frames, key, speed=(0.7, 1.3), n_masks=2, mask_bins=24):
    """A song at another speed, a piece of it, some bands of it silent: all by `key` alone.

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
    for where, width in u[2:].reshape(-1, 2):
        n_bins = int(width * (mask_bins + 1))
        low = int(where * (cqt.shape[0] - n_bins + 1))
        out[low : low + n_bins] = 0
    return out


def filled(cqt, n_frames):
    """A CQT of at least `n_frames` frames: followed by zeros where it is shorter, as published."""
    return np.pad(cqt, ((0, 0), (0, max(0, n_frames - cqt.shape[1]))))


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
    speed, n_masks, mask_bins
        As in `crop`.
    n_epochs : int
    batch_size : int
        At most the number of training songs.
    learning_rate, weight_decay : float
    n_clips : int
        Clips of a song at each step, for systems that hear them.
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
        "n_epochs": n_epochs,
        "batch_size": batch_size,
        "steps_per_epoch": steps_per_epoch or len(lengths) * math.ceil(len(train_songs) / batch_size),
        "learning_rate": learning_rate,
        "weight_decay": weight_decay,
        "seed": seed,
        **({"n_clips": n_clips, "clips": _kind_of_clips(train_songs)} if model.needs_clips else {}),
    }
    out = Path(out)
    with loop.only_one_run(out):
        history = loop.finished(out, identity)
        if history is None:
            run = _Run(precision, model, train_songs, valid_songs, works, out, identity)
            run.resume()
            try:
                with torch.random.fork_rng(devices=[]):
                    complete = run.train(save_every_s, stop_after_steps, report)
            except KeyboardInterrupt:
                run.save_last()
                report(f"stopped in epoch {run.epoch + 1}; run the same again to go on from step {run.step}")
                raise
            if not complete:
                return run.history
            run.finish(card or {})
            history = run.history
    checkpoints.load_weights(model, out / "checkpoint.safetensors")
    return history


class _Run:
    """One training run: model and optimiser, where it stands, and what is kept on disk."""

    KEPT = ("epoch", "step", "history", "sums", "best", "waited", "rate")

    def __init__(self, precision, model, train_songs, valid_songs, works, out, identity):
        self.precision, self.bare, self.songs, self.valid = precision, model, train_songs, valid_songs
        self.works, self.out, self.identity = works, out, identity
        places = {work: i for i, work in enumerate(works)}
        self.targets = torch.tensor([places[work] for work in train_songs.works])
        self.epoch, self.step, self.history, self.sums = 0, 0, [], {}
        self.best, self.waited, self.rate = None, 0, identity["learning_rate"]
        self.fabric = loop.fabric(precision)
        model.to(memory_format=torch.channels_last)
        optimizer = torch.optim.Adam(model.parameters(), lr=self.rate, weight_decay=identity["weight_decay"])
        self.model, self.optimizer = self.fabric.setup(model, optimizer, move_to_device=True)

    def train(self, save_every_s, stop_after_steps, report):
        """Run to the end (True) or to the asked stop (False)."""
        n_steps, here, saved = self.identity["steps_per_epoch"], 0, time.monotonic()
        batches = loop.read_ahead(self._batches(self.step))
        try:
            while self.epoch < self.identity["n_epochs"]:
                self.model.train()
                for (rows, inputs), waited in batches:
                    self._one_step(rows, inputs, waited)
                    here += 1
                    stop = stop_after_steps is not None and here >= stop_after_steps
                    if self.step % n_steps == 0:
                        break
                    if stop or time.monotonic() - saved > save_every_s:
                        self.save_last()
                        saved = time.monotonic()
                    if stop:
                        return False
                self._end_epoch(report)
                self.save_last()
                saved = time.monotonic()
                if stop and self.epoch < self.identity["n_epochs"]:
                    return False
        finally:
            batches.close()
        return True

    def _batches(self, first_step):
        """Batches without end: each length has passes of its own over the songs, one after the other."""
        told, n = self.identity, len(self.songs)
        size, seed, lengths = told["batch_size"], told["seed"], told["lengths"]
        orders = {}
        for step in itertools.count(first_step):
            turn, which = divmod(step, len(lengths))
            places = [divmod(turn * size + i, n) for i in range(size)]
            for number in sorted({number for number, _ in places} - {m for w, m in orders if w == which}):
                generator = torch.Generator().manual_seed(augment.sample_key(seed, ORDER, which, number))
                orders = {(w, m): order for (w, m), order in orders.items() if w != which or m == number - 1}
                orders[which, number] = torch.randperm(n, generator=generator).tolist()
            rows = [orders[which, number][place] for number, place in places]
            keys = [
                augment.sample_key(seed, DRAW, which, number, row)
                for (number, _), row in zip(places, rows, strict=True)
            ]
            cut = (told["speed"], told["n_masks"], told["mask_bins"])
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

    def _one_step(self, rows, inputs, waited):
        began = time.perf_counter()
        torch.manual_seed(augment.sample_key(self.identity["seed"], self.step))  # whatever a network draws
        inputs = [one.to(self.fabric.device, non_blocking=True) for one in inputs]
        if self.bare.needs_clips and self.songs.clip_features is None:
            inputs[1] = self.bare.log_mels(inputs[1])
        logits = self.bare.logits(self.model(*inputs)).float()
        loss = torch.nn.functional.cross_entropy(logits, self.targets[rows].to(logits.device))
        if not torch.isfinite(loss):
            raise FloatingPointError(
                f"the loss is {loss.item()} in epoch {self.epoch + 1}, step {self.step + 1}, songs "
                f"{', '.join(self.songs.ids[i] for i in rows[:4])}...: is the learning rate too high? "
                f"{self.out} keeps the last good state (last.safetensors) and the best (best.safetensors)"
            )
        self.optimizer.zero_grad(set_to_none=True)
        self.fabric.backward(loss)
        self.optimizer.step()
        self.step += 1
        working = time.perf_counter() - began
        for name, value in {"loss": loss.item(), "waiting_s": waited, "working_s": working}.items():
            self.sums[name] = self.sums.get(name, 0.0) + value

    def _end_epoch(self, report):
        """Let the validation songs find each other, keep the best weights, slow down where nothing gets better."""
        n_steps, seconds = self.identity["steps_per_epoch"], self.sums["waiting_s"] + self.sums["working_s"]
        valid = self._validate()
        self.epoch += 1
        self.history.append(
            {
                "epoch": self.epoch,
                "learning_rate": self.rate,
                "loss": self.sums["loss"] / n_steps,
                "valid_map": valid,
                "songs_per_s": n_steps * self.identity["batch_size"] / seconds,
                "waiting_share": self.sums["waiting_s"] / seconds,
            }
        )
        self.sums = {}
        if self.best is None or valid > self.best["score"]:
            self.best, self.waited = {"score": valid, "epoch": self.epoch}, 0
            loop.save_state(self.out / "best.safetensors", self.bare, None, self.best)
        else:
            self.waited += 1
            if self.waited > FALL_PATIENCE:
                self.waited = 0
                self._set_rate(max(self.rate * FALL, LEAST_RATE))
        write_json(self.out / "history.json", self.history)
        report(_line(self.history[-1], self.identity, self.best))

    def _validate(self):
        what = f"validation, epoch {self.epoch + 1}"
        n_clips = self.identity.get("n_clips")
        found = embed(self.bare, self.valid, n_clips, self.precision, what)
        return retrieval.from_embeddings(found, self.valid.works, "drop")["map"]

    def _set_rate(self, rate):
        self.rate = rate
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def save_last(self):
        """Write everything that a later call needs to go on."""
        told = {name: getattr(self, name) for name in self.KEPT}
        loop.save_state(self.out / "last.safetensors", self.bare, self.optimizer, {"identity": self.identity, **told})

    def resume(self):
        """Go on from last.safetensors where there is one of this very run."""
        kept = loop.read_state(self.out / "last.safetensors")
        if kept is None:
            return
        told, tensors = kept
        loop.same_run(told["identity"], self.identity, self.out / "last.safetensors")
        for name in self.KEPT:
            setattr(self, name, told[name])
        loop.restore(tensors, self.bare, self.optimizer)
        self._set_rate(self.rate)

    def finish(self, card):
        """Write the best weights with their card, remove what was only for resuming."""
        _, tensors = loop.read_state(self.out / "best.safetensors")
        loop.restore(tensors, self.bare)
        card = {
            **card,
            "labels": list(self.works),
            "training": self.identity,
            "metrics": {"valid_map": self.best["score"], "best_epoch": self.best["epoch"]},
            "machine": loop.machine(self.fabric.device),
        }
        checkpoints.save(self.bare, self.out / "checkpoint.safetensors", KIND, card)
        for name in ("last.safetensors", "best.safetensors"):
            (self.out / name).unlink(missing_ok=True)


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


def _kind_of_clips(some):
    return "waves" if some.clip_features is None else "features"


def _line(entry, identity, best):
    return (
        f"epoch {entry['epoch']}/{identity['n_epochs']}, rate {entry['learning_rate']:.1e}, loss {entry['loss']:.4f}, "
        f"valid MAP {entry['valid_map']:.3f} (best {best['score']:.3f}), {entry['songs_per_s']:.1f} songs/s, "
        f"waiting {entry['waiting_share']:.1%}"
    )


# --- baselines ---


def chroma(cqt):
    """Pitch classes: (84, n_frames) -> float32 (12, n_frames), mean over octaves; class 0 is C."""
    return cqt.reshape(-1, N_KEYS, cqt.shape[1]).mean(axis=0).astype(np.float32)


def averaged_chroma(cqts):
    """Cosine between songs' mean chroma in the best of 12 transpositions: what the mere use of notes gives away.

    Parameters
    ----------
    cqts : list of arrays [shape=(84, n_frames)]

    Returns
    -------
    np.ndarray, float64 [shape=(n, n)]
        Symmetric; the same whatever key a song is played in, and in whatever order its notes come.
    """
    means = retrieval.unit_rows([chroma(cqt).mean(axis=1) for cqt in cqts])
    return np.max([means @ np.roll(means, shift, axis=1).T for shift in range(N_KEYS)], axis=0)


def two_d_fourier(cqts, n_frames=75, power=1.96):
    """2DFTM: the magnitude of the chroma's Fourier transform in pitch and time, median over the song's patches.

    A patch moved in key or in time has the same magnitude; so a song in another key has the same embedding. The
    published patches are of 75 beats; here no beats are tracked, and a patch is of `n_frames` frames (75 are 35 s), so
    that a song at another tempo has another embedding.

    Parameters
    ----------
    cqts : list of arrays [shape=(84, n_frames of the song)]
        A song shorter than a patch is followed by zeros.
    n_frames : int > 0
        Of a patch.
    power : float
        Chroma is raised to it, so that strong notes count more.

    Returns
    -------
    np.ndarray, float32 [shape=(n, 12 * (n_frames // 2 + 1))]
        Embeddings; compare them by their cosine.

    Source: Bertin-Mahieux and Ellis 2012, "Large-scale cover song recognition using the 2D Fourier transform
    magnitude", without its beats and its final PCA.
    """
    return np.stack([_fourier(filled(chroma(cqt), n_frames) ** power, n_frames) for cqt in cqts]).astype(np.float32)


def _fourier(song, n_frames):
    patches = np.lib.stride_tricks.sliding_window_view(song, n_frames, axis=1)  # (12, n_patches, n_frames)
    magnitude = np.abs(np.fft.fft(np.fft.rfft(patches.transpose(1, 0, 2), axis=2), axis=1))
    return np.median(magnitude, axis=0).ravel()


def qmax(cqts, n_stack=9, share=0.095, gap=0.5, what="aligning"):
    """Qmax: the length of the longest stretch that two songs go through together, in the best transposition.

    Every pair is aligned, so the time grows with the square of the number of songs: some milliseconds a pair.

    Parameters
    ----------
    cqts : list of arrays [shape=(84, n_frames)]
    n_stack : int > 0
        Successive frames that are compared as one.
    share : float
        Each frame is taken to be like this share of the other song's frames; both must agree.
    gap : float
        What it costs to begin and to go on with a stretch where they are not alike.
    what : str
        For the progress lines.

    Returns
    -------
    np.ndarray, float64 [shape=(n, n)]
        Row: query. Divided by the square root of the other song's frames, of which long ones have the longer stretches
        by chance. The diagonal is 0.

    Source: Serra, Serra and Andrzejak 2009, "Cross recurrence quantification for cover song identification"; the
    alignment is librosa.sequence.rqa.
    """
    songs_chroma = [chroma(cqt) for cqt in cqts]
    songs_chroma = [one / np.maximum(one.max(axis=0, keepdims=True), 1e-6) for one in songs_chroma]
    found = np.zeros((len(cqts), len(cqts)))
    pairs = list(itertools.combinations(range(len(cqts)), 2))
    for a, b in progress(pairs, what=what, unit="pairs"):
        best = _longest_stretch(songs_chroma[a], songs_chroma[b], n_stack, share, gap)
        found[a, b], found[b, a] = (best / math.sqrt(songs_chroma[i].shape[1]) for i in (b, a))
    return found


def _longest_stretch(a, b, n_stack, share, gap):
    """Qmax of two chroma sequences, the second brought into the key of the first by their means."""
    import librosa

    shift = np.argmax([a.mean(axis=1) @ np.roll(b, k, axis=0).mean(axis=1) for k in range(N_KEYS)])
    a, b = (_stacked(one, n_stack) for one in (a, np.roll(b, shift, axis=0)))
    found = librosa.sequence.rqa(_alike(a, b, share).astype(float), gap_onset=gap, gap_extend=gap, backtrack=False)
    return float(found.max())


def _alike(a, b, share):
    """Which frames of two sequences are among each other's nearest `share` of frames: bool (frames of a, of b)."""
    squared = (a * a).sum(axis=0)[:, None] + (b * b).sum(axis=0) - 2 * a.T @ b
    alike = np.ones(squared.shape, dtype=bool)
    for axis, n_others in ((1, b.shape[1]), (0, a.shape[1])):
        k = max(1, round(share * n_others))
        alike &= squared <= np.partition(squared, k - 1, axis=axis).take([k - 1], axis=axis)
    return alike


def _stacked(song, n_stack):
    """Each frame with those after it: (12, n_frames) -> (12 * n_stack, n_frames - n_stack + 1)."""
    n_stack = min(n_stack, song.shape[1])
    windows = np.lib.stride_tricks.sliding_window_view(song, n_stack, axis=1)  # (12, n_frames - n_stack + 1, n_stack)
    return windows.transpose(2, 0, 1).reshape(-1, windows.shape[1])


def random_embeddings(n_songs, seed=0, width=300):
    """Embeddings that know nothing: chance, for this list of works. float32 (n_songs, width)."""
    return np.random.default_rng(seed).standard_normal((n_songs, width), dtype=np.float32)
