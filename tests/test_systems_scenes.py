"""The eight scene systems: parameter counts, receptive fields by rule and by gradient, front-ends, shapes, errors."""

import functools
import math

import numpy as np
import pytest
import torch
import torchaudio

from pawlib import systems
from pawlib.bench import receptive
from pawlib.systems import scene_layers

SLUGS = ("dnn", "resnet", "vgg", "densenet", "dn1", "rn1", "rn3", "rn2")
NETWORKS = SLUGS[1:]
SMALL = {"dnn": {}, "vgg": {"width": 2}, "densenet": {"growth": 2}, "dn1": {"growth": 2}}  # others: width 2
PARAMETERS = {  # 15 classes, mono
    "dnn": 184_215,
    "resnet": 23_357_854,
    "vgg": 1_444_542,
    "densenet": 4_277_022,
    "dn1": 3_130_142,
    "rn1": 3_565_982,
    "rn3": 3_959_198,
    "rn2": 3_434_910,
}
FIELDS = {"resnet": 615, "vgg": 135, "densenet": 1027, "dn1": 83, "rn1": 87, "rn3": 135, "rn2": 71}
# rho: (millions of parameters with 10 classes and stereo, field that the published program prints, field)
PUBLISHED = {
    2: (3.17, 33, 39),
    4: (3.44, 65, 71),
    5: (3.57, 81, 87),
    7: (3.96, 145, 135),
    9: (5.01, 209, 199),
    15: (8.68, 401, 391),
}
N_SAMPLES = 44_100  # 2 s for the small ones: 87 frames

each = pytest.mark.parametrize("slug", SLUGS)
each_network = pytest.mark.parametrize("slug", NETWORKS)


@functools.cache
def small(slug, n_channels=1):
    """A narrow network on 2 s of audio (the DNN as it is, on 1 s)."""
    torch.manual_seed(1)
    if slug == "dnn":
        return systems.build(slug, n_classes=15, n_samples=44_100).eval()
    narrow = SMALL.get(slug, {"width": 2})
    return systems.build(slug, n_classes=15, n_channels=n_channels, n_samples=N_SAMPLES, **narrow).eval()


def waves(model, n=2, n_channels=None):
    shape = (n, model.n_samples) if n_channels is None else (n, n_channels, model.n_samples)
    return 0.1 * torch.randn(shape)


def count(model):
    return sum(p.numel() for p in model.parameters())


# --- the table's systems ---


def test_the_table_s_eight_systems_are_there_in_its_order():
    assert systems.names("scenes") == SLUGS


@each
def test_parameters(slug):
    assert count(systems.build(slug, n_classes=15)) == PARAMETERS[slug]


@pytest.mark.parametrize("rho", PUBLISHED)
def test_the_published_family_has_the_published_sizes(rho):
    millions, printed, field = PUBLISHED[rho]
    model = systems.build("rn1", n_classes=10, n_channels=2, rho=rho)
    assert round(count(model) / 1e6, 2) == millions
    assert scene_layers.printed_field(rho) == printed
    narrow = systems.build("rn1", n_channels=2, rho=rho, width=1)
    assert receptive.fields(narrow, torch.zeros(1, 2, 64, 64), "features")[-1].size == (field, field)


@pytest.mark.parametrize("rho", [0, 2, 4, 5, 7, 9])
def test_the_gradient_of_one_cell_reaches_as_far_as_the_rule_says(rho):
    model = systems.build("rn1", rho=rho, width=1)
    by_rule = receptive.fields(model, torch.zeros(1, 1, 64, 64), "features")[-1]
    n = by_rule.size[0] + 80
    measured = receptive.measured(model, torch.zeros(1, 1, n, n + 16))
    assert (measured.size, measured.jump, measured.start) == (by_rule.size, by_rule.jump, by_rule.start)
    assert by_rule.jump == (16, 16)


@each_network
def test_every_network_s_field(slug):
    field = receptive.fields(small(slug), torch.zeros(1, 1, 256, 87), "features")[-1]
    assert field.size == (FIELDS[slug], FIELDS[slug])
    assert field.jump == (16, 16)


@pytest.mark.parametrize(("slug", "n"), [("vgg", 256), ("dn1", 192)])
def test_the_gradient_agrees_for_the_others_too(slug, n):
    by_rule = receptive.fields(small(slug), torch.zeros(1, 1, 256, 87), "features")[-1]
    measured = receptive.measured(small(slug), torch.zeros(1, 1, n, n))
    assert (measured.size, measured.jump, measured.start) == (by_rule.size, by_rule.jump, by_rule.start)


def test_a_larger_rho_never_sees_less_and_the_largest_is_resnet():
    sizes = [
        receptive.fields(systems.build("rn1", rho=rho, width=1), torch.zeros(1, 1, 64, 64), "features")[-1].size[0]
        for rho in range(23)
    ]
    assert sizes == sorted(set(sizes))
    assert sizes[-1] == FIELDS["resnet"] and sizes[0] == 23


def test_block_kernels_open_from_the_front():
    assert scene_layers.block_kernels(0) == [(3, 1), *[(1, 1)] * 11]
    assert scene_layers.block_kernels(5)[:5] == [(3, 1), (3, 3), (3, 3), (3, 1), (1, 1)]
    assert scene_layers.block_kernels(22) == [(3, 1), *[(3, 3)] * 11]


# --- the interface ---


@each
def test_a_wave_becomes_logits_and_settings_build_the_same_network(slug):
    model = small(slug)
    with torch.no_grad():
        logits = model(waves(model))
    assert logits.shape == (2, 15) and logits.isfinite().all()
    twin = systems.build(**model.settings).eval()
    twin.load_state_dict(model.state_dict())
    wave = waves(model)
    with torch.no_grad():
        torch.testing.assert_close(twin(wave), model(wave), rtol=0, atol=0)


@each
def test_the_real_input_is_what_the_dataset_has(slug):
    model = systems.build(slug, **({} if slug == "dnn" else SMALL.get(slug, {"width": 2})))
    if slug == "dnn":
        assert (model.sample_rate, model.n_samples) == (44_100, 11_264)
    else:
        assert (model.sample_rate, model.n_samples) == (22_050, 30 * 22_050)


@pytest.mark.parametrize(
    ("slug", "cells"),
    [("rn1", (15, 80)), ("resnet", (15, 80)), ("densenet", (15, 80)), ("dn1", (15, 80)), ("vgg", (14, 78))],
)
def test_a_whole_file_gives_the_map_of_the_docstring(slug, cells):
    picture = torch.zeros(1, 1, 256, 1 + 30 * 22_050 // 512)
    with torch.no_grad():
        assert small(slug).features(picture).shape[-2:] == cells


@each_network
def test_every_parameter_learns_in_two_steps(slug):
    model = systems.build(**{**small(slug).settings, "n_classes": 3})
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    for _ in range(3):  # fixup begins with zeros: gradients reach every layer from the third step on
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(waves(model, 3)), torch.arange(3)).backward()
        optimizer.step()
    still = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert still == []


def test_fixup_begins_with_blocks_that_are_their_shortcuts():
    model = small("rn1")
    block = model.body[0]
    x = torch.rand(1, 2, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(block(x), x)
    he = systems.build("rn1", width=2, initialise="he").body[0].eval()
    assert not torch.allclose(he(x), x)


@each_network
def test_stereo_takes_two_channels_and_mono_one(slug):
    stereo = small(slug, 2)
    with torch.no_grad():
        assert stereo(waves(stereo, 2, 2)).shape == (2, 15)
    with pytest.raises(ValueError, match=rf"{slug} got a wave of shape \(2, {N_SAMPLES}\), expected \(B, 2"):
        stereo(waves(stereo))
    with pytest.raises(
        ValueError, match=rf"{slug} got a wave of shape \(2, 2, {N_SAMPLES}\), expected \(B, {N_SAMPLES}"
    ):
        small(slug)(waves(stereo, 2, 2))


@each
def test_wrong_lengths_and_damaged_samples_are_refused_by_name(slug):
    model = small(slug)
    with pytest.raises(ValueError, match=rf"{slug} got a wave of shape \(2, {model.n_samples - 1}\)"):
        model(torch.zeros(2, model.n_samples - 1))
    wave = waves(model, 3)
    wave[1, 7] = math.nan
    with pytest.raises(ValueError, match=rf"{slug} got NaN or infinite samples in waves \[1\]"):
        model(wave)


def test_unknown_arguments_are_refused():
    with pytest.raises(ValueError, match="rn2: rho=23, expected a whole number from 0 .* to 22"):
        systems.build("rn2", rho=23)
    with pytest.raises(ValueError, match="dn1: rho=43, expected a whole number from 0 .* to 42"):
        systems.build("dn1", rho=43)
    with pytest.raises(ValueError, match="vgg: n_channels=3, expected 1 .mono. or 2"):
        systems.build("vgg", n_channels=3)
    with pytest.raises(ValueError, match="rn1: initialise='zero' is unknown"):
        systems.build("rn1", initialise="zero")
    with pytest.raises(ValueError, match="dnn: n_samples=11263 is less than one window"):
        systems.build("dnn", n_samples=11_263)


# --- front-ends ---


def test_a_weighting_has_the_standard_s_values():
    hz = 10 ** torch.tensor([1.5, 2.0, 3.0, 3.3, 4.0])  # the thirds of an octave called 31.5, 100, 1000, 2000, 10000
    expected = torch.tensor([-39.4, -19.1, 0.0, 1.2, -2.5])
    torch.testing.assert_close(scene_layers.a_weighting(hz), expected, atol=0.06, rtol=0)
    assert scene_layers.a_weighting(torch.zeros(1)) == -80


def test_the_a_weighted_mel_equals_slow_loops():
    wave = 0.1 * torch.randn(6000)
    front = scene_layers.AWeightedMel(n_mels=8)
    power = torchaudio.transforms.Spectrogram(2048, hop_length=512, power=2.0)(wave)
    level = 10 * np.log10(np.maximum(power.double().numpy(), 1e-10))
    level = np.maximum(level, level.max() - 80)
    for i, hz in enumerate(np.linspace(0, 11_025, 1025)):
        level[i] += float(scene_layers.a_weighting(torch.tensor([hz]))[0])
    slow = np.zeros((8, level.shape[1]))
    for band in range(8):
        for i in range(1025):
            slow[band] += float(front.filters[i, band]) * level[i]
    torch.testing.assert_close(front(wave[None])[0], torch.tensor(slow).float(), atol=1e-3, rtol=1e-4)


def test_no_mel_band_is_empty():
    assert (scene_layers.AWeightedMel().filters.sum(dim=0) > 0).all()


def test_a_louder_wave_lifts_every_band_alike():
    front, wave = scene_layers.AWeightedMel(), 0.01 * torch.randn(1, 20_000)
    lift = front(10 * wave) - front(wave)
    torch.testing.assert_close(lift, 20 * front.filters.sum(0)[:, None].expand_as(lift[0])[None], atol=2e-3, rtol=1e-3)


def test_standardising_gathers_what_a_pass_over_everything_would_find():
    layer = scene_layers.Standardise(5).train()
    batches = [3 + 2 * torch.randn(n, 5, 7) for n in (4, 1, 6)]
    for batch in batches:
        out = layer(batch)
    whole = torch.cat(batches).movedim(1, 0).flatten(1)
    torch.testing.assert_close(layer.mean, whole.mean(1))
    torch.testing.assert_close(layer.var, whole.var(1, correction=0))
    torch.testing.assert_close(layer.eval()(batches[-1]), out)
    assert int(layer.n_seen) == 11 * 7


def test_standardising_does_nothing_before_training_and_no_gradient_asks_for_it():
    x = torch.randn(2, 5, 7)
    torch.testing.assert_close(scene_layers.Standardise(5).eval()(x), x)
    assert list(scene_layers.Standardise(5).parameters()) == []


# --- the DNN's windows ---


def test_a_whole_file_has_257_windows_and_one_window_is_its_own_mean():
    model = systems.build("dnn", n_classes=15).eval()
    wave = 0.1 * torch.randn(1, 30 * 44_100)
    with torch.no_grad():
        logits = model.windows(wave)
        assert logits.shape == (1, (1291 - 11) // 5 + 1, 15) == (1, 257, 15)
        torch.testing.assert_close(model(wave[:, :11_264]), logits[:, 0])
        start = 3 * 5 * 1024
        torch.testing.assert_close(model(wave[:, start : start + 11_264]), logits[:, 3])


def test_a_longer_input_is_the_mean_over_its_windows():
    model = small("dnn")
    wave = waves(model)
    with torch.no_grad():
        torch.testing.assert_close(model(wave), model.windows(wave).mean(1))
        assert model.windows(wave).shape[1] == (43 - 11) // 5 + 1
    with pytest.raises(ValueError, match="dnn got 100 samples, expected at least one window of 11264"):
        model.windows(torch.zeros(1, 100))


def test_each_window_is_asked_alone_where_it_is_asked_for():
    model = small("dnn")
    wave = waves(model)
    with torch.no_grad():
        each = model(wave, each_window=True)
        assert each.shape == (len(wave), (43 - 11) // 5 + 1, 15)
        torch.testing.assert_close(each.mean(dim=1), model(wave))


def test_a_centred_dnn_does_not_hear_a_recording_s_filter_and_the_published_one_does():
    published, centred = (
        systems.build("dnn", n_classes=15, n_samples=171 * 1024, centre=c).eval() for c in ("training", "wave")
    )
    centred.load_state_dict(published.state_dict())
    assert sum(p.numel() for p in centred.parameters()) == 184_215
    wave = 0.1 * torch.randn(1, 171 * 1024)
    with torch.no_grad():
        pictures = [net.front_end(scale * wave) for net in (published, centred) for scale in (1.0, 8.0)]
    assert (pictures[1] - pictures[0]).mean() == pytest.approx(math.log(8), abs=0.01)
    torch.testing.assert_close(pictures[3], pictures[2], atol=0.03, rtol=0)  # but for the floor under the logarithm
    frames = centred.standardise.mean.new_zeros(64, 171)
    heard = pictures[2][0].movedim(-1, 0)  # (64, n_windows, 11): window k begins at frame 5 k
    for k in range(heard.shape[1]):
        frames[:, 5 * k : 5 * k + 11] = heard[:, k]
    assert frames.mean(dim=1).abs().max() < 1e-4


def test_below_paper_scale_the_dnn_is_centred_over_four_seconds():
    maker = systems.system("dnn")
    assert maker.at_scale("paper") == {}
    assert maker.at_scale("small") == {"centre": "wave", "n_samples": 175_104} == maker.at_scale("toy")
    assert maker.at_scale("toy", 44_100)["n_samples"] == 44_100
    made = systems.build("dnn", n_classes=15, **maker.at_scale("small"))
    assert made.settings["centre"] == "wave" and systems.build(**made.settings).centre == "wave"
    with pytest.raises(ValueError, match="dnn: centre='file' is unknown"):
        systems.build("dnn", centre="file")


def test_the_dnn_s_frames_equal_slow_loops():
    model = systems.build("dnn", n_classes=15).eval()
    wave = 0.1 * torch.randn(1, 11_264)
    got = model.front_end(wave)[0, 0]  # (11, 64)
    window = np.hamming(1024)
    scale = 1 / np.sqrt(44_100 * (window**2).sum())
    for frame in (0, 10):
        samples = wave[0, frame * 1024 : (frame + 1) * 1024].double().numpy()
        mel = np.abs(np.fft.rfft(samples * window)) * scale @ model.filters.double().numpy()
        torch.testing.assert_close(got[frame], torch.tensor(np.log(mel + 1e-8)).float(), atol=1e-3, rtol=1e-3)
