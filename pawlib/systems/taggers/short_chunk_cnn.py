"""Short-chunk CNN, as an encoder FCN-7: short audio, small pools, many layers (Won 2020)."""

from pawlib import encoders
from pawlib.systems import layers


class ShortChunkCNN(layers.MelTagger):
    """Won et al. 2020, "Evaluation of CNN-based automatic music tagging models"; Table 1, row 10, there also FCN-7.

    Short audio, small pools, many layers::

        wave      (B, 59049)               3.69 s at 16 kHz
        log-mel   (B, 1, 128, 231)         n_fft 512, hop 256
        BN
        conv3     (B, 128, 64, 115)        pool 2; each conv3 - BN - ReLU - pool
        conv3     (B, 128, 32, 57)
        conv3     (B, 256, 16, 28)
        conv3     (B, 256, 8, 14)
        conv3     (B, 256, 4, 7)
        conv3     (B, 256, 2, 3)
        conv3     (B, 512, 1, 1)
        maximum   (B, 512)                 over what is left
        head      (B, 512)                 linear - BN - ReLU - dropout .5
                  (B, n_classes)           linear

    Attributes
    ----------
    encoder : encoders.FCN7

    Told in: notebooks/04_encoders.ipynb
    """

    slug = "short_chunk_cnn"

    def __init__(self, n_classes=50):
        super().__init__(16_000, 59_049, n_fft=512, hop_length=256, n_mels=128, n_classes=n_classes)
        self.encoder = encoders.FCN7()
        self.head = layers.dense_head(self.encoder.width, 512, n_classes)

    def features(self, x):
        """Log-mel (B, 1, 128, 231) -> (B, 512)."""
        return self.encoder(x)
