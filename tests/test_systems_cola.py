"""COLA: two crops of one song, a bilinear similarity, one direction."""

import math

import numpy as np
import pytest
import torch

from pawlib import checkpoints, systems
from pawlib.bench import embed, engine
from pawlib.systems.pretraining import cola

TOLERANCE = 1e-5
SHORT = {"whole_seconds": 4.0}


def build(seed=0, **settings):
    torch.manual_seed(seed)
    return cola.COLA(**{**SHORT, **settings})


def waves(n_songs, n_samples):
    return 0.1 * torch.randn(n_songs, n_samples, generator=torch.Generator().manual_seed(1))


class Songs:
    """A store of made-up songs."""

    def __init__(self, n_songs=8):
        noise = np.random.default_rng(0).standard_normal((n_songs, 70_000)).astype(np.float32)
        self.waves = {f"song{i}": 0.1 * wave for i, wave in enumerate(noise)}

    def sample_rate(self, _):
        return 16_000

    def n_samples(self, track_id):
        return len(self.waves[track_id])

    def read(self, track_id, start=0, n_samples=None):
        return self.waves[track_id][start:][:n_samples]


def train(out, model, **changes):
    store = Songs()
    settings = {"n_epochs": 1, "batch_size": 4, "compile": False, "report": lambda line: None, **changes}
    return engine.pretrain(model, store, list(store.waves), out, **settings)


# --- the loss ---


def test_loss_is_the_papers_formula():
    model = build()
    x, y = torch.randn(2, 5, 512)
    with torch.no_grad():
        turned = y @ model.bilinear.T
        loss, logs = model.objective(x, y, turned)
        w = model.bilinear.double()
    hits = 0
    for b in range(5):
        similar = [(x[b].double() @ w @ y[u].double()).item() for u in range(5)]
        top = max(similar)
        expected = math.log(sum(math.exp(s - top) for s in similar)) + top - similar[b]
        assert loss[b].item() == pytest.approx(expected, abs=1e-3, rel=1e-4)
        hits += max(range(5), key=similar.__getitem__) == b
    assert logs["accuracy"] == pytest.approx(hits / 5)


def test_forward_gives_the_head_the_paper_has_and_w_times_y():
    model = build().eval()
    mel_a, mel_b = model.views(waves(2, model.n_whole), [3, 4])
    with torch.no_grad():
        x, y, turned = model(mel_a, mel_b)
        s = model.encoder(mel_b)
        dense, norm, _ = model.head
        row = dense(s)[1].double()
        row = (row - row.mean()) / (row.var(correction=0) + 1e-3).sqrt()
        assert torch.allclose(y[1].double(), torch.tanh(row * norm.weight + norm.bias), atol=TOLERANCE)
        assert torch.allclose(turned[1], model.bilinear @ y[1], atol=1e-4)
    assert x.abs().max() < 1


def test_loss_is_not_symmetric():
    model = build()
    x, y = torch.randn(2, 4, 512)
    with torch.no_grad():
        there, _ = model.objective(x, y, y @ model.bilinear.T)
        back, _ = model.objective(y, x, x @ model.bilinear.T)
    assert not torch.allclose(there, back, atol=1e-2)


def test_order_of_songs_does_not_matter():
    model, turned = build(), [2, 0, 3, 1]
    parts = torch.randn(3, 4, 512)
    loss, logs = model.objective(*parts)
    again, logs_again = model.objective(*parts[:, turned])
    assert torch.allclose(loss[turned], again, atol=1e-4) and logs == pytest.approx(logs_again, abs=TOLERANCE)


def test_alike_songs_leave_the_loss_at_the_log_of_the_batch():
    same = torch.ones(6, 512)
    loss, logs = build().objective(same, same, same)
    assert torch.allclose(loss, torch.tensor(math.log(6)).expand(6), atol=1e-4)
    assert logs["alignment"] == pytest.approx(0, abs=TOLERANCE)
    assert logs["uniformity"] == pytest.approx(0, abs=TOLERANCE)


def test_gradient_reaches_encoder_head_and_w():
    model = build()
    loss, _ = model.objective(*model(*model.views(waves(3, model.n_whole), [1, 2, 3])))
    loss.mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in (model.bilinear, model.head[0].weight))
    assert model.encoder.layers[0].conv.weight.grad.abs().sum() > 0


def test_the_cosine_has_neither_w_nor_tanh_but_a_temperature():
    model = build(similarity="cosine", temperature=0.5).eval()
    assert model.bilinear is None
    with torch.no_grad():
        x, y, turned = model(*model.views(waves(2, model.n_whole), [1, 2]))
    assert torch.allclose(x.norm(dim=1), torch.ones(2), atol=TOLERANCE)
    assert torch.allclose(turned, 2 * y, atol=TOLERANCE)


# --- the views ---


def test_crops_lie_in_the_stretch_and_are_what_the_picture_shows():
    model = build()
    wave, keys = waves(3, model.n_whole), [5, 6, 7]
    both, starts = model.crops(wave, keys), model.starts(keys)
    for crops, begins in zip(both, starts, strict=True):
        for crop, song, begin in zip(crops, wave, begins, strict=True):
            assert 0 <= begin <= model.n_whole - model.n_clip
            assert torch.equal(crop, song[begin : begin + model.n_clip])
    assert model.views(wave, keys)[0].shape == (3, 1, 128, 351)
    many = torch.tensor(model.starts(range(200)))
    assert len(many.unique()) > 300 and (many[0] != many[1]).sum() > 190


def test_same_key_same_views_whatever_the_batch_and_the_global_generator():
    model = build(augmented="both")
    wave = waves(3, model.n_whole)
    torch.manual_seed(1)
    together = model.views(wave, [5, 6, 7])
    torch.manual_seed(2)
    before = torch.get_rng_state()
    alone = model.views(wave[1:2], [6])
    assert all(torch.equal(a[1:2], b) for a, b in zip(together, alone, strict=True))
    assert torch.equal(before, torch.get_rng_state())
    assert not torch.equal(model.views(wave[1:2], [8])[0], alone[0])


def test_only_the_crops_that_are_asked_for_are_augmented():
    keys = [10, 11, 12, 13, 14, 15]
    plain, second, both = (build(augmented=name) for name in ("none", "second", "both"))
    wave = waves(6, plain.n_whole)
    a, b = plain.crops(wave, keys)
    assert torch.equal(second.crops(wave, keys)[0], a) and not torch.equal(second.crops(wave, keys)[1], b)
    assert not torch.equal(both.crops(wave, keys)[0], a)


def test_unit_rms_takes_the_loudness_away():
    model = build(unit_rms=True).eval()
    wave = waves(2, model.n_whole)
    assert torch.allclose(model.views(wave, [1, 2])[0], model.views(0.01 * wave, [1, 2])[0], atol=1e-2)
    clips = wave[:, : model.n_clip]
    with torch.no_grad():
        assert torch.allclose(model.embed_clips(clips), model.embed_clips(0.01 * clips), atol=1e-2)


# --- what stays ---


def test_parameters_are_encoder_head_and_w():
    model = build()
    n_own = 512 * 512 + 512 + 2 * 512 + 512 * 512
    assert sum(p.numel() for p in model.parameters()) == 370_562 + n_own


def test_embedding_is_the_encoders_output(tmp_path):
    model = build().eval()
    clips = waves(2, model.n_clip)
    with torch.no_grad():
        assert torch.equal(model.embed_clips(clips, 0), model.encoder(model.log_mel(clips).unsqueeze(1)))
    assert model.embed_clips(clips).shape == (2, model.width)


def test_settings_build_it_again_and_a_checkpoint_fills_it(tmp_path):
    model = build(encoder="fcn_7", similarity="cosine").eval()
    model.save(tmp_path / "a.safetensors", {"seed": 3})
    card = checkpoints.read_card(tmp_path / "a.safetensors")
    assert (card["kind"], card["seed"], card["settings"]) == ("pretraining", 3, model.settings)
    settings = dict(card["settings"])
    assert next(iter(settings)) == "slug"
    again = systems.system(settings.pop("slug"))(**settings).eval()
    checkpoints.load_weights(again, tmp_path / "a.safetensors")
    clips = waves(1, model.n_clip)
    with torch.no_grad():
        assert torch.equal(model.embed_clips(clips), again.embed_clips(clips))
    assert again.settings == model.settings


def test_a_stopped_run_ends_in_the_same_bits(tmp_path):
    whole, stopped = build(augmented="second"), build(augmented="second")
    history = train(tmp_path / "whole", whole)
    train(tmp_path / "stopped", stopped, stop_after_steps=1)
    resumed = build(seed=9, augmented="second")
    again = train(tmp_path / "stopped", resumed)
    assert [e["loss"] for e in history] == [e["loss"] for e in again]
    assert {"accuracy", "alignment", "uniformity"} <= set(history[0])
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_tracks_are_embedded_by_clips_of_the_crops_length():
    model = build()
    assert (model.n_levels, model.n_parts, model.n_clip) == (1, 1, 44_800)
    clips = embed.clips_of(torch.zeros(3 * model.n_clip + 1), model.n_clip)
    assert model.eval().embed_clips(clips[:1]).shape == (1, 512) and len(clips) == 4


# --- errors ---


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"encoder": "fcn_5"}, "encoder='fcn_5' is unknown"),
        ({"augmented": "first"}, "augmented='first' is unknown, expected one of none, second, both .reading R28"),
        ({"similarity": "dot"}, "similarity='dot' is unknown"),
        ({"temperature": 0}, "temperature=0 must be positive"),
        ({"whole_seconds": 2.0}, "crops of 2.8 s in stretches of 2.0 s: .* swapped"),
    ],
)
def test_wrong_settings_are_named(settings, said):
    with pytest.raises(ValueError, match=said):
        build(**settings)


def test_wrong_waves_are_named():
    model = build()
    with pytest.raises(ValueError, match=r"shape \(2, 44800\) and 2 keys, expected \(B, 64000\)"):
        model.views(waves(2, model.n_clip), [1, 2])
    with pytest.raises(ValueError, match="1 keys"):
        model.views(waves(2, model.n_whole), [1])
