"""How a network answers for a whole track: where its chunks begin, and the mean of what it says of them."""

import numpy as np
import pytest
import torch
import torchaudio
from test_supervised import corpus, network

from pawlib.bench import scoring


@pytest.mark.parametrize(
    ("arguments", "starts"),
    [
        ((100, 100), [0]),
        ((60, 100), [0]),  # shorter: one chunk, filled by repetition
        ((250, 100), [0, 100, 150]),
        ((300, 100), [0, 100, 200]),
        ((250, 100, "cover", "drop"), [0, 100]),
        ((250, 100, 4), [0, 50, 100, 150]),
        ((250, 100, 4, "drop"), [0, 37, 74, 111]),  # hop (250 - 100) // 4, the peers' rule
        ((250, 100, 1), [75]),
    ],
)
def test_chunks_begin_where_they_should(arguments, starts):
    assert scoring.chunk_starts(*arguments) == starts


@pytest.mark.parametrize("n_samples", [801, 1600, 1999, 2400, 465_984])
@pytest.mark.parametrize("chunks", ["cover", 2, 16])
def test_the_tail_is_heard(n_samples, chunks):
    starts = scoring.chunk_starts(n_samples, 800, chunks)
    assert starts[0] == 0 and starts[-1] + 800 == n_samples and starts == sorted(starts)


@pytest.mark.parametrize("asked", [{"tail": "forget"}, {"chunks": 0}, {"chunks": "some"}, {"chunks": True}])
def test_unknown_chunks_are_refused(asked):
    with pytest.raises(ValueError, match="is unknown, expected"):
        scoring.chunk_starts(1000, 100, **asked)


@pytest.mark.parametrize("single_label", [False, True])
def test_a_score_is_the_mean_probability_of_the_chunks(single_label):
    data, model = corpus(), network().eval()
    scored = scoring.score(model, data.store, data.splits.test, single_label, precision="32-true")
    for row, track in zip(scored.scores, data.splits.test, strict=True):
        wave = torch.from_numpy(data.store.read(track.id))
        logits = [model(wave[s : s + 800].unsqueeze(0))[0] for s in (0, 800, 1600, 1700)]
        means = sum(x.softmax(0) if single_label else x.sigmoid() for x in logits) / 4
        assert row == pytest.approx(means.detach().numpy(), abs=1e-6)
    assert scored.n_chunks == 4 * len(data.splits.test) and scored.n_repeated == 0


def test_a_track_shorter_than_the_input_is_repeated_and_counted():
    data, model = corpus(n_samples=500), network().eval()
    scored = scoring.score(model, data.store, data.splits.test[:1], False, precision="32-true")
    wave = torch.from_numpy(data.store.read(data.splits.test[0].id))
    by_hand = model(torch.cat([wave, wave[:300]]).unsqueeze(0)).sigmoid()
    assert scored.n_repeated == 1 and scored.scores[0] == pytest.approx(by_hand.detach().numpy()[0], abs=1e-6)


def test_scoring_leaves_the_mode_of_the_network():
    data, model = corpus(), network().train()
    scoring.score(model, data.store, data.splits.test, False, precision="32-true")
    assert model.training


def test_an_answer_that_is_not_finite_names_the_track():
    data = corpus()
    data.store.waves[data.splits.test[1].id][:] = np.nan
    with pytest.raises(ValueError, match=rf"answer to track {data.splits.test[1].id} is not finite"):
        scoring.score(network(), data.store, data.splits.test, False, precision="32-true")


def test_a_track_is_resampled_in_float32_whatever_the_network_computes_in():
    data = corpus()
    (track, *_), wave = data.splits.test, data.store.waves[data.splits.test[0].id]
    wanted = torchaudio.functional.resample(torch.from_numpy(wave), 16_000, 22_050)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        read = scoring.read_track(data.store, track, 22_050)
    assert read.dtype == torch.float32 and torch.equal(read, wanted)
    assert torch.equal(scoring.read_track(data.store, track, 16_000), torch.from_numpy(wave))
