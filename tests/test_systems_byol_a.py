"""BYOL-A: pre-norm, mixup and resize crop by slow loops; a target without a gradient; state that resumes."""

import math

import numpy as np
import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import nn

from pawlib import checkpoints, systems
from pawlib.bench import engine
from pawlib.systems import layers
from pawlib.systems.pretraining import byol_a

TOLERANCE = 1e-5
SMALL = {"encoder": "audio_ntt", "n_memory": 12}


def build(seed=0, **settings):
    torch.manual_seed(seed)
    return byol_a.BYOLA(**{**SMALL, **settings})


def waves(n_songs, n_samples, seed=1):
    return 0.1 * torch.randn(n_songs, n_samples, generator=torch.Generator().manual_seed(seed))


class Songs:
    """A store of made-up songs."""

    def __init__(self, n_songs=8, n_samples=30_000):
        noise = np.random.default_rng(0).standard_normal((n_songs, n_samples)).astype(np.float32)
        self.waves = {f"song{i}": 0.1 * wave for i, wave in enumerate(noise)}

    def sample_rate(self, _):
        return 16_000

    def n_samples(self, track_id):
        return len(self.waves[track_id])

    def read(self, track_id, start=0, n_samples=None):
        return self.waves[track_id][start:][:n_samples]


def train(out, model, store=None, **changes):
    store = store or Songs()
    settings = {"n_epochs": 2, "batch_size": 4, "compile": False, "report": lambda line: None, **changes}
    return engine.pretrain(model, store, list(store.waves), out, **settings)


# --- AudioNTT2020 ---


def published_order():
    """The published network's tensors, in its order, by torch's own layers."""
    convs = [part for n_in in (1, 64, 64) for part in (nn.Conv2d(n_in, 64, 3, padding=1), nn.BatchNorm2d(64))]
    return nn.ModuleList([*convs, nn.Linear(512, 512), nn.Linear(512, 512)])


def test_audio_ntt_has_600_192_parameters_and_takes_published_weights_in_order():
    torch.manual_seed(0)
    net, theirs = byol_a.AudioNTT().eval(), published_order().eval()
    for norm in theirs[1:6:2]:
        norm.running_mean.uniform_(-1, 1)
        norm.running_var.uniform_(0.5, 2)
    layers.copy_in_order(net, theirs.state_dict())
    assert sum(p.numel() for p in net.parameters()) == 600_192
    mel = torch.randn(2, 1, 64, 96)
    with torch.no_grad():
        x = mel
        for conv, norm in zip(theirs[0:6:2], theirs[1:6:2], strict=True):
            x = F.max_pool2d(F.relu(norm(conv(x))), 2)
        assert x.shape == (2, 64, 8, 12)
        moments = []
        for t in range(12):
            row = torch.stack([x[:, channel, band, t] for band in range(8) for channel in range(64)], dim=1)
            moments.append(F.relu(theirs[7](F.relu(theirs[6](row)))))
        moments = torch.stack(moments)
        assert torch.allclose(net(mel), moments.max(0).values + moments.mean(0), atol=1e-4)


def test_audio_ntt_names_a_picture_that_is_not_its_own():
    with pytest.raises(ValueError, match=r"audio_ntt got shape \(2, 1, 128, 351\)"):
        byol_a.AudioNTT()(torch.zeros(2, 1, 128, 351))


def test_projector_and_predictor_have_the_published_sizes():
    model = build()
    for net, n_in in ((model.projector, 512), (model.predictor, 256)):
        sizes = [(name, tuple(p.shape)) for name, p in net.named_parameters() if p.ndim == 2]
        assert sizes == [("hidden.weight", (4096, n_in)), ("out.weight", (256, 4096))]
        assert sum(p.numel() for p in net.parameters()) == n_in * 4096 + 4096 + 2 * 4096 + 4096 * 256 + 256


def test_projector_normalises_as_batch_norm_of_vectors_does():
    net = byol_a.Perceptron(6, 5, 3)
    norm = nn.BatchNorm1d(5)
    x = torch.randn(4, 6)
    assert torch.allclose(net(x), net.out(F.relu(norm(net.hidden(x)))), atol=TOLERANCE)
    assert torch.allclose(net.norm.running_var, norm.running_var, atol=TOLERANCE)


# --- pre-norm ---


def test_running_norm_is_mean_and_deviation_of_all_that_was_seen():
    norm = byol_a.RunningNorm()
    seen = [torch.randn(n, 3, 5) * scale - 40 for n, scale in ((4, 1.0), (1, 20.0), (6, 5.0))]
    for mel in seen:
        norm.see(mel)
    everything = torch.cat(seen).double()
    assert norm.mean.item() == pytest.approx(everything.mean().item())
    assert norm.deviation().item() == pytest.approx(everything.std(correction=0).item())
    assert int(norm.n_seen) == 11
    assert torch.allclose(norm.back(norm(seen[0])), seen[0], atol=1e-4)


def test_running_norm_leaves_alone_what_it_knows_nothing_of_and_stops_when_told():
    norm = byol_a.RunningNorm(n_segments=3)
    mel = torch.randn(5, 3, 5) + 7
    assert torch.equal(norm(mel), mel)
    norm.see(mel[:2])
    norm.see(mel[2:])
    norm.see(mel + 100)
    assert int(norm.n_seen) == 3 and norm.mean.item() == pytest.approx(mel[:3].mean().item(), abs=TOLERANCE)


def test_silence_does_not_divide_by_zero():
    model = build()
    loss, _ = model.objective(*model(*model.views(torch.zeros(3, model.n_clip), [1, 2, 3])))
    assert torch.isfinite(loss).all()


# --- mixup ---


def test_mixup_is_in_the_linear_domain():
    x, z = torch.full((1, 2, 2), math.log(8.0)), torch.full((1, 2, 2), math.log(3.0))
    mixed = byol_a.log_mix_exp(x, z, torch.tensor([0.2]))
    assert torch.allclose(mixed.exp(), torch.tensor(0.8 * 8 + 0.2 * 3), atol=TOLERANCE)  # 7.0, by hand
    assert torch.allclose(byol_a.log_mix_exp(x, z, torch.tensor([0.0])), x, atol=TOLERANCE)
    assert torch.isfinite(byol_a.log_mix_exp(500 * x, -500 * z, torch.tensor([0.4]))).all()


@pytest.mark.parametrize("domain", ["normalised", "energy"])
def test_background_is_mixed_as_its_domain_says(domain):
    model = build(mix_domain=domain)
    first, second = torch.randn(2, 3, 64, 96) * 10 - 30
    model.pre_norm.see(first)
    songs = [{"share": 0.3, "place": 0.5}, {"share": 0.1, "place": 0.0}, {"share": 0.0, "place": 0.99}]
    assert torch.equal(model.mixed(first, songs), model.pre_norm(first))  # nothing to mix with yet
    model.memory.put(first)
    mixed = model.mixed(second, songs)
    mean, std = model.pre_norm.mean.item(), model.pre_norm.deviation().item()
    for song, place in enumerate((1, 0, 2)):
        x, z, r = second[song, 5, 7].item(), first[place, 5, 7].item(), songs[song]["share"]
        if domain == "normalised":
            expected = math.log((1 - r) * math.exp((x - mean) / std) + r * math.exp((z - mean) / std))
        else:
            expected = (10 * math.log10((1 - r) * 10 ** (x / 10) + r * 10 ** (z / 10)) - mean) / std
        assert mixed[song, 5, 7].item() == pytest.approx(expected, abs=5e-3)  # the memory is in float16


def test_memory_keeps_the_last_ones_and_each_is_found():
    memory = byol_a.Memory(4, 1, 2)
    for first in (0, 3, 6):
        memory.put(torch.arange(first, first + 3.0).view(3, 1, 1).expand(-1, -1, 2))
    assert memory.n_held == 4
    assert sorted(memory.take([0.0, 0.25, 0.5, 0.999])[:, 0, 0].tolist()) == [5, 6, 7, 8]
    memory.put(torch.arange(10.0, 20).view(10, 1, 1).expand(-1, -1, 2))
    assert sorted(memory.take([0.0, 0.25, 0.5, 0.75])[:, 0, 0].tolist()) == [16, 17, 18, 19]


# --- resize crop ---


def test_the_whole_picture_cropped_is_the_picture():
    mel = torch.randn(2, 64, 96)
    piece = {"top": 0, "left": 24, "height": 64, "width": 96}
    assert torch.allclose(byol_a.resize_crop(mel, [piece, piece]), mel, atol=1e-6)


def test_resize_crop_is_cutting_and_interpolating_one_by_one():
    mel = torch.randn(4, 16, 21)
    pieces = [
        {"top": 0, "left": 0, "height": 16, "width": 31},
        {"top": 3, "left": 2, "height": 10, "width": 14},
        {"top": 5, "left": 20, "height": 1, "width": 3},
        {"top": 6, "left": 4, "height": 10, "width": 25},
    ]
    made = byol_a.resize_crop(mel, pieces)
    assert made.shape == mel.shape
    for song, piece in enumerate(pieces):
        canvas = torch.zeros(1, 1, 16, 31)
        canvas[0, 0, :, 5:26] = mel[song]
        cut = canvas[..., piece["top"] :, piece["left"] :][..., : piece["height"], : piece["width"]]
        expected = F.interpolate(cut, (16, 21), mode="bicubic", align_corners=True)
        assert torch.allclose(made[song], expected[0, 0], atol=1e-4)


def test_pieces_lie_on_the_canvas_and_have_the_published_sizes():
    model = build()
    songs = model.draw(range(400), 0)
    n_rows, n_columns = 64, 144
    for song in songs:
        assert 0 <= song["top"] <= n_rows - song["height"] and 0 <= song["left"] <= n_columns - song["width"]
        assert 0 <= song["share"] < 0.4
    heights, widths = ([song[side] for song in songs] for side in ("height", "width"))
    assert (min(heights), max(heights)) == (38, 64) and min(widths) == 57 and 140 <= max(widths) <= 144
    assert songs != model.draw(range(400), 1)


# --- views ---


def test_same_key_same_view_whatever_the_batch_where_the_state_is_the_same():
    model = build()
    model.views(waves(4, model.n_clip), [1, 2, 3, 4])  # fills the memory
    model.eval()
    wave = waves(3, model.n_clip, seed=2)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    together = model.views(wave, [5, 6, 7])
    assert torch.equal(before, torch.get_rng_state())
    alone = model.views(wave[1:2], [6])
    assert all(torch.allclose(a[1:2], b, atol=TOLERANCE) for a, b in zip(together, alone, strict=True))
    assert not torch.allclose(*alone, atol=0.1)
    assert not torch.allclose(model.views(wave[1:2], [8])[0], alone[0], atol=0.1)


def test_only_training_moves_the_state():
    model = build().eval()
    model.views(waves(2, model.n_clip), [1, 2])
    assert model.memory.n_held == 0 and int(model.pre_norm.n_seen) == 0
    model.train().views(waves(2, model.n_clip), [1, 2])
    assert model.memory.n_held == 2 and int(model.pre_norm.n_seen) == 2


def test_what_the_encoder_sees_is_normalised_over_the_batch_and_for_the_papers_encoders_in_db():
    for encoder, in_db in (("audio_ntt", False), ("fcn_4", True)):
        model = build(encoder=encoder)
        views = torch.cat(model.views(waves(3, model.n_clip), [1, 2, 3]))
        seen = model._post_norm(views)
        mean, std = (model.pre_norm.mean, model.pre_norm.deviation()) if in_db else (0.0, 1.0)
        assert seen.mean().item() == pytest.approx(float(mean), abs=1e-3)
        assert seen.std().item() == pytest.approx(float(std), rel=1e-4)


# --- the loss ---


def test_loss_is_the_papers_formula_and_symmetric():
    model = build()
    p_a, p_b, t_a, t_b = torch.randn(4, 5, 256)
    s_a, s_b = torch.randn(2, 5, 512)
    loss, logs = model.objective(p_a, p_b, t_a, t_b, s_a, s_b)
    for b in range(5):
        expected = 0.0
        for p, t in ((p_a[b], t_b[b]), (p_b[b], t_a[b])):
            p, t = (v.double() / v.double().norm() for v in (p, t))
            expected += sum((one - other) ** 2 for one, other in zip(p.tolist(), t.tolist(), strict=True))
        assert loss[b].item() == pytest.approx(expected, abs=1e-4)
    swapped, _ = model.objective(p_b, p_a, t_b, t_a, s_b, s_a)
    assert torch.allclose(loss, swapped)
    assert logs["deviation"] == pytest.approx(0.9, abs=0.1)


def test_the_loss_does_not_see_a_collapse_but_the_deviation_does():
    alike = torch.ones(4, 256), torch.ones(4, 512)
    loss, logs = build().objective(*[alike[0]] * 4, *[alike[1]] * 2)
    assert torch.allclose(loss, torch.zeros(4), atol=TOLERANCE)
    assert logs["deviation"] == logs["deviation_projected"] == pytest.approx(0, abs=TOLERANCE)


@pytest.mark.parametrize("batch_norm", ["per_view", "joint"])
def test_the_target_never_gets_a_gradient_and_all_of_the_online_networks_do(batch_norm):
    model = build(batch_norm=batch_norm)
    representations = model(*model.views(waves(4, model.n_clip), [1, 2, 3, 4]))
    assert [r.requires_grad for r in representations] == [True, True, False, False, False, False]
    loss, _ = model.objective(*representations)
    loss.mean().backward()
    assert all(p.grad is None and not p.requires_grad for p in model.target.parameters())
    for part in (model.encoder, model.projector, model.predictor):
        assert all(p.grad is not None for p in part.parameters())


def test_each_view_has_a_batch_of_its_own_unless_joint():
    statistics = {}
    for batch_norm in ("per_view", "joint"):
        model = build(batch_norm=batch_norm)
        model(*model.views(waves(4, model.n_clip), [1, 2, 3, 4]))
        statistics[batch_norm] = int(model.projector.norm.num_batches_tracked)
    assert statistics == {"per_view": 2, "joint": 1}


def test_the_target_begins_as_the_online_network_and_follows_by_its_formula():
    model = build(decay=0.9)
    online = [model.encoder.dense[0].weight, model.projector.out.bias]
    target = [model.target[0].dense[0].weight, model.target[1].out.bias]
    expected = [w.detach().clone() for w in online]
    assert all(torch.equal(a, b) for a, b in zip(expected, target, strict=True))
    for step in range(3):
        with torch.no_grad():
            for w in online:
                w.add_(0.1 * (step + 1))
        model.after_step()
        expected = [0.9 * old + 0.1 * w.detach() for old, w in zip(expected, online, strict=True)]
        for a, b in zip(expected, target, strict=True):
            assert torch.allclose(a, b, atol=1e-6)
    assert not any(torch.allclose(a, w, atol=1e-2) for a, w in zip(target, online, strict=True))


# --- runs and checkpoints ---


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    out, model = tmp_path_factory.mktemp("run"), build()
    begun = model.target[1].out.weight.clone()
    return out, model, train(out, model), begun


@pytest.mark.parametrize("n_steps", [1, 3])
def test_a_stopped_run_ends_in_the_same_bits_memory_and_statistics_included(undisturbed, tmp_path, n_steps):
    _, whole, history, _ = undisturbed
    train(tmp_path, build(), stop_after_steps=n_steps)
    kept = safetensors.torch.load_file(tmp_path / "last.safetensors")
    assert kept["model.memory.mels"].dtype == torch.float16 and int(kept["model.memory.n_seen"]) == 4 * n_steps
    resumed = build(seed=7)
    again = train(tmp_path, resumed)
    assert [e["loss"] for e in history] == [e["loss"] for e in again]
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    assert torch.equal(whole.memory.mels, resumed.memory.mels) and whole.memory.n_held == 6
    assert int(resumed.pre_norm.n_seen) == 16


def test_the_engine_lets_the_target_follow(undisturbed):
    _, model, history, begun = undisturbed
    moved = (model.target[1].out.weight - begun).abs().max()
    ahead = (model.projector.out.weight - begun).abs().max()
    assert 0 < moved < 0.2 * ahead
    assert {"alignment", "uniformity", "deviation", "deviation_projected"} <= set(history[0])


def test_a_checkpoint_holds_no_memory_and_is_the_model(undisturbed, tmp_path):
    out, model, _, _ = undisturbed
    saved = safetensors.torch.load_file(out / "checkpoint.safetensors")
    assert not [name for name in saved if "memory" in name] and "pre_norm.mean" in saved
    card = checkpoints.read_card(out / "checkpoint.safetensors")
    assert card["kind"] == "pretraining" and card["settings"] == model.settings
    settings = dict(card["settings"])
    assert next(iter(settings)) == "slug"
    again = systems.system(settings.pop("slug"))(**settings).eval()
    checkpoints.load_weights(again, out / "checkpoint.safetensors")
    clips = waves(3, model.n_clip)
    model.eval()
    with torch.no_grad():
        assert torch.equal(model.embed_clips(clips), again.embed_clips(clips))
        by_hand = again.encoder(again.pre_norm(again.log_mel(clips).unsqueeze(1)))
        assert torch.equal(again.embed_clips(clips, 0), by_hand)
    model.train()


def test_an_encoder_of_the_paper_stays_with_log_mels_in_db():
    model = build(encoder="fcn_4")
    wave = waves(4, model.n_clip)
    for step in range(2):
        loss, _ = model.objective(*model(*model.views(wave, [step, 2, 3, 4])))
    assert loss.shape == (4,) and torch.isfinite(loss).all()
    norm = model.encoder.norm
    assert norm.running_mean.item() == pytest.approx(model.pre_norm.mean.item() * (1 - 0.9**4), rel=0.05)
    model.eval()
    with torch.no_grad():
        assert torch.equal(model.embed_clips(wave), model.encoder(model.log_mel(wave).unsqueeze(1)))
    assert model.n_whole == model.n_clip == 44_800 and (model.n_levels, model.n_parts, model.width) == (1, 1, 512)


# --- errors ---


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"encoder": "fcn_5"}, "encoder='fcn_5' is unknown, expected one of fcn_4, fcn_7, audio_ntt"),
        ({"mix_domain": "log"}, "mix_domain='log' is unknown"),
        ({"batch_norm": "none"}, "batch_norm='none' is unknown"),
        ({"n_memory": 1}, "n_memory=1 places hold no segment"),
        ({"alpha": 1.0}, "alpha=1.0, decay=0.99 are wrong"),
        ({"canvas": (1.0, 0.9)}, "canvas=.* expected a canvas of at least 1"),
    ],
)
def test_wrong_settings_are_named(settings, said):
    with pytest.raises(ValueError, match=said):
        build(**settings)


def test_wrong_waves_are_named():
    model = build()
    with pytest.raises(ValueError, match=r"shape \(2, 44800\) and 2 keys, expected \(B, 15200\)"):
        model.views(waves(2, 44_800), [1, 2])
