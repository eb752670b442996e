"""Ki-Net: one family of chords heard in all twelve keys (after Xu 2018)."""

import torch
import torch.nn.functional as F
from torch import nn

from pawlib.systems import layers

N_KEYS = 12


class KiNet(layers.CoverNet):
    """After Xu et al. 2018, "Key-invariant convolutional neural network toward efficient cover song identification".

    The idea of the paper, built anew: no code of it is public, and the paper gives no full list of layers. Pitches are
    folded into 12 classes, the octave is laid down twice, and a kernel as tall as an octave is tried in each of the 12
    keys; the maximum over keys is *exactly* the same for a transposed song (Table 4, row 1)::

        CQT       (B, 1, 84, 400)          84 semitones, 0.46 s a frame; shapes for 400 frames
        chroma    (B, 1, 12, 400)          mean over the seven octaves, divided by its maximum over song and classes
        tiled     (B, 1, 23, 400)          the octave, and its first 11 classes once more
        conv      (B, 256, 12, 353)        kernel 12 x 48, 22 s: a row per key
        maximum   (B, 256, 1, 353)         over keys
        conv      (B, 256, 1, 326)         kernel 1 x 10, dilated by 3 in time
        pool      (B, 256, 1, 162)         maximum of 3 frames, every second
        conv      (B, 256, 1, 135)         the same
        pool      (B, 256, 1, 67)          the same; each conv without bias - BN - ReLU
        mean      (B, 256)                 over time
        embedding (B, 300)                 linear
        logits    (B, n_classes)           linear

    What is not Xu's: the sizes, which are those of the same idea's later network MulKINet with a single stage; the
    chroma of a CQT in place of HPCP, so that all systems of Table 4 hear the same feature; and the 300 of the
    embedding, for the same reason. A row of it is therefore of "a key-invariant network", not of the published one.

    Parameters
    ----------
    n_classes : int, optional
        Songs of the training set; None for no classifier.
    """

    slug = "ki_net"

    def __init__(self, n_classes=50):
        super().__init__(n_classes)
        self.in_keys = layers.Conv2dLayer(1, 256, (N_KEYS, 48))
        self.in_time = nn.ModuleList(layers.Conv2dLayer(256, 256, (1, 10), dilation=3) for _ in range(2))
        self.add_head(256)

    def features(self, cqt):
        """(B, 1, 84, n_frames) -> (B, 256)."""
        x = self.in_keys(self.tiled(cqt)).amax(dim=2, keepdim=True)  # (B, 256, 1, n_frames - 47)
        for layer in self.in_time:
            x = F.max_pool2d(layer(x), (1, 3), (1, 2))
        return x.mean(dim=(2, 3))

    def tiled(self, cqt):
        """(B, 1, 84, n_frames) -> the octave and its first 11 classes once more (B, 1, 23, n_frames)."""
        chroma = cqt.unflatten(2, (-1, N_KEYS)).mean(dim=2)  # (B, 1, 12, n_frames)
        chroma = chroma / chroma.amax(dim=(1, 2, 3), keepdim=True).clamp_min(1e-6)
        return torch.cat([chroma, chroma[:, :, :-1]], dim=2)
