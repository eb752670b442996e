"""Several devices: two processes on a CPU learn what one learns, from one store, and leave one checkpoint."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from test_engine import Songs
from torch import nn

from pawlib import checkpoints, encoders, losses
from pawlib.bench import engine, loop
from pawlib.model import MusicPAW
from pawlib.systems import layers
from pawlib.systems.pretraining import cola

TESTS = Path(__file__).parent
TOLERANCE = 1e-4
N_STEPS = 50
TIMEOUT_S = 300
FRONT_END = {"n_fft": 64, "hop_length": 16, "n_mels": 16}


class Tones(Songs):
    """A tone of its own in the noise of each song: something to tell them apart by, or float32 has nothing to hold."""

    def __init__(self, n_songs=40, n_samples=5000):
        super().__init__(n_songs, n_samples)
        time = np.arange(n_samples) / self.rate
        for i, name in enumerate(self.waves):
            self.waves[name] += 0.5 * np.sin(2 * np.pi * (200 + 150 * i) * time).astype(np.float32)


class Small(encoders.Trunk):
    """Two layers for log-mels of 16 bands and 41 frames; 512 features out."""

    name = "small"

    def __init__(self):
        super().__init__((8, 128), ((2, 4), (4, 5)), True)

    def forward(self, mel):
        return self.maps(mel).flatten(1)


class Waves(nn.Module):
    """The engine's interface around torch's own batch norms, in one dimension and in none."""

    sample_rate, n_whole, settings = 16_000, 400, {}

    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv1d(1, 8, 9, stride=4), nn.BatchNorm1d(8), nn.Tanh(),
            layers.Conv1d(8, 8, 9, stride=4), layers.BatchNorm1d(8), nn.Tanh(), nn.Flatten(),
            nn.Linear(184, 16), nn.BatchNorm1d(16),
        )  # fmt: skip

    def views(self, wave, keys):
        return wave[:, None], (wave.cos() + torch.tensor([[key % 7 / 7.0] for key in keys]) * wave)[:, None]

    def forward(self, wave, view):
        return self.encoder(torch.cat([wave, view])).chunk(2)

    def objective(self, z, z_aug):
        return losses.nt_xent(z, z_aug, 0.5), {}

    def save(self, path, card):
        checkpoints.save(self, path, "pretraining", card)


def build(system):
    torch.manual_seed(0)
    if system == "waves":
        return Waves()
    if system == "cola":
        model = cola.COLA(whole_seconds=0.08, clip_seconds=0.04, **FRONT_END)
    else:
        model = MusicPAW(
            whole_seconds=0.08, n_levels=2, n_layers=1, n_heads=2, head_width=8, feed_forward=32, dropout=0.0,
            **FRONT_END,
        )  # fmt: skip
    model.encoder = Small()
    return model


SYSTEMS = ("music_paw", "cola", "waves")


def main(out):
    """Pretrain each system; write the loss of every step, as this process saw it."""
    torch.set_num_threads(1)
    store = Tones()
    one_step, seen = engine._Run._one_step, []

    def seen_step(*arguments):
        logs = one_step(*arguments)
        seen.append(logs["loss"])
        return logs

    engine._Run._one_step = seen_step
    for system in SYSTEMS:
        seen.clear()
        model, folder = build(system), Path(out) / system
        engine.pretrain(
            model, store, store.ids, folder, n_epochs=N_STEPS // 5, batch_size=8, compile=False, precision="64-true",
            save_every_s=1e9, report=lambda line: None,
        )  # fmt: skip
        checkpoints.load_weights(build(system), folder / "checkpoint.safetensors")  # is it there for all?
        rank = int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", 0)))
        (folder / f"seen{rank}.json").write_text(json.dumps(seen))


def launch(command, out, **environment):
    script = f"import sys; sys.path.insert(0, {str(TESTS)!r}); import test_devices; test_devices.main(sys.argv[1])"
    file = out.with_suffix(".py")
    file.write_text(script)
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("SLURM", "TORCHELASTIC"))}
    return subprocess.Popen(
        [*command, str(file), str(out)], env=clean | {"OMP_NUM_THREADS": "1"} | environment,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def ended(*processes):
    for process in processes:
        said = process.communicate(timeout=TIMEOUT_S)[0]
        assert process.returncode == 0, said[-3000:]


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    out = tmp_path_factory.mktemp("one") / "run"
    ended(launch([sys.executable], out))
    return out


@pytest.fixture(scope="module", params=["torchrun", "srun"])
def two(request, tmp_path_factory):
    """Two processes, as torchrun starts them, and as srun does (its environment; nothing else of SLURM is needed)."""
    out = tmp_path_factory.mktemp("two") / "run"
    if request.param == "torchrun":
        words = ["--nproc_per_node=2", "--master_port=0", "--rdzv_backend=c10d", "--rdzv_endpoint=localhost:0"]
        ended(launch([sys.executable, "-m", "torch.distributed.run", *words], out))
        return out
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    told = {
        "SLURM_NTASKS": 2, "SLURM_NTASKS_PER_NODE": 2, "SLURM_STEP_NUM_TASKS": 2, "SLURM_STEP_NUM_NODES": 1,
        "SLURM_NNODES": 1, "SLURM_NODEID": 0, "SLURM_JOB_ID": 1, "SLURM_JOB_NAME": "train",
        "SLURM_NODELIST": "localhost", "MASTER_PORT": port,
    }  # fmt: skip
    environment = {key: str(value) for key, value in told.items()}
    ended(*(
        launch([sys.executable], out, SLURM_PROCID=str(rank), SLURM_LOCALID=str(rank), **environment)
        for rank in range(2)
    ))  # fmt: skip
    return out


@pytest.mark.parametrize("system", SYSTEMS)
def test_two_processes_have_the_loss_curve_of_one(one, two, system):
    """50 steps, equal global batch, batch norm over both; Music-PAW without dropout.

    In float64: what is summed in another order is rounded otherwise, and 50 steps of float32 carry that to 6e-4 on some
    processors.
    """
    alone = json.loads((one / system / "seen0.json").read_text())
    ranks = [json.loads((two / system / f"seen{rank}.json").read_text()) for rank in range(2)]
    assert len(alone) == N_STEPS and len(set(alone)) > N_STEPS / 2
    assert ranks[0] == ranks[1]  # both have the representations of all songs
    assert ranks[0] == pytest.approx(alone, abs=TOLERANCE)


def test_another_number_of_processes_than_devices_is_refused(monkeypatch):
    with pytest.raises(ValueError, match="2 devices are asked for and 1 processes were started.*torchrun --nproc"):
        loop.fabric(n_devices=2)
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "16")
    monkeypatch.setenv("SLURM_STEP_NUM_NODES", "2")
    assert loop.started() == (16, 2)
    with pytest.raises(ValueError, match="1 devices are asked for and 16"):
        loop.fabric(n_devices=1)
    for name, value in {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4"}.items():
        monkeypatch.setenv(name, value)
    assert loop.started() == (8, 2)


def test_a_batch_that_does_not_divide_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "3")
    store = Songs()
    with pytest.raises(ValueError, match="a batch of 4 does not divide among 3 devices: take a multiple"):
        engine.pretrain(Waves(), store, store.ids, tmp_path, n_epochs=1, batch_size=4)


@pytest.mark.parametrize("norm", [nn.BatchNorm1d, nn.BatchNorm2d, layers.BatchNorm1d, encoders.BatchNorm])
def test_synchronising_changes_no_number_of_one_device(norm):
    x = torch.randn(5, 3, 7) if norm in (nn.BatchNorm1d, layers.BatchNorm1d) else torch.randn(5, 3, 4, 6)
    plain, other = nn.Sequential(norm(3)), nn.Sequential(norm(3))
    nn.init.uniform_(plain[0].weight)
    other.load_state_dict(plain.state_dict())
    loop.synchronise(other)
    assert other[0].synchronise and isinstance(other[0], encoders.BatchNorm)
    for training in (True, False):
        torch.testing.assert_close(plain.train(training)(x), other.train(training)(x), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(dict(plain.state_dict()), dict(other.state_dict()), rtol=1e-5, atol=1e-5)
    if norm is nn.BatchNorm1d:
        torch.testing.assert_close(plain.train()(x[..., 0]), other.train()(x[..., 0]), rtol=1e-5, atol=1e-5)


def test_a_batch_norm_that_cannot_be_shared_is_named():
    with pytest.raises(ValueError, match="^1 is a batch norm without weights"):
        loop.synchronise(nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3, affine=False)))
