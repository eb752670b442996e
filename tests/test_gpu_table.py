"""gpu_table: one command prints the table; its floor counts what its map says."""

import numpy as np
import pytest
import torch

from pawlib import model
from pawlib.bench import gpu_table, speed
from pawlib.bench.files import read_json


def test_the_command_prints_a_line_per_encoder_and_keeps_it(capsys, tmp_path):
    assert gpu_table.main(["--scale", "toy", "--encoders", "fcn_4", "--out", str(tmp_path / "gpu.json")]) == 0
    machine, scale, head, line, _ = capsys.readouterr().out.splitlines()
    assert "T operations/s in a matrix product" in machine and "GB/s in a copy" in machine
    assert scale == "scale toy, batch 2; the numbers of toy mean nothing"
    assert head.split()[:3] == ["encoder", "songs/s", "floor"] and line.split()[0] == "fcn_4"
    kept = read_json(tmp_path / "gpu.json")
    found = kept["gpu" if torch.cuda.is_available() else "cpu"]["fcn_4"]  # a processor's rate is no card's
    assert float(line.split()[1]) == pytest.approx(found["songs_per_s"], abs=0.06) and found["songs_per_s"] > 0
    assert kept["scale"] == "toy" and kept["machine"]["torch"]


def test_a_step_of_one_song_is_refused(capsys):
    assert gpu_table.main(["--scale", "toy", "--batch", "1"]) == 2
    assert "a step needs two songs" in capsys.readouterr().err


def test_bytes_by_hand():
    """FCN-4 on 128 x 351: pooled outputs of 64 x 64 x 87, 128 x 32 x 21, 128 x 16 x 5, 128 x 4 x 1 values."""
    paw = model.MusicPAW(whole_seconds=5.6, n_levels=2)
    values = 64 * 64 * 87 + 128 * 32 * 21 + 128 * 16 * 5 + 128 * 4 * 1
    n_weights = sum(p.numel() for p in paw.parameters())
    assert gpu_table.bytes_of_step(paw, 3) == 5 * 2 * 4 * 3 * values + 32 * n_weights


def test_noise_is_read_as_a_store_is():
    store = gpu_table.Noise(3)
    clip = store.read("2", 100, 50)
    assert clip.dtype == np.float32 and len(clip) == 50 and np.abs(clip).max() < 0.3
    np.testing.assert_array_equal(store.read("2", 0, store.n_samples("2"))[100:150], clip)
    assert not np.array_equal(store.read("1", 100, 50), clip)


def test_operations_grow_with_the_songs():
    paw = model.MusicPAW(whole_seconds=5.6, n_levels=2)
    assert speed.operations_of_step(paw, 4) == pytest.approx(2 * speed.operations_of_step(paw, 2))
