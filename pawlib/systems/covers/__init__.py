"""The cover-song systems of Table 4, in its order."""

from pawlib.systems.covers import cqt_net, fcn_4_cover, fcn_4_on_cqt_net, ki_net, tpp_net

SYSTEMS = {
    made.slug: made
    for made in (
        ki_net.KiNet,
        tpp_net.TPPNet,
        fcn_4_cover.FCN4Cover,
        cqt_net.CQTNet,
        fcn_4_on_cqt_net.FCN4OnCQTNet,
    )
}
