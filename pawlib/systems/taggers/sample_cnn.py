"""SampleCNN: kernels of three samples on the raw wave (Lee 2017)."""

from torch import nn

from pawlib.systems import layers


class SampleCNN(layers.Tagger):
    """Lee et al. 2017, "Sample-level deep CNNs for music auto-tagging using raw waveforms"; Table 1, row 5.

    Kernels of three samples, and three again until 3 ** 10 samples are one::

        wave      (B, 1, 59049)            3.69 s at 16 kHz
        conv      (B, 128, 19683)          kernel 3, stride 3, no pool
        conv3     (B, 128, 6561)           pool 3; each conv3 - BN - ReLU - pool
        conv3     (B, 128, 2187)
        conv3     (B, 256, 729)
        conv3     (B, 256, 243)
        conv3     (B, 256, 81)
        conv3     (B, 256, 27)
        conv3     (B, 256, 9)
        conv3     (B, 256, 3)
        conv3     (B, 512, 1)
        conv      (B, 512, 1)              kernel 1, no pool
        head      (B, n_classes)           dropout .5 - linear

    Told in: notebooks/04_encoders.ipynb
    """

    slug = "sample_cnn"

    def __init__(self, n_classes=50):
        super().__init__(16_000, 3**10, n_classes=n_classes)
        widths = (128, 128, 128, *[256] * 6, 512)
        self.layers = nn.Sequential(
            layers.Conv1dLayer(1, 128, stride=3),
            *(layers.Conv1dLayer(i, o, pool=3) for i, o in zip(widths, widths[1:], strict=False)),
            layers.Conv1dLayer(512, 512, kernel=1),
        )
        self.head = layers.dropout_head(512, n_classes)

    def features(self, x):
        """Wave (B, 1, 59049) -> (B, 512)."""
        return self.layers(x).squeeze(-1)
