"""FCN-4: the paper's small encoder (Choi 2016) with a linear layer for the tags."""

from torch import nn

from pawlib import encoders
from pawlib.systems import layers


class FCN4Tagger(layers.MelTagger):
    """Choi et al. 2016, "Automatic tagging using deep convolutional neural networks", with four layers; Table 1, row 3.

    The paper's small encoder, trained with labels::

        wave      (B, 44800)               2.8 s at 16 kHz
        log-mel   (B, 1, 128, 351)         n_fft 256, hop 128, as the paper's Sec. 4.1
        BN
        conv3     (B, 64, 64, 87)          pool (2, 4)
        conv3     (B, 128, 32, 21)         pool (2, 4)
        conv3     (B, 128, 16, 5)          pool (2, 4)
        conv3     (B, 128, 4, 1)           pool (4, 5); each conv3 - BN - ReLU - pool
        flatten   (B, 512)
        head      (B, n_classes)           linear; none for n_classes=None, as Table 1 counts it

    Attributes
    ----------
    encoder : encoders.FCN4

    Told in: notebooks/04_encoders.ipynb
    """

    slug = "fcn_4"
    TABLE1 = {"n_classes": None}

    def __init__(self, n_classes=50):
        super().__init__(16_000, 44_800, n_fft=256, hop_length=128, n_mels=128, n_classes=n_classes)
        self.encoder = encoders.FCN4()
        self.head = nn.Identity() if n_classes is None else nn.Linear(self.encoder.width, n_classes)

    def features(self, x):
        """Log-mel (B, 1, 128, 351) -> (B, 512)."""
        return self.encoder(x)
