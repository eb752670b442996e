"""The ten supervised taggers of Table 1, in its order."""

from pawlib.systems.taggers import (
    crnn,
    fcn_4,
    fcn_5,
    harmonic_cnn,
    musicnn,
    sample_cnn,
    sample_cnn_se,
    self_attention,
    short_chunk_cnn,
    short_chunk_cnn_res,
)

SYSTEMS = {
    made.slug: made
    for made in (
        crnn.CRNN,
        fcn_5.FCN5,
        fcn_4.FCN4Tagger,
        musicnn.Musicnn,
        sample_cnn.SampleCNN,
        sample_cnn_se.SampleCNNSE,
        self_attention.SelfAttention,
        harmonic_cnn.HarmonicCNN,
        short_chunk_cnn_res.ShortChunkCNNRes,
        short_chunk_cnn.ShortChunkCNN,
    )
}
