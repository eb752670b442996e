"""The constant-Q feature: pitches land where they belong, nothing is computed twice, no bad track ends the run."""

import numpy as np
import pytest
import soundfile

pytest.importorskip("librosa")

from pawlib.bench import cqt, store
from pawlib.bench.datasets import Track

RATE = 22_050
A4 = 69 - 24  # semitones above C1


def sine(hz, seconds=3.0, rate=RATE, level=0.5):
    return (level * np.sin(2 * np.pi * hz * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


def direct(wave, semitone):
    """Magnitude at the middle of a wave, from the definition: a Hann-windowed sinusoid of Q cycles.

    The filters reach half-way into each other (Q = (r^2 + 1) / (r^2 - 1) for a semitone's ratio r), each has sum 1, and
    the result is multiplied by the root of the filter's length.
    """
    ratio = 2 ** (1 / 12)
    hz = 440 * ratio ** (semitone - A4)
    length = (ratio**2 + 1) / (ratio**2 - 1) * RATE / hz
    at = np.arange(-int(length / 2), int(length / 2) + 1)
    window = 0.5 + 0.5 * np.cos(2 * np.pi * at / length)
    piece = wave[len(wave) // 2 + at]
    return abs((piece * window * np.exp(-2j * np.pi * hz * at / RATE)).sum() / window.sum()) * length**0.5


@pytest.fixture
def prepared(tmp_path):
    """(tracks, store) of made-up recordings: nine sines; the tenth lasts half a second."""
    tracks = []
    for i in range(10):
        path = tmp_path / f"{i}.wav"
        soundfile.write(path, sine(110 * 2 ** (i / 12), 0.5 if i == 9 else 1.5, 8000), 8000)
        tracks.append(Track(f"song {i}", path, np.zeros(0, np.float32), f"work {i // 2}"))
    return tracks, store.prepare(tracks, tmp_path / "store", n_workers=0)


def counted(monkeypatch):
    """Ids or lengths of what is computed in this process from now on."""
    seen, compute = [], cqt.cqt
    monkeypatch.setattr(cqt, "cqt", lambda wave, rate, n_mean: (seen.append(len(wave)), compute(wave, rate, n_mean))[1])
    return seen


# --- one wave ---


def test_a_sine_is_loudest_at_its_semitone_and_there_it_is_one():
    found = cqt.cqt(sine(440), RATE)
    assert found.shape == (84, 6) and found.dtype == np.float32  # 1 + 66150 // 512 = 130 frames, 20 at a time
    assert (found.argmax(axis=0) == A4).all()
    assert found.max() == 1.0 and found.min() >= 0


def test_bands_are_those_of_the_definition():
    wave = sine(440) + sine(220 * 2 ** (3 / 12), level=0.2)
    bands = [A4 - 12, A4 - 9, A4 - 1, A4, A4 + 1, A4 + 2]
    expected = np.array([direct(wave, band) for band in bands])
    found = cqt.cqt(wave, RATE, n_mean=1)[:, 65]  # the frame in the middle
    np.testing.assert_allclose(found[bands] / found[A4], expected / expected[3], atol=0.02)


def test_frames_are_means_of_twenty_and_the_rest_is_dropped():
    random = np.random.default_rng(0)
    wave = random.normal(0, 0.1, 2 * RATE).astype(np.float32)
    fine, coarse = cqt.cqt(wave, RATE, n_mean=1), cqt.cqt(wave, RATE)
    assert fine.shape[1] == 87 and coarse.shape[1] == 4
    slow = np.stack([fine[:, 20 * i : 20 * (i + 1)].mean(axis=1) for i in range(4)], axis=1)
    np.testing.assert_allclose(coarse, slow / slow.max(), rtol=1e-5)


def test_loudness_drops_out_and_a_semitone_is_a_row():
    wave = sine(262) + sine(392)
    np.testing.assert_allclose(cqt.cqt(0.01 * wave, RATE), cqt.cqt(wave, RATE), atol=1e-5)
    higher = cqt.cqt(sine(262 * 2 ** (1 / 12)) + sine(392 * 2 ** (1 / 12)), RATE)
    np.testing.assert_allclose(higher[13:72], cqt.cqt(wave, RATE)[12:71], atol=0.02)


def test_another_rate_is_resampled():
    np.testing.assert_allclose(cqt.cqt(sine(440, rate=44_100), 44_100), cqt.cqt(sine(440), RATE), atol=0.02)


@pytest.mark.parametrize(
    ("wave", "message"),
    [
        (np.zeros((2, RATE)), r"shape \(2, 22050\), expected \(n_samples,\)"),
        (sine(440, 0.9), "too short: 0.90 s, expected at least 1 s"),
        (np.zeros(2 * RATE), "silent"),
        (np.full(2 * RATE, np.nan), "sample 0 is NaN"),
    ],
)
def test_waves_that_are_none_are_refused(wave, message):
    with pytest.raises(ValueError, match=message):
        cqt.cqt(wave, RATE)


def test_too_few_frames_for_one_mean_are_refused():
    with pytest.raises(ValueError, match="44 frames, too few for one mean of 50"):
        cqt.cqt(sine(440, 1.0), RATE, n_mean=50)


# --- a corpus ---


def test_every_track_has_its_feature_and_the_short_one_is_named(prepared):
    tracks, opened = prepared
    found = cqt.features(tracks, opened, n_workers=0)
    assert found.ids == tuple(track.id for track in tracks[:9])
    assert [c.shape for c in found.cqts] == [(84, 3)] * 9
    assert [int(c.mean(axis=1).argmax()) for c in found.cqts] == [A4 - 24 + i for i in range(9)]
    (left_out,) = found.left_out
    assert (
        left_out["id"] == "song 9" and left_out["path"].endswith("9.wav") and "too short: 0.50 s" in left_out["reason"]
    )


def test_what_is_kept_is_not_computed_again_whatever_is_asked_for(prepared, monkeypatch):
    tracks, opened = prepared
    first = cqt.features(tracks[:4], opened, n_workers=0)
    seen = counted(monkeypatch)
    again = cqt.features(tracks[3::-1], opened, n_workers=0)
    assert seen == [] and again.ids == first.ids[::-1]
    assert all(np.array_equal(a, b) for a, b in zip(again.cqts, first.cqts[::-1], strict=True))
    cqt.features(tracks[:6], opened, n_workers=0)
    assert len(seen) == 2
    cqt.features(tracks[:1], opened, n_mean=5, n_workers=0)  # another setting is another feature
    cqt.features(tracks[:1], opened, n_workers=0, cache=False)
    assert len(seen) == 4


def test_a_stopped_run_goes_on_where_it_was_and_leaves_no_half_file(prepared, monkeypatch):
    tracks, opened = prepared
    compute, n_left = cqt.cqt, [3]

    def stopped(*args):
        n_left[0] -= 1
        if n_left[0] < 0:
            raise KeyboardInterrupt
        return compute(*args)

    monkeypatch.setattr(cqt, "cqt", stopped)
    with pytest.raises(KeyboardInterrupt):
        cqt.features(tracks[:8], opened, n_workers=0)
    assert len(list((opened.folder / "cqt").iterdir())) == 3
    monkeypatch.setattr(cqt, "cqt", compute)
    seen = counted(monkeypatch)
    assert len(cqt.features(tracks[:8], opened, n_workers=0).ids) == 8 and len(seen) == 5


def test_a_damaged_file_is_made_again(prepared, monkeypatch):
    tracks, opened = prepared
    (kept,) = cqt.features(tracks[:1], opened, n_workers=0).cqts
    (path,) = (opened.folder / "cqt").iterdir()
    path.write_bytes(path.read_bytes()[:100])
    seen = counted(monkeypatch)
    (again,) = cqt.features(tracks[:1], opened, n_workers=0).cqts
    assert len(seen) == 1 and np.array_equal(again, kept)


def test_processes_give_what_one_gives(prepared):
    tracks, opened = prepared
    one = cqt.features(tracks, opened, n_workers=0, cache=False)
    many = cqt.features(tracks, opened, n_workers=2)
    assert many.ids == one.ids and many.left_out == one.left_out
    assert all(np.array_equal(a, b) for a, b in zip(many.cqts, one.cqts, strict=True))


def test_other_audio_of_the_same_name_and_length_is_another_feature(prepared, tmp_path):
    tracks, opened = prepared
    before = cqt.features(tracks[:1], opened, n_workers=0).cqts[0]
    soundfile.write(tracks[0].path, sine(330, 1.5, 8000), 8000)
    opened = store.prepare(tracks, opened.folder, n_workers=0)
    assert cqt.features(tracks[:1], opened, n_workers=0).cqts[0].argmax() != before.argmax()


def test_tracks_that_were_never_decoded_are_named_and_none_at_all_is_an_error(prepared):
    tracks, opened = prepared
    stranger = Track("lost", tracks[0].path.with_name("lost.wav"), np.zeros(0, np.float32), "w")
    found = cqt.features([stranger, tracks[0]], opened, n_workers=0)
    assert found.ids == ("song 0",) and "could not be decoded" in found.left_out[0]["reason"]
    with pytest.raises(ValueError, match="none of 2 tracks has a CQT, the first because it is not in the store"):
        cqt.features([stranger, tracks[9]], opened, n_workers=0)
