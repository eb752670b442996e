"""VGG: small convolutions and pools, one after the other (Eghbal-zadeh 2016; Koutini 2019)."""

from torch import nn

from pawlib.systems import scene_layers

# Channels of the 3 x 3 convolutions before each pool.
STAGES = ((32,), (64, 64), (128, 128, 128, 128))


class VGG(scene_layers.SceneNet):
    """Table 6, VGG: the convolutional half of the network that won DCASE2016's scene task (Eghbal-zadeh et al. 2016).

    The paper cites a VGG and gives no layout. Reading R38: this one, of the same authors' group, whose field (135 x
    135) lies in the range that their program calls usual for a VGG. Each convolution is followed by BN - ReLU, with 30
    s of mono::

        picture       (B, 1, 256, 1292)
        conv 5 x 5    (B, 32, 128, 646)      stride 2
        conv 3 x 3    (B, 32, 128, 646)
        pool 2        (B, 32, 64, 323)       each pool with dropout .3
        2 conv 3 x 3  (B, 64, 64, 323)
        pool 2        (B, 64, 32, 161)
        4 conv 3 x 3  (B, 128, 32, 161)
        pool 2        (B, 128, 16, 80)
        conv 3 x 3    (B, 512, 14, 78)       not padded; dropout .5
        conv 1 x 1    (B, 512, 14, 78)       dropout .5
        head          (B, n_classes)         1 x 1 - BN - mean

    Parameters
    ----------
    n_classes : int
    n_channels : 1 | 2
    width : int
        Channels of the first convolutions, 32; all others keep their ratio to it.
    n_samples : int
    """

    slug = "vgg"
    NARROW = ("width", {"toy": 4, "small": 16})

    def __init__(self, n_classes=15, n_channels=1, width=32, n_samples=scene_layers.FILE_SAMPLES):
        super().__init__(n_classes, n_channels, n_samples, width=width)
        made = [*_convolution(n_channels, width, 5, stride=2, padding=2)]
        n_in = width
        for stage in STAGES:
            for channels in stage:
                n_out = channels * width // STAGES[0][0]
                made += _convolution(n_in, n_out, 3, padding=1)
                n_in = n_out
            made += [nn.MaxPool2d(2), nn.Dropout(0.3)]
        made += [*_convolution(n_in, 16 * width, 3), nn.Dropout(0.5)]
        made += [*_convolution(16 * width, 16 * width, 1), nn.Dropout(0.5)]
        self.body = nn.Sequential(*made)
        self.head = scene_layers.class_head(16 * width, n_classes)

    def features(self, x):
        """Picture (B, n_channels, 256, n_frames) -> map (B, 16 * width, 14, about n_frames // 16)."""
        return self.body(x)


def _convolution(n_in, n_out, kernel, **where):
    """Convolution without bias - BN - ReLU."""
    return nn.Conv2d(n_in, n_out, kernel, bias=False, **where), nn.BatchNorm2d(n_out), nn.ReLU()
