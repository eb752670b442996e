"""Multi-Format: one crop as a wave, another as a log-mel, and each encoder must find what the other heard (Wang 2021).

Conventions
    B songs in a batch; a whole is what the engine cuts from a track, two crops of 2.8 s are cut from it by key.
    wave : Tensor [shape=(B, n_whole)] at 16 kHz; clip : Tensor [shape=(B, 44800)], for the branch of waves;
    mel : Tensor [shape=(B, 1, 128, 351)], in dB, for the branch of log-mels, which is the one that stays.
    z_mel, z_wave : Tensor [shape=(B, 256)], projected, not yet normalised.

The paper came without code. Certain are two crops, two formats, the contrast between them at tau .1 and four kinds of
augmentation; the encoder of waves, and every number of the augmentations, are arguments and readings.

Told in: notebooks/13_pretrain_multi_format.ipynb
"""

import torch
import torch.nn.functional as F
from torch import nn

from pawlib import augment, checkpoints, encoders, losses, mels
from pawlib.systems import agreement, augmentations

FRONT_END = {"sample_rate": 16_000, "n_fft": 256, "hop_length": 128, "n_mels": 128}  # Music-PAW Sec. 4.1
WAVE, MEL = 1, 2  # what a song's key is mixed with for its two formats
CROP, MIX, TIME, FREQUENCY, SHIFT = range(1, 6)  # and for the draws of one format
NEGATIVES = ("across", "all")


class ResidualWave1d(nn.Module):
    """Mean over `pool` neighbours; conv3 - BN - ReLU - dropout .1 - conv3, dilated by 2 - BN; plus shortcut; ReLU.

    The shortcut is the pooled input itself, or BN(conv of kernel 1) where channels or pool change it.
    """

    def __init__(self, n_in, n_out, pool):
        super().__init__()
        self.pool = nn.AvgPool1d(pool) if pool > 1 else nn.Identity()
        self.conv_1, self.norm_1 = nn.Conv1d(n_in, n_out, 3, padding=1, bias=False), nn.BatchNorm1d(n_out)
        self.conv_2 = nn.Conv1d(n_out, n_out, 3, padding=2, dilation=2, bias=False)
        self.norm_2 = nn.BatchNorm1d(n_out)
        self.dropout = nn.Dropout(0.1)
        self.shortcut = nn.Identity()
        if pool > 1 or n_in != n_out:
            self.shortcut = nn.Sequential(nn.Conv1d(n_in, n_out, 1, bias=False), nn.BatchNorm1d(n_out))

    def forward(self, x):
        """(B, n_in, L) -> (B, n_out, L // pool)."""
        x = self.pool(x)
        out = self.dropout(F.relu(self.norm_1(self.conv_1(x))))
        return F.relu(self.norm_2(self.conv_2(out)) + self.shortcut(x))


class Res1dNet31(nn.Module):
    """The branch of waves: a residual network of 31 layers in one dimension (Kong 2020, "PANNs"; reading R22).

    One convolution of 11 samples, stride 5; seven pairs of residual blocks, six of them pooled by 4; mean plus maximum
    over time; one dense layer.

    Parameters
    ----------
    n_channels : int
        Of the first layer; the last has 32 times as many. 64 is the published network, 79.4 million parameters beside
        an FCN-4 of 0.4; 16 ends in 512 channels, as FCN-4 and FCN-7 do, and has 5.0 million (reading R22).
    """

    def __init__(self, n_channels=16):
        super().__init__()
        widths = [n_channels * grown for grown in (1, 1, 2, 4, 8, 16, 16, 32)]
        self.conv = nn.Conv1d(1, n_channels, 11, stride=5, padding=5, bias=False)
        self.norm = nn.BatchNorm1d(n_channels)
        blocks = []
        for i, (n_in, n_out) in enumerate(zip(widths, widths[1:], strict=False)):
            blocks += [ResidualWave1d(n_in, n_out, pool=4 if i else 1), ResidualWave1d(n_out, n_out, pool=1)]
        self.blocks = nn.Sequential(*blocks)
        self.width = widths[-1]
        self.dense = nn.Linear(self.width, self.width)

    def forward(self, wave):
        """(B, n_samples), at least 20,480 of them -> (B, width)."""
        x = self.blocks(self.norm(self.conv(wave.unsqueeze(1))))  # (B, width, n_samples // 5 // 4 ** 6)
        return F.relu(self.dense(x.mean(-1) + x.amax(-1)))


class MultiFormat(nn.Module):
    """Wang and van den Oord 2021, "Multi-Format Contrastive Learning of Audio Representations"; Tables 1 to 3, 5, 6.

    Parameters
    ----------
    encoder : "fcn_4" | "fcn_7"
        Of the log-mels; it is what stays.
    whole_seconds : float [s]
        The two crops lie anywhere in so much of a track, and may overlap. Wang's are reported to last 3 s, from the
        10 s of AudioSet; ours are the 2.8 s of the paper's encoders, from 29 s of MagnaTagATune (reading R21).
    wave_channels : int
        Width of the branch of waves (reading R22).
    mix : (float, float) or None
        Beta distribution of a song's own share when another one is mixed into it; each format is mixed with another
        song; None: no mixing (reading R23).
    time_mask, frequency_mask : float
        Longest gap, as a share of the samples or frames, of the bands (reading R24).
    frequency_shift : int
        Furthest shift of a log-mel, in bands (reading R24).
    temperature : float > 0
    negatives : "across" | "all"
        A view looks for its partner among the views of the other format, or among those of its own, too (reading R25).

    Raises
    ------
    ValueError
        For an unknown encoder or switch, a whole shorter than a crop, a gap that is no share, a shift beyond the bands,
        or a temperature that is not positive.

    Told in: notebooks/13_pretrain_multi_format.ipynb
    """

    slug = "multi_format"
    sample_rate = FRONT_END["sample_rate"]
    n_clip = 44_800  # 2.8 s, 351 frames (reading R1)
    n_levels, n_parts = 1, 1
    width = encoders.WIDTH

    def __init__(
        self, encoder="fcn_4", whole_seconds=29.0, wave_channels=16, mix=(5.0, 2.0), time_mask=0.1, frequency_mask=0.1,
        frequency_shift=10, temperature=0.1, negatives="across",
    ):  # fmt: skip
        super().__init__()
        mix = None if mix is None else list(mix)  # as a card gives it back
        self.settings = {
            "slug": self.slug, "encoder": encoder, "whole_seconds": whole_seconds, "wave_channels": wave_channels,
            "mix": mix, "time_mask": time_mask, "frequency_mask": frequency_mask, "frequency_shift": frequency_shift,
            "temperature": temperature, "negatives": negatives,
        }  # fmt: skip
        self.n_whole = round(whole_seconds * self.sample_rate)
        self.mix, self.time_mask, self.frequency_mask, self.frequency_shift = (
            mix, time_mask, frequency_mask, frequency_shift,
        )  # fmt: skip
        self.temperature, self.negatives = temperature, negatives
        self._check()
        self.log_mel = mels.LogMel(**FRONT_END)
        self.encoder, self.wave_encoder = encoders.build(encoder), Res1dNet31(wave_channels)
        self.projector = encoders.ProjectionHead()  # reading R25
        self.wave_projector = encoders.ProjectionHead(self.wave_encoder.width)

    @torch.no_grad()
    def views(self, wave, keys):
        """Two crops of each song, one as a log-mel and one as a wave, each augmented in its own way.

        Parameters
        ----------
        wave : Tensor [shape=(B, n_whole)]
        keys : sequence of B int

        Returns
        -------
        mel : Tensor [shape=(B, 1, 128, 351)]
        clip : Tensor [shape=(B, n_clip)]
        """
        return self.mel_view(wave, self.view_keys(keys, MEL)), self.wave_view(wave, self.view_keys(keys, WAVE))

    def view_keys(self, keys, *draws):
        """Keys of the songs, mixed with the format and, where given, with one of its draws."""
        for draw in draws:
            keys = [augment.sample_key(key, draw) for key in keys]
        return keys

    def mixed_crop(self, wave, keys):
        """What both formats begin with: (B, n_whole) -> a crop of each song with another's crop in it, (B, n_clip)."""
        clip = augmentations.crop(wave.float(), self.n_clip, self.view_keys(keys, CROP))
        return augmentations.mix(clip, augmentations.draw_mix(self.view_keys(keys, MIX), self.mix))

    def wave_view(self, wave, keys):
        """Mixed crop with a gap of silence, (B, n_clip)."""
        clip = self.mixed_crop(wave, keys)
        gaps = augmentations.draw_gap(self.view_keys(keys, TIME), self.n_clip, self.time_mask)
        return augmentations.mask(clip, gaps, -1, 0.0)

    def mel_view(self, wave, keys):
        """Log-mel of a mixed crop, moved by some bands, with a gap in time and one in frequency, (B, 1, 128, 351).

        What is moved in or masked holds the log-mel's mean (reading R24).
        """
        mel = self.log_mel(self.mixed_crop(wave, keys)).unsqueeze(1)
        mean = mel.mean(dim=(1, 2, 3))
        bands = augmentations.draw_shift(self.view_keys(keys, SHIFT), self.frequency_shift)
        mel = augmentations.shift_bands(mel, bands, mean)
        for what, dim, share in ((TIME, -1, self.time_mask), (FREQUENCY, -2, self.frequency_mask)):
            gaps = augmentations.draw_gap(self.view_keys(keys, what), mel.shape[dim], share)
            mel = augmentations.mask(mel, gaps, dim, mean)
        return mel

    def forward(self, mel, clip):
        """Each format through its own encoder and projector: z_mel, z_wave, (B, 256) each."""
        return self.projector(self.encoder(mel)), self.wave_projector(self.wave_encoder(clip))

    def objective(self, z_mel, z_wave):
        """Loss of each song, (B,), both formats as anchor, averaged; alignment and uniformity (of the log-mels)."""
        logs = agreement.of_views(z_mel, z_wave)
        if self.negatives == "all":
            return losses.nt_xent(z_mel, z_wave, self.temperature, symmetric=True), logs
        return across_formats(z_mel, z_wave, self.temperature), logs

    def embed_clips(self, clips, level=0):
        """Encode clips (K, n_clip) at 16 kHz, as log-mels -> (K, 512); there is one level."""
        return self.encoder(self.log_mel(clips).unsqueeze(1))

    def save(self, path, card=None):
        """Write weights and card: see checkpoints.save."""
        checkpoints.save(self, path, "pretraining", card)

    def _check(self):
        augmentations.starts(self.n_whole, self.n_clip, ())
        for share in (self.time_mask, self.frequency_mask):
            augmentations.draw_gap((), 1, share)
        if not 0 <= self.frequency_shift < FRONT_END["n_mels"]:
            raise ValueError(f"frequency_shift={self.frequency_shift} bands, expected 0..{FRONT_END['n_mels'] - 1}")
        if self.negatives not in NEGATIVES:
            raise ValueError(f"negatives={self.negatives!r} is unknown, expected one of {NEGATIVES} (reading R25)")
        if self.temperature <= 0:
            raise ValueError(f"temperature={self.temperature} must be positive")


def across_formats(z_mel, z_wave, temperature):
    """-log exp(sim(b, b) / tau) / sum over u of exp(sim(b, u) / tau), both ways, averaged (Wang 2021).

    Every view is compared with all views of the other format, and with none of its own.

    Parameters
    ----------
    z_mel, z_wave : Tensor [shape=(B, D)]
    temperature : float > 0

    Returns
    -------
    Tensor [shape=(B,)]

    Told in: notebooks/13_pretrain_multi_format.ipynb
    """
    similarity = F.normalize(z_mel.float(), dim=-1) @ F.normalize(z_wave.float(), dim=-1).T / temperature
    own = torch.arange(len(similarity), device=similarity.device)
    return sum(F.cross_entropy(one_way, own, reduction="none") for one_way in (similarity, similarity.T)) / 2
