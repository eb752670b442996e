"""RN1, RN2, RN3: residual networks whose receptive field is held small (Koutini 2019)."""

from pawlib.systems import scene_layers


class RN1(scene_layers.ResidualNet):
    """Koutini et al. 2019; Table 6, RN1: CP-ResNet with rho 5, a field of 87 mel bands x 87 frames (2.1 s).

    With 10 classes and stereo 3.57 M parameters. The layout is in scene_layers.ResidualNet.

    Parameters
    ----------
    n_classes : int
    n_channels : 1 | 2
    rho : int in 0..22
    width, n_samples, initialise
        As in scene_layers.ResidualNet.
    """

    slug = "rn1"
    RHO = 5

    def __init__(self, n_classes=15, n_channels=1, rho=None, **settings):
        super().__init__(n_classes, n_channels, self.RHO if rho is None else rho, **settings)


class RN2(RN1):
    """Table 6, RN2; which rho it has is not published: 4 here, a field of 71 x 71 (reading R13).

    RN1's neighbour below among the published sizes: the paper's finding is that a field may be too small as well as
    too large, so RN1's two neighbours are what a second and a third network would try.
    """

    slug = "rn2"
    RHO = 4


class RN3(RN1):
    """Table 6, RN3; which rho it has is not published: 7 here, a field of 135 x 135, VGG's (reading R13)."""

    slug = "rn3"
    RHO = 7
