"""What the scene systems of Table 6 are made of: their spectrogram, their head, and two networks with a chosen field.

Conventions
    B waves in a batch: (B, n_samples) mono, or (B, 2, n_samples) where a system was built with n_channels=2.
    picture : Tensor [shape=(B, n_channels, 256, n_frames)], A-weighted dB, standardised per band.
    The receptive field is what one cell of the last map can see of the picture, in mel bands x frames. It is chosen by
    `rho`: the first rho of the network's free convolutions are 3 x 3, the others 1 x 1 (Koutini 2019).
    Every network ends alike: convolution 1 x 1 to the classes - batch norm - mean over the map.

Sources: Koutini et al. 2019, "The receptive field as a regularizer in deep convolutional neural networks for acoustic
scene classification" (its abstract; layouts as in the published network, github kkoutini/cpjku_dcase19), and
"Receptive-field-regularized CNN variants for acoustic scene classification".
"""

import math

import torch
import torch.nn.functional as F
import torchaudio
from torch import nn

from pawlib.systems import layers

SAMPLE_RATE, N_FFT, HOP_LENGTH, N_MELS = 22_050, 2048, 512, 256
TOP_DB, AMIN = 80.0, 1e-10
FILE_SAMPLES = 30 * SAMPLE_RATE  # a whole file of TUT Acoustic Scenes 2016

N_FREE = 22  # convolutions of ResidualNet that rho can open
N_BLOCKS, POOLED_BLOCKS = 12, (1, 2, 4)


# --- from the wave to a picture ---


class Standardise(nn.Module):
    """Each band less its mean, by its standard deviation, over all training pictures seen so far; nothing is learnt.

    The publications go through the training set once before they begin; here the same statistics gather while training
    goes on, so that a network needs nothing but waves (reading R39). Training and evaluation use the same numbers.

    Parameters
    ----------
    n_bands : int
    """

    def __init__(self, n_bands):
        super().__init__()
        self.register_buffer("mean", torch.zeros(n_bands))
        self.register_buffer("var", torch.ones(n_bands))
        self.register_buffer("n_seen", torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def forward(self, x):
        """(..., n_bands, n_frames) -> the same shape; untouched before the first training picture."""
        if self.training:
            self._gather(x)
        return (x - self.mean.unsqueeze(-1)) * torch.rsqrt(self.var + 1e-8).unsqueeze(-1)

    def _gather(self, x):
        """Join this batch's mean and variance with those of all before (Chan, Golub and LeVeque 1979)."""
        rows = x.float().movedim(-2, 0).flatten(1)  # (n_bands, n)
        n, before = rows.shape[1], self.n_seen.to(rows)
        var, mean = torch.var_mean(rows, dim=1, correction=0)
        share, step = n / (before + n), mean - self.mean
        self.var.copy_(self.var * (1 - share) + var * share + step.square() * share * (1 - share))
        self.mean.add_(step * share)
        self.n_seen.add_(n)


class AWeightedMel(nn.Module):
    """Spectrogram in A-weighted dB, gathered into mel bands, as the published front-end has it.

    The order is unusual and kept: power -> dB (floor 1e-10, at most 80 dB below the picture's loudest bin) -> plus the
    A-weighting of each frequency -> triangular mel filters over those dB. Filters are on Slaney's scale, each divided
    by its width.

    Parameters
    ----------
    sample_rate : int [Hz]
    n_fft, hop_length : int [samples]
    n_mels : int
    """

    def __init__(self, sample_rate=SAMPLE_RATE, n_fft=N_FFT, hop_length=HOP_LENGTH, n_mels=N_MELS):
        super().__init__()
        self.n_fft, self.hop_length = n_fft, hop_length
        filters = torchaudio.functional.melscale_fbanks(
            n_fft // 2 + 1, 0.0, sample_rate / 2, n_mels, sample_rate, norm="slaney", mel_scale="slaney"
        )
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)
        self.register_buffer("filters", filters, persistent=False)  # (bins, n_mels)
        self.register_buffer("weights_db", a_weighting(torch.linspace(0, sample_rate / 2, n_fft // 2 + 1)), False)

    def forward(self, wave):
        """(..., n_samples) -> (..., n_mels, 1 + n_samples // hop_length), in float32 whatever autocast says."""
        with torch.autocast(wave.device.type, enabled=False):
            rows = wave.float().reshape(1, -1, wave.shape[-1])
            padded = F.pad(rows, (self.n_fft // 2,) * 2, mode="reflect").squeeze(0)
            spectrum = torch.fft.rfft(padded.unfold(-1, self.n_fft, self.hop_length) * self.window)
            power = spectrum.real.square() + spectrum.imag.square()  # (rows, n_frames, bins)
            level = 10 * power.clamp_min(AMIN).log10()
            level = level.clamp_min(level.amax(dim=(1, 2), keepdim=True) - TOP_DB)
            mel = (level + self.weights_db) @ self.filters  # (rows, n_frames, n_mels)
            return mel.mT.reshape(*wave.shape[:-1], mel.shape[-1], mel.shape[-2])


def a_weighting(frequencies_hz):
    """How much softer than a tone of 1 kHz the ear takes each frequency, in dB, at least -80 (IEC 61672).

    Parameters
    ----------
    frequencies_hz : Tensor [shape=(n,)], from 0 Hz on

    Returns
    -------
    Tensor, float32 [shape=(n,)]
    """
    square = frequencies_hz.double().square()
    over = 12194.217**2 * square.square()
    under = (square + 20.598997**2) * (square + 12194.217**2)
    under = under * ((square + 107.65265**2) * (square + 737.86223**2)).sqrt()
    return (20 * (over / under).clamp_min(1e-30).log10() + 2.0).clamp_min(-80).float()


# --- what the scene networks share ---


class SceneNet(layers.Tagger):
    """A wave to logits in three steps: front_end (picture), features (map), head (classes of each cell, their mean).

    Parameters
    ----------
    n_classes : int
    n_channels : 1 | 2
        Mono (the mean of the channels), as every other system here hears it, or stereo as published and as chapter 50
        has it (reading R41).
    n_samples : int
        Length of the input; a whole file of 30 s by default.
    **settings
        What else builds the network again.

    Raises
    ------
    ValueError
        For another number of channels.
    """

    NARROW = ("width", {"toy": 4, "small": 32})  # what makes it narrow, and how narrow it is below the paper's scale

    RATE = SAMPLE_RATE

    @classmethod
    def at_scale(cls, scale, n_samples=FILE_SAMPLES):
        """What the network is built with at a scale: a narrow one that hears ten seconds at small (reading R46).

        On two cores a network of the published width takes half a minute for a step of ten files. A narrow one keeps
        depth and receptive field, which are what these networks are compared for, and learns something in minutes.

        Parameters
        ----------
        scale : "toy" | "small" | "paper"
        n_samples : int
            Of the corpus's files at the network's rate: it hears no more.

        Returns
        -------
        dict, for systems.build

        Told in: notebooks/50_scene_systems.ipynb
        """
        if scale == "paper":
            return {"n_samples": n_samples}
        heard = {"toy": 5, "small": 10}[scale] * SAMPLE_RATE
        return {"n_samples": min(heard, n_samples), cls.NARROW[0]: cls.NARROW[1][scale]}

    def __init__(self, n_classes, n_channels, n_samples, **settings):
        if n_channels not in (1, 2):
            raise ValueError(f"{self.slug}: n_channels={n_channels!r}, expected 1 (mono) or 2 (stereo)")
        super().__init__(SAMPLE_RATE, n_samples, n_classes=n_classes, n_channels=n_channels, **settings)
        self.settings["n_samples"] = n_samples
        self.n_channels = n_channels
        self.spectrogram, self.standardise = AWeightedMel(), Standardise(N_MELS)

    def front_end(self, wave):
        """(B, n_samples), or (B, 2, n_samples) of a stereo system -> picture (B, n_channels, 256, n_frames)."""
        wave = self.check(wave)
        with torch.no_grad():
            return self.standardise(self.spectrogram(wave if wave.ndim == 3 else wave.unsqueeze(1)))

    def check(self, wave):
        """The wave in float32, if it has the system's shape and is finite."""
        if self.n_channels == 1:
            return super().check(wave)
        if wave.ndim != 3 or wave.shape[1] != 2:
            raise ValueError(
                f"{self.slug} got a wave of shape {tuple(wave.shape)}, expected (B, 2, {self.n_samples}): it was built "
                "for stereo; was the audio mixed down? Build it with n_channels=1 for mono"
            )
        return torch.stack([super(SceneNet, self).check(channel) for channel in wave.unbind(1)], dim=1)


def class_head(n_in, n_classes):
    """Classes of every cell of a map, then their mean: (B, n_in, H, W) -> (B, n_classes)."""
    return nn.Sequential(
        nn.Conv2d(n_in, n_classes, 1, bias=False), nn.BatchNorm2d(n_classes), nn.AdaptiveAvgPool2d(1), nn.Flatten(1)
    )


def check_rho(slug, rho, most):
    """Refuse a rho that no convolution answers to."""
    if isinstance(rho, bool) or not isinstance(rho, int) or not 0 <= rho <= most:
        raise ValueError(f"{slug}: rho={rho!r}, expected a whole number from 0 (smallest field) to {most} (largest)")


# --- a residual network with a chosen field ---


class ResidualBlock(nn.Module):
    """ReLU(BN(conv(ReLU(BN(conv(x))))) + shortcut(x)), no biases; the shortcut is a 1 x 1 where channels change.

    Parameters
    ----------
    n_in, n_out : int
        Channels.
    kernels : (int, int)
        Sides of the two convolutions, 3 or 1.
    """

    def __init__(self, n_in, n_out, kernels):
        super().__init__()
        one, two = kernels
        self.conv_1, self.norm_1 = nn.Conv2d(n_in, n_out, one, padding=one // 2, bias=False), nn.BatchNorm2d(n_out)
        self.conv_2, self.norm_2 = nn.Conv2d(n_out, n_out, two, padding=two // 2, bias=False), nn.BatchNorm2d(n_out)
        self.shortcut = nn.Sequential()
        if n_in != n_out:
            self.shortcut = nn.Sequential(nn.Conv2d(n_in, n_out, 1, bias=False), nn.BatchNorm2d(n_out))

    def forward(self, x):
        """(B, n_in, H, W) -> (B, n_out, H, W)."""
        out = self.norm_2(self.conv_2(F.relu(self.norm_1(self.conv_1(x)))))
        return F.relu(out + self.shortcut(x))


class ResidualNet(SceneNet):
    """CP-ResNet of depth 26: twelve residual blocks behind a 5 x 5 convolution, their field set by rho.

    With 30 s of mono and width w::

        picture      (B, 1, 256, 1292)
        conv 5 x 5   (B, w, 127, 645)       stride 2, padding 1; BN - ReLU
        block 1      (B, w, 127, 645)       3 x 3, 1 x 1, always
        pool 2       (B, w, 63, 322)
        block 2      (B, w, 63, 322)        free convolutions 1 and 2
        pool 2       (B, w, 31, 161)
        block 3-4    (B, w, 31, 161)        3 to 6
        pool 2       (B, w, 15, 80)
        block 5-8    (B, 2 w, 15, 80)       7 to 14
        block 9-12   (B, 4 w, 15, 80)       15 to 22
        head         (B, n_classes)

    Parameters
    ----------
    n_classes : int
    n_channels : 1 | 2
    rho : int in 0..22
        The first rho free convolutions are 3 x 3, the others 1 x 1.
    width : int
        Channels of the first four blocks; 128 as published.
    n_samples : int
    initialise : "fixup" | "he"
        "fixup", as published: every block begins as its shortcut and the classes at zero. "he": torch's usual one.

    Raises
    ------
    ValueError
        For a rho out of range or an unknown `initialise`.
    """

    def __init__(
        self, n_classes=15, n_channels=1, rho=5, width=128, n_samples=FILE_SAMPLES, initialise="fixup", **settings
    ):
        check_rho(self.slug, rho, N_FREE)
        if initialise not in ("fixup", "he"):
            raise ValueError(f'{self.slug}: initialise={initialise!r} is unknown, expected "fixup" or "he"')
        super().__init__(n_classes, n_channels, n_samples, rho=rho, width=width, initialise=initialise, **settings)
        self.rho = rho
        self.first = nn.Sequential(
            nn.Conv2d(n_channels, width, 5, stride=2, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()
        )
        channels = [width, *[width] * 4, *[2 * width] * 4, *[4 * width] * 4]
        self.body = nn.Sequential()
        for i, kernels in enumerate(block_kernels(rho)):
            self.body.append(ResidualBlock(channels[i], channels[i + 1], kernels))
            if i + 1 in POOLED_BLOCKS:
                self.body.append(nn.MaxPool2d(2))
        self.head = class_head(4 * width, n_classes)
        _he(self)
        if initialise == "fixup":
            self._begin_as_shortcuts()

    def features(self, x):
        """Picture (B, n_channels, 256, n_frames) -> map (B, 4 * width, 15, n_frames // 16)."""
        return self.body(self.first(x))

    def _begin_as_shortcuts(self):
        """Fixup (Zhang 2019): the second convolutions and the classes at zero, the first ones divided by sqrt(12)."""
        for block in self.body:
            if isinstance(block, ResidualBlock):
                nn.init.kaiming_normal_(block.conv_1.weight, mode="fan_out", nonlinearity="relu")
                block.conv_1.weight.data.div_(math.sqrt(N_BLOCKS))
                nn.init.zeros_(block.conv_2.weight)
        nn.init.zeros_(self.head[0].weight)


def block_kernels(rho):
    """Sides of the two convolutions of each of the twelve blocks: list of 12 (int, int)."""
    free = [3 if i < rho else 1 for i in range(N_FREE)]
    return [(3, 1), *zip(free[::2], free[1::2], strict=True)]


def printed_field(rho):
    """The maximal receptive field that the published program prints for a rho [frames, and bands].

    Its recursion differs from what a cell really sees (bench.receptive computes that, and a gradient confirms it): a
    pool's own two cells are not counted, and the convolution before a pool counts as if it came after. So 33, 65, 81,
    145, 209, 401 for rho 2, 4, 5, 7, 9, 15, where a cell sees 39, 71, 87, 135, 199, 391.
    """
    jump, size = 2, 5
    for i, (one, two) in enumerate(block_kernels(rho)):
        size += (one - 1) * jump
        jump *= 2 if i + 1 in POOLED_BLOCKS else 1
        size += (two - 1) * jump
    return size


# --- a dense network with a chosen field ---


class DenseLayer(nn.Module):
    """x joined with conv(ReLU(BN(conv 1 x 1(ReLU(BN(x)))))), no biases (Huang 2017, DenseNet-B).

    Parameters
    ----------
    n_in, growth : int
        Channels in; channels added. The 1 x 1 has four times as many as are added.
    kernel : int
        3 or 1.
    """

    def __init__(self, n_in, growth, kernel):
        super().__init__()
        self.norm_1, self.conv_1 = nn.BatchNorm2d(n_in), nn.Conv2d(n_in, 4 * growth, 1, bias=False)
        self.norm_2 = nn.BatchNorm2d(4 * growth)
        self.conv_2 = nn.Conv2d(4 * growth, growth, kernel, padding=kernel // 2, bias=False)

    def forward(self, x):
        """(B, n_in, H, W) -> (B, n_in + growth, H, W)."""
        new = self.conv_2(F.relu(self.norm_2(self.conv_1(F.relu(self.norm_1(x))))))
        return torch.cat([x, new], dim=1)


class DenseNet(SceneNet):
    """DenseNet-BC in the frame of the residual network: its first convolution, its three pools, its head.

    The paper names its DenseNets without a layout (reading R37); this is DenseNet-121 (Huang 2017) less its last block,
    so that the map is as coarse as the residual network's. With 30 s of mono and growth g::

        picture        (B, 1, 256, 1292)
        conv 5 x 5     (B, 2 g, 127, 645)     stride 2, padding 1; BN - ReLU
        pool 2         (B, 2 g, 63, 322)
        6 dense layers (B, 8 g, 63, 322)      BN - ReLU - 1 x 1 to the half - mean of 2 x 2
        12             (B, 16 g, 31, 161)     likewise
        24             (B, 32 g, 15, 80)      BN - ReLU
        head           (B, n_classes)

    Parameters
    ----------
    n_classes : int
    n_channels : 1 | 2
    rho : int
        The first rho dense layers have a 3 x 3, the others a 1 x 1.
    growth : int
        Channels each dense layer adds.
    blocks : sequence of int
        Dense layers between pools.
    n_samples : int

    Raises
    ------
    ValueError
        If there are fewer than rho dense layers.
    """

    NARROW = ("growth", {"toy": 2, "small": 8})

    def __init__(
        self, n_classes=15, n_channels=1, rho=42, growth=32, blocks=(6, 12, 24), n_samples=FILE_SAMPLES, **settings
    ):
        check_rho(self.slug, rho, sum(blocks))
        super().__init__(n_classes, n_channels, n_samples, rho=rho, growth=growth, blocks=list(blocks), **settings)
        self.rho, width, made = rho, 2 * growth, 0
        self.first = nn.Sequential(
            nn.Conv2d(n_channels, width, 5, stride=2, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
            nn.MaxPool2d(2),
        )  # fmt: skip
        self.body = nn.Sequential()
        for i, n_layers in enumerate(blocks):
            for _ in range(n_layers):
                made += 1
                self.body.append(DenseLayer(width, growth, 3 if made <= rho else 1))
                width += growth
            self.body.extend([nn.BatchNorm2d(width), nn.ReLU()])
            if i + 1 < len(blocks):
                self.body.extend([nn.Conv2d(width, width // 2, 1, bias=False), nn.AvgPool2d(2)])
                width //= 2
        self.head = class_head(width, n_classes)
        _he(self)

    def features(self, x):
        """Picture (B, n_channels, 256, n_frames) -> map (B, channels, 15, n_frames // 16)."""
        return self.body(self.first(x))


def _he(module):
    """He's initialisation of every convolution."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
