"""The pretraining loop: songs in, one checkpoint out, on Lightning Fabric; it can be stopped anywhere and run again.

What it asks of a model (MusicPAW and every other pretraining system have it)
    model.sample_rate, model.n_whole                  rate and length of the crops it wants
    model.views(wave, keys) -> tuple of tensors       batched, without gradient: (B, n_whole) and one key per song
    model(*views) -> representations                  any nest of tensors with the songs first
    model.objective(*representations) -> loss (B,), logs: dict of numbers, or Tensors () that may still be computed
    model.save(path, card)                            the common checkpoint format
    model.after_step()                                if it has one: what moves on its own after each optimiser step

Randomness. The order of songs comes from (seed, epoch), a song's crop and augmentation from (seed, epoch, song),
dropout from (seed, epoch, step): so a run that is stopped and resumed ends in the same bits as one that was not,
however far ahead songs were read.

Files in the run's folder
    checkpoint.safetensors, .json   the result and its card; there only when the run is finished
    history.json                    one entry per finished epoch
    last.safetensors                where to go on after a stop; removed at the end. No pickle anywhere

Told in: notebooks/10_pretrain_music_paw.ipynb
"""

import hashlib
import math
import resource
import time
import warnings
from pathlib import Path

import torch

from pawlib import augment, checkpoints, paths
from pawlib.bench import loop, results
from pawlib.bench.files import write_json

SCALES = {
    # what a run of each scale means; the paper's settings are Sec. 4.1's
    "toy": {"n_songs": 8, "n_epochs": 2, "batch_size": 4, "compile": False},
    "small": {"n_songs": 400, "n_epochs": 4, "batch_size": 16, "compile": "auto"},
    "paper": {"n_songs": None, "n_epochs": 300, "batch_size": 48, "compile": "auto"},
}
LEARNING_RATE = 3e-4
WEIGHT_DECAY = 1e-6
SWAMPED_SHARE, SWAMPED_LOSS = 0.95, 0.05
ORTHOGONAL = 2.0  # squared distance of unit vectors with cosine 0


def pretrain(
    model,
    store,
    ids,
    out,
    *,
    n_epochs,
    batch_size,
    seed=0,
    learning_rate=LEARNING_RATE,
    weight_decay=WEIGHT_DECAY,
    precision="auto",
    compile="auto",
    n_devices="auto",
    freeze_batch_norm=False,
    save_every_s=120.0,
    card=None,
    stop_after_steps=None,
    report=print,
):
    """Pretrain a model on songs of a store, or go on where an earlier call was stopped.

    Parameters
    ----------
    model : Module
        With the interface of the module's map.
    store : bench.store.Store
    ids : sequence of str
        Songs to learn from.
    out : path-like
        The run's folder.
    n_epochs, batch_size : int
        The batch is the global one: with several devices each takes an equal share, negatives are gathered.
    seed : int
        Of order, crops, augmentation and dropout. The model was initialised by the caller.
    learning_rate, weight_decay : float
        Of Adam.
    precision : "auto" | "32-true" | "bf16-mixed" | "64-true"
        "auto": bf16 where the device computes with it.
    compile : "auto" | bool
        torch.compile of the encoder; "auto" on a GPU. On a CPU `fast_layer` is faster than what it compiles.
    n_devices : int or "auto"
        On all machines together; "auto": as many as torchrun or srun has started, one in a notebook. Statistics of
        batch norm are those of all devices. The numbers are those of one device but for rounding and for what a model
        draws on its own device: dropout, and what the maps of BYOL-A and Multi-Format say.
    freeze_batch_norm : bool
        Batch norm keeps its running statistics: for tests that compare numbers of devices.
    save_every_s : float [s]
        How often last.safetensors is written within an epoch; it is always written after one.
    card : dict, optional
        What else the checkpoint's card should say.
    stop_after_steps : int, optional
        Stop (resumable) after so many steps of this call: for tests.
    report : callable
        Gets one line per epoch.

    Returns
    -------
    list of dict
        The history: per epoch loss, the model's own logs, songs per second, share of the time spent waiting for data.

    Raises
    ------
    ValueError
        If there are fewer songs than a batch holds, or the folder holds another run's files.
    FloatingPointError
        If the loss is not finite: it names step and songs; the last good state is kept.

    Told in: notebooks/10_pretrain_music_paw.ipynb
    """
    out, ids = Path(out), list(ids)
    if len(ids) < batch_size:
        raise ValueError(f"{len(ids)} songs do not fill one batch of {batch_size}: take a smaller batch or more songs")
    n_sharing = loop.started()[0] if n_devices == "auto" else n_devices
    if batch_size % n_sharing:
        raise ValueError(f"a batch of {batch_size} does not divide among {n_sharing} devices: take a multiple")
    identity = {
        "settings": getattr(model, "settings", {}),
        "songs": hashlib.sha256("\n".join(ids).encode()).hexdigest()[:16],
        "n_songs": len(ids),
        "n_epochs": n_epochs,
        "batch_size": batch_size,
        "seed": seed,
        "learning_rate": learning_rate,
        "weight_decay": weight_decay,
    }
    fabric = loop.fabric(precision, n_devices)
    with loop.only_one_run(out, fabric), loop.sigterm_like_ctrl_c():
        finished = loop.finished(out, identity)
        if finished is not None:
            return finished
        run = _Run(fabric, model, out, identity, learning_rate, weight_decay, freeze_batch_norm, _wants(compile))
        run.resume()
        try:
            with torch.random.fork_rng(devices=[]):
                complete = run.train(store, ids, n_epochs, batch_size, seed, save_every_s, stop_after_steps, report)
        except KeyboardInterrupt:
            with loop.undisturbed():  # a second Ctrl-C waits for the file
                run.save_last()
            report(f"stopped in epoch {run.epoch + 1}; run the same again to go on from step {run.step}")
            raise
        if complete:
            with loop.undisturbed():
                run.finish(card or {})
            fabric.barrier()  # nobody reads the checkpoint before it is there
        return run.history


def pretrain_at_scale(build, corpus, system, encoder, *, scale, seed, tag=None, out=None, report=print, **changes):
    """Build a model from its seed and pretrain it on the training songs of a corpus, as much as a scale asks for.

    At toy and small scale every seed learns from the same songs, the first of a fixed shuffle.

    Parameters
    ----------
    build : callable () -> model
        Called with the global generator seeded; the generator is as before afterwards.
    corpus : corpora.Corpus
    system, encoder : str
        Slugs, for the run's id and card.
    scale : "toy" | "small" | "paper"
    seed : int
    tag : str, optional
        Of a run off the default readings, for its id.
    out : path-like, optional
        The run's folder; by default runs()/<corpus>.<scale>.<system>.<encoder>.pretrain[.<tag>].seed<seed>.
    **changes
        Of the scale's n_songs, n_epochs, batch_size, compile, or of `pretrain`'s other arguments; a None changes
        nothing.

    Returns
    -------
    model, history, folder
        The model with its trained weights, also where an earlier call had finished the run.

    Raises
    ------
    ValueError
        For an unknown scale, or as `pretrain`.
    """
    if scale not in SCALES:
        raise ValueError(f"scale={scale!r} is unknown, expected one of {', '.join(SCALES)}")
    recipe = {**SCALES[scale], **{name: value for name, value in changes.items() if value is not None}}
    n_songs = recipe.pop("n_songs")
    ids = [track.id for track in corpus.splits.train]
    if n_songs is not None:
        chosen = torch.randperm(len(ids), generator=torch.Generator().manual_seed(0))[:n_songs].tolist()
        ids = [ids[i] for i in sorted(chosen)]
    recipe["batch_size"] = min(recipe["batch_size"], len(ids))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(augment.sample_key(seed, 0))
        model = build()
    made = results.make_id(system, encoder, corpus.name, "pretrain", scale, seed, tag)
    folder = Path(out) if out else paths.runs() / made
    card = {
        "system": system,
        "encoder": encoder,
        "data": {"corpus": corpus.name, "split": corpus.splits.split, "n_songs": len(ids)},
        "scale": scale,
        "seed": seed,
        "commit": results.commit(),
        "versions": results.versions(corpus.name),
    }
    history = pretrain(model, corpus.store, ids, folder, seed=seed, card=card, report=report, **recipe)
    checkpoints.load_weights(model, folder / "checkpoint.safetensors")
    return model, history, folder


class _Run:
    """One training run: model and optimiser on their devices, where it stands, and what is kept on disk."""

    def __init__(self, fabric, model, out, identity, learning_rate, weight_decay, freeze_batch_norm, compiled):
        self.fabric, self.out, self.identity = fabric, out, identity
        self.bare = model
        self.freeze_batch_norm = freeze_batch_norm
        self._to_training()
        if fabric.world_size > 1:
            loop.synchronise(model)
        model.to(memory_format=torch.channels_last)
        if compiled:
            model.encoder.compile()
        fused = fabric.device.type == "cuda"  # one launch instead of some for each weight; on a CPU it gains nothing
        optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate, weight_decay=weight_decay, fused=fused)
        self.model, self.optimizer = fabric.setup(model, optimizer, move_to_device=True)
        self.model.mark_forward_method("objective")
        self.compiled = compiled
        self.epoch, self.step, self.history, self.sums = 0, 0, [], {}

    def train(self, store, ids, n_epochs, batch_size, seed, save_every_s, stop_after_steps, report):
        """Run to the end (True) or to the asked stop (False)."""
        n_steps = len(ids) // batch_size
        saved = time.monotonic()
        here = 0
        while self.epoch < n_epochs:
            batches = _batches(self.bare, store, ids, batch_size, seed, self.epoch, self.step, self.fabric)
            for (songs, wave, keys), waited in batches:
                with loop.undisturbed():
                    began = time.perf_counter()
                    logs = self._one_step(wave, keys, songs, seed)
                    logs |= {"waiting_s": waited, "working_s": time.perf_counter() - began}
                    for name, value in logs.items():
                        self.sums[name] = self.sums.get(name, 0.0) + value
                    self.step += 1
                    here += 1
                if self.step < n_steps and time.monotonic() - saved > save_every_s:
                    self.save_last()
                    saved = time.monotonic()
                if stop_after_steps is not None and here >= stop_after_steps:
                    batches.close()
                    if self.step == n_steps:
                        self._end_epoch(n_steps, batch_size, n_epochs, report)
                    self.save_last()
                    return self.epoch == n_epochs
            with loop.undisturbed():
                self._end_epoch(n_steps, batch_size, n_epochs, report)
                self.save_last()
            saved = time.monotonic()
        return True

    def _one_step(self, wave, keys, songs, seed):
        torch.manual_seed(augment.sample_key(seed, self.epoch, self.step, self.fabric.global_rank))  # dropout
        with torch.no_grad():
            views = self.bare.views(wave.to(self.fabric.device, non_blocking=True), keys)
        representations = self.model(*views)
        representations = _gathered(self.fabric, representations)
        losses, logs = self.bare.objective(*representations)
        loss = losses.mean()
        self.optimizer.zero_grad(set_to_none=True)
        self.fabric.backward(loss)
        logs = _numbers({"loss": loss.detach(), **logs}, loss.device)
        if not math.isfinite(logs["loss"]):
            raise FloatingPointError(
                f"the loss is {logs['loss']} in epoch {self.epoch + 1}, step {self.step + 1}, songs "
                f"{', '.join(songs[:4])}...: is one of them damaged, or the learning rate too high? "
                f"{self.out / 'last.safetensors'} keeps the last good state"
            )
        self.optimizer.step()
        if hasattr(self.bare, "after_step"):
            self.bare.after_step()
        return logs

    def _end_epoch(self, n_steps, batch_size, n_epochs, report):
        means = {name: value / n_steps for name, value in self.sums.items()}
        waiting, working = self.sums["waiting_s"], self.sums["working_s"]
        del means["waiting_s"], means["working_s"]
        entry = {"epoch": self.epoch + 1, **means}
        entry["songs_per_s"] = n_steps * batch_size / (waiting + working)
        entry["waiting_share"] = waiting / (waiting + working)
        entry["peak_memory_gb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        self.history.append(entry)
        self.epoch, self.step, self.sums = self.epoch + 1, 0, {}
        if self.fabric.is_global_zero:
            write_json(self.out / "history.json", self.history)
            report(_line(entry, n_epochs))
        _warn_if_swamped(entry)

    def save_last(self):
        """Write everything that a later call needs to go on."""
        if self.fabric.is_global_zero:
            told = {key: getattr(self, key) for key in ("identity", "epoch", "step", "history", "sums")}
            loop.save_state(self.out / "last.safetensors", self.bare, self.optimizer, told)

    def resume(self):
        """Go on from last.safetensors where there is one of this very run."""
        path = self.out / "last.safetensors"
        kept = loop.read_state(path)
        if kept is None:
            return
        told, tensors = kept
        loop.same_run(told["identity"], self.identity, path)
        loop.restore(tensors, self.bare, self.optimizer)
        self.epoch, self.step = told["epoch"], told["step"]
        self.history, self.sums = told["history"], told["sums"]

    def finish(self, card):
        """Write the checkpoint with its card, remove what was only for resuming."""
        if not self.fabric.is_global_zero:
            return
        last = self.history[-1]
        card = {
            **card,
            "training": self.identity,
            "metrics": last,
            "machine": loop.machine(fabric=self.fabric),
            "compiled": self.compiled,
        }
        self.bare.save(self.out / "checkpoint.safetensors", card)
        (self.out / "last.safetensors").unlink(missing_ok=True)

    def _to_training(self):
        self.bare.train()
        if self.freeze_batch_norm:
            for module in self.bare.modules():
                if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
                    module.eval()


def _batches(model, store, ids, batch_size, seed, epoch, first_step, fabric):
    """This device's part of every batch of an epoch, read ahead in a thread: songs, wave, keys, seconds waited."""
    order = torch.randperm(len(ids), generator=torch.Generator().manual_seed(augment.sample_key(seed, epoch))).tolist()
    share = batch_size // fabric.world_size

    def read():
        for step in range(first_step, len(ids) // batch_size):
            begin = step * batch_size + fabric.global_rank * share
            indices = order[begin : begin + share]
            keys = [augment.sample_key(seed, epoch, index) for index in indices]
            songs = [ids[i] for i in indices]
            waves = torch.empty(len(songs), model.n_whole, pin_memory=fabric.device.type == "cuda")  # sent on the side
            for row, song, key in zip(waves, songs, keys, strict=True):
                row.copy_(torch.from_numpy(loop.crop(store, song, model.sample_rate, model.n_whole, key)))
            yield songs, waves, keys

    yield from loop.read_ahead(read())


def _numbers(logs, device):
    """Floats of a dict of numbers and Tensors (), fetched from the device at once: it is waited for once a step."""
    values = [torch.as_tensor(value).to(device, torch.float64) for value in logs.values()]
    return dict(zip(logs, torch.stack(values).tolist(), strict=True))


def _gathered(fabric, nest):
    """The songs of all devices, with gradients that flow back to each; as it is on one device."""
    if fabric.world_size == 1:
        return nest
    if isinstance(nest, torch.Tensor):
        # Flat: on CPUs torch sends a gradient back as it lies in memory, and a permuted one would come back shuffled.
        flat = fabric.all_gather(nest.flatten(), sync_grads=True)  # (n_devices, B * ...)
        return flat.reshape(-1, *nest.shape[1:])
    return type(nest)(_gathered(fabric, part) for part in nest)


def _wants(compile):
    return torch.cuda.is_available() if compile == "auto" else bool(compile)


def _warn_if_swamped(entry):
    """Say when the part-whole term has taken over Eq. 5: negatives teach nothing, or the view is pushed away."""
    share = entry.get("part_whole_share", 0.0)
    if share <= SWAMPED_SHARE:
        return
    if entry["loss"] < SWAMPED_LOSS:
        seen = f"the loss is {entry['loss']:.4f}: hardly anything is learnt from negatives any more"
    elif entry.get("alignment", 0.0) > ORTHOGONAL:
        seen = (
            f"alignment is {entry['alignment']:.2f}, beyond 2: the song's own augmented view is pushed away, not pulled"
        )
    else:
        return
    warnings.warn(
        f"epoch {entry['epoch']}: the part-whole term makes up {share:.1%} of Eq. 5's numerator and {seen}. "
        'Another temperature (reading R8), the remedies of R16, or pw_exponent="printed" (R6) change that',
        stacklevel=3,
    )


def _line(entry, n_epochs):
    parts = [f"epoch {entry['epoch']}/{n_epochs}", f"loss {entry['loss']:.4f}"]
    for name in ("alignment", "uniformity", "part_whole_share"):
        if name in entry:
            parts.append(f"{name.replace('_', ' ')} {entry[name]:.3f}")
    return ", ".join([*parts, f"{entry['songs_per_s']:.2f} songs/s", f"waiting {entry['waiting_share']:.1%}"])
