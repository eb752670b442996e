"""How fast: the step as a reader would first write it beside ours, the machine's own limit, and where a step goes.

Conventions
    Machines differ and are shared, so what counts is a ratio: the things compared take turns, round after round, and
    the ratio is the median over rounds. Times are wall-clock seconds; beside them stands the processor time, which
    another program's load disturbs less (on several threads it is the sum of theirs).
    wave, wave_aug : Tensor [shape=(B, n_whole)], the crops and their augmented views, made beforehand.
    A model is a MusicPAW, or anything with its mels, encoder, interact and projector.

Told in: notebooks/90_speed.ipynb
"""

import contextlib
import copy
import resource
import statistics
import time
import warnings

import torch
import torchaudio

from pawlib import augment, encoders
from pawlib.bench import costs, engine, loop, protocols

FORWARD_AND_BACKWARD = 3  # a training step's products: forward, gradient of the input, gradient of the weights


def as_first_written(model):
    """A copy of a model with torch's own layers in the plain order, and torchaudio's front-ends, one per level.

    Returns
    -------
    model, fronts : the copy and a list of N torchaudio modules
    """
    plain = copy.deepcopy(model)
    plain.encoder.pooling_first(False)
    for name, module in list(plain.encoder.named_modules()):
        if isinstance(module, encoders.BatchNorm):
            usual = torch.nn.BatchNorm2d(module.num_features).to(module.weight)
            usual.load_state_dict(module.state_dict())
            plain.encoder.set_submodule(name, usual.train(module.training))
    fronts = []
    for level in model.mels.fronts:
        with warnings.catch_warnings():  # filters between two bins: the paper's settings, see mels.py
            warnings.filterwarnings("ignore", message="At least one mel filterbank has all zero values")
            mel = torchaudio.transforms.MelSpectrogram(
                level.sample_rate, level.n_fft, hop_length=level.hop_length, n_mels=level.filters.shape[1]
            )
        fronts.append(torch.nn.Sequential(mel, torchaudio.transforms.AmplitudeToDB()).to(level.filters))
    return plain, fronts


def represent_as_first_written(model, fronts, wave, wave_aug):
    """Projected tree and view as the paper reads: each clip position passes front-end and encoder by itself."""
    s = []
    for n in range(model.n_levels):
        clips = wave.chunk(model.n_parts**n, dim=1)
        s.append(torch.stack([model.encoder(fronts[n](clip).unsqueeze(1)) for clip in clips], dim=1))  # (B, M**n, 512)
    s_aug = model.encoder(fronts[0](wave_aug).unsqueeze(1))
    return [model.projector(level) for level in model.interact(s)], model.projector(s_aug)


def represent(model, wave, wave_aug):
    """Projected tree and view as we compute them: one front-end pass per level, one encoder pass for all."""
    with torch.no_grad():
        views = model.log_mels(wave), model.log_mel_of_whole(wave_aug)
    return model(*views)


def step_as_first_written(model, wave, wave_aug):
    """A function that makes one training step (without optimiser) in float32, eager, plain order."""
    plain, fronts = as_first_written(model.float())

    def step():
        z, z_aug = represent_as_first_written(plain, fronts, wave, wave_aug)
        plain.zero_grad(set_to_none=True)
        plain.loss(z, z_aug).mean().backward()

    return step


def step(model, wave, wave_aug):
    """A function that makes one training step (without optimiser) as bench.engine does."""
    model = copy.deepcopy(model).to(memory_format=torch.channels_last)

    def ours():
        with fast_products():
            z, z_aug = represent(model, wave, wave_aug)
            loss = model.loss(z, z_aug).mean()
        model.zero_grad(set_to_none=True)
        loss.backward()

    return ours


def fast_products(device_type="cpu"):
    """bf16 products where the device computes with them, else nothing."""
    return torch.autocast(device_type, dtype=torch.bfloat16, enabled=loop.has_bf16(device_type))


def take_turns(functions, n_rounds):
    """Time functions in turn, after one call of each that is not counted.

    Parameters
    ----------
    functions : dict name -> callable
    n_rounds : int > 0

    Returns
    -------
    dict name -> {"wall_s": list, "cpu_s": list}, one number per round

    Raises
    ------
    ValueError
        If there is no round to time.
    """
    if n_rounds < 1:
        raise ValueError(f"n_rounds={n_rounds}: at least one round is needed for a time")
    times = {name: {"wall_s": [], "cpu_s": []} for name in functions}
    for one_round in range(n_rounds + 1):
        for name, function in functions.items():
            wall, cpu = time.perf_counter(), time.process_time()
            function()
            if one_round:
                times[name]["wall_s"].append(time.perf_counter() - wall)
                times[name]["cpu_s"].append(time.process_time() - cpu)
    return times


def ratio(times, slow, fast, clock="wall_s"):
    """How many times `fast` goes into `slow`: the median over rounds of what `take_turns` gave."""
    return statistics.median(a / b for a, b in zip(times[slow][clock], times[fast][clock], strict=True))


def matrix_product(dtype, n=2048):
    """A function that multiplies two n x n matrices, and its operations (2 n**3)."""
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(n, n, generator=generator).to(dtype) for _ in range(2))
    return lambda: a @ b, 2 * n**3


def convolution(dtype, n_channels=128, n_clips=16, size=(32, 87)):
    """A function that convolves maps 3 x 3, 128 channels to 128, and its operations: what a convolution can reach."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n_clips, n_channels, *size, generator=generator).to(dtype, memory_format=torch.channels_last)
    w = torch.randn(n_channels, n_channels, 3, 3, generator=generator)
    w = w.to(dtype, memory_format=torch.channels_last)
    operations = 2 * n_clips * n_channels * n_channels * 9 * size[0] * size[1]
    return lambda: torch.nn.functional.conv2d(x, w, padding=1), operations


def supervised_rates(model, batch_size, n_rounds, single_label=False):
    """Songs a second of a supervised network, training and answering, and its share of what a convolution reaches.

    Parameters
    ----------
    model : Module
        As bench.supervised takes it. A copy is trained: one step is front-end, network, loss, backward pass, Adam.
    batch_size, n_rounds : int
    single_label : bool
        Of the loss.

    Returns
    -------
    dict
        `macs` of one input; `training_songs_per_s`, `inference_songs_per_s`, and for both `..._share` of the rate of
        `convolution`, in operations by the rule of costs.py (training counted as three passes).
    """
    bf16 = loop.has_bf16()
    conv, operations = convolution(torch.bfloat16 if bf16 else torch.float32)
    macs = costs.count(model, torch.zeros(1, model.n_samples)).macs
    model = copy.deepcopy(model).to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    generator = torch.Generator().manual_seed(0)
    wave = torch.randn(batch_size, model.n_samples, generator=generator) / 4
    target = torch.eye(model.settings["n_classes"])[torch.arange(batch_size) % model.settings["n_classes"]]

    def train():
        model.train()
        with fast_products():
            logits = model(wave)
        optimizer.zero_grad(set_to_none=True)
        protocols.loss_of(logits.float(), target, single_label).backward()
        optimizer.step()

    def answer():
        model.eval()
        with torch.inference_mode(), fast_products():
            model(wave)

    times = take_turns({"train": train, "answer": answer, "convolution": conv}, n_rounds)
    found = {"macs": macs}
    for name, what, n_passes in (("train", "training", FORWARD_AND_BACKWARD), ("answer", "inference", 1)):
        found[f"{what}_songs_per_s"] = batch_size / statistics.median(times[name]["wall_s"])
        convolutions = ratio(times, name, "convolution")
        found[f"{what}_share"] = 2 * n_passes * macs * batch_size / operations / convolutions
    return found


def operations_of_step(model, n_songs):
    """Operations of one training step's encoder: multiply-accumulates of all clips and the view, times 2, times 3."""
    n_clips = sum(model.n_parts**n for n in range(model.n_levels)) + 1
    n_mels, n_frames = model.mels.n_mels, model.mels.n_frames(model.n_whole)
    macs = costs.count(copy.deepcopy(model.encoder), torch.zeros(1, 1, n_mels, n_frames)).macs
    return 2 * FORWARD_AND_BACKWARD * macs * n_clips * n_songs


def stages(model, store, ids, n_rounds, seed=0):
    """Where a training step goes, stage after stage, median seconds over rounds (the first is not counted).

    Parameters
    ----------
    model : MusicPAW
    store : bench.store.Store
    ids : list of str
        The songs of one batch.
    n_rounds : int
    seed : int

    Returns
    -------
    dict stage -> seconds, in the order of work
    """
    model = copy.deepcopy(model).to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=engine.LEARNING_RATE, weight_decay=engine.WEIGHT_DECAY)
    found = [_one_step_by_stages(model, optimizer, store, ids, seed + i) for i in range(n_rounds + 1)][1:]
    return {stage: statistics.median(one[stage] for one in found) for stage in found[0]}


def _one_step_by_stages(model, optimizer, store, ids, seed):
    took = {}

    @contextlib.contextmanager
    def stage(name):
        began = time.perf_counter()
        yield
        took[name] = time.perf_counter() - began

    keys = [augment.sample_key(seed, 0, i) for i in range(len(ids))]
    with stage("crop"):
        cut = [
            loop.crop(store, track, model.sample_rate, model.n_whole, key) for track, key in zip(ids, keys, strict=True)
        ]
        wave = torch.stack([torch.from_numpy(one) for one in cut])
    with torch.no_grad():
        with stage("augmentation"):
            wave_aug = augment.augment(wave, keys, model.sample_rate)
        with stage("log-mels"):
            tree, mel_aug = model.log_mels(wave), model.log_mel_of_whole(wave_aug)
    with fast_products():
        with stage("encoder, forward"):
            s, s_aug = model.encode(tree, mel_aug)
        leaves = [level.detach().requires_grad_() for level in (*s, s_aug)]
        with stage("block and loss, forward"):
            z = [model.projector(level) for level in model.interact(leaves[:-1])]
            z_aug = model.projector(leaves[-1])
            loss = model.loss(z, z_aug).mean()
    optimizer.zero_grad(set_to_none=True)
    with stage("block and loss, backward"):
        loss.backward()
    with stage("encoder, backward"):
        torch.autograd.backward([*s, s_aug], [leaf.grad for leaf in leaves])
    with stage("optimiser"):
        optimizer.step()
    return took


def embedding_rate(model, waves, level, batch_clips=64):
    """Embed tracks as the probes do; seconds of audio per second.

    Parameters
    ----------
    model : MusicPAW
    waves : list of Tensor [shape=(n_samples,)], at the model's rate
    level : int
        Whose clips are embedded.
    batch_clips : int
    """
    from pawlib.bench import embed

    n_clip = model.n_whole // model.n_parts**level
    model = copy.deepcopy(model).eval()
    with torch.inference_mode(), embed.computing_fast(model):
        model.embed_clips(embed.clips_of(waves[0], n_clip), level)
        began = time.perf_counter()
        clips = torch.cat([embed.clips_of(wave, n_clip) for wave in waves])
        for some in clips.split(batch_clips):
            model.embed_clips(some, level)
        took = time.perf_counter() - began
    return sum(wave.shape[-1] for wave in waves) / model.sample_rate / took


def peak_memory_gb():
    """The most memory this process has held so far [GiB]."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def take_once(function):
    """Seconds that one call takes."""
    began = time.perf_counter()
    function()
    return time.perf_counter() - began
