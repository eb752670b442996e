"""One loop for networks that learn from labels: tags and genres (supervised.py) and which song it is (covers.py).

    class _Run(training.Run):          what a task adds: its batches, its loss, its validation score
        select, kind = "map", "cover"
        def _batches(self, first_step): ...
        def _loss(self, batch): ...
        def _validate(self): ...

    history = training.to_the_end(lambda: _Run(...), model, out, identity, ...)

A run is a list of stages, each with its optimiser, rate and patience; each begins with the best weights so far, by the
validation score. What ends a stage is its number of epochs, or `patience` epochs without a better score.

Randomness. Songs come in passes, each in an order drawn from a key (`Passes`); whatever a network draws itself is drawn
from (seed, step): a run that was stopped and resumed ends in the same bits as one that was not.

Files in the run's folder
    checkpoint.safetensors, .json   the best weights and their card; there only when the run is finished
    history.json                    one entry per finished epoch
    last.safetensors, best.safetensors   where to go on after a stop; removed at the end

Told in: notebooks/20_supervised_taggers.ipynb, notebooks/40_cover_songs.ipynb
"""

import dataclasses
import time

import torch

from pawlib import augment, checkpoints
from pawlib.bench import loop
from pawlib.bench.files import write_json

SAID = {"map": "MAP"}  # names of scores that are not their own words
OPTIMISERS = ("adam", "sgd")


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
        Epochs without a better score after which the rate falls, by the task's `fall`.
    """

    optimizer: str
    learning_rate: float
    n_epochs: int
    patience: int
    plateau: int | None = None


class Passes:
    """Songs in passes: in each every song comes once, in an order drawn from the key and the pass's number.

    Parameters
    ----------
    n : int
        Songs.
    *key : int
        What the orders are drawn from.
    """

    def __init__(self, n, *key):
        self.n, self.key, self.orders = n, key, {}

    def at(self, place):
        """(number of the pass, song) at a place counted from the very first; places are asked for in rising order."""
        number, i = divmod(place, self.n)
        if number not in self.orders:
            generator = torch.Generator().manual_seed(augment.sample_key(*self.key, number))
            self.orders = {k: order for k, order in self.orders.items() if k == number - 1}
            self.orders[number] = torch.randperm(self.n, generator=generator).tolist()
        return number, self.orders[number][i]


class Run:
    """One training run: model and optimiser, where it stands, and what is kept on disk.

    A task's class adds `_batches(first_step)`, an iterator without end; `_loss(batch)`, with its gradient;
    `_told(batch)`, words for the error of a loss that is not finite; `_validate()`, a number of which more is better.

    Parameters
    ----------
    model : Module
    out : pathlib.Path
        The run's folder.
    identity : dict
        What makes this run another one than its neighbours; with `steps_per_epoch`, `batch_size`, `weight_decay` and
        `seed`.
    stages : sequence of Stage
    labels : list of str
        What the network's outputs stand for, for the checkpoint's card.
    max_epochs : int
        Over all stages.
    precision : "auto" | "32-true" | "bf16-mixed"

    Attributes
    ----------
    kind : str
        Of the checkpoint.
    select : str
        Name of the validation score.
    fall, least_rate : float
        What the rate is multiplied with on a plateau, and below what it never falls.
    """

    kind, select = "tagger", "score"
    fall, least_rate = 0.1, 0.0
    KEPT = ("epoch", "step", "stage", "history", "sums", "best", "waited", "rate")

    def __init__(self, model, out, identity, stages, labels, max_epochs, precision):
        self.fabric, self.precision = loop.fabric(precision), precision
        self.bare, self.out, self.identity, self.stages = model, out, identity, stages
        self.labels, self.max_epochs = labels, max_epochs
        self.epoch, self.step, self.stage, self.history, self.sums = 0, 0, 0, [], {}
        self.best, self.waited, self.rate = None, 0, stages[0].learning_rate
        model.to(memory_format=torch.channels_last)
        self._set_up()

    def begin(self, report):
        """What a task does before the first step of a run that begins anew."""

    def train(self, save_every_s, stop_after_steps, report):
        """Run to the end (True) or to the asked stop (False)."""
        n_steps, here, saved = self.identity["steps_per_epoch"], 0, time.monotonic()
        batches = loop.read_ahead(self._batches(self.step))
        try:
            while not self._is_over():
                self.model.train()
                has_steps_left = not (self.sums and self.step % n_steps == 0)  # stopped while it validated
                for batch, waited in batches if has_steps_left else ():
                    with loop.undisturbed():
                        self._one_step(batch, waited)
                        here += 1
                    if stop_after_steps is not None and here >= stop_after_steps and self.step % n_steps:
                        self.save_last()
                        return False
                    if self.step % n_steps == 0:
                        break
                    if time.monotonic() - saved > save_every_s:
                        self.save_last()
                        saved = time.monotonic()
                valid = self._validate()
                with loop.undisturbed():
                    self._end_epoch(valid, report)
                    self.save_last()
                saved = time.monotonic()
                if stop_after_steps is not None and here >= stop_after_steps:
                    return self._is_over()
        finally:
            batches.close()
        return True

    def save_last(self):
        """Write everything that a later call needs to go on."""
        if self.stage == len(self.stages):
            return
        told = {name: getattr(self, name) for name in ("identity", *self.KEPT)}
        loop.save_state(self.out / "last.safetensors", self.bare, self.optimizer, told)

    def resume(self):
        """Go on from last.safetensors where there is one of this very run."""
        kept = loop.read_state(self.out / "last.safetensors")
        if kept is None:
            return
        told, tensors = kept
        loop.same_run(told["identity"], self.identity, self.out / "last.safetensors")
        for name in self.KEPT:
            setattr(self, name, told[name])
        self._set_up()
        loop.restore(tensors, self.bare, self.optimizer)

    def finish(self, card):
        """Write the best weights with their card, remove what was only for resuming."""
        self._take_best()
        card = {
            **card,
            "labels": self.labels,
            "training": self.identity,
            "metrics": {f"valid_{self.select}": self.best["score"], "best_epoch": self.best["epoch"]},
            "machine": loop.machine(fabric=self.fabric),
        }
        checkpoints.save(self.bare, self.out / "checkpoint.safetensors", self.kind, card)
        for name in ("last.safetensors", "best.safetensors"):
            (self.out / name).unlink(missing_ok=True)

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
        return self.stage == len(self.stages) or self.epoch >= self.max_epochs

    def _one_step(self, batch, waited):
        began = time.perf_counter()
        torch.manual_seed(augment.sample_key(self.identity["seed"], self.step))  # dropout, and whatever else it draws
        loss = self._loss(batch)
        if not torch.isfinite(loss):
            raise FloatingPointError(
                f"the loss is {loss.item()} in epoch {self.epoch + 1}, step {self.step + 1}, {self._told(batch)} "
                f"{self.out} keeps the last good state (last.safetensors) and the best (best.safetensors)"
            )
        self.optimizer.zero_grad(set_to_none=True)
        self.fabric.backward(loss)
        self.optimizer.step()
        self.step += 1
        working = time.perf_counter() - began
        for name, value in {"loss": loss.item(), "waiting_s": waited, "working_s": working}.items():
            self.sums[name] = self.sums.get(name, 0.0) + value

    def _end_epoch(self, valid, report):
        """Keep the best by the validation score, change rate or stage where nothing gets better."""
        stage, n_steps = self.stages[self.stage], self.identity["steps_per_epoch"]
        waiting, working = self.sums["waiting_s"], self.sums["working_s"]
        self.epoch += 1
        entry = {
            "epoch": self.epoch,
            "stage": self.stage + 1,
            "optimizer": stage.optimizer,
            "learning_rate": self.rate,
            "loss": self.sums["loss"] / n_steps,
            f"valid_{self.select}": valid,
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
                self._set_rate(max(self.rate * self.fall, self.least_rate))
        write_json(self.out / "history.json", self.history)
        report(self._line(entry))
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

    def _set_rate(self, rate):
        self.rate = rate
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def _take_best(self):
        _, tensors = loop.read_state(self.out / "best.safetensors")
        loop.restore(tensors, self.bare)

    def _line(self, entry):
        return (
            f"epoch {entry['epoch']}/{self.max_epochs}, {entry['optimizer']} {entry['learning_rate']:.1e}, "
            f"loss {entry['loss']:.4f}, valid {self.said} {entry[f'valid_{self.select}']:.3f} "
            f"(best {self.best['score']:.3f}), {entry['songs_per_s']:.1f} songs/s, waiting {entry['waiting_share']:.1%}"
        )

    @property
    def said(self):
        """The validation score in words."""
        return SAID.get(self.select, self.select.replace("_", " "))


def to_the_end(make, model, out, identity, card, save_every_s=120.0, stop_after_steps=None, report=print):
    """Begin a run, go on with one that was stopped, or read back one that is finished.

    Parameters
    ----------
    make : callable
        Gives the `Run`; called only where there is something left to do.
    model : Module
        Afterwards it has the best weights.
    out : pathlib.Path
    identity : dict
        As the run has it.
    card : dict or None
        What else the checkpoint's card should say.
    save_every_s, stop_after_steps, report
        As supervised.train has them.

    Returns
    -------
    list of dict
        The history.

    Raises
    ------
    ValueError
        If the folder holds another run's files.
    """
    with loop.only_one_run(out):
        history = loop.finished(out, identity)
        if history is None:
            run = make()
            run.resume()
            if not run.history and not run.step:
                run.begin(report)
            try:
                with torch.random.fork_rng(devices=[]), loop.sigterm_like_ctrl_c():
                    complete = run.train(save_every_s, stop_after_steps, report)
            except KeyboardInterrupt:
                with loop.undisturbed():  # a second Ctrl-C waits for the file
                    run.save_last()
                report(f"stopped in epoch {run.epoch + 1}; run the same again to go on from step {run.step}")
                raise
            if not complete:
                return run.history
            run.finish(card or {})
            history = run.history
    checkpoints.load_weights(model, out / "checkpoint.safetensors")
    return history
