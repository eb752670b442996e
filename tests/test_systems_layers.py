"""pawlib/systems/layers.py: every block against its formula, the front-ends against slow loops, copying by order."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pawlib import encoders, mels
from pawlib.systems import layers

TOLERANCE = 1e-9


def restless(module):
    """Random weights of both signs for every norm, and running statistics of its own; in float64."""
    with torch.no_grad():
        for norm in module.double().modules():
            if isinstance(norm, (nn.BatchNorm1d, nn.BatchNorm2d)):
                norm.weight.normal_()
                norm.bias.normal_()
                norm.running_mean.normal_()
                norm.running_var.uniform_(0.5, 1.5)
    return module


def normalised(x, norm):
    """Batch norm in evaluation, by hand: (B, C, ...)."""
    shape = (1, -1, *[1] * (x.ndim - 2))
    mean, var, gain, offset = (v.view(shape) for v in (norm.running_mean, norm.running_var, norm.weight, norm.bias))
    return (x - mean) / (var + norm.eps).sqrt() * gain + offset


def gradients(module, out):
    weights = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)
    return torch.autograd.grad((out * weights).sum(), list(module.parameters()), allow_unused=True)


def assert_close(a, b, tolerance=TOLERANCE):
    torch.testing.assert_close(a, b, atol=tolerance, rtol=tolerance)


# --- blocks ---


@pytest.mark.parametrize(
    ("n_in", "n_out", "stride", "reshapes"), [(3, 5, 1, True), (4, 4, 2, True), (4, 4, (2, 1), True), (4, 4, 1, False)]
)
def test_residual_block_is_its_formula(n_in, n_out, stride, reshapes):
    block = restless(layers.Residual2d(n_in, n_out, stride)).eval()
    x = torch.randn(2, n_in, 7, 9, dtype=torch.float64)
    a = normalised(F.conv2d(x, block.conv_1.weight, block.conv_1.bias, stride, 1), block.norm_1).clamp(min=0)
    out = normalised(F.conv2d(a, block.conv_2.weight, block.conv_2.bias, 1, 1), block.norm_2)
    assert hasattr(block, "conv_3") == reshapes
    if reshapes:
        x_short = normalised(F.conv2d(x, block.conv_3.weight, block.conv_3.bias, stride, 1), block.norm_3)
    else:
        x_short = x
    assert_close(block(x), (out + x_short).clamp(min=0))


def test_residual_block_pools_what_is_left_after_relu():
    block = restless(layers.Residual2d(4, 4, pool=(2, 3))).eval()
    x = torch.randn(2, 4, 7, 10, dtype=torch.float64)
    bare = restless(layers.Residual2d(4, 4))
    bare.load_state_dict(block.state_dict())
    assert_close(block(x), F.max_pool2d(bare.eval()(x), (2, 3)))
    assert block(x).shape == (2, 4, 3, 3)


def test_residual_block_of_zero_convolutions_lets_the_input_through():
    block = layers.Residual2d(4, 4).eval()
    nn.init.zeros_(block.norm_2.weight)
    x = torch.randn(2, 4, 5, 5)
    assert torch.equal(block(x), x.clamp(min=0))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("kernel", "stride", "pool"), [(3, 1, 3), (3, 3, 1), (7, 1, 1), (1, 1, 1)])
def test_one_dimensional_layer_equals_torchs_layers_in_the_published_order(kernel, stride, pool, training):
    layer = restless(layers.Conv1dLayer(3, 5, kernel, stride, pool)).train(training)
    conv, norm = nn.Conv1d(3, 5, kernel, stride, kernel // 2), nn.BatchNorm1d(5)
    theirs = nn.Sequential(conv, norm, nn.ReLU(), nn.MaxPool1d(pool)).double().train(training)
    conv.load_state_dict(layer.conv.state_dict())
    norm.load_state_dict(layer.norm.state_dict())
    x = torch.randn(4, 3, 20, dtype=torch.float64)
    ours, expected = layer(x), theirs(x)
    assert_close(ours, expected)
    for got, wanted in zip(gradients(layer, ours), gradients(theirs, expected), strict=True):
        assert_close(got, wanted)
    assert_close(layer.norm.running_var, norm.running_var)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("padding", [0, 1])
def test_a_layer_that_cuts_a_wave_into_pieces_equals_torchs_layers(training, padding):
    layer = restless(layers.Conv1dLayer(1, 5, 3, 3)).train(training)
    layer.conv.padding = (padding,)
    conv, norm = nn.Conv1d(1, 5, 3, 3, padding), nn.BatchNorm1d(5)
    theirs = nn.Sequential(conv, norm, nn.ReLU()).double().train(training)
    conv.load_state_dict(layer.conv.state_dict())
    norm.load_state_dict(layer.norm.state_dict())
    x = torch.randn(4, 1, 20, dtype=torch.float64)  # 20 is no multiple of 3
    ours, expected = layer(x), theirs(x)
    assert_close(ours, expected)
    for got, wanted in zip(gradients(layer, ours), gradients(theirs, expected), strict=True):
        assert_close(got, wanted)
    assert_close(layer.norm.running_mean, norm.running_mean)
    assert_close(layer.norm.running_var, norm.running_var)
    assert layer.norm.num_batches_tracked == norm.num_batches_tracked
    x.requires_grad_()  # a wave that wants a gradient takes the usual way
    assert_close(torch.autograd.grad(layer(x).sum(), x)[0], torch.autograd.grad(theirs(x).sum(), x)[0])


@pytest.mark.parametrize("training", [True, False])
def test_a_large_map_is_pooled_first_with_the_same_numbers(training, monkeypatch):
    monkeypatch.setattr(layers, "LARGE", 0)
    layer = restless(layers.Conv1dLayer(3, 5, 3, 1, pool=3)).train(training)
    conv, norm = nn.Conv1d(3, 5, 3, 1, 1), nn.BatchNorm1d(5)
    theirs = nn.Sequential(conv, norm, nn.ReLU(), nn.MaxPool1d(3)).double().train(training)
    conv.load_state_dict(layer.conv.state_dict())
    norm.load_state_dict(layer.norm.state_dict())
    x = torch.randn(4, 3, 20, dtype=torch.float64)
    ours, expected = layer(x), theirs(x)
    assert_close(ours, expected)
    for got, wanted in zip(gradients(layer, ours), gradients(theirs, expected), strict=True):
        assert_close(got, wanted)
    assert_close(layer.norm.running_mean, norm.running_mean)
    assert_close(layer.norm.running_var, norm.running_var)


@torch.no_grad()
def test_squeeze_excitation_is_its_formula_and_weighs_between_0_and_1():
    block = layers.ResidualSE1d(3, 4).double()
    x = torch.randn(2, 4, 6, dtype=torch.float64)
    weights = block.weights(x)
    for b in range(2):
        mean = [sum(x[b, c].tolist()) / 6 for c in range(4)]
        hidden = [
            max(0.0, sum(float(block.squeeze.weight[i, j]) * mean[j] for j in range(4)) + float(block.squeeze.bias[i]))
            for i in range(4)
        ]
        for i in range(4):
            score = sum(float(block.excite.weight[i, j]) * hidden[j] for j in range(4)) + float(block.excite.bias[i])
            assert float(weights[b, i]) == pytest.approx(1 / (1 + math.exp(-score)), abs=TOLERANCE)
    assert ((weights > 0) & (weights < 1)).all()


@pytest.mark.parametrize(("n_in", "kernel", "stride", "pool"), [(3, 3, 1, 3), (4, 3, 1, 3), (4, 3, 3, 1), (4, 1, 1, 1)])
def test_squeeze_excitation_block_is_its_formula(n_in, kernel, stride, pool):
    block = restless(layers.ResidualSE1d(n_in, 4, kernel, stride, pool)).eval()
    x = torch.randn(2, n_in, 18, dtype=torch.float64)
    pad = kernel // 2
    a = normalised(F.conv1d(x, block.conv_1.weight, block.conv_1.bias, stride, pad), block.norm_1).clamp(min=0)
    out = normalised(F.conv1d(a, block.conv_2.weight, block.conv_2.bias, 1, pad), block.norm_2)
    out = out * block.weights(out)[:, :, None]
    shortcut = x
    assert hasattr(block, "conv_3") == (n_in != 4 or stride != 1)
    if hasattr(block, "conv_3"):
        shortcut = normalised(F.conv1d(x, block.conv_3.weight, block.conv_3.bias, stride, pad), block.norm_3)
    assert_close(block(x), F.max_pool1d((out + shortcut).clamp(min=0), pool))


@pytest.mark.parametrize("training", [True, False])
def test_vertical_convolution_of_a_picture_takes_gain_and_offset_into_its_kernel(training):
    layer = restless(layers.VerticalConv(5, (6, 3))).train(training)
    picture = torch.randn(3, 1, 9, 11, dtype=torch.float64)
    gain = torch.tensor([-1.7], dtype=torch.float64, requires_grad=True)
    offset = torch.tensor([0.6], dtype=torch.float64, requires_grad=True)
    results = []
    for out in (layer(gain * picture + offset), layer.on_picture(picture, gain, offset)):
        assert out.shape == (3, 5, 11)
        weights = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)
        results.append((out, *torch.autograd.grad((out * weights).sum(), [gain, offset, *layer.parameters()])))
    for plain, fast in zip(*results, strict=True):
        assert_close(fast, plain)


def test_vertical_convolution_is_the_maximum_over_all_its_places():
    layer = restless(layers.VerticalConv(2, (4, 3))).eval()
    x = torch.randn(1, 1, 6, 5, dtype=torch.float64)
    padded = F.pad(x[0, 0], (1, 1))
    for c in range(2):
        for t in range(5):
            places = [(layer.conv.weight[c, 0] * padded[p : p + 4, t : t + 3]).sum() for p in range(3)]
            raw = torch.stack(places).view(1, 1, 3, 1) + layer.conv.bias[c]
            both = raw.expand(1, 2, 3, 1)
            assert_close(layer(x)[0, c, t], normalised(both, layer.norm)[0, c].max().clamp(min=0))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("pool", [(3, 5), (4, 4), (3, 3), (2, 2)])
@pytest.mark.parametrize("size", [(12, 20), (13, 23)])
def test_pools_of_the_taggers_pool_first_equals_the_plain_order(pool, size, training):
    plain = restless(encoders.ConvLayer(2, 4, pool, pool_first=False)).train(training)
    first = restless(encoders.ConvLayer(2, 4, pool))
    first.load_state_dict(plain.state_dict())
    x = torch.randn(3, 2, *size, dtype=torch.float64)
    ours, expected = first.train(training)(x), plain(x)
    assert ours.shape == (3, 4, size[0] // pool[0], size[1] // pool[1])
    assert_close(ours, expected)
    for got, wanted in zip(gradients(first, ours), gradients(plain, expected), strict=True):
        assert_close(got, wanted)


def test_stack_says_what_its_pools_leave_and_refuses_to_leave_nothing():
    stack = layers.ConvStack("some", (4, 8), ((2, 4), (3, 5)))
    assert stack.left_of(13, 47) == (2, 2) == tuple(stack.eval()(torch.randn(1, 1, 13, 47)).shape[2:])
    with pytest.raises(ValueError, match=r"some: a picture of 13 bands x 19 frames pools down to 2 x 0"):
        stack.left_of(13, 19)


# --- front-ends ---


def power_by_hand(wave, n_fft, hop_length):
    """|DFT|**2 of centred, mirrored, Hann-windowed frames, one sum at a time: list of frames of bins."""
    padded = F.pad(wave[None, None], (n_fft // 2,) * 2, mode="reflect")[0, 0].tolist()
    window = [0.5 - 0.5 * math.cos(2 * math.pi * i / n_fft) for i in range(n_fft)]
    frames = []
    for t in range(1 + len(wave) // hop_length):
        x = [padded[t * hop_length + i] * window[i] for i in range(n_fft)]
        angles = [[-2 * math.pi * k * i / n_fft for i in range(n_fft)] for k in range(n_fft // 2 + 1)]
        frames.append(
            [
                sum(v * math.cos(a) for v, a in zip(x, row, strict=True)) ** 2
                + sum(v * math.sin(a) for v, a in zip(x, row, strict=True)) ** 2
                for row in angles
            ]
        )
    return frames


def test_log_mel_is_its_slow_formula():
    sample_rate, n_fft, hop, n_mels = 16_000, 64, 32, 10
    wave = torch.randn(200, dtype=torch.float64)
    ours = mels.LogMel(sample_rate, n_fft, hop, n_mels)(wave[None])[0]
    edges_mel = np.linspace(0, 2595 * math.log10(1 + 8000 / 700), n_mels + 2)  # the HTK scale
    edges_hz = 700 * (10 ** (edges_mel / 2595) - 1)
    power = power_by_hand(wave, n_fft, hop)
    assert ours.shape == (n_mels, len(power))
    for m in range(n_mels):
        low, centre, high = edges_hz[m : m + 3]
        for t, bins in enumerate(power):
            energy = 0.0
            for k, value in enumerate(bins):
                hz = k * sample_rate / n_fft
                energy += value * max(0.0, min((hz - low) / (centre - low), (high - hz) / (high - centre)))
            assert float(ours[m, t]) == pytest.approx(10 * math.log10(max(energy, 1e-10)), abs=1e-3)


def test_harmonic_spectrogram_is_its_slow_formula():
    front = layers.HarmonicSTFT(4000, n_fft=64, hop_length=32, n_harmonics=3, per_semitone=1)
    with torch.no_grad():
        front.q.fill_(0.4)
    wave = torch.randn(2, 150)
    ours = front(wave)
    # 4000 / 6 = 666.7 Hz is nearest to E5 (midi 76), so the notes are midi 24 to 75
    assert ours.shape == (2, 3, 52, 1 + 150 // 32)
    for b in range(2):
        power = power_by_hand(wave[b].double(), 64, 32)
        for h in range(3):
            for note in range(0, 52, 3):
                centre = (h + 1) * 440 * 2 ** ((24 + note - 69) / 12)
                bandwidth = (0.1079 * centre + 24.7) / 0.4
                for t, bins in enumerate(power):
                    energy = 0.0
                    for k, value in enumerate(bins):
                        hz = k * 4000 / 64
                        energy += value * max(
                            0.0, min(1 + 2 * (hz - centre) / bandwidth, 1 - 2 * (hz - centre) / bandwidth)
                        )
                    assert float(ours[b, h, note, t].detach()) == pytest.approx(
                        10 * math.log10(max(energy, 1e-10)), abs=2e-3
                    )


def test_learnt_q_has_the_gradient_of_the_formula():
    front = layers.HarmonicSTFT(4000, n_fft=64, hop_length=32, n_harmonics=2, per_semitone=1).double()
    with torch.no_grad():
        front.q.fill_(0.1)  # so wide that no filter falls between two bins
    wave = torch.randn(1, 150, dtype=torch.float64)
    (slope,) = torch.autograd.grad(front(wave).sum(), front.q)
    values = []
    for q in (0.1 + 1e-7, 0.1 - 1e-7):
        with torch.no_grad():
            front.q.fill_(q)
            values.append(front(wave).sum().item())
    assert abs(slope.item()) > 1
    assert slope.item() == pytest.approx((values[0] - values[1]) / 2e-7, rel=1e-4)


def test_harmonic_filters_are_128_notes_two_a_semitone_from_c1():
    front = layers.HarmonicSTFT()
    centres = front.centres_hz.view(6, 128)
    assert centres[0, 0].item() == pytest.approx(32.703, abs=1e-3)
    assert torch.allclose(centres[0, 2:] / centres[0, :-2], torch.tensor(2 ** (1 / 12)))
    assert torch.allclose(centres[3], 4 * centres[0])
    assert centres.max() < 8000
    assert sum(p.numel() for p in front.parameters()) == 1 and front.q.item() == 1


# --- transformer ---


def test_transformer_layer_is_berts_written_out():
    layer = layers.TransformerLayer(width=6, n_heads=2, n_hidden=5).double().eval()
    with torch.no_grad():
        for p in layer.parameters():
            p.normal_()
    x = torch.randn(1, 4, 6, dtype=torch.float64)
    q, k, v = (x[0] @ part.weight.T + part.bias for part in (layer.query, layer.key, layer.value))
    joined = torch.zeros(4, 6, dtype=torch.float64)
    for head in (slice(0, 3), slice(3, 6)):
        for t in range(4):
            scores = torch.stack([(q[t, head] * k[u, head]).sum() / math.sqrt(3) for u in range(4)])
            shares = scores.exp() / scores.exp().sum()
            joined[t, head] = sum(shares[u] * v[u, head] for u in range(4))

    def normed(y, norm):
        centred = y - y.mean(-1, keepdim=True)
        return centred / (centred.square().mean(-1, keepdim=True) + 1e-12).sqrt() * norm.weight + norm.bias

    a = normed(x[0] + joined @ layer.joined.weight.T + layer.joined.bias, layer.norm_1)
    hidden = a @ layer.hidden.weight.T + layer.hidden.bias
    hidden = hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2)))
    assert_close(layer(x)[0], normed(a + hidden @ layer.out.weight.T + layer.out.bias, layer.norm_2))


def test_transformer_layer_drops_in_training_alone():
    layer = layers.TransformerLayer(width=8, n_heads=2, n_hidden=4)
    x = torch.randn(1, 5, 8)
    assert not torch.equal(layer(x), layer(x))
    layer.eval()
    assert torch.equal(layer(x), layer(x))


def test_width_must_divide_by_the_heads():
    with pytest.raises(ValueError, match="width 256 does not divide by 3 heads"):
        layers.TransformerLayer(256, 3)


# --- copying ---


class Small(layers.MelTagger):
    """A log-mel, a norm, a linear layer: enough to copy into."""

    slug = "small"

    def __init__(self):
        super().__init__(16_000, 1024, n_fft=64, hop_length=32, n_mels=8, n_classes=3)
        self.norm = nn.BatchNorm2d(1)
        self.head = nn.Linear(8, 3)


def foreign(count=True):
    """A state dict of torchaudio's and a stranger's names, for Small."""
    own = mels.LogMel(16_000, 64, 32, 8)
    state = {
        "spec.spectrogram.window": own.window, "spec.mel_scale.fb": own.filters,
        "bn.weight": torch.tensor([2.0]), "bn.bias": torch.tensor([3.0]),
        "bn.running_mean": torch.tensor([4.0]), "bn.running_var": torch.tensor([5.0]),
        "bn.num_batches_tracked": torch.tensor(6), "dense.weight": torch.randn(3, 8), "dense.bias": torch.randn(3),
    }  # fmt: skip
    return {name: value for name, value in state.items() if count or "tracked" not in name}


@pytest.mark.parametrize("count", [True, False])
def test_foreign_weights_are_copied_in_order_whatever_their_names(count):
    model, state = Small(), foreign(count)
    pairs = layers.copy_in_order(model, state)
    assert pairs["norm.running_var"] == "bn.running_var" and pairs["head.weight"] == "dense.weight"
    assert len(pairs) == 6 + count
    assert model.norm.bias.item() == 3 and model.norm.running_var.item() == 5
    assert model.norm.num_batches_tracked.item() == (6 if count else 0)
    assert torch.equal(model.head.weight, state["dense.weight"]) and torch.equal(model.head.bias, state["dense.bias"])


def test_a_count_that_only_the_stranger_has_is_left_out():
    state = {"a.num_batches_tracked": torch.tensor(3), "a.w": torch.ones(2, 3), "a.b": torch.zeros(2)}
    model = nn.Linear(3, 2)
    assert layers.copy_in_order(model, state) == {"weight": "a.w", "bias": "a.b"}
    assert torch.equal(model.weight, torch.ones(2, 3))


def test_copying_refuses_the_first_shape_that_does_not_fit_and_changes_nothing():
    model, state = Small(), foreign()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state["dense.weight"] = torch.zeros(4, 8)
    with pytest.raises(
        ValueError,
        match=r"'dense.weight' has shape \(4, 8\), but next in order is 'head.weight' of shape \(3, 8\), after 5",
    ):
        layers.copy_in_order(model, state)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_copying_refuses_tensors_left_over_on_either_side():
    state = foreign()
    with pytest.raises(ValueError, match=r"the state dict has tensors left over, from 'more' on \(1\)"):
        layers.copy_in_order(Small(), {**state, "more": torch.zeros(1)})
    state.pop("dense.bias")
    with pytest.raises(ValueError, match=r"the module has tensors left over, from 'head.bias' on \(1\)"):
        layers.copy_in_order(Small(), state)


def test_copying_refuses_another_spectrogram():
    state = foreign()
    state["spec.mel_scale.fb"] = mels.LogMel(16_000, 64, 32, 9).filters
    with pytest.raises(ValueError, match=r"'spec.mel_scale.fb' of shape \(33, 9\) is none of this module's"):
        layers.copy_in_order(Small(), state)
    state["spec.mel_scale.fb"] = 2 * mels.LogMel(16_000, 64, 32, 8).filters
    with pytest.raises(ValueError, match="trained on another spectrogram"):
        layers.copy_in_order(Small(), state)
