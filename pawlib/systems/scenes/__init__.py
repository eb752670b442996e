"""The eight supervised scene systems of Tables 5 and 6, in the order of Table 6."""

from pawlib.systems.scenes import densenet, dn1, dnn, resnet, rn, vgg

SYSTEMS = {
    made.slug: made
    for made in (
        dnn.DNN,
        resnet.ResNet,
        vgg.VGG,
        densenet.DenseNet,
        dn1.DN1,
        rn.RN1,
        rn.RN3,
        rn.RN2,
    )
}
