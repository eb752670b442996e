"""CLMR: two augmented crops of one track, as raw waves, find each other among all others (Spijkervet 2021).

Conventions
    B songs in a batch; a whole is what the engine cuts from a track, two crops are cut from it by key.
    wave : Tensor [shape=(B, n_whole)]; view_1, view_2 : Tensor [shape=(B, 59049)], at 22,050 Hz, 2.68 s.
    s : Tensor [shape=(B, 512)], encoded; z_1, z_2 : Tensor [shape=(B, 64)], projected, not yet normalised.

Told in: notebooks/11_pretrain_clmr.ipynb
"""

import torch
from torch import nn

from pawlib import augment, checkpoints, encoders, losses
from pawlib.systems import agreement, augmentations, layers

CROP, GROUP, REVERB = 1, 2, 3  # what a view's key is mixed with, so that its three draws share nothing


class SampleCNN(nn.Module):
    """The encoder: kernels of three samples, and three again, until 3 ** 10 samples are one (Lee 2017).

    2,368,512 parameters with CLMR's last kernel of 3; 1,844,224 with the 1 of the tagger that Table 1 counts.

    Parameters
    ----------
    last_kernel : int
        Reading R20.
    """

    width = 512
    n_clip = 3**10

    def __init__(self, last_kernel=3):
        super().__init__()
        widths = (128, 128, 128, *[256] * 6, self.width)
        self.layers = nn.Sequential(
            layers.Conv1dLayer(1, 128, stride=3),
            *(layers.Conv1dLayer(i, o, pool=3) for i, o in zip(widths, widths[1:], strict=False)),
            layers.Conv1dLayer(self.width, self.width, kernel=last_kernel),
        )
        self.layers[0].conv.padding = (0,)  # as published: the first kernels meet samples 0 to 2, 3 to 5, ...

    def forward(self, wave):
        """(B, 59049) -> (B, 512).

        Raises
        ------
        ValueError
            For waves of another length.
        """
        if wave.ndim != 2 or wave.shape[1] != self.n_clip:
            raise ValueError(
                f"SampleCNN got a wave of shape {tuple(wave.shape)}, expected (B, {self.n_clip}): was it cut to "
                "another length, or read at another rate?"
            )
        return self.layers(wave.unsqueeze(1)).squeeze(-1)


class CLMR(nn.Module):
    """Spijkervet and Burgoyne 2021, "Contrastive Learning of Musical Representations"; Tables 1 and 2.

    Two crops of a track, each augmented by a draw of its own, pass one SampleCNN and one projector; NT-Xent in both
    directions asks every view to find the other view of its track among the 2 B - 2 views of the other tracks.

    Parameters
    ----------
    whole_seconds : float [s]
        The crops lie anywhere in so much of a track, and may overlap; 29 s is a whole clip of MagnaTagATune (R18).
    temperature : float > 0
    reverb : float
        Probability of reverberation, which Music-PAW's list leaves out; 0 gives Music-PAW's group (reading R19).
    last_kernel : int
        Of the last convolution (reading R20).

    Raises
    ------
    ValueError
        If a whole is shorter than a crop, for a temperature that is not positive, or a probability outside 0..1.

    Told in: notebooks/11_pretrain_clmr.ipynb
    """

    slug = "clmr"
    sample_rate = 22_050
    n_clip = SampleCNN.n_clip
    n_levels, n_parts = 1, 1
    width = SampleCNN.width

    def __init__(self, whole_seconds=29.0, temperature=0.5, reverb=0.6, last_kernel=3):
        super().__init__()
        self.settings = {
            "slug": self.slug, "whole_seconds": whole_seconds, "temperature": temperature, "reverb": reverb,
            "last_kernel": last_kernel,
        }  # fmt: skip
        self.n_whole = round(whole_seconds * self.sample_rate)
        self.temperature, self.reverb = temperature, reverb
        if temperature <= 0:
            raise ValueError(f"temperature={temperature} must be positive")
        augmentations.starts(self.n_whole, self.n_clip, ())  # a whole too short and a wrong chance are refused here,
        augmentations.draw_reverb((), reverb)  # not in the first step
        self.encoder = SampleCNN(last_kernel)
        self.projector = encoders.ProjectionHead(self.width, 512, 64)

    @torch.no_grad()
    def views(self, wave, keys):
        """Two crops of each song, each through CLMR's group of augmentations.

        Parameters
        ----------
        wave : Tensor [shape=(B, n_whole)]
        keys : sequence of B int
            One key, one pair of views, whatever else is in the batch.

        Returns
        -------
        view_1, view_2 : Tensor [shape=(B, n_clip)]
        """
        return tuple(self.view(wave, self.view_keys(keys, side)) for side in (1, 2))

    def view_keys(self, keys, side):
        """Keys of the first (1) or second (2) view."""
        return [augment.sample_key(key, side) for key in keys]

    def view(self, wave, keys):
        """One view by its keys: crop; polarity, noise, gain, filter, delay, pitch (augment.py); reverberation."""
        own = {what: [augment.sample_key(key, what) for key in keys] for what in (CROP, GROUP, REVERB)}
        clip = augmentations.crop(wave, self.n_clip, own[CROP])
        clip = augment.augment(clip, own[GROUP], self.sample_rate)
        return augmentations.reverb(clip, augmentations.draw_reverb(own[REVERB], self.reverb), self.sample_rate)

    def forward(self, view_1, view_2):
        """(B, n_clip) twice -> z_1, z_2, (B, 64) each; each view passes with batch statistics of its own."""
        return tuple(self.projector(self.encoder(view)) for view in (view_1, view_2))

    def objective(self, z_1, z_2):
        """Loss of each song, (B,), both of its views as anchor, averaged; alignment and uniformity."""
        return losses.nt_xent(z_1, z_2, self.temperature, symmetric=True), agreement.of_views(z_1, z_2)

    def embed_clips(self, clips, level=0):
        """Encode clips (K, n_clip) at 22,050 Hz -> (K, 512); there is one level."""
        return self.encoder(clips)

    def save(self, path, card=None):
        """Write weights and card: see checkpoints.save."""
        checkpoints.save(self, path, "pretraining", card)
