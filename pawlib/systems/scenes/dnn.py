"""DNN: two hidden layers on eleven frames, and a vote (Kong 2016)."""

import math

import torch
import torchaudio
from torch import nn

from pawlib.systems import layers, scene_layers

FRAME, N_MELS, F_MAX_HZ = 1024, 64, 22_100.0
CONTEXT, HOP = 11, 5
FLOOR = 1e-8


class DNN(layers.Tagger):
    """Kong et al. 2016, "Deep neural network baseline for DCASE challenge 2016"; Tables 5 and 6, DNN.

    A quarter of a second decides, many of them vote::

        wave      (B, 11264)              0.26 s at 44.1 kHz
        frames    (B, 11, 1024)           side by side, Hamming window
        log-mel   (B, 11, 64)             magnitudes, 64 bands up to 22,100 Hz, natural logarithm
        standard  (B, 11, 64)             per band, statistics of the training audio
        windows   (B, n_windows, 704)     11 frames, a new window every 5
        hidden    (B, n_windows, 200)     dropout .2 - linear - ReLU
        hidden    (B, n_windows, 200)     dropout .2 - linear - ReLU
        head      (B, n_windows, 15)      dropout .2 - linear
        logits    (B, 15)                 mean over windows

    184,215 parameters with 15 classes. Trained on single windows (the default `n_samples`), the mean is over one, and
    the loss is the published one; a longer input averages the logits of its windows (reading R40). A whole file is not
    answered by that mean but by a vote: `windows` gives the logits of all windows of a wave of any length, and
    bench.scenes.majority_vote counts their answers, as published.

    Parameters
    ----------
    n_classes : int
    n_samples : int
        11,264 is one window; 5,120 more for each further one.

    Raises
    ------
    ValueError
        If the input is shorter than one window.
    """

    slug = "dnn"

    def __init__(self, n_classes=15, n_samples=CONTEXT * FRAME):
        if n_samples < CONTEXT * FRAME:
            raise ValueError(
                f"dnn: n_samples={n_samples} is less than one window of {CONTEXT} frames = {CONTEXT * FRAME} samples"
            )
        super().__init__(44_100, n_samples, n_classes=n_classes)
        self.settings["n_samples"] = n_samples
        filters = torchaudio.functional.melscale_fbanks(
            FRAME // 2 + 1, 0.0, F_MAX_HZ, N_MELS, self.sample_rate, norm="slaney", mel_scale="slaney"
        )
        window = torch.hamming_window(FRAME, periodic=False)
        self.register_buffer("window", window, persistent=False)
        self.register_buffer("filters", filters, persistent=False)  # (bins, 64)
        self.scale = 1 / math.sqrt(self.sample_rate * float(window.double().square().sum()))  # a density's, per Hz
        self.standardise = scene_layers.Standardise(N_MELS)
        self.hidden = nn.Sequential(
            nn.Dropout(0.2), nn.Linear(CONTEXT * N_MELS, 200), nn.ReLU(),
            nn.Dropout(0.2), nn.Linear(200, 200), nn.ReLU(), nn.Dropout(0.2),
        )  # fmt: skip
        self.head = nn.Linear(200, n_classes)

    def forward(self, wave):
        """(B, n_samples) -> logits (B, n_classes), the mean over its windows."""
        return self.windows(self.check(wave)).mean(dim=1)

    def windows(self, wave):
        """(B, any number of samples from 11,264 on) -> logits of each window (B, n_windows, n_classes).

        Raises
        ------
        ValueError
            If there is less than one window.
        """
        if wave.shape[-1] < CONTEXT * FRAME:
            raise ValueError(f"dnn got {wave.shape[-1]} samples, expected at least one window of {CONTEXT * FRAME}")
        x = self.features(self.front_end(wave))
        with torch.autocast(wave.device.type, enabled=False):
            return self.head(x.to(self.head.weight.dtype))

    def front_end(self, wave):
        """(B, n_samples) -> standardised log-mel of every window (B, n_windows, 11, 64), without gradient."""
        with torch.no_grad(), torch.autocast(wave.device.type, enabled=False):
            frames = wave.float().unfold(-1, FRAME, FRAME) * self.window  # (B, n_frames, 1024)
            mel = (torch.fft.rfft(frames).abs() * self.scale) @ self.filters  # (B, n_frames, 64)
            mel = self.standardise((mel + FLOOR).log().mT)  # (B, 64, n_frames)
            return mel.unfold(-1, CONTEXT, HOP).permute(0, 2, 3, 1)  # (B, n_windows, 11, 64)

    def features(self, x):
        """Windows (B, n_windows, 11, 64) -> (B, n_windows, 200)."""
        return self.hidden(x.flatten(2))
