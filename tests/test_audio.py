"""decode and resample: every broken file is named with its cause, every whole one comes back as written."""

import os
import pickle

import numpy as np
import pytest
import soundfile

from pawlib.bench import audio

RATE = 16000
TOL_RESAMPLE = 2e-3


def tone(seconds=1.0, rate=RATE, hz=440.0, n_channels=1, gain=0.5):
    wave = gain * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate)
    return np.repeat(wave[:, None], n_channels, axis=1).astype(np.float32)  # (n_samples, n_channels)


def written(folder, name, wave=None, rate=RATE, **kwargs):
    path = folder / name
    soundfile.write(path, tone() if wave is None else wave, rate, **kwargs)
    return path


def cut(path, keep=0.5):
    whole = path.read_bytes()
    path.write_bytes(whole[: int(keep * len(whole))])
    return path


@pytest.mark.parametrize("name", ["a.wav", "a.flac"])
def test_lossless_files_come_back_as_written(tmp_path, name):
    steps = np.random.default_rng(0).integers(-32768, 32768, (RATE, 2)).astype(np.int16)
    wave, rate = audio.decode(written(tmp_path, name, steps, 22050))
    assert rate == 22050 and wave.shape == (2, RATE) and wave.dtype == np.float32
    np.testing.assert_array_equal(wave, steps.T / np.float32(32768))


@pytest.mark.parametrize("name", ["a.mp3", "a.ogg"])
def test_lossy_files_come_back_with_their_length_and_nearly_their_wave(tmp_path, name):
    wave, rate = audio.decode(written(tmp_path, name))
    assert rate == RATE and wave.shape == (1, RATE)
    assert np.corrcoef(wave[0], tone()[:, 0])[0, 1] > 0.99


def test_the_content_decides_not_the_extension(tmp_path):
    path = written(tmp_path, "a.mp3").rename(tmp_path / "a.wav")
    assert audio.decode(path)[0].shape == (1, RATE)


def test_info_reads_the_header_as_decode_reads_the_file(tmp_path):
    path = written(tmp_path, "a.flac", tone(0.3, 44100, n_channels=2), 44100)
    assert audio.info(path) == (13230, 2, 44100)
    with pytest.raises(audio.AudioError, match="file not found"):
        audio.info(tmp_path / "b.flac")


def test_a_missing_file_a_folder_and_a_broken_link_are_told_apart(tmp_path):
    with pytest.raises(audio.AudioError, match=r"gone\.wav: file not found"):
        audio.decode(tmp_path / "gone.wav")
    with pytest.raises(audio.AudioError, match="is a folder"):
        audio.decode(tmp_path)
    (tmp_path / "link.wav").symlink_to(tmp_path / "gone.wav")
    with pytest.raises(audio.AudioError, match="broken link"):
        audio.decode(tmp_path / "link.wav")


@pytest.mark.parametrize("read", [audio.decode, lambda path: list(audio.mono_blocks(path, RATE))])
def test_a_pipe_is_not_waited_for(tmp_path, read):
    os.mkfifo(tmp_path / "a.wav")
    with pytest.raises(audio.AudioError, match="no regular file but a pipe"):
        read(tmp_path / "a.wav")


def noise(seconds=2.0, rate=RATE, n_channels=1):
    return np.random.default_rng(0).normal(0, 0.1, (round(seconds * rate), n_channels)).astype(np.float32)


@pytest.mark.parametrize("rate, n_channels", [(RATE, 1), (44_100, 2), (8_000, 3)])
@pytest.mark.parametrize("n_block", [None, 7_001])
def test_blocks_joined_are_the_mean_over_channels_resampled(tmp_path, monkeypatch, rate, n_channels, n_block):
    monkeypatch.setattr(audio, "BLOCK_FRAMES", 10_007)
    path = written(tmp_path, "a.wav", noise(2.3, rate, n_channels), rate, subtype="FLOAT")
    blocks = list(audio.mono_blocks(path, RATE, n_block))
    wanted = audio.resample(audio.decode(path)[0].mean(axis=0), rate, RATE)
    assert len(blocks) > 1 and all(block.dtype == np.float32 for block in blocks)
    np.testing.assert_allclose(np.concatenate(blocks)[: len(wanted)], wanted, atol=1e-6)


def spoilt(path, how):
    wave = noise()
    if how == "nan":
        wave[20_000] = np.nan
    if how == "header":
        wave = wave[:0]
    soundfile.write(path, 0 * wave if how == "silent" else wave, RATE, subtype="PCM_16" if how == "cut" else "FLOAT")
    return cut(path) if how == "cut" else path


@pytest.mark.parametrize("how", ["nan", "header", "silent", "cut", "missing", "text"])
def test_blocks_and_whole_files_are_refused_for_the_same_reason(tmp_path, monkeypatch, how):
    monkeypatch.setattr(audio, "BLOCK_FRAMES", 4_096)
    path = tmp_path / "a.wav"
    if how == "text":
        path.write_text("hello " * 99)
    elif how != "missing":
        spoilt(path, how)
    with pytest.raises(audio.AudioError) as at_once:
        audio.decode(path)
    with pytest.raises(audio.AudioError) as in_blocks:
        list(audio.mono_blocks(path, RATE))
    assert at_once.value.reason == in_blocks.value.reason


@pytest.mark.parametrize("n_channels", [1, 2, 3, 8, 12])
def test_mixing_down_is_the_mean_over_channels_and_a_copy(n_channels):
    frames = np.random.default_rng(0).standard_normal((50, n_channels)).astype(np.float32)
    mono = audio.mixed_down(frames)
    assert mono.dtype == np.float32 and mono.shape == (50,) and not np.shares_memory(mono, frames)
    np.testing.assert_allclose(mono, frames.mean(axis=1), atol=1e-6)
    np.testing.assert_allclose(audio.mixed_down(frames.T.copy().T), mono, atol=0)


def test_what_the_end_shows_is_raised_after_the_last_block(tmp_path, monkeypatch):
    monkeypatch.setattr(audio, "BLOCK_FRAMES", 4_096)
    heard = []
    with pytest.raises(audio.AudioError, match="is cut off"):
        heard.extend(audio.mono_blocks(spoilt(tmp_path / "a.wav", "cut"), RATE))
    assert 0.9 * RATE < sum(map(len, heard)) <= RATE  # half of two seconds


def test_channels_that_cancel_each_other_are_silent_in_mono_alone(tmp_path):
    path = written(tmp_path, "a.wav", noise() * [1, -1], subtype="FLOAT")
    assert audio.decode(path)[0].any()
    with pytest.raises(audio.AudioError, match="channels cancel each other out"):
        list(audio.mono_blocks(path, RATE))


def test_an_empty_file_says_zero_bytes(tmp_path):
    (tmp_path / "a.mp3").touch()
    with pytest.raises(audio.AudioError, match=r"a\.mp3: is empty \(0 bytes\).*Get it again"):
        audio.decode(tmp_path / "a.mp3")


def test_a_header_without_samples_is_refused(tmp_path):
    with pytest.raises(audio.AudioError, match="no samples"):
        audio.decode(written(tmp_path, "a.wav", np.zeros((0, 1), np.float32)))


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.mp3"])
def test_noise_bytes_under_an_audio_name_are_corrupt(tmp_path, name):
    (tmp_path / name).write_bytes(b"\x00\x01hello" * 1000)
    with pytest.raises(audio.AudioError, match=rf"{name}: is corrupt, cut off or not .* audio"):
        audio.decode(tmp_path / name)


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.mp3"])
def test_half_a_file_is_found_out(tmp_path, name):
    noise = np.random.default_rng(0).normal(0, 0.1, (3 * RATE, 1)).astype(np.float32)
    with pytest.raises(audio.AudioError, match="cut off"):
        audio.decode(cut(written(tmp_path, name, noise)))


def test_half_an_ogg_is_found_out_by_the_length_asked_for(tmp_path):
    noise = np.random.default_rng(0).normal(0, 0.1, (4 * RATE, 1)).astype(np.float32)
    path = cut(written(tmp_path, "a.ogg", noise))
    with pytest.raises(audio.AudioError, match=r"shorter than the 4 s needed"):
        audio.decode(path, min_seconds=4)


def test_a_streamed_wav_of_unknown_length_is_whole(tmp_path):
    path = written(tmp_path, "a.wav")
    whole = bytearray(path.read_bytes())
    at = whole.index(b"data") + 4
    whole[at : at + 4] = b"\xff\xff\xff\xff"
    path.write_bytes(whole)
    assert audio.decode(path)[0].shape == (1, RATE)


@pytest.mark.parametrize(
    "name, content, said",
    [
        ("a.mp3", b"<html>404 not found</html>", "web page"),
        ("a.wav", b"PK\x03\x04" + b"\0" * 60, "zip archive"),
        ("a.flac", b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        ("a.m4a", b"\0\0\0\x20ftypM4A " + b"\0" * 60, "MPEG-4.*ffmpeg"),
        ("notes.txt", b"just some words, many of them" * 9, r"extension \.txt is none of \.wav, \.flac"),
        ("no_extension", b"just some words, many of them" * 9, r"extension \(none\)"),
    ],
)
def test_other_content_is_named_with_its_cure(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(audio.AudioError, match=f"{name}: .*{said}"):
        audio.decode(tmp_path / name)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_refused_with_their_place(tmp_path, bad):
    wave = tone()
    wave[8000] = bad
    with pytest.raises(audio.AudioError, match=r"sample 8000 \(0\.500 s\) is NaN or infinite"):
        audio.decode(written(tmp_path, "a.wav", wave, subtype="FLOAT"))


def test_silence_is_refused_below_the_level_and_accepted_on_request(tmp_path):
    path = written(tmp_path, "a.wav", tone(gain=0.0))
    with pytest.raises(audio.AudioError, match="digital silence, below -80 dB"):
        audio.decode(path)
    assert not audio.decode(path, silence_db=-np.inf)[0].any()
    quiet = written(tmp_path, "b.wav", tone(gain=1e-3), subtype="FLOAT")  # -60 dB
    assert audio.decode(quiet)[0].any()
    with pytest.raises(audio.AudioError, match=r"peak -60\.0 dB, below -50 dB"):
        audio.decode(quiet, silence_db=-50)


def test_too_short_says_both_lengths_and_just_long_enough_passes(tmp_path):
    path = written(tmp_path, "a.wav")
    with pytest.raises(audio.AudioError, match=r"lasts 1\.000 s, shorter than the 2\.8 s needed"):
        audio.decode(path, min_seconds=2.8)
    assert audio.decode(path, min_seconds=1.0)[0].shape == (1, RATE)


def test_the_error_comes_back_whole_from_a_worker():
    error = pickle.loads(pickle.dumps(audio.AudioError("x/a.wav", "is silent")))
    assert isinstance(error, ValueError) and str(error) == "x/a.wav: is silent" and error.reason == "is silent"


def test_file_names_of_any_bytes_can_be_printed():
    strange = b"caf\xe9-\xe6\x9b\xb2.wav".decode("utf-8", "surrogateescape")
    said = str(audio.AudioError(strange, "is silent"))
    assert said.encode("utf-8").decode("utf-8") == said and "曲" in said


@pytest.mark.parametrize("from_rate, to_rate", [(44100, 16000), (16000, 22050), (8000, 48000)])
def test_resampling_a_tone_gives_the_tone_at_the_other_rate(from_rate, to_rate):
    out = audio.resample(tone(1.0, from_rate).T, from_rate, to_rate)
    assert out.shape == (1, to_rate) and out.dtype == np.float32
    inside = slice(to_rate // 10, -to_rate // 10)  # a resampler rings at the two ends
    np.testing.assert_allclose(out[0, inside], tone(1.0, to_rate)[inside, 0], atol=TOL_RESAMPLE)


def test_resampling_removes_what_the_lower_rate_cannot_hold():
    out = audio.resample(tone(1.0, 44100, hz=12000).T, 44100, 16000)
    assert np.abs(out[0, 1600:-1600]).max() < TOL_RESAMPLE


def test_resampling_keeps_shapes_batches_and_equal_rates():
    waves = np.random.default_rng(0).normal(size=(2, 3, 441)).astype(np.float32)
    out = audio.resample(waves, 44100, 16000)
    assert out.shape == (2, 3, 160)
    np.testing.assert_array_equal(out[1, 2], audio.resample(waves[1, 2], 44100, 16000))
    assert audio.resample(waves, 16000, 16000) is waves
    assert audio.resample(np.zeros((0, 441), np.float32), 44100, 16000).shape == (0, 160)


@pytest.mark.parametrize("rates", [(0, 16000), (16000, 0), (-1, 16000)])
def test_impossible_rates_are_refused(rates):
    with pytest.raises(ValueError, match="expected both above 0"):
        audio.resample(np.zeros(10, np.float32), *rates)
