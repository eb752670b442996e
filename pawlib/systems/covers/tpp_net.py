"""TPP-Net: a pyramid of maxima over time makes songs of any length one size (Yu 2019)."""

import torch
import torch.nn.functional as F
from torch import nn

from pawlib.systems import layers

PYRAMID = (4, 3, 2, 1)


class TPPNet(layers.CoverNet):
    """Yu et al. 2019, "Temporal pyramid pooling convolutional neural network for cover song identification".

    One large kernel of three octaves and 18 s, a maximum over what pitch it was found at, and a summary of quarters,
    thirds, halves and the whole song (Table 4, row 2)::

        CQT       (B, 1, 84, 400)          84 semitones, 0.46 s a frame; shapes for 400 frames
        conv      (B, 32, 49, 361)         kernel 36 x 40
        conv      (B, 64, 38, 180)         kernel 12 x 3, stride 2 in time
        conv      (B, 128, 36, 89)         kernel 3 x 3, stride 2
        maximum   (B, 128, 1, 89)          over frequency
        conv      (B, 256, 1, 44)          kernel 1 x 3, stride 2
        conv      (B, 512, 1, 21)          the same
        conv      (B, 512, 1, 10)          the same; each conv without bias - BN - ReLU
        pyramid   (B, 5120)                maximum of 4, 3, 2 and 1 parts of the song, a channel's parts side by side
        embedding (B, 300)                 linear
        logits    (B, n_classes)           linear

    3,010,796 parameters without the classifier. Weights are registered in the published order.

    Parameters
    ----------
    n_classes : int, optional
        Songs of the training set; None for no classifier.
    """

    slug = "tpp_net"

    def __init__(self, n_classes=50):
        super().__init__(n_classes)
        self.layers = nn.Sequential(
            layers.Conv2dLayer(1, 32, (36, 40)),
            layers.Conv2dLayer(32, 64, (12, 3), stride=2),
            layers.Conv2dLayer(64, 128, (3, 3), stride=2),
        )
        self.in_time = nn.Sequential(
            *(layers.Conv2dLayer(n_in, n_out, (1, 3), stride=2) for n_in, n_out in ((128, 256), (256, 512), (512, 512)))
        )
        self.add_head(sum(PYRAMID) * 512)

    def features(self, cqt):
        """(B, 1, 84, n_frames) -> (B, 5120)."""
        x = self.in_time(self.layers(cqt).amax(dim=2, keepdim=True)).squeeze(2)  # (B, 512, moments)
        return torch.cat([F.adaptive_max_pool1d(x, parts).flatten(1) for parts in PYRAMID], dim=1)
