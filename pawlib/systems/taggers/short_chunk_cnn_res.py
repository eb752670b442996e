"""Short-chunk CNN + Res: short audio, small pools, residual connections (Won 2020)."""

from torch import nn

from pawlib import encoders
from pawlib.systems import layers


class ShortChunkCNNRes(layers.MelTagger):
    """Won et al. 2020, "Evaluation of CNN-based automatic music tagging models"; Table 1, row 9.

    Short-chunk CNN with residual blocks, which stride instead of pooling::

        wave      (B, 59049)               3.69 s at 16 kHz
        log-mel   (B, 1, 128, 231)         n_fft 512, hop 256
        BN
        residual  (B, 128, 64, 116)        stride 2; every shortcut is conv3 - BN
        residual  (B, 128, 32, 58)
        residual  (B, 256, 16, 29)
        residual  (B, 256, 8, 15)
        residual  (B, 256, 4, 8)
        residual  (B, 256, 2, 4)
        residual  (B, 512, 1, 2)
        maximum   (B, 512)                 over what is left
        head      (B, 512)                 linear - BN - ReLU - dropout .5
                  (B, n_classes)           linear

    Told in: notebooks/04_encoders.ipynb
    """

    slug = "short_chunk_cnn_res"

    def __init__(self, n_classes=50):
        super().__init__(16_000, 59_049, n_fft=512, hop_length=256, n_mels=128, n_classes=n_classes)
        self.norm = encoders.BatchNorm(1)
        widths = (1, 128, 128, 256, 256, 256, 256, 512)
        self.layers = nn.Sequential(
            *(layers.Residual2d(i, o, stride=2) for i, o in zip(widths, widths[1:], strict=False))
        )
        self.head = layers.dense_head(512, 512, n_classes)

    def features(self, x):
        """Log-mel (B, 1, 128, 231) -> (B, 512)."""
        return self.layers(self.norm(x)).amax(dim=(2, 3))
