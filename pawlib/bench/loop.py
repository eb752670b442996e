"""What every training loop needs: crops of songs read ahead, the device, a state that can be taken up again.

engine.py (pretraining) and training.py (whole networks with labels, and cover songs) are the two loops.

Files of a run that is not finished
    last.safetensors   model, optimiser, and in its metadata where the run stands, which run it is, and a checksum

Stopping. Ctrl-C, and the SIGTERM that a cluster sends before it kills, are held back while a step is in work and
answered when it is whole: what is saved then is the state between two steps. SIGKILL costs what was done since the
last save.

Several devices. torchrun or srun start one process for each; each reads its own songs from the same store.

Told in: notebooks/10_pretrain_music_paw.ipynb
"""

import contextlib
import json
import logging
import math
import os
import platform
import queue
import signal
import threading
import time
import warnings
from pathlib import Path

import lightning_fabric
import numpy as np
import safetensors
import safetensors.torch
import torch
import torchaudio

from pawlib import checkpoints, encoders
from pawlib.bench.files import atomic, locked, read_json, remove_parts


def crop(store, track_id, sample_rate, n_samples, key, mono=True):
    """A random crop of a track at the wanted rate, chosen by `key` alone; a shorter track is repeated.

    Parameters
    ----------
    store : bench.store.Store
    track_id : str
    sample_rate : int [Hz]
    n_samples : int
    key : int
    mono : bool
        Mixed down, or every channel.

    Returns
    -------
    np.ndarray, float32 (n_samples,), or (n_channels, n_samples)
    """
    native, has = store.sample_rate(track_id), store.n_samples(track_id)
    wants = math.ceil(n_samples * native / sample_rate)
    start = key % (has - wants + 1) if has > wants else 0
    wave = store.read(track_id, start, min(wants, has), **({} if mono else {"mono": False}))
    wave = resampled(torch.from_numpy(wave), native, sample_rate).numpy()
    if wave.shape[-1] < n_samples:
        wave = np.tile(wave, math.ceil(n_samples / wave.shape[-1]))
    return wave[..., :n_samples]


def resampled(wave, native, sample_rate):
    """A wave at another rate, in float32 also where autocast is on: its convolution in bf16 would add noise.

    Parameters
    ----------
    wave : float32 Tensor [shape=(..., n_samples)]
    native, sample_rate : int [Hz]
    """
    if native == sample_rate:
        return wave
    with torch.autocast(wave.device.type, enabled=False):
        return torchaudio.functional.resample(wave, native, sample_rate)


def read_ahead(items):
    """Run an iterator in a thread, two items ahead of who consumes it.

    Parameters
    ----------
    items : iterator
        An error in it is raised where its result is awaited.

    Yields
    ------
    (item, float [s])
        And how long the consumer waited for it: zero where reading keeps up.
    """
    ready, stop = queue.Queue(maxsize=2), threading.Event()
    end = object()

    def fill():
        try:
            for item in items:
                _put(ready, item, stop)
                if stop.is_set():
                    return
            _put(ready, end, stop)
        except BaseException as error:  # told in the thread that waits
            _put(ready, error, stop)

    threading.Thread(target=fill, daemon=True).start()
    try:
        while True:
            began = time.perf_counter()
            item = ready.get()
            if item is end:
                return
            if isinstance(item, BaseException):
                raise item
            yield item, time.perf_counter() - began
    finally:
        stop.set()


def fabric(precision="auto", n_devices=1):
    """A launched Lightning Fabric: the GPU where there is one, bf16 where the device computes with it.

    Parameters
    ----------
    precision : "auto" | "32-true" | "bf16-mixed" | "64-true"
    n_devices : int or "auto"
        On all machines together. Several are started by torchrun or srun; a notebook has one. "auto": as many as were
        started.

    Raises
    ------
    ValueError
        If another number of processes was started.
    """
    n_started, n_nodes = started()
    n_devices = n_started if n_devices == "auto" else n_devices
    if n_devices != n_started:
        raise ValueError(
            f"{n_devices} devices are asked for and {n_started} processes were started, expected one for each: begin "
            f"with `torchrun --nproc_per_node={n_devices}` or `srun --ntasks={n_devices}`"
        )
    accelerator = "cuda" if torch.cuda.is_available() else "cpu"
    if precision == "auto":
        precision = "bf16-mixed" if has_bf16(accelerator) else "32-true"
    strategy = "auto"
    if n_devices > 1:
        strategy = lightning_fabric.strategies.DDPStrategy(find_unused_parameters=True)
    with _quiet_fabric():
        launched = lightning_fabric.Fabric(
            accelerator=accelerator,
            devices=n_devices // n_nodes,
            num_nodes=n_nodes,
            precision=precision,
            strategy=strategy,
        )
        launched.launch()
    return launched


def started():
    """(processes, machines) that torchrun or srun has started for this run; (1, 1) where neither has."""
    told = os.environ
    if "TORCHELASTIC_RUN_ID" in told:
        return int(told["WORLD_SIZE"]), int(told["WORLD_SIZE"]) // int(told["LOCAL_WORLD_SIZE"])
    return int(told.get("SLURM_STEP_NUM_TASKS", 1)), int(told.get("SLURM_STEP_NUM_NODES", 1))


def synchronise(model):
    """Let every batch norm of a model take mean and variance over all devices, torch's own too.

    torch.nn.SyncBatchNorm is for GPUs alone; the layer of the encoders does it anywhere.

    Raises
    ------
    ValueError
        For a batch norm without weights or without running statistics.
    """
    for name, module in model.named_modules():
        if not isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            continue
        if not isinstance(module, encoders.BatchNorm):
            if not (module.affine and module.track_running_stats and module.momentum is not None):
                raise ValueError(
                    f"{name} is a batch norm without weights, running statistics or momentum, which several devices "
                    "cannot share here: train this network on one device"
                )
            module.__class__ = _BatchNorm
        module.synchronise = True


class _BatchNorm(encoders.BatchNorm):
    """The encoders' batch norm for (B, C), (B, C, L) and (B, C, H, W)."""

    def forward(self, x):
        maps = {2: lambda: x[:, :, None, None], 3: lambda: x.unsqueeze(2), 4: lambda: x}[x.ndim]()
        return super().forward(maps).reshape(x.shape)


def machine(device=None, fabric=None):
    """What a run was made on: a dict of words for rows and cards.

    Parameters
    ----------
    device : torch.device, optional
        The CPU without.
    fabric : lightning_fabric.Fabric, optional
        Its device is taken, and the type its products are computed in is told: "bfloat16", "float32" or "float64".
    """
    device = fabric.device if fabric else device
    name = torch.cuda.get_device_name(device) if device is not None and device.type == "cuda" else _processor()
    told = {
        "device": name,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    return told | ({"precision": _precision(fabric)} if fabric else {})


def _precision(fabric):
    with fabric.autocast():
        kind = fabric.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else torch.get_default_dtype()
    return str(dtype).removeprefix("torch.")


def has_bf16(device_type="cpu"):
    """Whether the device computes bf16 products itself, so that they are faster than float32."""
    if device_type == "cuda":
        return torch.cuda.is_bf16_supported()
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def save_state(path, model, optimizer, told):
    """Write everything that a later call needs to go on, atomically.

    Parameters
    ----------
    path : path-like
    model : Module
    optimizer : Optimizer, optional
    told : dict
        Where the run stands; kept as JSON in the metadata.
    """
    tensors = {f"model.{name}": value for name, value in _unshared(model).items()}
    for i, state in optimizer.state_dict()["state"].items() if optimizer else ():
        tensors |= {f"optimizer.{i}.{name}": torch.as_tensor(v) for name, v in state.items() if v is not None}
    tensors = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    with atomic(path) as part:
        words = json.dumps(told)
        metadata = {"told": words, "sha256": checkpoints.checksum(tensors, words)}
        safetensors.torch.save_file(tensors, part, metadata=metadata)


def read_state(path):
    """(told, tensors) of a state file, or None where there is none.

    Raises
    ------
    ValueError
        If the file is damaged.
    """
    if not Path(path).is_file():
        return None
    try:
        with safetensors.safe_open(path, framework="pt") as opened:
            metadata = opened.metadata() or {}
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
            words = metadata["told"]
            if metadata.get("sha256", made := checkpoints.checksum(tensors, words)) != made:
                raise ValueError("it differs from its checksum")
            return json.loads(words), tensors
    except (safetensors.SafetensorError, KeyError, ValueError, OSError) as error:
        raise ValueError(f"{path} is damaged ({error}): delete it to begin this run anew") from error


def restore(tensors, model, optimizer=None):
    """Put the tensors of a state file back into a model and, where given, its optimiser."""
    with torch.no_grad():
        for name, value in _unshared(model).items():
            value.copy_(tensors[f"model.{name}"])
    if optimizer is None:
        return
    state = optimizer.state_dict()
    state["state"] = {}
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            _, i, leaf = name.split(".", 2)
            state["state"].setdefault(int(i), {})[leaf] = value
    optimizer.load_state_dict(state)


@contextlib.contextmanager
def only_one_run(out, fabric=None):
    """Hold the run's folder: a second call on it waits until the first has ended.

    The processes of one run share the folder: with their `fabric` the first holds it, the others wait until it does.
    """
    out.mkdir(parents=True, exist_ok=True)
    if fabric is not None and not fabric.is_global_zero:
        fabric.barrier()
        yield
        return
    with locked(out, "training this run"):
        remove_parts(out)
        if fabric is not None:
            fabric.barrier()
        yield


@contextlib.contextmanager
def undisturbed():
    """Hold Ctrl-C and SIGTERM back until the block is through; for what must not be left half done."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    before = {number: handler for number, handler in before.items() if callable(handler)}  # what raises something
    for number in before:
        signal.signal(number, lambda number, _: came.append(number))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if came:
        before[came[0]](came[0], None)


@contextlib.contextmanager
def sigterm_like_ctrl_c():
    """Let SIGTERM, by which a cluster says that a job's time is up, raise KeyboardInterrupt as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before if before is not None else signal.SIG_DFL)


def finished(out, identity):
    """History of a run that is complete, or None; a complete one of other settings is an error."""
    if not (out / "checkpoint.safetensors").is_file() or not (out / "checkpoint.json").is_file():
        return None
    card = checkpoints.read_card(out / "checkpoint.safetensors")
    same_run(card.get("training", {}), identity, out / "checkpoint.safetensors")
    for name in ("last.safetensors", "best.safetensors"):  # of a run that was killed between its last two acts
        (out / name).unlink(missing_ok=True)
    return read_json(out / "history.json")


def same_run(there, wanted, path):
    """Refuse files of another run: its settings, songs, seed or recipe differ.

    Raises
    ------
    ValueError
        Naming the file and the first setting that differs.
    """
    there, wanted = json.loads(json.dumps(there)), json.loads(json.dumps(wanted))
    there, wanted = ({**told.pop("settings", {}), **told} for told in (there, wanted))
    for name in dict.fromkeys([*wanted, *there]):  # a setting of one that the other lacks is a difference, too
        if there.get(name) != wanted.get(name):
            raise ValueError(
                f"{path} was made with {name}={there.get(name)}, this run wants {wanted.get(name)}: choose another "
                "folder, or delete that one to begin anew"
            )


def _put(ready, item, stop):
    while not stop.is_set():
        with contextlib.suppress(queue.Full):
            ready.put(item, timeout=0.1)
            return


@contextlib.contextmanager
def _quiet_fabric():
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*srun.*")
        warnings.filterwarnings("ignore", message=".*can't initialize NVML.*")
        yield


def _unshared(model):
    """Parameters and buffers of a model, each once however many names it has."""
    own = dict(model.named_parameters())
    persistent = set(model.state_dict())
    return own | {name: value for name, value in model.named_buffers() if name in persistent}


def _processor():
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
