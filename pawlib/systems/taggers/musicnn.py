"""Musicnn: kernels of musical shapes (Pons 2018)."""

import torch
from torch import nn

from pawlib import encoders, fast_layer
from pawlib.systems import layers

N_MELS = 96


class Musicnn(layers.MelTagger):
    """Pons et al. 2018, "End-to-end learning for music audio tagging at scale"; Table 1, row 4.

    Kernels of musical shapes: tall ones for timbre, wherever in pitch, long ones for rhythm::

        wave        (B, 48000)             3 s at 16 kHz
        log-mel     (B, 1, 96, 188)        n_fft 512, hop 256
        BN
        vertical    (B, 204, 188)          kernel 67 x 7, maximum over frequency
        vertical    (B, 204, 188)          kernel 38 x 7, the same
        horizontal  (B, 51, 188) x 3       mean over frequency, kernels 129, 65, 33
        together    (B, 561, 188)
        conv        (B, 64, 188)           kernel 7
        conv        (B, 64, 188)           kernel 7, plus what came before it
        conv        (B, 64, 188)           kernel 7, plus what came before it; each conv - BN - ReLU
        together    (B, 753, 188)          with the 561
        max, mean   (B, 1506)              over time
        head        (B, 200)               linear - BN - ReLU - dropout .5
                    (B, n_classes)         linear

    Told in: notebooks/04_encoders.ipynb
    """

    slug = "musicnn"

    def __init__(self, n_classes=50):
        super().__init__(16_000, 48_000, n_fft=512, hop_length=256, n_mels=N_MELS, n_classes=n_classes)
        self.pool_first = True  # see shapes(); costs.count puts it off
        self.norm = encoders.BatchNorm(1)
        self.vertical = nn.ModuleList(layers.VerticalConv(204, (int(share * N_MELS), 7)) for share in (0.7, 0.4))
        self.horizontal = nn.ModuleList(layers.Conv1dLayer(1, 51, kernel) for kernel in (129, 65, 33))
        self.layers = nn.ModuleList(layers.Conv1dLayer(n_in, 64, kernel=7) for n_in in (561, 64, 64))
        self.head = layers.dense_head(2 * (561 + 3 * 64), 200, n_classes)

    def features(self, x):
        """Log-mel (B, 1, 96, 188) -> (B, 1506)."""
        x = self.shapes(x)
        first, second, third = self.layers
        a = first(x)
        b = second(a) + a
        c = third(b) + b
        x = torch.cat([x, a, b, c], dim=1)  # (B, 753, 188)
        return torch.cat([x.amax(dim=-1), x.mean(dim=-1)], dim=1)

    def shapes(self, x):
        """Log-mel (B, 1, 96, 188) -> what the kernels of musical shapes find (B, 561, 188).

        With `pool_first`, on a CPU, the norm's gain and offset go into the vertical kernels where something is learnt:
        the same numbers, several times as fast (layers.VerticalConv.on_picture).
        """
        learns = torch.is_grad_enabled() or self.training
        if self.pool_first and learns and not x.requires_grad and fast_layer.applies(x):
            picture = self.norm.standardised(x)
            tall = [layer.on_picture(picture, self.norm.weight, self.norm.bias) for layer in self.vertical]
            energy = picture.mean(dim=2) * self.norm.weight + self.norm.bias
        else:
            x = self.norm(x)
            tall = [layer(x) for layer in self.vertical]
            energy = x.mean(dim=2)  # (B, 1, 188)
        return torch.cat([*tall, *(layer(energy) for layer in self.horizontal)], dim=1)
