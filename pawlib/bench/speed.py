"""How fast: the step as a reader would first write it beside ours, the machine's own limit, and where a step goes; the
pretrainings beside each other; a folder of mp3 through an encoder and through a tagger.

Conventions
    Machines differ and are shared, so what counts is a ratio: the things compared take turns, round after round, and
    the ratio is the median over rounds. Times are wall-clock seconds; beside them stands the processor time, which
    another program's load disturbs less (on several threads it is the sum of theirs).
    wave, wave_aug : Tensor [shape=(B, n_whole)], the crops and their augmented views, made beforehand.
    A model is a MusicPAW, or anything with its mels, encoder, interact and projector; for `pretraining_rates` and
    EnginePass anything that bench.engine trains.

Told in: notebooks/90_speed.ipynb
"""

import contextlib
import copy
import itertools
import resource
import statistics
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import scipy.stats
import torch
import torchaudio

from pawlib import augment, crops, encoders
from pawlib.bench import audio, costs, engine, folders, loop, protocols
from pawlib.bench.datasets import folder as any_folder
from pawlib.bench.embed import BATCH_CLIPS, clips_of, computing_fast

FORWARD_AND_BACKWARD = 3  # a training step's products: forward, gradient of the input, gradient of the weights
NEVER_DONE = 1_000_000  # epochs of a run that is only timed


def in_plain_order(network):
    """A network's own layers in the order they are printed in, with torch's batch norm in place of ours.

    What is changed is the network itself; numbers and parameters stay.

    Parameters
    ----------
    network : Module
        With layers of encoders.py or blocks of systems/layers.py in it.

    Returns
    -------
    Module
    """
    for name, module in list(network.named_modules()):
        if hasattr(module, "pool_first"):
            module.pool_first = False
        if isinstance(module, encoders.BatchNorm):
            usual = torch.nn.BatchNorm2d(module.num_features).to(module.weight)
            usual.load_state_dict(module.state_dict())
            usual.requires_grad_(module.weight.requires_grad)
            network.set_submodule(name, usual.train(module.training))
    return network


def as_first_written(model):
    """A copy of a model with torch's own layers in the plain order, and torchaudio's front-ends, one per level.

    Returns
    -------
    model, fronts : the copy and a list of N torchaudio modules
    """
    plain = copy.deepcopy(model)
    in_plain_order(plain.encoder)
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
        One that returns a float tells its own seconds, e.g. without set-up; else the call is timed.
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
            own = function()
            took = time.perf_counter() - wall, time.process_time() - cpu
            if one_round:
                times[name]["wall_s"].append(own if isinstance(own, float) else took[0])
                times[name]["cpu_s"].append(took[1])
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
    """Songs a second of a supervised network, its share of what a convolution reaches, and how answers differ.

    The plain way of answering stands beside ours: float32, every layer called as it is printed, the same weights.

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
        `convolution`, in operations by the rule of costs.py (training counted as three passes). `times_plain`: how many
        times as fast as the plain way it answers; `largest_difference` of a probability between the two ways, and
        `rank_agreement`, the lowest rank correlation of an input's tags.
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
            return model(wave).float().sigmoid()

    train()
    plain = in_plain_order(copy.deepcopy(model)).to(memory_format=torch.contiguous_format).eval()

    def answer_plainly():
        with torch.inference_mode():
            return plain(wave).sigmoid()

    ours, theirs = answer(), answer_plainly()
    found = {
        "macs": macs,
        "largest_difference": (ours - theirs).abs().max().item(),
        "rank_agreement": min(scipy.stats.spearmanr(a, b).statistic for a, b in zip(ours, theirs, strict=True)),
    }
    ways = {"train": train, "answer": answer, "plain": answer_plainly, "convolution": conv}
    times = take_turns(ways, n_rounds)
    found["times_plain"] = ratio(times, "plain", "answer")
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


# --- pretraining beside pretraining ---


class EnginePass:
    """One epoch of bench.engine per call, each going on where the last stopped; a call returns its own seconds.

    They are the engine's: waiting for songs and working on them, as in a run; neither set-up nor files.

    Parameters
    ----------
    model : Module
        As bench.engine takes it. A copy is trained.
    store : bench.store.Store
    ids : list of str
        Songs to choose from, taken again where they are too few.
    batch_size, n_steps : int > 0
        Of an epoch.
    folder : path-like
        Where the run is kept between calls.
    seed : int
    precision : str
        As bench.engine has it.
    """

    def __init__(self, model, store, ids, batch_size, n_steps, folder, seed=0, precision="auto"):
        self.model, self.store, self.folder, self.seed, self.precision = (
            copy.deepcopy(model),
            store,
            folder,
            seed,
            precision,
        )
        self.batch_size, self.n_steps = batch_size, n_steps
        self.ids = list(itertools.islice(itertools.cycle(ids), batch_size * n_steps))

    def __call__(self):
        with warnings.catch_warnings():  # a loss of a few steps on random weights says nothing
            warnings.filterwarnings("ignore", message=".*the part-whole term makes up.*")
            history = engine.pretrain(
                self.model, self.store, self.ids, self.folder, n_epochs=NEVER_DONE, batch_size=self.batch_size,
                seed=self.seed, precision=self.precision, compile=False, stop_after_steps=self.n_steps,
                report=lambda line: None,
                learning_rate=getattr(self.model, "LEARNING_RATE", engine.LEARNING_RATE),
            )  # fmt: skip
        return len(self.ids) / history[-1]["songs_per_s"]


def heard_seconds(model):
    """Seconds of a song that one step of a pretraining hears: its whole, or two crops where `n_clip` is cut from it."""
    n_clip = getattr(model, "n_clip", model.n_whole)
    return min(2 * n_clip, model.n_whole) / model.sample_rate


def pretraining_rates(models, store, ids, seconds_per_step, n_rounds, n_steps=2, seed=0, precision="auto"):
    """Pretrainings through one store and one engine, at equal audio per step and equal precision, in turns.

    What differs is then a system's own: its views, its networks, its loss. As many songs make a step as together hold
    `seconds_per_step` of what the system hears of a song (`heard_seconds`).

    Parameters
    ----------
    models : dict name -> Module
        As bench.engine takes them. The first is the one that ratios are formed with.
    store : bench.store.Store
    ids : list of str
    seconds_per_step : float [s]
    n_rounds, n_steps : int > 0
        Rounds, and steps of an epoch of which a round consists.
    seed : int
    precision : str
        As bench.engine has it.

    Returns
    -------
    dict name -> dict
        songs_per_step, heard_s (of a song), songs_per_s, audio_per_s (seconds heard per second), and
        times_as_much_audio, times_as_many_songs: against the first, medians over rounds.

    Raises
    ------
    ValueError
        If two songs already hold more than `seconds_per_step`: batch norm and contrast need two.

    Told in: notebooks/90_speed.ipynb
    """
    sizes = {name: round(seconds_per_step / heard_seconds(model)) for name, model in models.items()}
    few = [name for name, size in sizes.items() if size < 2]
    if few:
        raise ValueError(
            f"{seconds_per_step} s of audio per step are less than two songs of {few[0]}, of which each step hears "
            f"{heard_seconds(models[few[0]]):.1f} s: ask for more"
        )
    with tempfile.TemporaryDirectory() as folder:
        passes = {
            name: EnginePass(model, store, ids, sizes[name], n_steps, Path(folder) / str(i), seed, precision)
            for i, (name, model) in enumerate(models.items())
        }
        times = take_turns(passes, n_rounds)
    first, *_ = models
    found = {}
    for name, model in models.items():
        songs_per_s = sizes[name] * n_steps / statistics.median(times[name]["wall_s"])
        more_songs = ratio(times, first, name) * sizes[name] / sizes[first]
        found[name] = {
            "songs_per_step": sizes[name],
            "heard_s": heard_seconds(model),
            "songs_per_s": songs_per_s,
            "audio_per_s": songs_per_s * heard_seconds(model),
            "times_as_many_songs": more_songs,
            "times_as_much_audio": more_songs * heard_seconds(model) / heard_seconds(models[first]),
        }
    return found


# --- a folder of mp3 ---


def write_mp3s(folder, waves, sample_rate, n_copies=1, mp3_rate=44_100):
    """Songs as a folder of stereo mp3s, as people have them.

    Parameters
    ----------
    folder : path-like
        It is made where it is not there.
    waves : list of np.ndarray [shape=(n_samples,)]
    sample_rate : int [Hz]
        Of the waves.
    n_copies : int > 0
        Files of each song, with names of their own.
    mp3_rate : int [Hz]
        Of the files.

    Returns
    -------
    float [s]
        Length of all files together.
    """
    import soundfile

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for i, wave in enumerate(waves):
        first = folder / f"song_{i:03d}_0.mp3"
        left = audio.resample(wave, sample_rate, mp3_rate)
        right = np.roll(left, mp3_rate // 1000)  # a millisecond late: two channels that differ
        with soundfile.SoundFile(first, "w", mp3_rate, 2) as file:
            for begin in range(0, len(left), 10 * mp3_rate):
                file.write(np.stack([left, right], axis=1)[begin : begin + 10 * mp3_rate])
        for k in range(1, n_copies):
            first.with_name(f"song_{i:03d}_{k}.mp3").write_bytes(first.read_bytes())
    return n_copies * sum(len(wave) for wave in waves) / sample_rate


def embed_folder(model, root, levels="all"):
    """What `pawlib embed` does, from the listing of the folder to the finished file, which is thrown away."""
    with tempfile.TemporaryDirectory() as out:
        return folders.embed(root, Path(out) / "embeddings.parquet", model, levels)


def tag_folder(tagger, root, batch_size=16):
    """Every file of a folder through a supervised network: decoded ahead, cut into its inputs, probabilities averaged.

    The last input of a file is completed by repetition, as `pawlib embed` completes the last whole.

    Parameters
    ----------
    tagger : Module
        With sample_rate and n_samples; (B, n_samples) -> logits (B, n_classes). Its memory order is changed.
    root : path-like
    batch_size : int > 0

    Returns
    -------
    dict id -> Tensor [shape=(n_classes,)]
        Mean probabilities (reading R11).

    Told in: notebooks/90_speed.ipynb
    """

    def inputs():
        for track in any_folder.read(root):
            waves = [wave for wave, _ in folders.wholes(track.path, tagger.sample_rate, tagger.n_samples)]
            yield track.id, torch.from_numpy(np.stack(waves))

    tagger.eval()
    found = {}
    with torch.inference_mode(), computing_fast(tagger):
        for (name, waves), _ in loop.read_ahead(inputs()):
            logits = torch.cat([tagger(some).float() for some in waves.split(batch_size)])
            found[name] = logits.sigmoid().mean(0)
    return found


def folder_stages(model, root, levels=None):
    """Where the time of embedding a folder goes, one stage after the other, nothing overlapped: seconds.

    Parameters
    ----------
    model : MusicPAW
    root : path-like
    levels : list of int, optional
        All by default.

    Returns
    -------
    dict stage -> seconds, in the order of work
    """
    levels = list(range(model.n_levels)) if levels is None else levels
    took = dict.fromkeys(("decoding", "mixing down and resampling", "log-mels", "encoder"), 0.0)

    @contextlib.contextmanager
    def stage(name):
        began = time.perf_counter()
        yield
        took[name] += time.perf_counter() - began

    model = copy.deepcopy(model).eval()
    with torch.inference_mode(), computing_fast(model):
        for track in any_folder.read(root):
            with stage("decoding"):
                wave, rate = audio.decode(track.path)
            with stage("mixing down and resampling"):
                mono = audio.resample(audio.mixed_down(wave.T), rate, model.sample_rate)
            wholes, _ = crops.split_wholes(torch.from_numpy(mono).unsqueeze(0), model.n_whole)
            tree = crops.hierarchical_crops(wholes[0], model.n_levels, model.n_parts)
            for level in levels:
                for some in tree[level].flatten(0, 1).split(BATCH_CLIPS):
                    with stage("log-mels"):
                        mel = model.mels.level(level, some.unsqueeze(1)).flatten(0, 1)
                    with stage("encoder"):
                        model.encoder(mel)
    return took


# --- what comes before, and memory ---


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
    n_clip = model.n_whole // model.n_parts**level
    model = copy.deepcopy(model).eval()
    with torch.inference_mode(), computing_fast(model):
        model.embed_clips(clips_of(waves[0], n_clip), level)
        began = time.perf_counter()
        clips = torch.cat([clips_of(wave, n_clip) for wave in waves])
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
