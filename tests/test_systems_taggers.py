"""The ten supervised taggers: Table 1's two columns, shapes at every stage, and published weights' outputs.

`published` writes every network a second time, from what its publication says: functions of a list of tensors that are
used up in the published order. A system that holds another order, shape, or wiring gives other numbers.
"""

import copy
import functools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchaudio

from pawlib import encoders, systems
from pawlib.bench import costs, results, speed
from pawlib.systems import layers

SLUGS = (
    "crnn", "fcn_5", "fcn_4", "musicnn", "sample_cnn", "sample_cnn_se", "self_attention", "harmonic_cnn",
    "short_chunk_cnn_res", "short_chunk_cnn",
)  # fmt: skip
PARAMETERS = {  # with 10 and with 50 classes
    "crnn": (392_780, 394_100),
    "fcn_5": (445_132, 447_732),
    "fcn_4": (375_692, 396_212),
    "musicnn": (776_260, 784_300),
    "sample_cnn": (1_849_354, 1_869_874),
    "sample_cnn_se": (6_931_338, 6_951_858),
    "self_attention": (10_511_372, 10_521_652),
    "harmonic_cnn": (3_621_271, 3_631_551),
    "short_chunk_cnn_res": (12_083_724, 12_104_244),
    "short_chunk_cnn": (3_666_828, 3_687_348),
}
STAGES = {  # input, what the front-end gives, each layer, features; without the batch
    "crnn": ([464_000], [1, 96, 1813], [[64, 48, 906], [128, 16, 302], [128, 4, 75], [128, 1, 18]], [32]),
    "fcn_5": (
        [464_000], [1, 96, 1813], [[64, 48, 453], [128, 24, 113], [128, 12, 28], [128, 4, 5], [64, 1, 1]], [64],
    ),
    "fcn_4": ([44_800], [1, 128, 351], [[64, 64, 87], [128, 32, 21], [128, 16, 5], [128, 4, 1]], [512]),
    "musicnn": ([48_000], [1, 96, 188], [[64, 188]] * 3, [1506]),
    "sample_cnn": (
        [59_049], [1, 59_049],
        [[128, 19_683], [128, 6561], [128, 2187], *[[256, 3**k] for k in (6, 5, 4, 3, 2, 1)], [512, 1], [512, 1]],
        [512],
    ),
    "sample_cnn_se": (
        [59_049], [1, 59_049],
        [[128, 19_683], [128, 6561], [128, 2187], *[[256, 3**k] for k in (6, 5, 4, 3, 2, 1)], [512, 1], [512, 1]],
        [512],
    ),
    "self_attention": (
        [240_000], [1, 128, 938],
        [[128, 64, 469], [128, 32, 235], [256, 16, 118], *[[256, bands, 118] for bands in (8, 4, 2, 1)]], [256],
    ),
    "harmonic_cnn": (
        [80_000], [6, 128, 313],
        [[128, 64, 156], [128, 32, 78], [128, 16, 39], [128, 8, 19], [256, 4, 9], [256, 2, 3], [256, 1, 1]], [256],
    ),
    "short_chunk_cnn_res": (
        [59_049], [1, 128, 231],
        [[128, 64, 116], [128, 32, 58], [256, 16, 29], [256, 8, 15], [256, 4, 8], [256, 2, 4], [512, 1, 2]], [512],
    ),
    "short_chunk_cnn": (
        [59_049], [1, 128, 231],
        [[128, 64, 115], [128, 32, 57], [256, 16, 28], [256, 8, 14], [256, 4, 7], [256, 2, 3], [512, 1, 1]], [512],
    ),
}  # fmt: skip
TOLERANCE = 1e-3  # float32 through up to 21 convolutions

each = pytest.mark.parametrize("slug", SLUGS)


@functools.cache
def built(slug):
    """One network per system for all tests that leave it as it is, in evaluation, with random running statistics."""
    torch.manual_seed(1)
    model = systems.build(slug).eval()
    model.load_state_dict(random_state(model))
    return model


def random_state(model):
    """Weights like a trained network's: norms of their own, kernels that keep the spread of what they meet."""
    state = {}
    for name, value in model.state_dict().items():
        if value.ndim > 1:
            state[name] = torch.randn_like(value) * (1.4 / value[0].numel() ** 0.5)
        elif name.endswith("running_var"):
            state[name] = torch.rand_like(value) + 0.5
        elif name.endswith(("norm.running_mean", "norm.weight")) and value.numel() in (1, 6):
            state[name] = torch.full_like(value, -10.0 if "mean" in name else 0.05)  # the picture's, in dB
        elif name.endswith("weight") or name == "harmonic.q":
            state[name] = torch.rand_like(value) + 0.5
        else:
            state[name] = torch.randn_like(value) * 0.1 if value.is_floating_point() else value + 7
    return state


def waves(model, n=1):
    return torch.randn(n, model.n_samples, generator=torch.Generator().manual_seed(0)) * 0.1


def paper_rows():
    return {row["slug"]: row for row in results.paper(1) if row["group"] == "Supervised"}


# --- the registry ---


def test_taggers_are_listed_in_the_order_of_table_1():
    assert systems.names("taggers") == SLUGS
    assert [row["slug"] for row in results.paper(1) if row["group"] == "Supervised"] == list(SLUGS)


def test_unknown_slug_and_kind_are_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="system 'vgg_19' is unknown, expected one of crnn, fcn_5, fcn_4"):
        systems.build("vgg_19")
    with pytest.raises(ValueError, match="kind='tagger' is unknown, expected one of taggers, pretraining, covers"):
        systems.names("tagger")


def test_every_kind_can_be_listed():
    assert all(isinstance(systems.names(kind), tuple) for kind in systems.KINDS)


@each
def test_settings_build_a_twin(slug):
    model = systems.build(slug, n_classes=7)
    assert model.settings["slug"] == slug == model.slug and model.settings["n_classes"] == 7
    twin = systems.build(**model.settings)
    twin.load_state_dict(model.state_dict())
    assert (twin.n_samples, twin.sample_rate, twin.settings) == (model.n_samples, model.sample_rate, model.settings)


@pytest.mark.parametrize("slug", ["crnn", "fcn_5"])
def test_settings_keep_the_geometry_of_another_recording_rate(slug):
    model = systems.build(slug, **systems.system(slug).TABLE1)
    twin = systems.build(**model.settings)
    assert (twin.sample_rate, twin.n_samples, twin.n_mels, twin.n_frames) == (
        22_050, 642_184, *{"crnn": (128, 5018), "fcn_5": (96, 2509)}[slug],
    )  # fmt: skip


# --- Table 1's two columns ---


@each
def test_parameters_with_10_and_50_classes(slug):
    counts = tuple(sum(p.numel() for p in systems.build(slug, n_classes=n).parameters()) for n in (10, 50))
    assert counts == PARAMETERS[slug]


@each
def test_cost_is_what_table_1_prints(slug):
    model = systems.build(slug, **systems.system(slug).TABLE1)
    cost = costs.count(model, torch.zeros(1, model.n_samples))
    row = paper_rows()[slug]
    assert round(16 * cost.macs / 1e9, 2) == row["gflops"]
    millions = cost.params / 1e6
    if slug == "harmonic_cnn":  # the one difference of the table, unexplained
        assert (round(millions, 2), row["param_m"]) == (3.62, 3.60)
    else:
        assert round(millions, 2 if millions < 10 else 1) == row["param_m"]


def test_cost_of_a_batch_is_the_cost_of_one_as_often():
    model = built("fcn_4")
    one, three = (costs.count(model, torch.zeros(n, model.n_samples)).macs for n in (1, 3))
    assert three == 3 * one


def test_clmrs_row_repeats_that_of_sample_cnn():
    (clmr,) = (row for row in results.paper(1) if row["slug"] == "clmr")
    sample_cnn = paper_rows()["sample_cnn"]
    assert (clmr["param_m"], clmr["gflops"]) == (sample_cnn["param_m"], sample_cnn["gflops"])


def test_fcn_4_is_counted_without_a_head():
    with_head, without = systems.build("fcn_4", n_classes=10), systems.build("fcn_4", n_classes=None)
    assert sum(p.numel() for p in without.parameters()) == 370_562
    assert without(waves(without, 2)).shape == (2, 512)
    assert with_head.head.weight.shape == (10, 512)


# --- what goes through ---


@each
def test_shapes_through_each_stage(slug):
    model = built(slug)
    wave, picture, stages, features = STAGES[slug]
    seen = []
    parts = model.encoder.layers if hasattr(model, "encoder") else getattr(model.layers, "layers", model.layers)
    hooks = [part.register_forward_hook(lambda part, x, out: seen.append(list(out.shape[1:]))) for part in parts]
    for part in parts:
        if getattr(part, "pool_first", False):  # such a first layer takes a picture without being called
            part.pool_first = False
    try:
        with torch.no_grad():
            x = model.front_end(waves(model))
            out = model.features(x)
    finally:
        for hook in hooks:
            hook.remove()
        for part in parts:
            if hasattr(part, "pool_first"):
                part.pool_first = True
    assert [model.n_samples] == wave
    assert (list(x.shape[1:]), seen, list(out.shape[1:])) == (picture, stages, features)
    assert model.head(out).shape == (1, 50)


@each
def test_evaluation_drops_nothing_and_keeps_waves_apart(slug):
    model, wave = built(slug), waves(built(slug), 2)
    with torch.no_grad():
        both, again, alone = model(wave), model(wave), model(wave[1:])
    assert torch.equal(both, again)
    torch.testing.assert_close(both[1:], alone, atol=TOLERANCE, rtol=TOLERANCE)
    assert not torch.allclose(both[0], both[1], atol=TOLERANCE)


@each
def test_training_in_bfloat16_reaches_every_parameter(slug):
    model = systems.build(slug, n_classes=4).train()
    with torch.autocast("cpu", torch.bfloat16):
        picture = model.front_end(waves(model, 2))
        logits = model(waves(model, 2))
    assert picture.dtype == logits.dtype == torch.float32
    F.binary_cross_entropy_with_logits(logits, torch.eye(2, 4)).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
        if parameter.ndim > 1 or name == "harmonic.q":
            assert parameter.grad.abs().sum() > 0, name
    assert all(torch.isfinite(value).all() for value in model.state_dict().values())


@each
def test_only_harmonic_cnn_learns_its_front_end(slug):
    x = built(slug).front_end(waves(built(slug)))
    assert x.requires_grad == (slug == "harmonic_cnn")


def test_encoders_are_the_papers():
    assert isinstance(built("fcn_4").encoder, encoders.FCN4)
    assert isinstance(built("short_chunk_cnn").encoder, encoders.FCN7)


@each
def test_at_rest_the_norms_in_the_kernels_give_the_numbers_of_the_plain_order(slug):
    torch.manual_seed(0)
    model = systems.build(slug, n_classes=5).double().eval()
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
            torch.nn.init.normal_(module.weight)  # of both signs
            torch.nn.init.normal_(module.bias, std=0.3)
    wave = waves(model, 2).double()
    plain = speed.in_plain_order(copy.deepcopy(model))
    with torch.no_grad():
        torch.testing.assert_close(model(wave), plain(wave), atol=1e-6, rtol=1e-6)


def test_musicnn_has_the_same_numbers_in_both_orders():
    model = systems.build("musicnn", n_classes=3).double().train()
    wave, outs = waves(model, 3).double(), []
    for model.pool_first in (True, False):
        model.zero_grad()
        out = model.features(model.front_end(wave))
        (out * torch.linspace(-1, 1, out.numel()).view_as(out)).sum().backward()
        outs.append([out.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)])
    for fast, plain in zip(*outs, strict=True):
        torch.testing.assert_close(fast, plain, atol=1e-7, rtol=1e-7)


def test_class_token_sees_all_frames_in_whatever_order():
    model = built("self_attention")
    frames = torch.randn(1, 118, 256, requires_grad=True)
    out = model.summary(frames)
    order = torch.randperm(118)
    torch.testing.assert_close(model.summary(frames[:, order]), out, atol=1e-5, rtol=1e-5)
    out.square().sum().backward()
    assert (frames.grad.abs().sum(-1) > 0).all()


# --- errors ---


@each
def test_wrong_length_shape_and_damaged_samples_are_refused_by_name(slug):
    model = built(slug)
    n = model.n_samples
    with pytest.raises(ValueError, match=rf"{slug} got a wave of shape \(2, {n - 1}\), expected \(B, {n}\)"):
        model(torch.zeros(2, n - 1))
    for shape in ((n,), (1, 1, n)):
        with pytest.raises(ValueError, match=rf"{slug} got a wave of shape .*expected \(B, {n}\)"):
            model.front_end(torch.zeros(shape))
    wave = torch.zeros(3, n)
    wave[1, 5], wave[2, 7] = math.nan, math.inf
    with pytest.raises(ValueError, match=rf"{slug} got NaN or infinite samples in waves \[1, 2\]"):
        model(wave)


def test_geometries_that_do_not_pool_down_are_refused():
    with pytest.raises(ValueError, match="crnn pools 192 mel bands to 2, expected 1"):
        systems.build("crnn", n_mels=192)
    with pytest.raises(ValueError, match="fcn_5 pools 96 mel bands x 2560 frames to 1 x 2, expected 1 x 1"):
        systems.build("fcn_5", n_samples=2559 * 256)
    with pytest.raises(ValueError, match="fcn_5: a picture of 96 bands x 1279 frames pools down to 1 x 0"):
        systems.build("fcn_5", n_samples=1278 * 256)


# --- the published networks, written a second time ---


class Tensors:
    """A published state dict's tensors, used up in order by the operations of a network in evaluation."""

    def __init__(self, state):
        self.left = [value for name, value in state.items() if not name.endswith("num_batches_tracked")]

    def take(self, n):
        taken, self.left = self.left[:n], self.left[n:]
        return taken

    def norm(self, x):
        gain, offset, mean, var = self.take(4)
        return F.batch_norm(x, mean, var, gain, offset)

    def conv2d(self, x, pool=1, stride=1):
        return F.max_pool2d(F.relu(self.norm(self.bare2d(x, stride))), pool)

    def bare2d(self, x, stride=1, padding=1):
        return F.conv2d(x, *self.take(2), stride=stride, padding=padding)

    def residual2d(self, x, stride=1, pool=1, reshapes=True):
        out = self.norm(self.bare2d(F.relu(self.norm(self.bare2d(x, stride)))))
        if reshapes:
            x = self.norm(self.bare2d(x, stride))
        return F.max_pool2d(F.relu(x + out), pool)

    def conv1d(self, x, pool=1, stride=1):
        weight, bias = self.take(2)
        x = F.conv1d(x, weight, bias, stride, weight.shape[-1] // 2)
        return F.max_pool1d(F.relu(self.norm(x)), pool)

    def residual_se(self, x, pool, stride=1, reshapes=False):
        def conv(y, stride=1):
            weight, bias = self.take(2)
            return self.norm(F.conv1d(y, weight, bias, stride, weight.shape[-1] // 2))

        out = conv(F.relu(conv(x, stride)))
        squeezed = self.linear(F.relu(self.linear(F.avg_pool1d(out, out.shape[-1]).squeeze(-1))))
        out = out * squeezed.sigmoid()[:, :, None]
        return F.max_pool1d(F.relu(out + (conv(x, stride) if reshapes else x)), pool)

    def linear(self, x):
        return F.linear(x, *self.take(2))

    def bert_layer(self, x, n_heads):
        q, k, v = (self.linear(x).unflatten(-1, (n_heads, -1)).movedim(2, 1) for _ in range(3))
        seen = ((q @ k.mT) / q.shape[-1] ** 0.5).softmax(-1) @ v
        x = F.layer_norm(x + self.linear(seen.movedim(1, 2).flatten(2)), x.shape[-1:], *self.take(2), 1e-12)
        hidden = self.linear(x)
        hidden = self.linear(hidden / 2 * (1 + torch.erf(hidden / 2**0.5)))
        return F.layer_norm(x + hidden, x.shape[-1:], *self.take(2), 1e-12)

    def dense_head(self, x):
        return self.linear(F.relu(self.norm(self.linear(x))))


def decibels(power):
    return torchaudio.transforms.AmplitudeToDB()(power)


def mel_picture(wave, n_mels, n_fft=512, hop_length=256):
    mel = torchaudio.transforms.MelSpectrogram(
        16_000, n_fft, hop_length=hop_length, f_min=0.0, f_max=8000.0, n_mels=n_mels
    )
    return decibels(mel(wave)).unsqueeze(1)


def published_crnn(t, wave):
    x = t.norm(mel_picture(wave, 96))
    for pool in ((2, 2), (3, 3), (4, 4), (4, 4)):
        x = t.conv2d(x, pool)
    x = x.squeeze(2).mT
    for _ in range(2):
        w_in, w_rec, b_in, b_rec = t.take(4)
        h, steps = torch.zeros(len(x), 32), []
        for step in x.unbind(1):
            from_x, from_h = F.linear(step, w_in, b_in).chunk(3, -1), F.linear(h, w_rec, b_rec).chunk(3, -1)
            reset, update = ((a + b).sigmoid() for a, b in zip(from_x[:2], from_h[:2], strict=True))
            h = (1 - update) * (from_x[2] + reset * from_h[2]).tanh() + update * h
            steps.append(h)
        x = torch.stack(steps, 1)
    return t.linear(x[:, -1])


def published_fcn_5(t, wave):
    x = t.norm(mel_picture(wave, 96))
    for pool in ((2, 4), (2, 4), (2, 4), (3, 5), (4, 4)):
        x = t.conv2d(x, pool)
    return t.linear(x.flatten(1))


def published_fcn_4(t, wave):
    x = t.norm(mel_picture(wave, 128, 256, 128))
    for pool in ((2, 4), (2, 4), (2, 4), (4, 5)):
        x = t.conv2d(x, pool)
    return t.linear(x.flatten(1))


def published_musicnn(t, wave):
    x = t.norm(mel_picture(wave, 96))
    found = [F.relu(t.norm(t.bare2d(x, padding=(0, 3)))).amax(2) for _ in range(2)]
    found += [t.conv1d(x.mean(2)) for _ in range(3)]
    x = torch.cat(found, 1)
    a = t.conv1d(x)
    b = t.conv1d(a) + a
    c = t.conv1d(b) + b
    x = torch.cat([x, a, b, c], 1)
    return t.dense_head(torch.cat([x.amax(-1), x.mean(-1)], 1))


def published_sample_cnn(t, wave):
    x = t.conv1d(wave[:, None], stride=3)
    for _ in range(9):
        x = t.conv1d(x, pool=3)
    return t.linear(t.conv1d(x).squeeze(-1))


def published_sample_cnn_se(t, wave):
    x = t.residual_se(wave[:, None], 1, stride=3, reshapes=True)
    for layer in range(2, 11):
        x = t.residual_se(x, 3, reshapes=layer in (4, 10))
    return t.dense_head(t.residual_se(x, 1).squeeze(-1))


def published_self_attention(t, wave):
    x = t.norm(mel_picture(wave, 128))
    for stride in (2, 2, 2, (2, 1), (2, 1), (2, 1), (2, 1)):
        x = t.residual2d(x, stride)
    state = np.random.get_state()
    np.random.seed(0)
    token = torch.tensor(np.random.random((1, 256)), dtype=torch.float32)
    np.random.set_state(state)
    x = torch.cat([token.expand(len(x), 1, 256), x.squeeze(2).mT], 1)
    for _ in range(2):
        x = t.bert_layer(x, 8)
    return t.linear(t.linear(x[:, 0]).tanh())


def published_harmonic_cnn(t, wave):
    (q,) = t.take(1)
    midi = torch.arange(24, 88, 0.5)
    centres = torch.cat([h * 440 * 2 ** ((midi - 69) / 12) for h in range(1, 7)])
    width = (0.1079 * centres + 24.7) / q
    bins = torch.linspace(0, 8000, 257)[:, None]
    filters = torch.minimum(2 / width * (bins - centres) + 1, 2 / width * (centres - bins) + 1).clamp(min=0)
    power = torchaudio.transforms.Spectrogram(512)(wave)
    x = t.norm(decibels((power.mT @ filters).mT).unflatten(1, (6, 128)))
    x = t.conv2d(x, 2)
    for _ in range(3):
        x = t.residual2d(x, pool=2, reshapes=False)
    x = t.conv2d(x, 2)
    for _ in range(2):
        x = t.residual2d(x, pool=(2, 3), reshapes=False)
    return t.dense_head(x.amax((2, 3)))


def published_short_chunk_cnn_res(t, wave):
    x = t.norm(mel_picture(wave, 128))
    for _ in range(7):
        x = t.residual2d(x, 2)
    return t.dense_head(x.amax((2, 3)))


def published_short_chunk_cnn(t, wave):
    x = t.norm(mel_picture(wave, 128))
    for _ in range(7):
        x = t.conv2d(x, 2)
    return t.dense_head(x.amax((2, 3)))


@pytest.mark.filterwarnings("ignore:At least one mel filterbank has all zero values")
@each
def test_weights_copied_in_the_published_order_give_the_published_outputs(slug):
    model = systems.build(slug).eval()
    state = {
        f"published.{i}.{name.split('.')[-1]}": value for i, (name, value) in enumerate(random_state(model).items())
    }
    layers.copy_in_order(model, state)
    tensors, wave = Tensors(state), waves(model)
    with torch.no_grad():
        expected = globals()[f"published_{slug}"](tensors, wave)
        ours = model(wave)
    assert not tensors.left
    assert expected.std() > 0.05
    torch.testing.assert_close(ours, expected, atol=TOLERANCE, rtol=TOLERANCE)
