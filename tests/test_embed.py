"""One pass over the tracks: which clips, which levels, and what is kept."""

import numpy as np
import pytest
import torch
from test_engine import Songs

from pawlib import model, systems
from pawlib.bench import corpora, datasets, embed


@pytest.fixture
def corpus(tmp_path, monkeypatch):
    monkeypatch.setenv("PAWLIB_DATA", str(tmp_path))
    store = Songs(n_songs=6, n_samples=120_000)
    store.waves["song5"] = store.waves["song5"][:30_000]  # shorter than a clip
    tracks = [datasets.Track(i, None, np.array([k % 2], np.float32), f"w{k}") for k, i in enumerate(store.ids)]
    splits = datasets.Splits(tracks[:3], tracks[3:4], tracks[4:], ("odd",), "made-up")
    return corpora.Corpus("made-up", splits, store, [])


@pytest.fixture(scope="module")
def paw():
    torch.manual_seed(0)
    return model.MusicPAW("baseline", whole_seconds=5.6, n_levels=2).eval()


def test_clips_cover_a_track_and_the_last_ends_with_it():
    wave = torch.arange(10.0)
    clips = embed.clips_of(wave, 4)
    assert clips.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], [6, 7, 8, 9]]
    assert embed.clips_of(wave, 5).tolist() == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]


def test_a_track_shorter_than_a_clip_is_repeated():
    assert embed.clips_of(torch.arange(3.0), 7).tolist() == [[0, 1, 2, 0, 1, 2, 0]]


def test_each_level_gives_its_clips_and_every_track_is_there(corpus, paw):
    shortest = embed.splits(paw, corpus, "shortest")
    assert shortest["train"].x.shape == (3 * 3, 512)  # 7.5 s in clips of 2.8 s
    assert shortest["train"].track_index.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert shortest["test"].track_index.tolist() == [0, 0, 0, 1]
    assert embed.splits(paw, corpus, "top")["train"].x.shape == (3 * 2, 512)
    whole = embed.splits(paw, corpus, "concat")["train"]
    assert whole.x.shape == (3, 1024)
    assert torch.allclose(whole.x[0, 512:], shortest["train"].x[:3].mean(0), atol=1e-5)


def test_clips_are_embedded_as_the_model_embeds_them(corpus, paw):
    x = embed.splits(paw, corpus, "shortest", cache=False)["train"].x[0]
    wave = torch.from_numpy(corpus.store.read("song0"))
    with torch.no_grad():
        alone = paw.embed_clips(wave[:44_800].unsqueeze(0), 1)[0]
    assert torch.nn.functional.cosine_similarity(x, alone, dim=0) > 0.999  # bf16 where the processor has it


def test_a_second_probe_reads_the_kept_features_and_other_weights_do_not(corpus, paw, monkeypatch):
    first = embed.splits(paw, corpus)["test"].x
    monkeypatch.setattr(embed, "_pass", lambda *a: pytest.fail("a second pass over the tracks"))
    assert torch.equal(embed.splits(paw, corpus)["test"].x, first)
    torch.manual_seed(1)
    other = model.MusicPAW("baseline", whole_seconds=5.6, n_levels=2)
    with pytest.raises(pytest.fail.Exception, match="a second pass"):
        embed.splits(other, corpus)


def test_a_level_by_number_is_the_one_that_has_the_name(corpus, paw, monkeypatch):
    named = {levels: embed.splits(paw, corpus, levels)["test"] for levels in ("top", "shortest")}
    monkeypatch.setattr(embed, "_pass", lambda *a: pytest.fail("a second pass over the tracks"))
    for n, levels in enumerate(("top", "shortest")):
        numbered = embed.splits(paw, corpus, n)["test"]
        assert torch.equal(numbered.x, named[levels].x)
        assert torch.equal(numbered.track_index, named[levels].track_index)


@pytest.mark.parametrize(("factor", "passes"), [(1.0, 0), (1.003, 0), (1.03, 3)])
def test_kept_features_are_taken_only_if_the_code_still_makes_them(corpus, paw, monkeypatch, factor, passes):
    first = embed.splits(paw, corpus)["test"].x
    made, embedded = [], type(paw).embed_clips
    monkeypatch.setattr(type(paw), "embed_clips", lambda self, *a: factor * embedded(self, *a))  # other mels, say
    monkeypatch.setattr(embed, "_pass", lambda *a, real=embed._pass: made.append(1) or real(*a))
    again = embed.splits(paw, corpus)["test"].x
    assert len(made) == passes
    assert torch.equal(again, first) if not passes else torch.allclose(again, factor * first, rtol=0.02)
    made.clear()
    assert torch.equal(embed.splits(paw, corpus)["test"].x, again) and not made  # the new ones are kept


def test_other_audio_under_the_same_names_is_embedded_again(corpus, paw):
    first = embed.splits(paw, corpus)["train"].x
    corpus.store.waves["song0"] = 0.5 * corpus.store.waves["song0"]
    assert not torch.allclose(embed.splits(paw, corpus)["train"].x[:3], first[:3], rtol=0.01)


def test_a_damaged_cache_is_made_again(corpus, paw, tmp_path):
    first = embed.splits(paw, corpus)["test"].x
    for path in (tmp_path / "store" / "made-up" / "features").glob("*.safetensors"):
        path.write_bytes(b"cut off")
    assert torch.equal(embed.splits(paw, corpus)["test"].x, first)


def energy(wave, sample_rate):
    return np.array([np.square(wave).mean(), sample_rate])


def test_statistics_give_one_row_per_track_and_are_kept(corpus):
    first = embed.statistics(energy, corpus)
    assert first["train"].x.shape == (3, 2) and first["test"].track_index.tolist() == [0, 1]
    corpus.store.waves.clear()  # nothing is read a second time
    assert torch.equal(embed.statistics(energy, corpus)["train"].x, first["train"].x)


@pytest.mark.parametrize("levels", ["longest", 2, -1, True, None])
def test_unknown_levels_are_refused(corpus, paw, levels):
    with pytest.raises(ValueError, match=rf"levels={levels!r} is unknown, expected one of .* 0 to 1 \(reading R11\)"):
        embed.splits(paw, corpus, levels)


def test_calibration_moves_statistics_and_no_weight(corpus):
    torch.manual_seed(0)
    untrained = model.MusicPAW("baseline", whole_seconds=5.6, n_levels=2)
    weights = {name: p.clone() for name, p in untrained.named_parameters()}
    embed.calibrate(untrained, corpus, n_batches=3)
    assert all(torch.equal(weights[name], p) for name, p in untrained.named_parameters())
    assert untrained.encoder.norm.running_mean.abs() > 1  # decibels of noise are far from zero
    assert not untrained.training


@pytest.mark.parametrize(("slug", "kw"), [("byol_a", {"encoder": "audio_ntt"}), ("cola", {"encoder": "fcn_4"})])
def test_a_system_with_one_length_of_clip_is_calibrated_on_its_clips(corpus, slug, kw):
    torch.manual_seed(0)
    net = systems.system(slug)(**kw, **({"whole_seconds": 5.6} if slug == "cola" else {}))
    weights = {name: value.clone() for name, value in net.named_parameters()}
    before = {name: value.clone() for name, value in net.encoder.named_buffers() if "running_mean" in name}
    embed.calibrate(net, corpus, n_batches=2)
    after = dict(net.encoder.named_buffers())
    assert before and all(not torch.equal(value, after[name]) for name, value in before.items())
    assert all(torch.equal(value, weights[name]) for name, value in net.named_parameters()) and not net.training
