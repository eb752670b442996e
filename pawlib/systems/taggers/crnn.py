"""CRNN: convolutional recurrent network (Choi 2017)."""

from torch import nn

from pawlib.systems import layers


class CRNN(layers.MelTagger):
    """Choi et al. 2017, "Convolutional recurrent neural networks for music classification"; Table 1, row 1.

    Convolutions see notes, the recurrent network what becomes of them in time::

        wave      (B, 464000)              29 s at 16 kHz
        log-mel   (B, 1, 96, 1813)         n_fft 512, hop 256
        BN
        conv3     (B, 64, 48, 906)         pool (2, 2)
        conv3     (B, 128, 16, 302)        pool (3, 3)
        conv3     (B, 128, 4, 75)          pool (4, 4)
        conv3     (B, 128, 1, 18)          pool (4, 4); each conv3 - BN - ReLU - pool
        GRU       (B, 18, 32)              2 layers
        last step (B, 32)
        head      (B, n_classes)           dropout .5 - linear

    Table 1 counts 29.124 s at 22,050 Hz with 128 mel bands and hop 128, with 50 classes. Any number of mel bands and
    samples is good that the pools bring down to one band and at least one frame.

    Parameters
    ----------
    n_classes : int
    sample_rate : int [Hz]
    n_mels : int
    n_fft, hop_length, n_samples : int [samples]

    Raises
    ------
    ValueError
        If pooling does not leave one band and at least one frame.

    Told in: notebooks/04_encoders.ipynb
    """

    slug = "crnn"
    TABLE1 = {"n_classes": 50, "sample_rate": 22_050, "n_mels": 128, "hop_length": 128, "n_samples": 642_184}

    def __init__(self, n_classes=50, sample_rate=16_000, n_mels=96, n_fft=512, hop_length=256, n_samples=464_000):
        super().__init__(sample_rate, n_samples, n_fft, hop_length, n_mels, n_classes=n_classes)
        self.settings |= {"sample_rate": sample_rate, "n_mels": n_mels, "n_fft": n_fft}
        self.settings |= {"hop_length": hop_length, "n_samples": n_samples}
        self.layers = layers.ConvStack(self.slug, (64, 128, 128, 128), ((2, 2), (3, 3), (4, 4), (4, 4)))
        bands, _ = self.layers.left_of(self.n_mels, self.n_frames)
        if bands != 1:
            raise ValueError(f"crnn pools {n_mels} mel bands to {bands}, expected 1: take 96 to 191 bands")
        self.gru = nn.GRU(128, 32, num_layers=2, batch_first=True)
        self.head = layers.dropout_head(32, n_classes)

    def features(self, x):
        """Log-mel (B, 1, n_mels, n_frames) -> (B, 32)."""
        x = self.layers(x).squeeze(2).transpose(1, 2)  # (B, time, 128)
        return self.gru(x)[0][:, -1]
