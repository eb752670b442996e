"""Multi-Format: its loss is the formula, its views are what was drawn, and it runs on the common engine."""

import math

import numpy as np
import pytest
import torch
from test_engine import Songs

from pawlib import augment, checkpoints, encoders, systems
from pawlib.bench import embed, engine
from pawlib.systems import augmentations
from pawlib.systems.pretraining import multi_format

TOLERANCE = 1e-5
PLAIN = {"mix": None, "time_mask": 0.0, "frequency_mask": 0.0, "frequency_shift": 0}


def build(seed=0, **settings):
    torch.manual_seed(seed)
    return multi_format.MultiFormat(**{"whole_seconds": 4.0, **settings})


def keys(n, first=0):
    return [augment.sample_key(7, i) for i in range(first, first + n)]


# --- the loss ---


def test_loss_is_the_formula_across_the_formats():
    """Every view meets all views of the other format and none of its own, by loops."""
    z_mel, z_wave = torch.randn(4, 6), torch.randn(4, 6)
    cosine = [[float(torch.cosine_similarity(a, b, dim=0)) for b in z_wave] for a in z_mel]
    expected = []
    for b in range(4):
        positive = math.exp(cosine[b][b] / 0.1)
        from_mel = -math.log(positive / sum(math.exp(cosine[b][u] / 0.1) for u in range(4)))
        from_wave = -math.log(positive / sum(math.exp(cosine[u][b] / 0.1) for u in range(4)))
        expected.append((from_mel + from_wave) / 2)
    loss, logs = build().objective(z_mel, z_wave)
    assert loss.tolist() == pytest.approx(expected, abs=TOLERANCE)
    assert {"alignment", "uniformity"} <= set(logs)


def test_negatives_of_the_own_format_only_make_it_harder():
    z_mel, z_wave = torch.randn(4, 6), torch.randn(4, 6)
    across, _ = build().objective(z_mel, z_wave)
    all_of_them, _ = build(negatives="all").objective(z_mel, z_wave)
    assert (all_of_them > across).all()


def test_one_song_alone_has_nothing_to_be_told_from():
    assert multi_format.across_formats(torch.randn(1, 6), torch.randn(1, 6), 0.1).item() == pytest.approx(0)


# --- the two branches ---


@pytest.mark.parametrize("encoder", ["fcn_4", "fcn_7"])
def test_the_branch_of_log_mels_is_the_papers_encoder(encoder):
    model = build(encoder=encoder)
    assert isinstance(model.encoder, encoders.ENCODERS[encoder])
    assert model.wave_encoder.width == model.encoder.width == 512
    clips = torch.randn(2, model.n_clip)
    assert torch.equal(model.eval().embed_clips(clips), model.encoder(model.log_mel(clips)[:, None]))


def test_the_branch_of_waves_has_the_published_size_at_the_published_width():
    """80.5 million as published (PANNs, Table on one-dimensional networks), with the layer of 527 classes."""
    with torch.device("meta"):
        published = multi_format.Res1dNet31(64)
    assert published.width == 2048
    n = sum(p.numel() for p in published.parameters()) + 2048 * 527 + 527
    assert n / 1e6 == pytest.approx(80.5, abs=0.05)
    assert sum(p.numel() for p in multi_format.Res1dNet31(16).parameters()) == 4_971_536
    layers_deep = 1 + 2 * len(published.blocks) + 2  # conv, two in each of 14 blocks, dense, and the classes
    assert layers_deep == 31


def test_both_branches_learn():
    model = build()
    z = model(*model.views(0.1 * torch.randn(2, model.n_whole), keys(2)))
    assert [v.shape for v in z] == [(2, 256)] * 2
    model.objective(*z)[0].mean().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


def test_a_batch_can_be_learned_by_heart():
    model = build()
    at = torch.arange(model.n_whole) / model.sample_rate
    wave = torch.stack([0.3 * torch.sin(2 * math.pi * hz * at) for hz in (200, 700, 2500)])
    views = model.views(wave, keys(3))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(10):
        loss = model.objective(*model(*views))[0].mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


# --- the views ---


def test_without_augmentation_the_views_are_two_crops_in_their_formats():
    model = build(**PLAIN)
    wave = 0.1 * torch.randn(2, model.n_whole)
    mel, clip = model.views(wave, keys(2))
    crops = [
        augmentations.crop(wave, model.n_clip, model.view_keys(keys(2), kind, multi_format.CROP))
        for kind in (multi_format.MEL, multi_format.WAVE)
    ]
    assert torch.allclose(mel, model.log_mel(crops[0])[:, None]) and torch.equal(clip, crops[1])
    assert not torch.equal(*crops) and mel.shape == (2, 1, 128, 351)


def test_without_mixing_the_same_key_gives_the_same_views_whatever_the_batch():
    model = build(mix=None)
    wave = 0.1 * torch.randn(4, model.n_whole)
    together, alone = model.views(wave, keys(4)), model.views(wave[2:3], keys(1, first=2))
    assert torch.equal(alone[1][0], together[1][2])
    assert torch.allclose(alone[0][0], together[0][2], atol=1e-4)  # a transform of four may round otherwise
    again = model.views(wave, keys(4))
    assert all(torch.equal(a, b) for a, b in zip(together, again, strict=True))


def test_views_are_repeatable_with_mixing_and_leave_the_global_generators_alone():
    model = build()
    wave = 0.1 * torch.randn(3, model.n_whole)
    state, other = torch.get_rng_state(), np.random.get_state()[1].copy()
    first, second = model.views(wave, keys(3)), model.views(wave, keys(3))
    assert all(torch.equal(a, b) and torch.isfinite(a).all() for a, b in zip(first, second, strict=True))
    assert torch.equal(torch.get_rng_state(), state) and (np.random.get_state()[1] == other).all()


def test_another_song_is_mixed_in_by_the_drawn_share():
    drawn = augmentations.draw_mix(keys(2000))
    shares = [share for share, _ in drawn]
    assert np.mean(shares) == pytest.approx(5 / 7, abs=0.02)  # of Beta(5, 2)
    assert np.var(shares) == pytest.approx(5 * 2 / (7**2 * 8), rel=0.15)
    assert all(other != i and 0 <= other < 2000 for i, (_, other) in enumerate(drawn))
    wave = torch.randn(2, 5)
    mixed = augmentations.mix(wave, [(0.7, 1), (1.0, 0)])
    assert torch.allclose(mixed[0], 0.7 * wave[0] + 0.3 * wave[1]) and torch.equal(mixed[1], wave[1])
    assert augmentations.draw_mix(keys(1)) == [(1.0, 0)]
    assert augmentations.draw_mix(keys(2), None) == [(1.0, 0), (1.0, 1)]


def test_a_gap_is_where_it_was_drawn_and_no_longer_than_allowed():
    gaps = augmentations.draw_gap(keys(500), 100, 0.1)
    lengths = [end - begin for begin, end in gaps]
    assert set(lengths) == set(range(11)) and all(0 <= begin <= end <= 100 for begin, end in gaps)
    assert {begin for begin, _ in gaps} >= {0, 95}
    x = torch.randn(2, 1, 4, 6)
    masked = augmentations.mask(x, [(1, 3), (5, 5)], -1, torch.tensor([9.0, 8.0]))
    assert (masked[0, :, :, 1:3] == 9).all() and torch.equal(masked[1], x[1])
    assert torch.equal(masked[0, :, :, 3:], x[0, :, :, 3:])
    bands = augmentations.mask(x, [(0, 2), (3, 4)], -2, 0.0)
    assert (bands[0, :, :2] == 0).all() and (bands[1, :, 3] == 0).all() and torch.equal(bands[0, :, 2:], x[0, :, 2:])
    with pytest.raises(ValueError, match="a gap of at most 1.5"):
        augmentations.draw_gap(keys(1), 100, 1.5)


def test_bands_move_and_what_comes_in_holds_the_value():
    x = torch.randn(3, 1, 6, 4)
    moved = augmentations.shift_bands(x, [2, -1, 0], torch.tensor([7.0, 8.0, 9.0]))
    assert torch.equal(moved[0, :, 2:], x[0, :, :-2]) and (moved[0, :, :2] == 7).all()
    assert torch.equal(moved[1, :, :-1], x[1, :, 1:]) and (moved[1, :, -1] == 8).all()
    assert torch.equal(moved[2], x[2])
    assert set(augmentations.draw_shift(keys(500), 3)) == set(range(-3, 4))
    assert set(augmentations.draw_shift(keys(20), 0)) == {0}


# --- the common frame ---


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"whole_seconds": 2.0}, "a crop of 44800 samples from 32000"),
        ({"temperature": -1.0}, "temperature=-1.0 must be positive"),
        ({"negatives": "own"}, "negatives='own' is unknown"),
        ({"frequency_shift": 128}, "frequency_shift=128 bands, expected 0..127"),
        ({"time_mask": 2.0}, "a gap of at most 2.0"),
        ({"encoder": "crnn"}, "encoder='crnn' is unknown"),
    ],
)
def test_wrong_settings_are_refused_at_once(settings, said):
    with pytest.raises(ValueError, match=said):
        build(**settings)


def test_a_run_that_was_stopped_ends_in_the_same_bits_and_its_file_is_the_model(tmp_path):
    store = Songs(n_songs=4, n_samples=100_000)

    def run(out, seed=0, **changes):
        model = build(seed)
        engine.pretrain(
            model, store, store.ids, out, n_epochs=1, batch_size=2, compile=False, report=lambda line: None, **changes
        )
        return model

    undisturbed = run(tmp_path / "a")
    run(tmp_path / "b", stop_after_steps=1)
    resumed = run(tmp_path / "b", seed=5)
    state = undisturbed.state_dict()
    assert all(torch.equal(value, resumed.state_dict()[name]) for name, value in state.items())

    card = checkpoints.read_card(tmp_path / "a" / "checkpoint.safetensors")
    settings = dict(card["settings"])
    again = systems.system(settings.pop("slug"))(**settings)
    checkpoints.load_weights(again, tmp_path / "a" / "checkpoint.safetensors")
    assert card["kind"] == "pretraining" and again.settings == undisturbed.settings
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in state.items())
    clips = embed.clips_of(torch.from_numpy(store.read("song0")), again.n_clip)
    assert again.eval().embed_clips(clips).shape == (3, again.width)
