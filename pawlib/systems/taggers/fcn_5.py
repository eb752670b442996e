"""FCN-5: fully convolutional network of five layers (Choi 2016)."""

from pawlib.systems import layers


class FCN5(layers.MelTagger):
    """Choi et al. 2016, "Automatic tagging using deep convolutional neural networks"; Table 1, row 2.

    Nothing but convolutions, down to one number per channel for the whole clip::

        wave      (B, 464000)              29 s at 16 kHz
        log-mel   (B, 1, 96, 1813)         n_fft 512, hop 256
        BN
        conv3     (B, 64, 48, 453)         pool (2, 4)
        conv3     (B, 128, 24, 113)        pool (2, 4)
        conv3     (B, 128, 12, 28)         pool (2, 4)
        conv3     (B, 128, 4, 5)           pool (3, 5)
        conv3     (B, 64, 1, 1)            pool (4, 4); each conv3 - BN - ReLU - pool
        head      (B, n_classes)           dropout .5 - linear

    Table 1 counts 29.124 s at 22,050 Hz, hop 256, with 10 classes.

    Parameters
    ----------
    n_classes : int
    sample_rate : int [Hz]
    n_mels : int
    n_fft, hop_length, n_samples : int [samples]

    Raises
    ------
    ValueError
        If pooling does not leave one band and one frame.

    Told in: notebooks/04_encoders.ipynb
    """

    slug = "fcn_5"
    TABLE1 = {"n_classes": 10, "sample_rate": 22_050, "n_samples": 642_184}

    def __init__(self, n_classes=50, sample_rate=16_000, n_mels=96, n_fft=512, hop_length=256, n_samples=464_000):
        super().__init__(sample_rate, n_samples, n_fft, hop_length, n_mels, n_classes=n_classes)
        self.settings |= {"sample_rate": sample_rate, "n_mels": n_mels, "n_fft": n_fft}
        self.settings |= {"hop_length": hop_length, "n_samples": n_samples}
        self.layers = layers.ConvStack(self.slug, (64, 128, 128, 128, 64), ((2, 4), (2, 4), (2, 4), (3, 5), (4, 4)))
        left = self.layers.left_of(self.n_mels, self.n_frames)
        if left != (1, 1):
            raise ValueError(
                f"fcn_5 pools {n_mels} mel bands x {self.n_frames} frames to {left[0]} x {left[1]}, expected 1 x 1: "
                "take 96 to 191 bands and 1280 to 2559 frames"
            )
        self.head = layers.dropout_head(64, n_classes)

    def features(self, x):
        """Log-mel (B, 1, n_mels, n_frames) -> (B, 64)."""
        return self.layers(x).flatten(1)
