"""FCN-4 alone, on the constant-Q spectrogram: the paper's small encoder as a cover-song system."""

import torch.nn.functional as F

from pawlib.systems import layers

BANDS = 4  # that the last layer leaves, as FCN-4 does of 128 mel bands


class FCN4Cover(layers.CoverNet):
    """FCN-4 (Choi 2016 as used in the paper) on the CQT, trained to tell songs apart; Table 4, row 3.

    The paper says no more than "FCN-4". Here it hears what its rivals in the table hear; its four layers have the
    channels, kernels and parameters they always have, and the last pool takes the maximum over all the time that is
    left, so that songs of any length become one size::

        CQT       (B, 1, 84, 400)          84 semitones, 0.46 s a frame; shapes for 400 frames
        BN
        conv3     (B, 64, 42, 100)         pool (2, 4)
        conv3     (B, 128, 21, 25)         pool (2, 4)
        conv3     (B, 128, 10, 6)          pool (2, 4)
        conv3     (B, 128, 10, 6)          each conv3 - BN - ReLU - pool
        maximum   (B, 128, 4, 1)           of four bands, over all time
        flatten   (B, 512)
        embedding (B, 300)                 linear
        logits    (B, n_classes)           linear

    524,462 parameters without the classifier, 370,562 of them FCN-4's.

    Parameters
    ----------
    n_classes : int, optional
        Songs of the training set; None for no classifier.
    """

    slug = "fcn_4_cover"

    def __init__(self, n_classes=50):
        super().__init__(n_classes)
        self.encoder = layers.ConvStack(self.slug, (64, 128, 128, 128), ((2, 4), (2, 4), (2, 4), (1, 1)))
        self.add_head(BANDS * 128)

    def features(self, cqt):
        """(B, 1, 84, n_frames) -> (B, 512)."""
        return F.adaptive_max_pool2d(self.encoder(cqt), (BANDS, 1)).flatten(1)
