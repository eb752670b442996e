"""DNN: two hidden layers on eleven frames, and a vote (Kong 2016)."""

import math

import torch
import torchaudio
from torch import nn

from pawlib.systems import layers, scene_layers

FRAME, N_MELS, F_MAX_HZ = 1024, 64, 22_100.0
CONTEXT, HOP = 11, 5
FLOOR = 1e-8
CENTRES = ("training", "wave")
CENTRED_FRAMES = 171  # 4 s, 33 windows: what is heard at once where a wave is centred, at toy and small


class DNN(layers.Tagger):
    """Kong et al. 2016, "Deep neural network baseline for DCASE challenge 2016"; Tables 5 and 6, DNN.

    A quarter of a second decides, many of them vote::

        wave      (B, 11264)              0.26 s at 44.1 kHz
        frames    (B, 11, 1024)           side by side, Hamming window
        log-mel   (B, 11, 64)             magnitudes, 64 bands up to 22,100 Hz, natural logarithm
        standard  (B, 11, 64)             per band, statistics of the training audio (or of the wave, see `centre`)
        windows   (B, n_windows, 704)     11 frames, a new window every 5
        hidden    (B, n_windows, 200)     dropout .2 - linear - ReLU
        hidden    (B, n_windows, 200)     dropout .2 - linear - ReLU
        head      (B, n_windows, 15)      dropout .2 - linear
        logits    (B, 15)                 mean over windows

    184,215 parameters with 15 classes. Trained on single windows (the default `n_samples`), the mean is over one, and
    the loss is the published one; a longer input averages the logits of its windows (reading R40). A whole file is not
    answered by that mean but by a vote: `windows` gives the logits of all windows of a wave of any length, and
    bench.scenes.majority_vote counts their answers, as published.

    704 numbers of a quarter of a second tell a recording by its average spectrum at once: microphone, room, filter. The
    network learns that first, and it is worth nothing where the test's recordings are others and spectra say nothing of
    the scene, as on the synthetic twin. `centre="wave"` takes it away (reading R39).

    Parameters
    ----------
    n_classes : int
    n_samples : int
        11,264 is one window; 5,120 more for each further one.
    centre : "training" | "wave"
        What each band is standardised by: mean and deviation over the training audio, as published; with "wave" the
        mean over the wave that is heard is then taken away, so that of a steady spectrum nothing is left. Give it
        several seconds: over a single window little else is left, either.

    Raises
    ------
    ValueError
        If the input is shorter than one window, or `centre` is unknown.

    Told in: notebooks/50_scene_systems.ipynb
    """

    slug = "dnn"
    RATE = 44_100

    @classmethod
    def at_scale(cls, scale, n_samples=30 * RATE):
        """As SceneNet.at_scale; below paper scale this network hears 4 s at once, centred (reading R39)."""
        return {} if scale == "paper" else {"centre": "wave", "n_samples": min(CENTRED_FRAMES * FRAME, n_samples)}

    def __init__(self, n_classes=15, n_samples=CONTEXT * FRAME, centre="training"):
        if centre not in CENTRES:
            raise ValueError(f"dnn: centre={centre!r} is unknown, expected one of {CENTRES}")
        if n_samples < CONTEXT * FRAME:
            raise ValueError(
                f"dnn: n_samples={n_samples} is less than one window of {CONTEXT} frames = {CONTEXT * FRAME} samples"
            )
        super().__init__(self.RATE, n_samples, n_classes=n_classes)
        self.settings |= {"n_samples": n_samples} | ({"centre": centre} if centre != "training" else {})
        self.centre = centre
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

    def forward(self, wave, each_window=False):
        """(B, n_samples) -> logits (B, n_classes), the mean over its windows, or each's (B, n_windows, n_classes)."""
        logits = self.windows(self.check(wave))
        return logits if each_window else logits.mean(dim=1)

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
            if self.centre == "wave":
                mel = mel - mel.mean(dim=-1, keepdim=True)
            return mel.unfold(-1, CONTEXT, HOP).permute(0, 2, 3, 1)  # (B, n_windows, 11, 64)

    def features(self, x):
        """Windows (B, n_windows, 11, 64) -> (B, n_windows, 200)."""
        return self.hidden(x.flatten(2))
