"""pawlib/bench/speed.py: both steps are the same step, turns are taken in turn, and nothing here asserts a time."""

import copy

import numpy as np
import pytest
import torch

from pawlib import model
from pawlib.bench import speed

TOLERANCE = 1e-8


@pytest.fixture(scope="module")
def tiny():
    """Two levels, so that a whole of 5.6 s has 351 frames; float64, batch norm and dropout at rest."""
    torch.manual_seed(0)
    made = model.MusicPAW("music_paw", n_levels=2, whole_seconds=5.6, feed_forward=32, n_layers=1)
    return made.double().eval()


def waves(tiny, n_songs=2):
    return torch.randn(n_songs, tiny.n_whole, dtype=torch.float64) / 4, torch.randn(n_songs, tiny.n_whole).double() / 4


def test_both_steps_represent_alike_and_their_gradients_are_equal(tiny):
    wave, wave_aug = waves(tiny)
    plain, fronts = speed.as_first_written(tiny)
    ours = copy.deepcopy(tiny)
    results = []
    for made, z in (
        (plain, speed.represent_as_first_written(plain, fronts, wave, wave_aug)),
        (ours, speed.represent(ours, wave, wave_aug)),
    ):
        made.loss(*z).mean().backward()
        results.append((z, {name: p.grad for name, p in made.named_parameters()}))
    (z, gradients), (z_ours, gradients_ours) = results
    for a, b in zip([*z[0], z[1]], [*z_ours[0], z_ours[1]], strict=True):
        torch.testing.assert_close(a, b, atol=TOLERANCE, rtol=TOLERANCE)
    assert gradients.keys() == gradients_ours.keys() and gradients
    for name, gradient in gradients.items():
        assert gradient is not None, name
        torch.testing.assert_close(gradients_ours[name], gradient, atol=TOLERANCE, rtol=1e-6)


def test_the_first_written_copy_leaves_the_model_alone(tiny):
    plain, _ = speed.as_first_written(tiny)
    assert not any(layer.pool_first for layer in plain.encoder.layers)
    assert all(layer.pool_first for layer in tiny.encoder.layers)


def test_functions_take_turns_and_the_first_call_is_not_counted():
    order = []
    times = speed.take_turns({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, n_rounds=3)
    assert order == ["a", "b"] * 4
    assert all(len(times[name][clock]) == 3 for name in "ab" for clock in ("wall_s", "cpu_s"))


def test_no_round_is_an_error():
    with pytest.raises(ValueError, match="n_rounds=0"):
        speed.take_turns({"a": print}, 0)


def test_ratio_is_the_median_over_rounds_not_of_sums():
    times = {"slow": {"wall_s": [4.0, 30.0, 6.0]}, "fast": {"wall_s": [2.0, 10.0, 1.0]}}
    assert speed.ratio(times, "slow", "fast") == 3.0


def test_operations_of_a_step_are_those_counted_by_hand(tiny):
    """Two levels: 3 clips and a view; 8.93 G multiply-accumulates for 16 inputs (Table 1), times 2, times 3."""
    assert speed.operations_of_step(tiny.float(), 2) == pytest.approx(8.93e9 / 16 * 2 * 3 * 4 * 2, rel=1e-3)
    tiny.double()


def test_a_matrix_product_counts_two_operations_per_multiply_accumulate():
    product, operations = speed.matrix_product(torch.float32, n=8)
    assert product().shape == (8, 8) and operations == 2 * 8**3


class _Store:
    def sample_rate(self, track):
        return 16_000

    def n_samples(self, track):
        return 200_000

    def read(self, track, start, n_samples):
        return np.random.default_rng(0).standard_normal(n_samples).astype(np.float32) / 4


def test_every_stage_of_a_step_is_there_in_the_order_of_work():
    made = model.MusicPAW("music_paw", n_levels=2, whole_seconds=5.6, feed_forward=32, n_layers=1)
    before = {name: p.clone() for name, p in made.named_parameters()}
    found = speed.stages(made, _Store(), ["a", "b"], n_rounds=1)
    assert list(found)[:4] == ["crop", "augmentation", "log-mels", "encoder, forward"]
    assert list(found)[-1] == "optimiser" and all(seconds > 0 for seconds in found.values())
    assert all(torch.equal(before[name], p) for name, p in made.named_parameters())  # timed on a copy


def test_embedding_counts_the_seconds_heard(monkeypatch):
    made = model.MusicPAW("baseline", n_levels=2, whole_seconds=5.6)
    clock = iter([0.0, 2.0])
    monkeypatch.setattr(speed.time, "perf_counter", lambda: next(clock))
    assert speed.embedding_rate(made, [torch.randn(96_000)] * 2, level=1) == pytest.approx(2 * 6.0 / 2.0)


def test_supervised_rates_leave_the_network_as_it_was():
    class Tiny(torch.nn.Module):
        n_samples = 64

        def __init__(self):
            super().__init__()
            self.settings = {"n_classes": 3}
            self.layer = torch.nn.Linear(64, 3)

        def forward(self, wave):
            return self.layer(wave)

    network = Tiny()
    before = network.layer.weight.detach().clone()
    rates = speed.supervised_rates(network, batch_size=4, n_rounds=1)
    assert rates["macs"] == 64 * 3
    assert torch.equal(network.layer.weight, before) and network.layer.weight.grad is None
    assert rates["training_share"] * rates["inference_songs_per_s"] == pytest.approx(
        3 * rates["inference_share"] * rates["training_songs_per_s"], rel=1e-6
    )  # with one round both shares are operations over the same convolution


def test_the_yardstick_counts_its_operations():
    convolve, operations = speed.convolution(torch.float32, n_channels=2, n_clips=3, size=(4, 5))
    assert convolve().shape == (3, 2, 4, 5)
    assert operations == 2 * (3 * 2 * 4 * 5) * (2 * 3 * 3)  # two for every product: outputs x products of each
