"""Self-attention: convolutions and a transformer over their frames (Won 2019)."""

import numpy as np
import torch
from torch import nn

from pawlib import encoders
from pawlib.systems import layers

WIDTH = 256


class SelfAttention(layers.MelTagger):
    """Won et al. 2019, "Toward interpretable music tagging with self-attention"; Table 1, row 7.

    Convolutions make a sequence of frames, a transformer sums it up::

        wave        (B, 240000)            15 s at 16 kHz
        log-mel     (B, 1, 128, 938)       n_fft 512, hop 256
        BN
        residual    (B, 128, 64, 469)      stride 2; every shortcut is conv3 - BN
        residual    (B, 128, 32, 235)      stride 2
        residual    (B, 256, 16, 118)      stride 2
        residual    (B, 256, 8, 118)       stride (2, 1), as all that follow
        residual    (B, 256, 4, 118)
        residual    (B, 256, 2, 118)
        residual    (B, 256, 1, 118)
        sequence    (B, 118, 256)
        class token (B, 119, 256)          first; fixed, no position code
        transformer (B, 119, 256)          2 layers, 8 heads, feed-forward 1024, GELU, dropout .4, attention's .5
        pooler      (B, 256)               linear - tanh of the class token
        head        (B, n_classes)         dropout .5 - linear

    The class token is 256 numbers between 0 and 1 which the published network draws from numpy's generator at seed 0
    and neither learns nor saves; the same ones here.

    Told in: notebooks/04_encoders.ipynb
    """

    slug = "self_attention"

    def __init__(self, n_classes=50):
        super().__init__(16_000, 240_000, n_fft=512, hop_length=256, n_mels=128, n_classes=n_classes)
        self.norm = encoders.BatchNorm(1)
        widths = (1, 128, 128, *[WIDTH] * 5)
        strides = (2, 2, 2, *[(2, 1)] * 4)
        self.layers = nn.Sequential(
            *(layers.Residual2d(i, o, stride) for i, o, stride in zip(widths, widths[1:], strides, strict=False))
        )
        self.transformer = nn.Sequential(*(layers.TransformerLayer(WIDTH) for _ in range(2)))
        self.pooler = nn.Linear(WIDTH, WIDTH)
        self.head = layers.dropout_head(WIDTH, n_classes)
        token = np.random.RandomState(0).random_sample(WIDTH)
        self.register_buffer("class_token", torch.tensor(token, dtype=torch.float32), persistent=False)

    def features(self, x):
        """Log-mel (B, 1, 128, 938) -> (B, 256)."""
        return self.summary(self.frames(x))

    def frames(self, x):
        """Log-mel (B, 1, 128, 938) -> the trunk's sequence (B, 118, 256)."""
        return self.layers(self.norm(x)).squeeze(2).transpose(1, 2)

    def summary(self, x):
        """A sequence (B, n_frames, 256) -> what the class token makes of it (B, 256)."""
        x = torch.cat([self.class_token.expand(len(x), 1, -1), x.to(self.class_token.dtype)], dim=1)
        return torch.tanh(self.pooler(self.transformer(x)[:, 0]))
