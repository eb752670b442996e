"""Whole networks learn labels: supervised training from scratch and fine-tuning (paper Sec. 4.1 Setup, Tables 1-3).

What it asks of a model (every tagger and every encoder with a new head has it)
    model.sample_rate, model.n_samples     rate and length of the input
    model(wave (B, n_samples)) -> logits (B, n_labels)
    model.settings                         what builds it again, for the checkpoint's card

Tags are independent (sigmoid, binary cross-entropy); classes exclude each other (softmax, cross-entropy). scoring.py
says how a whole track is answered for.

A run is a list of stages, each with its optimiser, rate and patience; each begins with the best weights so far, by the
validation score. What ends a stage is its number of epochs, or `patience` epochs without a better score.
Before the first stage a pretrained network's new last layer can be set to a linear probe (`probe_first`): a random one
sends random gradients into the encoder for as many steps as it takes to learn, and a short run has no more than those.

Randomness. Songs come in passes, each in an order drawn from (seed, pass); a song's crop is drawn from (seed, pass,
song), dropout from (seed, step): a run that was stopped and resumed ends in the same bits as one that was not.

Files in the run's folder
    checkpoint.safetensors, .json   the best weights and their card; there only when the run is finished
    history.json                    one entry per finished epoch
    last.safetensors, best.safetensors   where to go on after a stop; removed at the end

Told in: notebooks/20_supervised_taggers.ipynb
"""

import dataclasses
import hashlib
import math
import time
import types
import warnings
from pathlib import Path

import numpy as np
import torch

from pawlib import augment, checkpoints
from pawlib.bench import costs, datasets, embed, loop, metrics, protocols, scoring, stats
from pawlib.bench.files import write_json

SELECTIONS = ("roc_auc", "pr_auc", "accuracy")


@dataclasses.dataclass(frozen=True)
class Stage:
    """One part of a training run.

    Attributes
    ----------
    optimizer : "adam" | "sgd"
        SGD with Nesterov momentum of 0.9.
    learning_rate : float
    n_epochs : int
        At most so many.
    patience : int
        Epochs without a better validation score that end the stage.
    plateau : int, optional
        Epochs without a better score after which the rate is divided by ten.
    """

    optimizer: str
    learning_rate: float
    n_epochs: int
    patience: int
    plateau: int | None = None


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
}  # fmt: skip
SMALL_WORK = 5e12  # forward multiply-accumulates of a supervised run at small: about three minutes on 2 cores
STEPS_AT_SMALL = (42, 600)


def recipe(protocol, scale, **changes):
    """Arguments of `train` for a protocol at a scale, with changes.

    Parameters
    ----------
    protocol : "supervised" | "fine_tune"
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
    macs = costs.count(model, torch.zeros(1, model.n_samples)).macs
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
        `select` or optimiser; if no validation label can be scored; if the folder holds another run's files.
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
    }
    out = Path(out)
    with loop.only_one_run(out):
        history = loop.finished(out, identity)
        if history is None:
            if probe_first and not (out / "last.safetensors").is_file():
                begin_with_probe(model, corpus, tracks, seed, batch_size)
            run = _Run(loop.fabric(precision), model, corpus, tracks, out, identity, stages)
            run.resume()
            if probe_first and not run.history:
                run.take_stock(report)
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


class _Run:
    """One training run: model and optimiser, where it stands, and what is kept on disk."""

    def __init__(self, fabric, model, corpus, tracks, out, identity, stages):
        self.fabric, self.bare, self.corpus, self.tracks = fabric, model, corpus, tracks
        self.out, self.identity, self.stages = out, identity, stages
        self.targets = torch.from_numpy(datasets.targets(tracks))
        self.epoch, self.step, self.stage, self.history, self.sums = 0, 0, 0, [], {}
        self.best, self.waited, self.rate = None, 0, stages[0].learning_rate
        model.to(memory_format=torch.channels_last)
        self._set_up()

    def train(self, save_every_s, stop_after_steps, report):
        """Run to the end (True) or to the asked stop (False)."""
        n_steps, here, saved = self.identity["steps_per_epoch"], 0, time.monotonic()
        batches = loop.read_ahead(self._batches(self.step))
        try:
            while not self._is_over():
                self.model.train()
                for (songs, wave, target), waited in batches:
                    self._one_step(songs, wave, target, waited)
                    here += 1
                    if stop_after_steps is not None and here >= stop_after_steps and self.step % n_steps:
                        self.save_last()
                        return False
                    if self.step % n_steps == 0:
                        break
                    if time.monotonic() - saved > save_every_s:
                        self.save_last()
                        saved = time.monotonic()
                self._end_epoch(report)
                self.save_last()
                saved = time.monotonic()
                if stop_after_steps is not None and here >= stop_after_steps:
                    return self._is_over()
        finally:
            batches.close()
        return True

    def _set_up(self):
        """The optimiser of the stage."""
        stage, decay = self.stages[self.stage], self.identity["weight_decay"]
        if stage.optimizer == "adam":
            optimizer = torch.optim.Adam(self.bare.parameters(), lr=self.rate, weight_decay=decay)
        else:
            optimizer = torch.optim.SGD(
                self.bare.parameters(), lr=self.rate, momentum=0.9, nesterov=True, weight_decay=decay
            )
        self.model, self.optimizer = self.fabric.setup(self.bare, optimizer, move_to_device=True)

    def _is_over(self):
        return self.stage == len(self.stages) or self.epoch >= self.identity["max_epochs"]

    def _batches(self, first_step):
        """Batches without end: passes over the tracks, one after the other."""
        n, size, seed = len(self.tracks), self.identity["batch_size"], self.identity["seed"]
        step = first_step
        orders = {}
        while True:
            places = [divmod(step * size + i, n) for i in range(size)]
            for number in sorted({number for number, _ in places} - set(orders)):
                generator = torch.Generator().manual_seed(augment.sample_key(seed, number))
                orders = {k: v for k, v in orders.items() if k == number - 1}
                orders[number] = torch.randperm(n, generator=generator).tolist()
            indices = [(number, orders[number][place]) for number, place in places]
            waves = [
                loop.crop(
                    self.corpus.store, self.tracks[i].id, self.bare.sample_rate, self.bare.n_samples,
                    augment.sample_key(seed, number, i),
                )
                for number, i in indices
            ]  # fmt: skip
            rows = [i for _, i in indices]
            yield [self.tracks[i].id for i in rows], torch.from_numpy(np.stack(waves)), self.targets[rows]
            step += 1

    def _one_step(self, songs, wave, target, waited):
        began = time.perf_counter()
        torch.manual_seed(augment.sample_key(self.identity["seed"], self.step))  # dropout
        device = self.fabric.device
        logits = self.model(wave.to(device, non_blocking=True)).float()
        loss = protocols.loss_of(logits, target.to(device), self.corpus.splits.single_label)
        if not torch.isfinite(loss):
            raise FloatingPointError(
                f"the loss is {loss.item()} in epoch {self.epoch + 1}, step {self.step + 1}, songs "
                f"{', '.join(songs[:4])}..., samples from {wave.min():.3g} to {wave.max():.3g}: is one of them "
                "damaged, or the learning rate too high? "
                f"{self.out} keeps the last good state (last.safetensors) and the best (best.safetensors)"
            )
        self.optimizer.zero_grad(set_to_none=True)
        self.fabric.backward(loss)
        self.optimizer.step()
        self.step += 1
        working = time.perf_counter() - began
        for name, value in {"loss": loss.item(), "waiting_s": waited, "working_s": working}.items():
            self.sums[name] = self.sums.get(name, 0.0) + value

    def take_stock(self, report):
        """Epoch 0: what the network is worth before its first step."""
        valid = self._validate()
        self.best = {"score": valid, "epoch": 0}
        name = f"valid_{self.identity['select']}"
        self.history.append({"epoch": 0, "stage": 0, "optimizer": "linear probe", "learning_rate": 0.0, name: valid})
        loop.save_state(self.out / "best.safetensors", self.bare, None, self.best)
        self.save_last()
        report(f"epoch 0, linear probe, {name.replace('_', ' ')} {valid:.3f}")

    def _end_epoch(self, report):
        """Score the validation tracks, keep the best, change rate or stage where nothing gets better."""
        stage, n_steps = self.stages[self.stage], self.identity["steps_per_epoch"]
        valid = self._validate()
        waiting, working = self.sums["waiting_s"], self.sums["working_s"]
        self.epoch += 1
        entry = {
            "epoch": self.epoch,
            "stage": self.stage + 1,
            "optimizer": stage.optimizer,
            "learning_rate": self.rate,
            "loss": self.sums["loss"] / n_steps,
            f"valid_{self.identity['select']}": valid,
            "songs_per_s": n_steps * self.identity["batch_size"] / (waiting + working),
            "waiting_share": waiting / (waiting + working),
        }
        self.history.append(entry)
        self.sums = {}
        if self.best is None or valid > self.best["score"]:
            self.best, self.waited = {"score": valid, "epoch": self.epoch}, 0
            loop.save_state(self.out / "best.safetensors", self.bare, None, self.best)
        else:
            self.waited += 1
            if stage.plateau and self.waited % stage.plateau == 0:
                self.rate *= 0.1
                for group in self.optimizer.param_groups:
                    group["lr"] = self.rate
        write_json(self.out / "history.json", self.history)
        report(_line(entry, self.identity, self.best))
        in_stage = sum(one["stage"] == self.stage + 1 for one in self.history)
        if in_stage >= stage.n_epochs or self.waited >= stage.patience:
            self._next_stage()

    def _next_stage(self):
        self.stage += 1
        if self.stage == len(self.stages):
            return
        self._take_best()
        self.waited, self.rate = 0, self.stages[self.stage].learning_rate
        self._set_up()

    def _validate(self):
        splits, select = self.corpus.splits, self.identity["select"]
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

    def _take_best(self):
        _, tensors = loop.read_state(self.out / "best.safetensors")
        loop.restore(tensors, self.bare)

    def save_last(self):
        """Write everything that a later call needs to go on."""
        if self.stage == len(self.stages):
            return
        names = ("identity", "epoch", "step", "stage", "history", "sums", "best", "waited", "rate")
        told = {name: getattr(self, name) for name in names}
        loop.save_state(self.out / "last.safetensors", self.bare, self.optimizer, told)

    def resume(self):
        """Go on from last.safetensors where there is one of this very run."""
        kept = loop.read_state(self.out / "last.safetensors")
        if kept is None:
            return
        told, tensors = kept
        loop.same_run(told["identity"], self.identity, self.out / "last.safetensors")
        for name in ("epoch", "step", "stage", "history", "sums", "best", "waited", "rate"):
            setattr(self, name, told[name])
        self._set_up()
        loop.restore(tensors, self.bare, self.optimizer)

    def finish(self, card):
        """Write the best weights with their card, remove what was only for resuming."""
        self._take_best()
        card = {
            **card,
            "labels": self.identity["labels"],
            "training": self.identity,
            "metrics": {f"valid_{self.identity['select']}": self.best["score"], "best_epoch": self.best["epoch"]},
            "machine": loop.machine(self.fabric.device),
        }
        checkpoints.save(self.bare, self.out / "checkpoint.safetensors", "tagger", card)
        for name in ("last.safetensors", "best.safetensors"):
            (self.out / name).unlink(missing_ok=True)


def _check(model, corpus, tracks, select, stages):
    """What would otherwise fail after an hour."""
    splits = corpus.splits
    if not tracks or not splits.valid:
        raise ValueError(f"{len(tracks)} training and {len(splits.valid)} validation tracks: were they decoded?")
    if select not in SELECTIONS or (select == "accuracy" and not splits.single_label):
        raise ValueError(f"select={select!r} is unknown, expected one of {SELECTIONS} (accuracy for classes only)")
    for stage in stages:
        if stage.optimizer not in ("adam", "sgd"):
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


def _line(entry, identity, best):
    name = f"valid_{identity['select']}"
    return (
        f"epoch {entry['epoch']}/{identity['max_epochs']}, {entry['optimizer']} {entry['learning_rate']:.0e}, "
        f"loss {entry['loss']:.4f}, {name.replace('_', ' ')} {entry[name]:.3f} (best {best['score']:.3f}), "
        f"{entry['songs_per_s']:.1f} songs/s, waiting {entry['waiting_share']:.1%}"
    )
