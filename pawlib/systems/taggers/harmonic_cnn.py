"""Harmonic CNN: learnt harmonic filters before convolutions (Won 2020)."""

from torch import nn

from pawlib import encoders
from pawlib.systems import layers


class HarmonicCNN(layers.Tagger):
    """Won et al. 2020, "Data-driven harmonic filters for audio representation learning"; Table 1, row 8.

    A note and its harmonics lie in one place of six channels, so that a convolution sees them at once::

        wave      (B, 80000)               5 s at 16 kHz
        harmonic  (B, 6, 128, 313)         layers.HarmonicSTFT, n_fft 512, hop 256; its Q is learnt
        BN
        conv3     (B, 128, 64, 156)        pool 2; conv3 - BN - ReLU - pool
        residual  (B, 128, 32, 78)         pool 2
        residual  (B, 128, 16, 39)         pool 2
        residual  (B, 128, 8, 19)          pool 2
        conv3     (B, 256, 4, 9)           pool 2
        residual  (B, 256, 2, 3)           pool (2, 3)
        residual  (B, 256, 1, 1)           pool (2, 3)
        maximum   (B, 256)                 over what is left
        head      (B, 256)                 linear - BN - ReLU - dropout .5
                  (B, n_classes)           linear

    3.62 M parameters with 10 classes, where Table 1 prints 3.60; its cost is the printed one.

    Told in: notebooks/04_encoders.ipynb
    """

    slug = "harmonic_cnn"

    def __init__(self, n_classes=50):
        super().__init__(16_000, 80_000, n_classes=n_classes)
        self.harmonic = layers.HarmonicSTFT(self.sample_rate)
        self.norm = encoders.BatchNorm(self.harmonic.n_harmonics)
        self.layers = nn.Sequential(
            encoders.ConvLayer(self.harmonic.n_harmonics, 128, 2),
            *(layers.Residual2d(128, 128, pool=2) for _ in range(3)),
            encoders.ConvLayer(128, 256, 2),
            *(layers.Residual2d(256, 256, pool=(2, 3)) for _ in range(2)),
        )
        self.head = layers.dense_head(256, 256, n_classes)

    def front_end(self, wave):
        """(B, n_samples) -> harmonic spectrogram in dB (B, 6, 128, 313), with a gradient for Q."""
        return self.harmonic(self.check(wave))

    def features(self, x):
        """Harmonic spectrogram (B, 6, 128, 313) -> (B, 256)."""
        return self.layers(self.norm(x)).amax(dim=(2, 3))
