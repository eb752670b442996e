"""COLA: two crops of one song find each other among the crops of other songs (Saeed 2021, arXiv 2010.10915).

    s(x, y) = x^T W y                                                   bilinear similarity, W is learnt
    L_b     = -log( exp s(x_b, y_b) / sum over u of exp s(x_b, y_u) )   softmax cross-entropy over the batch

No temperature, and one direction: every x looks for its y, no y for its x. x and y are the encoder's 512 features after
a dense layer of 512, layer norm and tanh; that head and W are thrown away after pretraining.

What Music-PAW leaves unsaid about its COLA rows, as arguments
    R26  whole_seconds         how far apart two crops of a song may lie. Published: anywhere in the file. Here inside a
                               stretch of 22.4 s, the audio that Music-PAW reads of a song at each step.
    R27  clip_seconds, n_fft, hop_length, n_mels, unit_rms
                               what the encoder sees. Published: 1 s, 64 mels of 60 to 7800 Hz, the file's wave at unit
                               norm. Here the clips and log-mels of Sec. 4.1, as FCN-4's and FCN-7's cost in Table 1
                               asks, and the loudness as it is.
    R28  augmented             published: nothing but the place of the crops (the released code also adds faint white
                               noise to the second). Sec. 4.1 speaks of CLMR's augmentations for Music-PAW alone.
    R29  similarity, temperature, LEARNING_RATE
                               published: the bilinear one is the better, cosine over 0.2 the other one tried; Adam at
                               1e-3 in the released code. With this W and batches of 15 that ends in one point for all
                               songs within 60 steps, 3e-4 (Sec. 4.1) nearly so: here 1e-4, see the chapter.

Conventions
    wave : Tensor [shape=(B, n_whole)]; a crop has n_clip samples; mel : Tensor [shape=(B, 1, n_mels, n_frames)], in dB.
    All randomness of a song comes from its key. With several devices the similarities are those of the whole batch;
    the encoder's batch norm is synchronised, and nothing else has statistics.

Told in: notebooks/12_pretrain_cola.ipynb
"""

import torch
import torch.nn.functional as F
from torch import nn

from pawlib import augment, checkpoints, encoders, fast_layer, mels
from pawlib.systems import agreement, augmentations

AUGMENTED = ("none", "second", "both")
SIMILARITIES = ("bilinear", "cosine")
W_STD = 0.05  # of W at the start


class COLA(nn.Module):
    """COLA with an encoder of the paper.

    Parameters
    ----------
    encoder : "fcn_4" | "fcn_7"
    sample_rate : int [Hz]
    whole_seconds : float [s]
        The stretch of a song in which both crops lie (reading R26).
    clip_seconds : float [s]
        Length of a crop, and of the clips that downstream tasks embed (reading R27).
    n_fft, hop_length : int [samples]
    n_mels : int
        Of the log-mel (reading R27).
    unit_rms : bool
        Bring each stretch, and each clip that is embedded, to the same loudness (reading R27).
    augmented : "none" | "second" | "both"
        Which crops undergo CLMR's augmentations (reading R28).
    similarity : "bilinear" | "cosine"
        x^T W y, or the cosine of dense 512 over `temperature` (reading R29).
    temperature : float > 0
        Of the cosine alone.

    Raises
    ------
    ValueError
        For an unknown encoder or switch, crops longer than the stretch, or a temperature that is not positive.

    Told in: notebooks/12_pretrain_cola.ipynb
    """

    slug = "cola"
    LEARNING_RATE = 1e-4  # Adam's, reading R29
    width = encoders.WIDTH
    n_levels = n_parts = 1

    def __init__(
        self,
        encoder="fcn_4",
        *,
        sample_rate=16_000,
        whole_seconds=22.4,
        clip_seconds=2.8,
        n_fft=256,
        hop_length=128,
        n_mels=128,
        unit_rms=False,
        augmented="none",
        similarity="bilinear",
        temperature=0.2,
    ):
        super().__init__()
        arguments = {k: v for k, v in locals().items() if k not in ("self", "__class__")}
        self.settings = {"slug": self.slug, **arguments}
        _one_of("augmented", augmented, AUGMENTED, "R28")
        _one_of("similarity", similarity, SIMILARITIES, "R29")
        if temperature <= 0:
            raise ValueError(f"temperature={temperature} must be positive (reading R29)")
        self.sample_rate = sample_rate
        self.n_whole, self.n_clip = (round(seconds * sample_rate) for seconds in (whole_seconds, clip_seconds))
        if not n_fft <= self.n_clip <= self.n_whole:
            raise ValueError(
                f"crops of {clip_seconds} s in stretches of {whole_seconds} s: expected crops no longer than the "
                f"stretch and at least one window of {n_fft} samples; were the two swapped (readings R26, R27)?"
            )
        self.unit_rms, self.augmented, self.similarity, self.temperature = unit_rms, augmented, similarity, temperature
        self.log_mel = mels.LogMel(sample_rate, n_fft, hop_length, n_mels)
        self.encoder = encoders.build(encoder)
        self.head, self.bilinear = nn.Linear(self.width, self.width), None
        if similarity == "bilinear":
            self.head = nn.Sequential(self.head, nn.LayerNorm(self.width, eps=1e-3), nn.Tanh())
            self.bilinear = nn.Parameter(W_STD * torch.randn(self.width, self.width))

    # --- what a step sees ---

    def starts(self, keys):
        """First samples of the two crops of each song in its stretch: two lists of B int, from the keys alone."""
        return tuple(augmentations.starts(self.n_whole, self.n_clip, self._places(keys, i)) for i in range(2))

    def crops(self, wave, keys):
        """The two crops of each song before any log-mel: two Tensors [shape=(B, n_clip)].

        Raises
        ------
        ValueError
            If a wave is not n_whole samples long, or there is not one key per song.
        """
        if wave.ndim != 2 or wave.shape[1] != self.n_whole or len(keys) != len(wave):
            raise ValueError(
                f"cola got a wave of shape {tuple(wave.shape)} and {len(keys)} keys, expected (B, {self.n_whole}) and "
                "one key per song: was it cut to n_clip already?"
            )
        wave = _at_unit_rms(wave) if self.unit_rms else wave
        both = [augmentations.crop(wave, self.n_clip, self._places(keys, i)) for i in range(2)]
        for i in {"none": (), "second": (1,), "both": (0, 1)}[self.augmented]:  # reading R28
            both[i] = augment.augment(both[i], [augment.sample_key(key, 2, i) for key in keys], self.sample_rate)
        return tuple(both)

    def views(self, wave, keys):
        """What one training step sees: the log-mels of two crops of each song.

        Parameters
        ----------
        wave : Tensor [shape=(B, n_whole)]
        keys : sequence of B int
            One key, one pair of crops, whatever the batch.

        Returns
        -------
        mel_a, mel_b : Tensor [shape=(B, 1, n_mels, n_frames)]

        Raises
        ------
        ValueError
            As `crops`.
        """
        return tuple(self.log_mel(crop).unsqueeze(1) for crop in self.crops(wave, keys))

    # --- what it learns from ---

    def forward(self, mel_a, mel_b):
        """Project both crops of each song; both pass the encoder in one batch.

        Parameters
        ----------
        mel_a, mel_b : Tensor [shape=(B, 1, n_mels, n_frames)]

        Returns
        -------
        x, y : Tensor [shape=(B, 512)]
            The anchors and the crops they look for.
        turned : Tensor [shape=(B, 512)]
            W y (or y over the temperature): the similarity of anchor b with song u is x[b] . turned[u].
        """
        s = self.encoder(torch.cat([mel_a, mel_b]))  # (2 B, 512)
        with torch.autocast(s.device.type, enabled=False):  # similarities of half precision would tie
            x, y = self.head(fast_layer.at_least_float32(s)).chunk(2)
            if self.similarity == "cosine":
                x, y = F.normalize(x, dim=-1), F.normalize(y, dim=-1)
                return x, y, y / self.temperature
            return x, y, y @ self.bilinear.T

    def objective(self, x, y, turned):
        """Cross-entropy of each anchor over the batch, and what an epoch logs.

        Parameters
        ----------
        x, y, turned : Tensor [shape=(B, 512)]
            As `forward` returns them.

        Returns
        -------
        loss : Tensor [shape=(B,)]
        logs : dict of float
            accuracy, the share of anchors that are most similar to their own song's crop; alignment of x and y and
            uniformity of x, as unit vectors (agreement.of_views).
        """
        scores = x @ turned.T  # (B, B): row b are the similarities of anchor b
        loss = torch.logsumexp(scores, dim=1) - scores.diagonal()
        with torch.no_grad():
            own = torch.arange(len(x), device=x.device)
            accuracy = (scores.argmax(1) == own).float().mean().item()
        return loss, {"accuracy": accuracy, **agreement.of_views(x, y)}

    # --- what stays ---

    def embed_clips(self, clips, level=0):
        """The encoder's features of clips: (K, n_clip) at the model's rate -> (K, 512). There is one level."""
        clips = _at_unit_rms(clips) if self.unit_rms else clips
        return self.encoder(self.log_mel(clips).unsqueeze(1))

    def save(self, path, card=None):
        """Write weights and card (checkpoints.save), of kind "pretraining"."""
        checkpoints.save(self, path, "pretraining", card)

    @staticmethod
    def _places(keys, i):
        """The keys that place crop i of each song."""
        return [augment.sample_key(key, 1, i) for key in keys]


def _at_unit_rms(wave):
    return wave / wave.square().mean(dim=-1, keepdim=True).sqrt().clamp(min=1e-5)


def _one_of(name, value, choices, reading):
    if value not in choices:
        raise ValueError(f"{name}={value!r} is unknown, expected one of {', '.join(choices)} (reading {reading})")
