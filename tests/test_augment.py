"""pawlib/augment.py: each augmentation alone against a plain reference, and where its randomness comes from."""

import math

import numpy as np
import pytest
import scipy.signal
import torch

from pawlib import augment

RATE = 16_000
NONE = dict.fromkeys(augment.PROBABILITIES, 0.0)


def only(**chances):
    return {**NONE, **chances}


def noise(n_songs=3, n_samples=RATE):
    return 0.1 * torch.randn(n_songs, n_samples)


def test_a_song_gets_the_same_view_in_any_batch():
    wave, keys = noise(6, 8192), [augment.sample_key(0, 1, i) for i in range(6)]
    everything = dict.fromkeys(augment.PROBABILITIES, 1.0)
    together = augment.augment(wave, keys, RATE, everything)
    assert torch.equal(together, augment.augment(wave, keys, RATE, everything))
    for i in range(6):
        torch.testing.assert_close(augment.augment(wave[i : i + 1], keys[i : i + 1], RATE, everything)[0], together[i])
    order = [3, 0, 5, 1, 4, 2]
    moved = augment.augment(wave[order], [keys[i] for i in order], RATE, everything)
    torch.testing.assert_close(moved, together[order])


def test_the_global_generator_plays_no_part():
    wave, keys = noise(1, 4096), [7]
    torch.manual_seed(1)
    first = augment.augment(wave, keys, RATE, only(noise=1))
    state = torch.get_rng_state()
    torch.manual_seed(2)
    assert torch.equal(augment.augment(wave, keys, RATE, only(noise=1)), first)
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), state)


def test_another_key_gives_another_view():
    wave = noise(1, 4096).repeat(8, 1)
    views = augment.augment(wave, list(range(8)), RATE, only(noise=1, gain=1))
    for i in range(8):
        for j in range(i):
            assert (views[i] - views[j]).abs().max() > 1e-4


def test_keys_of_neighbours_share_nothing():
    keys = {augment.sample_key(seed, epoch, i) for seed in range(4) for epoch in range(10) for i in range(100)}
    assert len(keys) == 4000
    assert all(0 <= key < 2**63 for key in keys)
    for a, b in (
        (augment.sample_key(0, 1, 2), augment.sample_key(0, 2, 1)),
        (augment.sample_key(0), augment.sample_key(0, 0)),
    ):
        assert a != b
    flipped = [(augment.sample_key(0, 0, i) ^ augment.sample_key(0, 0, i + 1)).bit_count() for i in range(500)]
    assert 30 < np.mean(flipped) < 33  # half of 63 bits


def test_probabilities_are_honoured():
    drawn = augment.draw([augment.sample_key(3, i) for i in range(2000)])
    heard = {
        "polarity": sum("polarity" in song for song in drawn),
        "noise": sum("noise" in song for song in drawn),
        "gain": sum("gain_db" in song for song in drawn),
        "filter": sum("high_pass_hz" in song or "low_pass_hz" in song for song in drawn),
        "delay": sum("delay" in song for song in drawn),
        "pitch": sum("semitones" in song for song in drawn),
    }
    for name, chance in augment.PROBABILITIES.items():
        assert abs(heard[name] / 2000 - chance) < 4 * math.sqrt(chance * (1 - chance) / 2000), name
    assert augment.PROBABILITIES == {
        "polarity": 0.8,
        "noise": 0.01,
        "gain": 0.3,
        "filter": 0.8,
        "delay": 0.3,
        "pitch": 0.6,
    }


def test_ranges_are_those_of_clmr_and_used_in_full():
    drawn = augment.draw(
        [augment.sample_key(4, i) for i in range(2000)], RATE, dict.fromkeys(augment.PROBABILITIES, 1.0)
    )

    def values(name):
        return [song[name] for song in drawn if name in song]

    for name, low, high in (
        ("gain_db", -20, -1),
        ("noise", 1e-4, 1e-2),
        ("high_pass_hz", 200, 1200),
        ("low_pass_hz", 2200, 4000),
    ):
        assert low <= min(values(name)) < low + 0.02 * (high - low)
        assert high - 0.02 * (high - low) < max(values(name)) <= high
    assert set(values("delay")) == {3200, 4000, 4800, 5600, 6400, 7200}
    assert set(values("semitones")) == set(range(-7, 8))
    assert set(values("polarity")) == {-1.0}
    assert abs(len(values("high_pass_hz")) / 2000 - 0.5) < 0.05
    assert not any("high_pass_hz" in song and "low_pass_hz" in song for song in drawn)


def test_choices_are_independent_of_each_other():
    drawn = augment.draw(
        [augment.sample_key(5, i) for i in range(2000)], RATE, dict.fromkeys(augment.PROBABILITIES, 0.5)
    )
    names = ("polarity", "noise", "gain_db", "delay", "semitones")
    present = np.array(
        [[name in song for name in names] + ["high_pass_hz" in song or "low_pass_hz" in song] for song in drawn]
    )
    correlation = np.corrcoef(present.T) - np.eye(6)
    assert np.abs(correlation).max() < 0.1


def test_probability_zero_gives_the_song_back():
    wave = noise()
    assert torch.equal(augment.augment(wave, [1, 2, 3], RATE, NONE), wave)


def test_input_is_not_modified_and_the_view_is_a_copy():
    wave = noise(2, 8192)
    before = wave.clone()
    for chances in (NONE, dict.fromkeys(augment.PROBABILITIES, 1.0)):
        view = augment.augment(wave, [1, 2], RATE, chances)
        view.zero_()
        assert torch.equal(wave, before)


def test_polarity_turns_the_sign():
    wave = noise()
    assert torch.equal(augment.augment(wave, [1, 2, 3], RATE, only(polarity=1)), -wave)


def test_gain_is_in_decibels():
    wave, keys = noise(), [1, 2, 3]
    view = augment.augment(wave, keys, RATE, only(gain=1))
    for i, song in enumerate(augment.draw(keys, RATE, only(gain=1))):
        torch.testing.assert_close(view[i], wave[i] * 10 ** (song["gain_db"] / 20))
        assert 20 * math.log10(view[i].std() / wave[i].std()) == pytest.approx(song["gain_db"], abs=1e-3)


def test_noise_has_the_drawn_share_of_the_songs_level():
    wave, keys = noise() * torch.tensor([[1.0], [0.1], [3.0]]), [1, 2, 3]
    added = augment.augment(wave, keys, RATE, only(noise=1)) - wave
    for i, song in enumerate(augment.draw(keys, RATE, only(noise=1))):
        assert (added[i].std() / wave[i].std()).item() == pytest.approx(song["noise"], rel=0.03)
        assert abs(np.corrcoef(added[i], wave[i])[0, 1]) < 0.05
        assert abs(np.corrcoef(added[i], added[i - 1])[0, 1]) < 0.05  # every song its own noise


def test_delay_is_half_the_song_and_a_quarter_of_its_past():
    wave, keys = noise(), [1, 2, 3]
    view = augment.augment(wave, keys, RATE, only(delay=1))
    for i, song in enumerate(augment.draw(keys, RATE, only(delay=1))):
        late = torch.cat([torch.zeros(song["delay"]), wave[i, : -song["delay"]]])
        torch.testing.assert_close(view[i], (wave[i] + 0.5 * late) / 2)


def test_delay_longer_than_the_song_only_halves_it():
    wave = noise(1, 1000)
    torch.testing.assert_close(augment.augment(wave, [1], RATE, only(delay=1)), wave / 2)


@pytest.mark.parametrize(("name", "kind"), [("high_pass_hz", "high"), ("low_pass_hz", "low")])
@pytest.mark.parametrize("rate", [16_000, 22_050])
def test_filter_is_scipys_second_order_butterworth(name, kind, rate):
    wave = noise(1)
    for cut in augment.HIGH_PASS_HZ if kind == "high" else augment.LOW_PASS_HZ:
        got = augment.apply(wave, [{name: cut}], rate)[0].double().numpy()
        b, a = scipy.signal.butter(2, cut, kind, fs=rate)
        expected = scipy.signal.lfilter(b, a, wave[0].double().numpy())
        own = scipy.signal.lfilter(*augment._butterworth({name: cut}, rate), wave[0].double().numpy())
        np.testing.assert_allclose(own, expected, atol=1e-10)
        np.testing.assert_allclose(got, expected, atol=1e-5)
        b, a = torch.tensor([augment._butterworth({name: cut}, rate)] * 2).unbind(1)
        on_a_card = augment._filter_in_frequency(torch.cat([wave, -wave]), a, b).double().numpy()
        np.testing.assert_allclose(on_a_card, [expected, -expected], atol=1e-5)


@pytest.mark.parametrize("song", [{"high_pass_hz": 200.0}, {"high_pass_hz": 1200.0}, {"low_pass_hz": 2200.0}])
def test_silence_behind_a_filter_stays_silence_and_has_no_nan(song):
    """A filter rings on below what a float can hold; a vocoder must not ask that for its phase."""
    wave = noise(1, 4 * RATE)
    wave[:, RATE:] = 0
    filtered = augment.apply(wave, [song], RATE)
    assert (filtered[:, 2 * RATE :] == 0).all() and filtered[:, :RATE].abs().max() > 0.01
    view = augment.apply(wave, [song | {"semitones": 3}], RATE)
    assert torch.isfinite(view).all()
    rest = view[:, 2 * RATE :]  # the resampling by Fourier is periodic: a sharp beginning sounds on before the end
    assert rest.square().mean() < 1e-4 * view.square().mean() and rest[:, : 3 * RATE // 2].abs().max() < 1e-3


@pytest.mark.parametrize("loudness", [1e-10, 1e-19, 1e-22, 1e-30, 1e-44])
def test_the_quietest_numbers_can_be_shifted(loudness):
    assert torch.isfinite(augment.pitch_shift(loudness * noise(1, RATE), 3)).all()


def test_filter_touches_only_the_songs_it_was_drawn_for():
    wave = noise()
    view = augment.apply(wave, [{}, {"low_pass_hz": 2200.0}, {}], RATE)
    assert torch.equal(view[[0, 2]], wave[[0, 2]])
    assert not torch.equal(view[1], wave[1])


def test_songs_that_undergo_together_sound_as_each_alone():
    """On a GPU the whole batch is worked on at once, on a CPU a song at a time: the same views but for rounding."""
    wave, songs = noise(16, RATE), augment.draw(range(16), RATE, {"noise": 0.5})
    kinds = {name for song in songs for name in song}
    assert kinds >= {"noise", "high_pass_hz", "low_pass_hz", "delay", "semitones"}
    alone = augment.apply(wave, songs, RATE)
    together = augment.apply(wave, [{k: song[k] for k in song if k in ("polarity", "gain_db")} for song in songs], RATE)
    augment._undergo(together, songs, RATE)
    assert (together - alone).std() < 1e-3 * alone.std()
    assert (alone - wave).std(dim=1).min() > 0


def loudest_hz(wave, rate):
    """Frequency of a sine by the phase it gains between two halves of its middle: to a hundredth of a cent."""
    middle = wave[len(wave) // 4 : len(wave) * 3 // 4].double().numpy()
    window = np.hanning(len(middle))
    spectrum = np.abs(np.fft.rfft(middle * window, 16 * len(middle)))
    k = spectrum.argmax()
    left, top, right = np.log(spectrum[k - 1 : k + 2])
    return (k + 0.5 * (left - right) / (left - 2 * top + right)) * rate / (16 * len(middle))


def cents(a, b):
    return 1200 * math.log2(a / b)


@pytest.mark.parametrize("semitones", [n for n in range(-7, 8) if n])
@pytest.mark.parametrize("hz", [440.0, 1234.5])
def test_pitch_shift_moves_a_sine_and_keeps_length_and_level(semitones, hz):
    wave = 0.3 * torch.sin(2 * torch.pi * hz * torch.arange(2 * RATE) / RATE)
    view = augment.pitch_shift(wave, semitones)
    assert view.shape == wave.shape
    assert abs(cents(loudest_hz(view, RATE), hz * 2 ** (semitones / 12))) < 12  # of 100
    for part in view[2000:-2000].chunk(4):
        assert abs(20 * math.log10(part.std() / wave.std())) < 1


def test_pitch_of_a_whole_of_the_paper_is_right_to_three_cents():
    wave = 0.3 * torch.sin(2 * torch.pi * 440 * torch.arange(358_400) / RATE)
    for semitones in (-7, 5):
        view = augment.pitch_shift(wave, semitones)
        assert abs(cents(loudest_hz(view, RATE), 440 * 2 ** (semitones / 12))) < 3


def test_rounding_of_lengths_bends_the_pitch_by_no_more_than_said():
    worst = {}
    for n in (RATE, *range(16_400, 60_000, 137), 358_400):
        for semitones in range(-7, 8):
            exact = n * 2 ** (semitones / 12)
            long = augment._fast_length(round(exact))
            assert all(long % prime for prime in (17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71))
            worst[n] = max(worst.get(n, 0), abs(cents(long, exact)))
    assert max(worst.values()) < 9
    assert worst[358_400] < 3


def test_pitch_shift_keeps_the_tempo():
    time = torch.arange(4 * RATE) / RATE
    wave = torch.randn(4 * RATE) * (1.1 + torch.sin(2 * torch.pi * (0.5 + 0.2 * time) * time))  # swells, ever faster
    for semitones in (-7, 7):
        view = augment.pitch_shift(wave, semitones)
        before, after = (x.square().unfold(0, 1600, 800).mean(-1).sqrt().numpy() for x in (wave, view))
        assert np.corrcoef(before, after)[0, 1] > 0.95
        assert np.corrcoef(before[:-4], after[4:])[0, 1] < 0.8  # 0.2 s late would show


def test_silence_stays_silence():
    everything = {**dict.fromkeys(augment.PROBABILITIES, 1.0)}
    view = augment.augment(torch.zeros(4, RATE), [1, 2, 3, 4], RATE, everything)
    assert torch.isfinite(view).all()
    assert view.abs().max() < 1e-6


def test_unknown_augmentation_and_wrong_probability_are_refused():
    with pytest.raises(ValueError, match="reverb.*expected values 0..1 for polarity"):
        augment.draw([1], RATE, {"reverb": 0.6})
    with pytest.raises(ValueError, match="'gain': 1.5.*expected values 0..1"):
        augment.draw([1], RATE, {"gain": 1.5})


def test_one_key_per_song_is_wanted():
    with pytest.raises(ValueError, match=r"2 keys for a batch of shape \(3, 100\)"):
        augment.augment(torch.zeros(3, 100), [1, 2])
    with pytest.raises(ValueError, match="expected one key per song"):
        augment.augment(torch.zeros(100), [1])


def test_a_missing_probability_keeps_its_default():
    keys = [augment.sample_key(6, i) for i in range(50)]
    plain, without = augment.draw(keys), augment.draw(keys, RATE, {"pitch": 0.0})
    assert [{k: v for k, v in song.items() if k != "semitones"} for song in plain] == without
