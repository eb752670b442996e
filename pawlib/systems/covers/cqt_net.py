"""CQT-Net: small and dilated kernels over the constant-Q spectrogram (Yu 2020)."""

from torch import nn

from pawlib.systems import layers

CHANNELS = (64, 128, 256, 512)


class CQTNet(layers.CoverNet):
    """Yu et al. 2020, "Learning a representation for cover song identification using convolutional neural network".

    Tall first kernels of about an octave, then small ones; every second kernel skips frames. Nothing is padded or
    pooled in frequency, so that a song a semitone higher gives a map a row higher, and the maximum over the map is the
    same but at its edges (Table 4, row 4)::

        CQT       (B, 1, 84, 400)          84 semitones, 0.46 s a frame; shapes for 400 frames
        conv      (B, 32, 85, 398)         kernel 12 x 3, padded by 6 bins
        conv      (B, 64, 73, 198)         kernel 13 x 3, dilated by 2 in time, pool 2 in time
        conv      (B, 64, 61, 196)         kernel 13 x 3
        conv      (B, 64, 59, 97)          3 x 3 dilated, pool
        conv      (B, 128, 57, 95)         3 x 3
        conv      (B, 128, 55, 46)         3 x 3 dilated, pool
        conv      (B, 256, 53, 44)         3 x 3
        conv      (B, 256, 51, 21)         3 x 3 dilated, pool
        conv      (B, 512, 49, 19)         3 x 3
        conv      (B, 512, 47, 15)         3 x 3 dilated; each conv without bias - BN - ReLU
        maximum   (B, 512)                 over frequency and time
        embedding (B, 300)                 linear
        logits    (B, n_classes)           linear

    5,080,428 parameters without the classifier. Weights are registered in the published order.

    Parameters
    ----------
    n_classes : int, optional
        Songs of the training set; None for no classifier.
    slim : int
        Channels are divided by so many; 1 is the published network. Kernels, depth and what a moment hears of the song
        stay (reading R55).

    Raises
    ------
    ValueError
        If the channels cannot be divided by `slim`.
    """

    slug = "cqt_net"
    SMALL = {"slim": 4}

    def __init__(self, n_classes=50, slim=1):
        if slim < 1 or 32 % slim:
            raise ValueError(f"slim={slim!r} does not divide 32 channels, expected 1, 2, 4, 8, 16 or 32")
        super().__init__(n_classes, **({} if slim == 1 else {"slim": slim}))
        first, *channels = (n // slim for n in (32, *CHANNELS))
        stack = [
            layers.Conv2dLayer(1, first, (12, 3), pad_bins=6),
            layers.Conv2dLayer(first, channels[0], (13, 3), dilation=2, pool=True),
            layers.Conv2dLayer(channels[0], channels[0], (13, 3)),
            layers.Conv2dLayer(channels[0], channels[0], (3, 3), dilation=2, pool=True),
        ]
        for n_in, n_out in zip(channels, channels[1:], strict=False):
            stack += [
                layers.Conv2dLayer(n_in, n_out, (3, 3)),
                layers.Conv2dLayer(n_out, n_out, (3, 3), dilation=2, pool=n_out != channels[-1]),
            ]
        self.layers = nn.Sequential(*stack)
        self.add_head(channels[-1])

    def features(self, cqt):
        """(B, 1, 84, n_frames) -> (B, 512 // slim)."""
        return self.layers(cqt).amax(dim=(2, 3))
