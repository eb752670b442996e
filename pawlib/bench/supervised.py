"""Whole networks learn labels: supervised training from scratch and fine-tuning (paper Sec. 4.1 Setup, Tables 1-3).

What it asks of a model (every tagger and every encoder with a new head has it)
    model.sample_rate, model.n_samples     rate and length of the input
    model(wave (B, n_samples)) -> logits (B, n_labels)
    model.n_channels, where it is 2        its waves are (B, 2, n_samples): the stereo scene networks
    model.settings                         what builds it again, for the checkpoint's card

Tags are independent (sigmoid, binary cross-entropy); classes exclude each other (softmax, cross-entropy). scoring.py
says how a whole track is answered for.

The loop is that of training.py: stages, files, resuming. Before the first stage a pretrained network's new last layer
can be set to a linear probe (`probe_first`): a random one sends random gradients into the encoder for as many steps as
it takes to learn, and a short run has no more than those.

Randomness. Songs come in passes, each in an order drawn from (seed, pass); a song's crop is drawn from (seed, pass,
song).

Told in: notebooks/20_supervised_taggers.ipynb
"""

import dataclasses
import hashlib
import itertools
import math
import types
import warnings
from pathlib import Path

import numpy as np
import torch

from pawlib import augment
from pawlib.bench import costs, datasets, embed, loop, metrics, protocols, scoring, stats, training
from pawlib.bench.training import Stage

SELECTIONS = ("roc_auc", "pr_auc", "accuracy")

# Won 2020: Adam, then SGD ever slower, 200 epochs in all; the best weights are taken up again at every change.
PUBLISHED = {
    "stages": (
        Stage("adam", 1e-4, 200, 80),
        Stage("sgd", 1e-3, 20, 20),
        Stage("sgd", 1e-4, 20, 20),
        Stage("sgd", 1e-5, 200, 200),
    ),
    "max_epochs": 200,
    "batch_size": 16,
    "weight_decay": 1e-4,
    "select": "pr_auc",
    "valid_chunks": scoring.PEERS_CHUNKS,
}
# PEMR's fine-tuning, stopped after 10 epochs without a better validation score (paper Sec. 4.1).
FINE_TUNING = {
    "stages": (Stage("adam", 1e-3, 300, 10, plateau=5),),
    "batch_size": 64,
    "weight_decay": 1e-6,
    "select": "roc_auc",
    "valid_chunks": "cover",
    "probe_first": False,
}
# CP-ResNet's training (Koutini 2019): whole files, the rate falling in a straight line to 0, mixed pairs; the patience
# is ours (reading R44), as is choosing on validation (R42).
SCENE_FILES = {
    "stages": (Stage("adam", 1e-4, 350, 70),),
    "batch_size": 10,
    "weight_decay": 0.0,
    "select": "accuracy",
    "valid_chunks": "cover",
    "mixup": 0.3,
    "falling_rate": True,
}
# Kong 2016: windows of a quarter of a second, each with a loss of its own. An epoch is one window of every file, where
# the publication takes all; at toy and small waves of 4 s (reading R39).
SCENE_WINDOWS = {
    "stages": (Stage("adam", 1e-3, 100, 20),),
    "batch_size": 100,
    "weight_decay": 0.0,
    "select": "accuracy",
    "valid_chunks": "cover",
    "steps_per_epoch": 500,
    "each_window": True,
}
SCALES = {  # at small every network gets about the same multiply-accumulates, see `equal_work`
    "supervised": {
        "toy": {**PUBLISHED, "stages": (Stage("adam", 1e-3, 2, 2), Stage("sgd", 1e-3, 1, 1)), "batch_size": 4,
                "steps_per_epoch": 2, "valid_chunks": 1},
        "small": {**PUBLISHED, "stages": (Stage("adam", 1e-3, 5, 5), Stage("adam", 1e-4, 1, 1)), "valid_chunks": 1},
        "paper": PUBLISHED,
    },
    "fine_tune": {
        "toy": {**FINE_TUNING, "stages": (Stage("adam", 1e-4, 2, 2),), "batch_size": 4, "steps_per_epoch": 2,
                "valid_chunks": 1, "probe_first": True},
        "small": {**FINE_TUNING, "stages": (Stage("adam", 1e-4, 6, 6, plateau=3),), "batch_size": 16,
                  "valid_chunks": 3, "probe_first": True},
        "paper": FINE_TUNING,
    },
    "scene_files": {
        "toy": {**SCENE_FILES, "stages": (Stage("adam", 1e-3, 2, 2),), "batch_size": 4, "steps_per_epoch": 2,
                "valid_chunks": 1},
        "small": {**SCENE_FILES, "stages": (Stage("adam", 1e-3, 10, 5),)},
        "paper": SCENE_FILES,
    },
    "scene_windows": {
        "toy": {**SCENE_WINDOWS, "stages": (Stage("adam", 1e-3, 2, 2),), "batch_size": 16, "steps_per_epoch": 10,
                "valid_chunks": 1},
        "small": {**SCENE_WINDOWS, "stages": (Stage("adam", 1e-3, 10, 5),), "batch_size": 50, "steps_per_epoch": 100},
        "paper": SCENE_WINDOWS,
    },
}  # fmt: skip
SMALL_WORK = 5e12  # forward multiply-accumulates of a supervised run at small: about three minutes on 2 cores
STEPS_AT_SMALL = (42, 600)
SCENE_WORK = 8e12  # of a run on one fold of the scenes, of which a system has five; at 2e12 RN2 had not yet learned
SCENE_STEPS = (42, 1500)  # the fewest and the most of such a run


def recipe(protocol, scale, **changes):
    """Arguments of `train` for a protocol at a scale, with changes.

    Parameters
    ----------
    protocol : "supervised" | "fine_tune" | "scene_files" | "scene_windows"
        The last two: scene networks that hear whole files, and those that hear short windows and vote.
    scale : "toy" | "small" | "paper"
    **changes
        Instead of the recipe's own.

    Raises
    ------
    ValueError
        For an unknown protocol or scale.

    Told in: notebooks/20_supervised_taggers.ipynb
    """
    if protocol not in SCALES:
        raise ValueError(f"protocol={protocol!r} is unknown, expected one of {', '.join(SCALES)}")
    if scale not in SCALES[protocol]:
        raise ValueError(f"scale={scale!r} is unknown, expected one of {', '.join(SCALES[protocol])}")
    return {**SCALES[protocol][scale], **changes}


def equal_work(model, stages, batch_size, work=SMALL_WORK, bounds=STEPS_AT_SMALL):
    """Steps of an epoch for which a whole run costs about the same multiply-accumulates, within bounds.

    On 2 cores nobody trains ten networks to the end. Giving each as many *songs* would let the smallest finish in
    seconds and the largest take an hour; giving each as much *work* is a comparison with a meaning: what each makes of
    the same electricity. Nobody can learn from a handful of steps, so a very large network gets the fewest of `bounds`
    and with them more work: Self-attention 1.8 times as much. At paper scale every network gets the published epochs.

    Parameters
    ----------
    model : Module
    stages : sequence of Stage
    batch_size : int
    work : float [multiply-accumulates]
        Of the forward passes of the run.
    bounds : (int, int)
        The fewest and the most steps of a run.

    Returns
    -------
    int
    """
    wave = torch.zeros(1, model.n_samples)
    macs = costs.count(model, wave if scoring.hears_mono(model) else wave.expand(1, 2, -1)).macs
    n_steps = min(max(work / (macs * batch_size), bounds[0]), bounds[1])
    return max(1, round(n_steps / sum(stage.n_epochs for stage in stages)))


def train(
    model,
    corpus,
    out,
    *,
    stages,
    batch_size,
    weight_decay,
    select,
    seed=0,
    tracks=None,
    max_epochs=None,
    steps_per_epoch=None,
    valid_chunks="cover",
    probe_first=False,
    mixup=0.0,
    falling_rate=False,
    each_window=False,
    precision="auto",
    save_every_s=120.0,
    card=None,
    stop_after_steps=None,
    report=print,
):
    """Train a whole network on labelled songs, or go on where an earlier call was stopped.

    Parameters
    ----------
    model : Module
        With the interface of the module's map; afterwards it has the best weights.
    corpus : corpora.Corpus
        Its splits give labels and the validation tracks, its store the audio.
    out : path-like
        The run's folder.
    stages : sequence of Stage
    batch_size : int
        At most the number of training tracks.
    weight_decay : float
    select : "roc_auc" | "pr_auc" | "accuracy"
        The validation score that chooses the weights, macro over labels.
    seed : int
        Of order, crops and dropout. The model was initialised by the caller.
    tracks : list of Track, optional
        To learn from; by default all training tracks.
    max_epochs : int, optional
        Over all stages.
    steps_per_epoch : int, optional
        By default as many as a pass over the tracks takes.
    valid_chunks : "cover" | int
        Of each validation track, as in `scoring.score`.
    probe_first : bool
        Begin as `begin_with_probe` leaves the network; the history then has an epoch 0, and its weights are kept if no
        later ones are better.
    mixup : float >= 0
        Above 0, every wave is mixed with another of its batch, by a share drawn from Beta(mixup, mixup), and its label
        with the other's (Zhang 2018); for classes only.
    falling_rate : bool
        The learning rate falls in a straight line from each stage's to 0 at the end of the stage.
    each_window : bool
        For networks of short windows, whose forward takes the same word: every window of a wave has a loss of its own,
        instead of one loss of their mean. The same where a wave is one window.
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
        The history: per epoch stage, loss, validation score, learning rate, songs per second, waiting share.

    Raises
    ------
    ValueError
        Without training tracks; if the model has another number of outputs than there are labels; for an unknown
        `select` or optimiser, or mixed tags; if no validation label can be scored; if the folder holds another run's
        files.
    FloatingPointError
        If the loss is not finite: it names step, songs and what came in; the best weights so far are kept.

    Warns
    -----
    UserWarning
        Naming labels without a positive training track.

    Told in: notebooks/20_supervised_taggers.ipynb
    """
    tracks = corpus.splits.train if tracks is None else list(tracks)
    _check(model, corpus, tracks, select, stages)
    if mixup < 0 or (mixup and not corpus.splits.single_label):
        raise ValueError(f"mixup={mixup}: expected 0 or above, and above 0 for classes only, not for tags")
    if mixup and each_window:
        raise ValueError("mixup mixes whole waves, each_window has a loss for every window: choose one of them")
    batch_size = min(batch_size, len(tracks))
    steps_per_epoch = steps_per_epoch or math.ceil(len(tracks) / batch_size)
    start = hashlib.sha256()
    embed.hash_weights(start, model)
    identity = {
        "settings": model.settings,
        "start": start.hexdigest()[:16],  # a pretraining done anew is another start
        "songs": hashlib.sha256("\n".join(track.id for track in tracks).encode()).hexdigest()[:16],
        "n_songs": len(tracks),
        "labels": list(corpus.splits.labels),
        "stages": [dataclasses.asdict(stage) for stage in stages],
        "max_epochs": min(max_epochs or math.inf, sum(stage.n_epochs for stage in stages)),
        "batch_size": batch_size,
        "steps_per_epoch": steps_per_epoch,
        "seed": seed,
        "weight_decay": weight_decay,
        "select": select,
        "valid_chunks": valid_chunks,
        **({"probe_first": True} if probe_first else {}),
        **({"mixup": mixup} if mixup else {}),
        **({"falling_rate": True} if falling_rate else {}),
        **({"each_window": True} if each_window else {}),
    }
    out = Path(out)

    def make():
        if probe_first and not (out / "last.safetensors").is_file():
            begin_with_probe(model, corpus, tracks, seed, batch_size)
        return _Run(model, corpus, tracks, out, identity, stages, precision)

    return training.to_the_end(make, model, out, identity, card, save_every_s, stop_after_steps, report)


def take_statistics(model, corpus, tracks, seed=0, batch_size=16, n_batches=50):
    """Let a network's batch norm take on the statistics of these tracks' clips; no weight changes.

    Parameters
    ----------
    model : Module
        With `sample_rate`, `n_samples` and `embed_clips`.
    corpus : corpora.Corpus
    tracks : list of Track
    seed : int
        Of the tracks and their crops.
    batch_size, n_batches : int > 0
        Of clips; with batch norm's momentum of 0.1, 50 leave half a per cent of where it began.
    """
    model.train()
    for step in range(n_batches):
        keys = [augment.sample_key(seed, step, i) for i in range(batch_size)]
        waves = [
            loop.crop(corpus.store, tracks[k % len(tracks)].id, model.sample_rate, model.n_samples, k) for k in keys
        ]
        with torch.no_grad(), embed.computing_fast(model):
            model.embed_clips(torch.from_numpy(np.stack(waves)))
    model.eval()


def begin_with_probe(model, corpus, tracks, seed=0, batch_size=16, n_batches=50):
    """Set a network's last layer to a linear probe of what the encoder gives, so that fine-tuning starts from there.

    First batch norm takes on the statistics of these tracks' clips in batches like those of training: a pretraining has
    seen other clips (reading R14), and a probe of other statistics would be worth nothing from the first step on. No
    weight of the encoder changes. The probe is `protocols.linear_probe`, its weight decay chosen on validation.

    Parameters
    ----------
    model : Module
        With `encoder`, `head` (Linear) and `embed_clips`, as systems.transfer.Transfer has them.
    corpus : corpora.Corpus
    tracks : list of Track
        To learn from.
    seed : int
    batch_size, n_batches : int > 0
        Of clips, for the statistics.

    Returns
    -------
    protocols.Probe

    Source: Kumar et al. 2022, Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution.

    Told in: notebooks/32_finetune_gtzan.ipynb
    """
    take_statistics(model, corpus, tracks, seed, batch_size, n_batches)
    heard = dataclasses.replace(corpus.splits, train=tracks, test=corpus.splits.valid)  # the test tracks stay unheard
    features = embed.splits(model, types.SimpleNamespace(splits=heard, store=corpus.store, name=corpus.name))
    single = corpus.splits.single_label
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # labels without a positive: `train` has named them
        probe = protocols.linear_probe(*features.values(), len(corpus.splits.labels), seed, single_label=single)
    with torch.no_grad():
        weight = probe.weight / probe.deviation  # the probe saw standardised features
        model.head.weight.copy_(weight)
        model.head.bias.copy_(probe.bias - weight @ probe.mean)
    return probe


class _Run(training.Run):
    """Labels of songs, from a crop of each."""

    def __init__(self, model, corpus, tracks, out, identity, stages, precision):
        self.corpus, self.tracks, self.select = corpus, tracks, identity["select"]
        self.targets = torch.from_numpy(datasets.targets(tracks))
        super().__init__(model, out, identity, stages, identity["labels"], identity["max_epochs"], precision)

    def begin(self, report):
        """Epoch 0, after `begin_with_probe`: what the network is worth before its first step."""
        if not self.identity.get("probe_first"):
            return
        valid, name = self._validate(), f"valid_{self.select}"
        self.best = {"score": valid, "epoch": 0}
        self.history.append({"epoch": 0, "stage": 0, "optimizer": "linear probe", "learning_rate": 0.0, name: valid})
        loop.save_state(self.out / "best.safetensors", self.bare, None, self.best)
        self.save_last()
        report(f"epoch 0, linear probe, valid {self.said} {valid:.3f}")

    def _batches(self, first_step):
        """Batches without end: passes over the tracks, one after the other."""
        size, seed = self.identity["batch_size"], self.identity["seed"]
        passes, mono = training.Passes(len(self.tracks), seed), scoring.hears_mono(self.bare)
        for step in itertools.count(first_step):
            places = [passes.at(step * size + i) for i in range(size)]
            waves = [
                loop.crop(
                    self.corpus.store, self.tracks[i].id, self.bare.sample_rate, self.bare.n_samples,
                    augment.sample_key(seed, number, i), mono,
                )
                for number, i in places
            ]  # fmt: skip
            rows = [i for _, i in places]
            yield [self.tracks[i].id for i in rows], torch.from_numpy(np.stack(waves)), self.targets[rows]

    def _loss(self, batch):
        _, wave, target = batch
        device, single = self.fabric.device, self.corpus.splits.single_label
        wave, target = wave.to(device, non_blocking=True), target.to(device)
        if self.identity.get("falling_rate"):
            self._let_the_rate_fall()
        if self.identity.get("each_window"):
            logits = self.model(wave, each_window=True).float()  # (B, n_windows, n_classes)
            target = target.repeat_interleave(logits.shape[1], dim=0)
            return protocols.loss_of(logits.flatten(0, 1), target, single)
        if not self.identity.get("mixup"):
            return protocols.loss_of(self.model(wave).float(), target, single)
        share = torch.distributions.Beta(*[self.identity["mixup"]] * 2).sample()  # from (seed, step)
        other = torch.randperm(len(wave))
        logits = self.model(share * wave + (1 - share) * wave[other]).float()
        losses = [protocols.loss_of(logits, one, single) for one in (target, target[other])]
        return share * losses[0] + (1 - share) * losses[1]

    def _let_the_rate_fall(self):
        """In a straight line over the stage; where the stage began follows from the epochs before it."""
        stage, n_steps = self.stages[self.stage], self.identity["steps_per_epoch"]
        before = sum(entry["stage"] not in (0, self.stage + 1) for entry in self.history)
        self._set_rate(stage.learning_rate * (1 - (self.step - before * n_steps) / (stage.n_epochs * n_steps)))

    def _told(self, batch):
        songs, wave, _ = batch
        return (
            f"songs {', '.join(songs[:4])}..., samples from {wave.min():.3g} to {wave.max():.3g}: is one of them "
            "damaged, or the learning rate too high?"
        )

    def _validate(self):
        splits, select = self.corpus.splits, self.select
        what = f"validation, epoch {self.epoch + 1}"
        scored = scoring.score(
            self.bare, self.corpus.store, splits.valid, splits.single_label, self.identity["valid_chunks"], what=what
        )
        targets = datasets.targets(splits.valid)
        if select == "accuracy":
            return metrics.accuracy(scored.scores, targets.argmax(axis=1))
        value = stats.once(select, scored.scores.astype(np.float64), targets)
        if np.isnan(value):
            raise ValueError(
                f"no label has both a positive and a negative among the {len(splits.valid)} validation tracks, "
                "so nothing can be chosen on them: is the validation split too small?"
            )
        return value


def _check(model, corpus, tracks, select, stages):
    """What would otherwise fail after an hour."""
    splits = corpus.splits
    if not tracks or not splits.valid:
        raise ValueError(f"{len(tracks)} training and {len(splits.valid)} validation tracks: were they decoded?")
    if select not in SELECTIONS or (select == "accuracy" and not splits.single_label):
        raise ValueError(f"select={select!r} is unknown, expected one of {SELECTIONS} (accuracy for classes only)")
    for stage in stages:
        if stage.optimizer not in training.OPTIMISERS:
            raise ValueError(f'optimizer={stage.optimizer!r} is unknown, expected "adam" or "sgd"')
    n_outputs = model.settings.get("n_classes")
    if n_outputs is not None and n_outputs != len(splits.labels):
        raise ValueError(
            f"the network answers for {n_outputs} labels, {splits.name} has {len(splits.labels)}: "
            "build it with n_classes=len(labels)"
        )
    missing = datasets.unheard(tracks, splits.labels)
    if missing:
        warnings.warn(f"{len(missing)} labels have no positive training track: {', '.join(missing)}", stacklevel=3)
