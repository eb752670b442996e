"""ResNet: the residual network of Table 6 with nothing held small (Koutini 2019)."""

from pawlib.systems import scene_layers


class ResNet(scene_layers.ResidualNet):
    """Table 6, ResNet: the network of RN1 with all its free convolutions 3 x 3, a field of 615 x 615.

    The paper compares RN1 to RN3 with "ResNet" and gives no layout. Reading R43: the same depth, width and pools, so
    that nothing but the receptive field differs from RN1; `rho` closes it step by step.

    Parameters
    ----------
    n_classes : int
    n_channels : 1 | 2
    rho : int in 0..22
    width, n_samples, initialise
        As in scene_layers.ResidualNet.
    """

    slug = "resnet"

    def __init__(self, n_classes=15, n_channels=1, rho=scene_layers.N_FREE, **settings):
        super().__init__(n_classes, n_channels, rho, **settings)
