"""SampleCNN + SE: the same with residual connections and squeeze-excitation (Kim 2018)."""

from torch import nn

from pawlib.systems import layers


class SampleCNNSE(layers.Tagger):
    """Kim et al. 2018, "Sample-level CNN architectures for music auto-tagging using raw waveforms"; Table 1, row 6.

    SampleCNN of residual blocks with squeeze-excitation (layers.ResidualSE1d)::

        wave      (B, 1, 59049)            3.69 s at 16 kHz
        block     (B, 128, 19683)          kernel 3, stride 3, no pool
        block     (B, 128, 6561)           kernel 3, pool 3
        block     (B, 128, 2187)
        block     (B, 256, 729)
        block     (B, 256, 243)
        block     (B, 256, 81)
        block     (B, 256, 27)
        block     (B, 256, 9)
        block     (B, 256, 3)
        block     (B, 512, 1)
        block     (B, 512, 1)              kernel 1, no pool
        head      (B, 512)                 linear - BN - ReLU - dropout .5
                  (B, n_classes)           linear

    Told in: notebooks/04_encoders.ipynb
    """

    slug = "sample_cnn_se"

    def __init__(self, n_classes=50):
        super().__init__(16_000, 3**10, n_classes=n_classes)
        widths = (128, 128, 128, *[256] * 6, 512)
        self.layers = nn.Sequential(
            layers.ResidualSE1d(1, 128, stride=3),
            *(layers.ResidualSE1d(i, o, pool=3) for i, o in zip(widths, widths[1:], strict=False)),
            layers.ResidualSE1d(512, 512, kernel=1),
        )
        self.head = layers.dense_head(512, 512, n_classes)

    def features(self, x):
        """Wave (B, 1, 59049) -> (B, 512)."""
        return self.layers(x).squeeze(-1)
