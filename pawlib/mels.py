"""Clips of any length to log-mel spectrograms of one size (paper Sec. 4.1, "Implementation Details").

Conventions
    B songs, N levels, M parts per whole; clips[n] : Tensor [shape=(B, M**n, L_n)], from `crops.hierarchical_crops`.
    mels[n] : Tensor [shape=(B, M**n, 1, n_mels, n_frames)], in dB (10 log10, floor 1e-10), one n_frames for all levels.
    The hop of level n is hop_length * M**(N-1-n): the shortest clips have hop 128, the whole 1024 (reading R1).
    Filters are torchaudio's: HTK scale, no normalisation, 0 Hz to half the sample rate.

Told in: notebooks/03_mels.ipynb
"""

import warnings

import torch
import torch.nn.functional as F
import torchaudio
from torch import nn

from pawlib import crops

AMIN = 1e-10


class LogMel(nn.Module):
    """Log-mel spectrogram in dB: mel power, 10 log10, floor 1e-10, no upper limit.

    Parameters
    ----------
    sample_rate : int [Hz]
    n_fft, hop_length : int [samples]
    n_mels : int
    f_min_hz, f_max_hz : float [Hz]
        f_max_hz None means half the sample rate.
    """

    def __init__(self, sample_rate=16_000, n_fft=256, hop_length=128, n_mels=128, f_min_hz=0.0, f_max_hz=None):
        super().__init__()
        self.sample_rate, self.n_fft, self.hop_length = sample_rate, n_fft, hop_length
        with warnings.catch_warnings():
            # At n_fft 256 some of the 128 filters fall between two bins and stay zero: the paper's settings.
            warnings.filterwarnings("ignore", message="At least one mel filterbank has all zero values")
            filters = torchaudio.functional.melscale_fbanks(
                n_fft // 2 + 1, f_min_hz, f_max_hz or sample_rate / 2, n_mels, sample_rate
            )
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)
        self.register_buffer("filters", filters, persistent=False)  # (bins, n_mels)

    def forward(self, wave):
        """(..., n_samples) -> (..., n_mels, 1 + n_samples // hop_length), always in float32 (float64 stays).

        Frames, transform and filters are applied to the whole batch in matrix form: the numbers of
        torchaudio.transforms.MelSpectrogram and AmplitudeToDB, at a third of their time on a CPU.
        """
        with torch.autocast(wave.device.type, enabled=False):
            wave = wave if wave.dtype == torch.float64 else wave.float()
            shape = wave.shape[:-1]
            padded = F.pad(wave.reshape(1, -1, wave.shape[-1]), (self.n_fft // 2,) * 2, mode="reflect").squeeze(0)
            frames = padded.unfold(-1, self.n_fft, self.hop_length) * self.window.to(wave.dtype)  # (B, n_frames, n_fft)
            spectrum = torch.fft.rfft(frames)
            power = spectrum.real.square().addcmul_(spectrum.imag, spectrum.imag)  # (B, n_frames, bins)
            mel = (power @ self.filters.to(wave.dtype)).clamp_min_(AMIN).log10_().mul_(10)  # (B, n_frames, n_mels)
            return mel.transpose(-1, -2).reshape(*shape, mel.shape[-1], mel.shape[-2])


class LevelMels(nn.Module):
    """One log-mel front-end per level: the longer the clip, the longer the hop, the same picture size.

    Parameters
    ----------
    sample_rate : int [Hz]
    n_fft : int [samples]
        256 as printed in Sec. 4.1.
    hop_length : int [samples]
        Hop of the shortest clips.
    n_mels, n_levels, n_parts : int
    window : "fixed" | "scaled"
        "fixed": n_fft samples at every level as printed, which skips samples where the hop is longer;
        "scaled": the window grows with the hop (reading R2).

    Raises
    ------
    ValueError
        For an unknown `window`.

    Told in: notebooks/03_mels.ipynb
    """

    def __init__(
        self, sample_rate=16_000, n_fft=256, hop_length=128, n_mels=128, n_levels=4, n_parts=2, window="fixed"
    ):
        super().__init__()
        if window not in ("fixed", "scaled"):
            raise ValueError(f'window={window!r} is unknown, expected "fixed" (as printed) or "scaled" (reading R2)')
        self.sample_rate, self.n_fft, self.n_mels, self.window = sample_rate, n_fft, n_mels, window
        self.n_levels, self.n_parts = n_levels, n_parts
        self.hop_lengths = [hop_length * n_parts ** (n_levels - 1 - n) for n in range(n_levels)]
        grown = [hop // hop_length if window == "scaled" else 1 for hop in self.hop_lengths]
        self.fronts = nn.ModuleList(
            LogMel(sample_rate, n_fft * grow, hop, n_mels) for hop, grow in zip(self.hop_lengths, grown, strict=True)
        )

    def forward(self, clips):
        """Log-mels of all levels.

        Parameters
        ----------
        clips : list of N Tensors, [n] of shape (B, M**n, L // M**n)

        Returns
        -------
        list of N Tensors, [n] of shape (B, M**n, 1, n_mels, n_frames)

        Raises
        ------
        ValueError
            If the number of levels or of clips is another one than this front-end was built for.
        """
        crops.check_levels(clips, self.n_levels, self.n_parts)
        return [self.level(n, level) for n, level in enumerate(clips)]

    def level(self, n, clips):
        """Log-mels (B, K, 1, n_mels, n_frames) of K clips (B, K, n_samples) with the hop of level n.

        Raises
        ------
        ValueError
            If a clip is shorter than one window, naming both lengths.
        """
        front = self.fronts[n]
        if clips.shape[-1] < front.n_fft:
            raise ValueError(
                f"a clip of {clips.shape[-1]} samples is shorter than one STFT window of {front.n_fft} at level {n}: "
                "is the audio too short, or its sample rate too low?"
            )
        return front(clips).unsqueeze(2)  # (B, K, 1, n_mels, n_frames)

    def n_frames(self, n_whole):
        """Frames of every level for a whole of `n_whole` samples: 351 for 358,400."""
        return 1 + n_whole // self.hop_lengths[0]
