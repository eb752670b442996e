"""DenseNet: densely connected layers with nothing held small (Huang 2017; Koutini 2019)."""

from pawlib.systems import scene_layers


class DenseNet(scene_layers.DenseNet):
    """Table 6, DenseNet: 42 dense layers, all with a 3 x 3, a field of 1027 x 1027.

    The layout is a reading (R37), see scene_layers.DenseNet; `rho`, `growth` and `blocks` are its arguments.
    """

    slug = "densenet"
