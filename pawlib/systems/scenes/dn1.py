"""DN1: a DenseNet whose receptive field is held small (Koutini 2019)."""

from pawlib.systems import scene_layers


class DN1(scene_layers.DenseNet):
    """Table 6, DN1: the network of DenseNet, 3 x 3 only in its first seven dense layers, a field of 83 x 83.

    How the paper restricts its DenseNet is not published in code; the same rule is applied here, and seven is where the
    field comes nearest to RN1's 87 (reading R37).
    """

    slug = "dn1"

    def __init__(self, n_classes=15, n_channels=1, rho=7, **settings):
        super().__init__(n_classes, n_channels, rho, **settings)
