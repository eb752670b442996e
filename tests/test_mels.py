"""pawlib/mels.py against torchaudio's own front-end, level by level."""

import warnings

import pytest
import torch
import torchaudio

from pawlib import crops, mels

TOLERANCE_DB = {torch.float32: 1e-4, torch.float64: 1e-9}
N_WHOLE = 8 * 128 * 40


def reference(wave, n_fft, hop_length, sample_rate=16_000):
    """10 log10 of torchaudio's mel power, floor 1e-10."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mel = torchaudio.transforms.MelSpectrogram(sample_rate, n_fft, hop_length=hop_length, n_mels=128).to(wave.dtype)
    return 10 * torch.log10(mel(wave).clamp_min(1e-10))


@pytest.mark.parametrize("dtype", list(TOLERANCE_DB))
@pytest.mark.parametrize("window", ["fixed", "scaled"])
def test_every_level_equals_torchaudio(dtype, window):
    wave = torch.randn(2, N_WHOLE, dtype=dtype) * torch.tensor([[1.0], [1e-3]], dtype=dtype)
    clips = crops.hierarchical_crops(wave)
    front = mels.LevelMels(window=window)
    for n, (level, got) in enumerate(zip(clips, front(clips), strict=True)):
        hop = 128 * 2 ** (3 - n)
        expected = reference(level, 2 * hop if window == "scaled" else 256, hop).unsqueeze(2)
        assert got.dtype == dtype
        torch.testing.assert_close(got, expected, atol=TOLERANCE_DB[dtype], rtol=0)


def test_whole_and_clips_of_the_paper_have_351_frames_at_every_level():
    front = mels.LevelMels()
    clips = crops.hierarchical_crops(torch.randn(1, 358_400))
    assert [level.shape for level in front(clips)] == [(1, 2**n, 1, 128, 351) for n in range(4)]
    assert front.n_frames(358_400) == 351
    assert front.hop_lengths == [1024, 512, 256, 128]


def test_hops_grow_with_the_number_of_parts():
    front = mels.LevelMels(n_levels=3, n_parts=3, hop_length=16)
    assert front.hop_lengths == [144, 48, 16]
    levels = front(crops.hierarchical_crops(torch.randn(2, 9 * 16 * 20), 3, 3))
    assert [level.shape for level in levels] == [(2, 3**n, 1, 128, 21) for n in range(3)]


def test_scaled_window_grows_with_the_hop_and_fixed_does_not():
    assert [f.n_fft for f in mels.LevelMels(window="scaled").fronts] == [2048, 1024, 512, 256]
    assert [f.n_fft for f in mels.LevelMels().fronts] == [256] * 4


def test_silence_is_minus_100_db():
    for level in mels.LevelMels()(crops.hierarchical_crops(torch.zeros(1, N_WHOLE))):
        torch.testing.assert_close(level, torch.full_like(level, -100.0), atol=1e-4, rtol=0)


@pytest.mark.parametrize("where", [0.1, 0.45, 0.8])
def test_a_click_sounds_in_the_right_frame_of_the_right_clip(where):
    n = int(where * N_WHOLE) // 1024 * 1024 + 10  # near the middle of a window at every level
    wave = torch.zeros(1, N_WHOLE)
    wave[0, n] = 1.0
    for level, hop in zip(mels.LevelMels()(crops.hierarchical_crops(wave)), (1024, 512, 256, 128), strict=True):
        loud = level[0, :, 0].mean(dim=1)  # (K, n_frames)
        n_clip = N_WHOLE // loud.shape[0]
        assert divmod(loud.argmax().item(), loud.shape[1]) == (n // n_clip, n % n_clip // hop)
        silent = torch.ones(len(loud), dtype=torch.bool)
        silent[n // n_clip] = False
        assert (loud[silent] < -99.9).all()


def test_one_second_of_sine_lies_in_the_band_of_its_frequency():
    time = torch.arange(16_000) / 16_000
    mel = mels.LogMel(n_fft=1024, n_mels=64)(torch.sin(2 * torch.pi * 1000 * time))
    centres = torchaudio.functional.melscale_fbanks(513, 0.0, 8000.0, 64, 16_000).argmax(0) * 16_000 / 1024
    assert (centres[mel.mean(-1).argmax()] - 1000).abs() < 40


def test_half_precision_audio_is_transformed_in_float32_also_under_autocast():
    wave = torch.randn(2, 4096).bfloat16()
    front = mels.LogMel()
    with torch.autocast("cpu", torch.bfloat16):
        got = front(wave)
    assert got.dtype == torch.float32
    assert torch.equal(got, front(wave.float()))


def test_input_is_left_as_it_was():
    wave = torch.randn(1, N_WHOLE)
    before = wave.clone()
    mels.LevelMels()(crops.hierarchical_crops(wave))
    assert torch.equal(wave, before)


def test_front_end_brings_nothing_into_a_checkpoint():
    assert not mels.LevelMels().state_dict()


def test_unknown_window_is_refused():
    with pytest.raises(ValueError, match="window='grown' is unknown"):
        mels.LevelMels(window="grown")


def test_clip_shorter_than_a_window_is_refused():
    front = mels.LevelMels(n_levels=2)
    front.level(1, torch.randn(1, 2, 256))
    with pytest.raises(ValueError, match="255 samples is shorter than one STFT window of 256 at level 1"):
        front.level(1, torch.randn(1, 2, 255))


def test_another_tree_is_refused():
    with pytest.raises(ValueError, match="3 levels, expected 4"):
        mels.LevelMels()(crops.hierarchical_crops(torch.zeros(1, N_WHOLE), 3))
    with pytest.raises(ValueError, match="made with another M"):
        mels.LevelMels(n_levels=2)(crops.hierarchical_crops(torch.zeros(1, 3 * 1024), 2, 3))
