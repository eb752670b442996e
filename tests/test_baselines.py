"""pawlib.bench.baselines: statistics of the average sound, random encoders, logistic probes."""

import numpy as np
import pytest
import torch

from pawlib.bench import baselines

RNG = np.random.default_rng(0)
NOISE = RNG.normal(0, 0.1, 32_000).astype(np.float32)


def _slow_log_mel(wave):
    """Reflected frames, Hann window, power spectrum, triangles on the HTK mel scale, decibel: 128 rows."""
    edges = 700 * (10 ** (np.linspace(0, 2595 * np.log10(1 + 8000 / 700), 130) / 2595) - 1)
    at_hz = np.arange(513) * 16_000 / 1024
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(1024) / 1024)
    padded = np.pad(wave.astype(float), 512, mode="reflect")
    columns = []
    for start in range(0, len(wave) + 1, 512):
        power = np.abs(np.fft.rfft(padded[start : start + 1024] * window)) ** 2
        up = [(at_hz - edges[k]) / (edges[k + 1] - edges[k]) for k in range(129)]
        bands = [np.sum(power * np.clip(np.minimum(up[k], 1 - up[k + 1]), 0, None)) for k in range(128)]
        columns.append(10 * np.log10(np.maximum(bands, 1e-10)))
    return np.array(columns).T


def test_log_mel_statistics_are_mean_and_deviation_of_the_spectrogram_in_slow_loops():
    decibel = _slow_log_mel(NOISE)
    decibel = np.maximum(decibel, decibel.max() - 80)
    found = baselines.log_mel_statistics(NOISE, 16_000)
    assert found.shape == (256,)
    np.testing.assert_allclose(found[:128], decibel.mean(1), atol=0.02)
    np.testing.assert_allclose(found[128:], decibel.std(1), atol=0.02)


@pytest.mark.parametrize("statistics", [baselines.log_mel_statistics, baselines.mfcc_statistics])
def test_order_in_time_is_not_heard(statistics):
    """A clip and the clip with its halves exchanged have the same statistics, but for the frames at the joint."""
    parts = [NOISE[:16_384], np.sin(np.arange(16_384) * 0.1).astype(np.float32)]
    a, b = (statistics(np.concatenate(order), 16_000) for order in (parts, parts[::-1]))
    moved, kept = np.abs(a - b).max(), np.abs(a - statistics(parts[0], 16_000)).max()
    assert moved < 0.2 * kept


def test_mfcc_statistics_have_two_numbers_per_coefficient():
    assert baselines.mfcc_statistics(NOISE, 16_000).shape == (40,)


@pytest.mark.parametrize(
    ("wave", "message"),
    [
        (np.zeros((2, 4000)), "expected \\(n_samples,\\)"),
        (np.zeros(100), "at least 1024"),
        (np.full(4000, np.nan), "NaN"),
    ],
)
def test_audio_that_is_none_is_refused(wave, message):
    with pytest.raises(ValueError, match=message):
        baselines.log_mel_statistics(wave, 16_000)


def test_a_probe_ranks_a_linear_tag_rightly_and_leaves_an_empty_tag_at_zero():
    x = RNG.normal(size=(120, 5))
    y = np.column_stack([x[:, 0] > 0, np.zeros(120)]).astype(np.float32)
    scores = baselines.logistic_probe(x[:60], y[:60], x[60:90], y[60:90], x[90:])
    assert scores.shape == (30, 2)
    assert scores[y[90:, 0] == 1, 0].mean() > scores[y[90:, 0] == 0, 0].mean() + 1
    assert (scores[:, 1] == 0).all()


def test_c_is_chosen_on_validation():
    """Validation with turned-over labels prefers the weakest fit of noise features."""
    x = RNG.normal(size=(80, 40))
    y = (x[:, :1] > 0).astype(np.float32)
    agree = baselines.logistic_probe(x[:40], y[:40], x[40:], y[40:], x[40:])
    alone = [baselines.logistic_probe(x[:40], y[:40], x[40:], y[40:], x[40:], cs=[c]) for c in baselines.CS]
    aucs = [baselines._macro_roc_auc(y[40:], scores) for scores in alone]
    np.testing.assert_allclose(agree, alone[int(np.argmax(aucs))])


def test_features_and_targets_must_fit():
    with pytest.raises(ValueError, match="train: features"):
        baselines.logistic_probe(
            np.zeros((3, 2)), np.zeros((4, 1)), np.zeros((3, 2)), np.zeros((3, 1)), np.zeros((3, 2))
        )


def test_a_random_encoder_is_the_same_for_the_same_seed_and_leaves_torchs_generator_alone():
    waves = [RNG.normal(0, 0.1, baselines.WHOLE_SAMPLES).astype(np.float32) for _ in range(2)]
    state = torch.random.get_rng_state()
    a, b, c = (baselines.random_fcn_4(waves, seed, "whole") for seed in (0, 0, 1))
    assert a.shape == (2, 512) and (a == b).all() and not np.allclose(a, c)
    assert torch.equal(state, torch.random.get_rng_state())
    with pytest.raises(ValueError, match="clips='part'"):
        baselines.random_fcn_4(waves, 0, "part")
