"""CLMR: its loss is the formula, its views come from their keys alone, and it runs on the common engine."""

import math

import pytest
import torch
from test_engine import Songs

from pawlib import augment, checkpoints, systems
from pawlib.bench import embed, engine
from pawlib.systems import agreement, augmentations
from pawlib.systems.pretraining import clmr

TOLERANCE = 1e-5
RATE = clmr.CLMR.sample_rate
ROOM = {
    "tail_db": -10.0, "decay_s": 1.0, "high_decay_s": 0.2, "first_s": 0.02, "noise_key": 5,
    "reverberance": 50.0, "damping": 50.0, "room_size": 50.0,
}  # fmt: skip


def build(seed=0, **settings):
    torch.manual_seed(seed)
    return clmr.CLMR(**{"whole_seconds": 4.0, **settings})


def keys(n, first=0):
    return [augment.sample_key(7, i) for i in range(first, first + n)]


# --- the encoder and the loss ---


def test_parameters_are_those_of_the_published_encoder():
    model = build()
    count = {part: sum(p.numel() for p in getattr(model, part).parameters()) for part in ("encoder", "projector")}
    assert count == {"encoder": 2_368_512, "projector": 512 * 512 + 512 * 64}
    tagger = systems.build("sample_cnn", n_classes=10)
    without_head = sum(p.numel() for p in tagger.layers.parameters())
    assert sum(p.numel() for p in clmr.SampleCNN(last_kernel=1).parameters()) == without_head  # reading R20


def test_a_clip_becomes_512_numbers_and_another_length_is_refused():
    encoder = clmr.SampleCNN().eval()
    assert encoder(torch.randn(2, 59_049)).shape == (2, 512)
    with pytest.raises(ValueError, match=r"shape \(2, 59048\), expected \(B, 59049\)"):
        encoder(torch.randn(2, 59_048))


def test_the_first_layer_cuts_the_wave_into_threes():
    encoder = clmr.SampleCNN()
    first = encoder.layers[0].conv
    wave = torch.randn(2, 1, 59_049)
    threes = wave.view(2, -1, 3)  # (B, 19683, 3)
    expected = threes @ first.weight.squeeze(1).T + first.bias
    assert torch.allclose(first(wave), expected.transpose(1, 2), atol=TOLERANCE)


def test_loss_is_the_formula_over_all_views_of_the_batch():
    """Every one of the 2 B views looks for its partner among the 2 B - 1 others, by loops."""
    z_1, z_2 = torch.randn(3, 8), torch.randn(3, 8)
    views = [v / v.norm() for v in (*z_1, *z_2)]
    expected = []
    for song in range(3):
        each = []
        for anchor, partner in ((song, song + 3), (song + 3, song)):
            others = [math.exp(float(views[anchor] @ views[u]) / 0.5) for u in range(6) if u != anchor]
            each.append(-math.log(math.exp(float(views[anchor] @ views[partner]) / 0.5) / sum(others)))
        expected.append(sum(each) / 2)
    loss, _ = build().objective(z_1, z_2)
    assert loss.tolist() == pytest.approx(expected, abs=TOLERANCE)
    turned, _ = build().objective(z_2, z_1)
    assert torch.allclose(loss, turned, atol=TOLERANCE)


def test_alignment_and_uniformity_by_hand():
    z_1 = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    z_2 = torch.tensor([[0.0, 3.0], [0.0, 1.0]])
    logs = agreement.of_views(z_1, z_2)
    assert logs["alignment"] == pytest.approx(1.0)  # 2 and 0
    assert logs["uniformity"] == pytest.approx(-4.0)  # one pair at squared distance 2
    assert "uniformity" not in agreement.of_views(z_1[:1], z_2[:1])


# --- the views ---


def test_the_same_key_gives_the_same_views_whatever_the_batch():
    model = build()
    wave = 0.1 * torch.randn(4, model.n_whole)
    together = model.views(wave, keys(4))
    torch.manual_seed(99)
    alone = model.views(wave[2:3], keys(1, first=2))
    for one, all_four in zip(alone, together, strict=True):
        assert one.shape == (1, 59_049) and torch.isfinite(one).all()
        assert torch.equal(one[0], all_four[2])
    assert not torch.equal(*(view[0] for view in together))


def test_views_leave_the_global_generator_alone():
    model = build()
    state = torch.get_rng_state()
    model.views(torch.randn(2, model.n_whole, generator=torch.Generator().manual_seed(1)), keys(2))
    assert torch.equal(torch.get_rng_state(), state)


def test_both_crops_lie_within_the_whole_and_reach_all_of_it():
    wave = torch.arange(20.0).repeat(300, 1)
    crops = augmentations.crop(wave, 6, keys(300))
    assert crops.shape == (300, 6) and torch.equal(crops - crops[:, :1], torch.arange(6.0).repeat(300, 1))
    assert set(crops[:, 0].tolist()) == set(map(float, range(15)))
    assert torch.equal(augmentations.crop(wave[:1], 20, keys(1)), wave[:1])
    with pytest.raises(ValueError, match="a crop of 21 samples from 20"):
        augmentations.crop(wave, 21, keys(300))
    with pytest.raises(ValueError, match="2 keys for a batch of shape"):
        augmentations.crop(wave, 6, keys(2))


def test_the_two_crops_of_a_song_are_two():
    model = build()
    wave = torch.arange(model.n_whole, dtype=torch.float32).repeat(2, 1)
    begins = [
        augmentations.starts(model.n_whole, model.n_clip, [augment.sample_key(k, clmr.CROP) for k in side])
        for side in (model.view_keys(keys(2), 1), model.view_keys(keys(2), 2))
    ]
    assert all(0 <= begin <= model.n_whole - model.n_clip for side in begins for begin in side)
    assert begins[0] != begins[1] and len(wave) == 2


def test_without_reverberation_a_view_is_music_paws_group_on_the_crop():
    model = build(reverb=0.0)
    wave = 0.1 * torch.randn(2, model.n_whole)
    own = model.view_keys(keys(2), 1)
    crop = augmentations.crop(wave, model.n_clip, [augment.sample_key(k, clmr.CROP) for k in own])
    expected = augment.augment(crop, [augment.sample_key(k, clmr.GROUP) for k in own], RATE)
    assert torch.equal(model.views(wave, keys(2))[0], expected)


# --- reverberation (reading R19) ---


def test_reverberation_is_a_convolution_with_the_response_of_its_room():
    rooms = [{}, ROOM | {"decay_s": 0.003, "high_decay_s": 0.001, "first_s": 0.001}]
    wave = torch.randn(2, 200)
    heard = augmentations.reverb(wave, rooms, 16_000)
    assert torch.equal(heard[0], wave[0])
    response = augmentations.impulse_response(rooms[1], 200, 16_000)
    by_hand = [sum(response[k] * wave[1, t - k] for k in range(t + 1)) for t in range(200)]
    assert torch.allclose(heard[1], torch.stack(by_hand), atol=1e-4)


def test_the_direct_sound_keeps_its_level_and_the_tail_has_its_own():
    response = augmentations.impulse_response(ROOM, RATE * 2, RATE)
    assert response[0] == 1 and response[1 : round(0.02 * RATE)].abs().max() == 0
    assert 20 * math.log10(response[1:].norm()) == pytest.approx(-10, abs=0.01)
    assert response[round(1.03 * RATE) :].abs().max() == 0  # the tail ends where it has fallen by 60 dB


def test_damping_shortens_the_highs():
    """Energy of the first fifth against the last two fifths, below and above the crossover."""
    response = augmentations.impulse_response(ROOM | {"first_s": 0.001}, RATE, RATE)[1:]
    low, high = augmentations._split(response, RATE)
    fallen = [float(band[: RATE // 5].norm() / band[3 * RATE // 5 : 9 * RATE // 10].norm()) for band in (low, high)]
    assert fallen[1] > 3 * fallen[0]


def test_reverberation_keeps_length_and_silence_and_makes_no_nan():
    rooms = augmentations.draw_reverb(keys(8), probability=1.0)
    wave = torch.randn(8, 4000)
    wave[3] = 0
    heard = augmentations.reverb(wave, rooms, 16_000)
    assert heard.shape == wave.shape and torch.isfinite(heard).all()
    assert heard[3].abs().max() == 0
    assert torch.allclose(heard[:, 0], wave[:, 0], atol=1e-4)  # the first sample has no past
    at_once = augmentations._in_rooms(wave, rooms, 16_000)  # the way of a GPU
    assert torch.allclose(heard, at_once, atol=1e-4)
    with pytest.raises(ValueError, match="2 rooms for a batch"):
        augmentations.reverb(wave, rooms[:2], 16_000)


def test_rooms_are_drawn_as_often_as_asked_and_within_their_limits():
    rooms = augmentations.draw_reverb(keys(2000))
    drawn = [room for room in rooms if room]
    assert len(drawn) / len(rooms) == pytest.approx(0.6, abs=0.05)
    for dial in ("reverberance", "damping", "room_size"):
        values = [room[dial] for room in drawn]
        assert min(values) >= 0 and max(values) <= 100 and sum(values) / len(values) == pytest.approx(50, abs=5)
    assert all(0.2 <= room["decay_s"] <= 2.5 and 0 < room["high_decay_s"] <= room["decay_s"] for room in drawn)
    assert not any(augmentations.draw_reverb(keys(50), probability=0.0))


# --- the common frame ---


def test_a_batch_can_be_learned_by_heart():
    model = build()
    at = torch.arange(model.n_whole) / RATE
    wave = torch.stack([0.3 * torch.sin(2 * math.pi * hz * at) for hz in (200, 700, 2500)])
    views = model.views(wave, keys(3))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(6):
        loss = model.objective(*model(*views))[0].mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"whole_seconds": 2.0}, "a crop of 59049 samples from 44100"),
        ({"temperature": 0.0}, "temperature=0.0 must be positive"),
        ({"reverb": 1.5}, "probability of reverb of 1.5"),
    ],
)
def test_wrong_settings_are_refused_at_once(settings, said):
    with pytest.raises(ValueError, match=said):
        build(**settings)


def test_a_run_that_was_stopped_ends_in_the_same_bits_and_its_file_is_the_model(tmp_path):
    store = Songs(n_songs=4, n_samples=120_000, sample_rate=RATE)

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
    assert torch.equal(again.eval().embed_clips(clips), undisturbed.eval().embed_clips(clips))
    assert again.embed_clips(clips).shape == (3, again.width)
