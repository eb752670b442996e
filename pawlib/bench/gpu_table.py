"""One command, one table: how fast this machine pretrains, beside the least time that its arithmetic and memory allow.

    python -m pawlib.bench.gpu_table                      the paper's geometry, FCN-4 and FCN-7, batch 48
    python -m pawlib.bench.gpu_table --batch 192          more songs a step
    python -m pawlib.bench.gpu_table --out gpu.json       kept as a row, too: in data/results/speed chapter 90 shows it
    python -m pawlib.bench.gpu_table --scale toy          the same table in seconds, also on a CPU; says nothing

Conventions
    The step is that of bench.engine: crops from a store, augmentation, log-mels, encoder, block, loss, Adam. The songs
    are noise in memory: waiting for them is what the input side costs where the disk keeps up. The first epoch
    (compilation, first allocations) is not counted.
    rate        : operations a second of a square matrix product, measured here, in the type the step computes in
    bandwidth   : bytes a second of a copy, read and write counted, measured here
    floor       : the larger of  operations of the encoder / rate  and  bytes / bandwidth  [s a step]. The bytes are
                  those that a step fused as far as it can be would still move: each layer's pooled output, written once
                  and read forward and backward, its gradient, and weights with Adam's two moments. No step that does
                  its products in this type is faster.

Told in: notebooks/90_speed.ipynb
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from pawlib import encoders, model
from pawlib.bench import engine, loop, results, speed
from pawlib.bench.files import write_json

GEOMETRY = {"paper": {}, "toy": {"whole_seconds": 5.6, "n_levels": 2}}
BATCH = {"paper": 48, "toy": 2}
STEPS = {"paper": 20, "toy": 1}
MATRIX = {"paper": 8192, "toy": 256}
COPY_BYTES = {"paper": 2**30, "toy": 2**22}
SECONDS_OF_A_SONG = 29.124  # MagnaTagATune's
MTAT_SONGS, MTAT_EPOCHS = 18_706, 300  # of the paper's pretraining, for the last column


class Noise:
    """A store of noise in memory, in MagnaTagATune's lengths; the interface that bench.engine reads from.

    Parameters
    ----------
    n_songs : int
    sample_rate : int [Hz]
    """

    def __init__(self, n_songs, sample_rate=16_000):
        self.ids = [str(i) for i in range(n_songs)]
        self.rate, self.length = sample_rate, round(SECONDS_OF_A_SONG * sample_rate)
        self.noise = np.random.default_rng(0).integers(-8000, 8000, 2 * self.length, dtype=np.int16)

    def sample_rate(self, track_id):
        """Hz."""
        return self.rate

    def n_samples(self, track_id):
        """Length [samples]."""
        return self.length

    def read(self, track_id, start=0, n_samples=None, mono=True):
        """float32 (n_samples,): each song begins elsewhere in the same noise."""
        first = 7919 * int(track_id) % self.length + start
        return np.multiply(self.noise[first : first + n_samples], np.float32(1 / 32768), dtype=np.float32)


def device_rates(scale):
    """(operations a second, bytes a second) of a matrix product and a copy on this device, the best of five.

    Parameters
    ----------
    scale : "paper" | "toy"
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = torch.bfloat16 if loop.has_bf16(device.type) else torch.float32
    n = MATRIX[scale]
    a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
    source = torch.zeros(COPY_BYTES[scale], dtype=torch.uint8, device=device)
    target = torch.ones_like(source)
    rate = 2 * n**3 / _best(lambda: a @ b, device)
    return rate, 2 * len(source) / _best(lambda: target.copy_(source), device)


def bytes_of_step(paw, n_songs):
    """Bytes that even a fully fused step moves: see the module's map.

    Parameters
    ----------
    paw : MusicPAW
    n_songs : int
    """
    sizes = []
    n_frames = paw.mels.n_frames(paw.n_whole)
    shape = (1, paw.mels.n_mels, n_frames)
    for layer in (m for m in paw.encoder.modules() if isinstance(m, encoders.ConvLayer)):
        shape = (layer.conv.out_channels, shape[1] // layer.pool_size[0], shape[2] // layer.pool_size[1])
        sizes.append(int(np.prod(shape)))
    n_clips = sum(paw.n_parts**n for n in range(paw.n_levels)) + 1
    half = 2  # bytes of a value
    activations = 5 * half * n_clips * n_songs * sum(sizes)  # write, read, read again; gradient: write, read
    n_weights = sum(p.numel() for p in paw.parameters())
    return activations + 8 * 4 * n_weights  # weight, two moments: read and write; gradient: write and read


def measure(encoder, scale, batch_size, n_steps, rates, seed=0):
    """Pretrain for two epochs and read the second.

    Parameters
    ----------
    encoder : "fcn_4" | "fcn_7"
    scale : "paper" | "toy"
    batch_size, n_steps : int > 0
        Steps of an epoch.
    rates : (float, float)
        As `device_rates` gives them.
    seed : int

    Returns
    -------
    dict
        songs_per_s, floor_songs_per_s, share_of_floor (1: as fast as can be), bound ("arithmetic" or "memory"),
        waiting_share, peak_gb, hours (of the paper's 300 epochs of MagnaTagATune).
    """
    torch.manual_seed(seed)
    paw = model.MusicPAW(encoder=encoder, **GEOMETRY[scale])
    by_arithmetic = speed.operations_of_step(paw, batch_size) / rates[0]
    by_memory = bytes_of_step(paw, batch_size) / rates[1]
    store = Noise(batch_size * n_steps, paw.sample_rate)
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with tempfile.TemporaryDirectory() as folder:
        history = engine.pretrain(
            paw, store, store.ids, folder, n_epochs=2, batch_size=batch_size, seed=seed, report=lambda line: None
        )
    songs_per_s = history[-1]["songs_per_s"]
    floor = batch_size / max(by_arithmetic, by_memory)
    peak = torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else speed.peak_memory_gb()
    return {
        "songs_per_s": songs_per_s,
        "floor_songs_per_s": floor,
        "share_of_floor": songs_per_s / floor,
        "bound": "arithmetic" if by_arithmetic > by_memory else "memory",
        "waiting_share": history[-1]["waiting_share"],
        "peak_gb": peak,
        "hours": MTAT_SONGS * MTAT_EPOCHS / songs_per_s / 3600,
    }


def table(found, rates, scale, batch_size):
    """The lines to print: the machine, then a line per encoder."""
    device = torch.device("cuda", 0) if torch.cuda.is_available() else None
    name = loop.machine(device)["device"]
    lines = [
        f"{name}: {rates[0] / 1e12:.3g} T operations/s in a matrix product, {rates[1] / 1e9:.3g} GB/s in a copy",
        f"scale {scale}, batch {batch_size}" + ("; the numbers of toy mean nothing" if scale == "toy" else ""),
        f"{'encoder':8}{'songs/s':>10}{'floor':>10}{'of floor':>10}{'bound by':>12}{'waiting':>9}{'memory':>10}"
        f"{'300 epochs of MTAT':>20}",
    ]
    for encoder, one in found.items():
        lines.append(
            f"{encoder:8}{one['songs_per_s']:10.1f}{one['floor_songs_per_s']:10.1f}{one['share_of_floor']:10.1%}"
            f"{one['bound']:>12}{one['waiting_share']:9.1%}{one['peak_gb']:7.1f} GB{one['hours']:18.1f} h"
        )
    return lines


def row(found, rates, scale, batch_size):
    """What is kept: the numbers of the table with their machine and commit."""
    device = torch.device("cuda", 0) if torch.cuda.is_available() else None
    return {
        "scale": scale,
        "batch_size": batch_size,
        "machine": loop.machine(device),
        "commit": results.commit(),
        "parts": "gpu",
        "matrix_gflops": rates[0] / 1e9,
        "copy_gb_per_s": rates[1] / 1e9,
        "gpu" if device else "cpu": found,
    }


def main(argv=None):
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m pawlib.bench.gpu_table", description=__doc__.splitlines()[0])
    parser.add_argument("--scale", choices=tuple(GEOMETRY), default="paper")
    parser.add_argument("--encoders", nargs="+", choices=("fcn_4", "fcn_7"), default=["fcn_4", "fcn_7"])
    parser.add_argument("--batch", type=int, help="songs a step (default: the paper's 48)")
    parser.add_argument("--steps", type=int, help="steps that are timed (default: 20)")
    parser.add_argument("--out", type=Path, help="a JSON file for the numbers, with machine and commit")
    asked = parser.parse_args(argv)
    batch_size, n_steps = asked.batch or BATCH[asked.scale], asked.steps or STEPS[asked.scale]
    if batch_size < 2 or n_steps < 1:
        print("a step needs two songs, a table one step", file=sys.stderr)
        return 2
    rates = device_rates(asked.scale)
    found = {name: measure(name, asked.scale, batch_size, n_steps, rates) for name in asked.encoders}
    print("\n".join(table(found, rates, asked.scale, batch_size)))
    if asked.out:
        write_json(asked.out, row(found, rates, asked.scale, batch_size))
        print(f"kept: {asked.out}")
    return 0


def _best(function, device):
    """Seconds of a call, the least of five after one that is not counted."""
    times = []
    for _ in range(6):
        began = time.perf_counter()
        function()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return min(times[1:])


if __name__ == "__main__":
    sys.exit(main())
