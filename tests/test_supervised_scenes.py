"""What scene systems ask of the training loop and of scoring: mixed pairs, a falling rate, two channels, recipes."""

import types

import numpy as np
import pytest
import torch
from torch import nn

from pawlib import systems
from pawlib.bench import loop, protocols, scenes, scoring, supervised
from pawlib.bench.datasets import Splits, Track
from pawlib.bench.supervised import Stage

RECIPE = {
    "stages": (Stage("adam", 1e-2, 4, 4),), "batch_size": 4, "weight_decay": 0.0, "select": "accuracy",
    "precision": "32-true", "valid_chunks": 1, "steps_per_epoch": 3,
}  # fmt: skip


class Ears(nn.Module):
    """A network that hears the level of each of its channels."""

    sample_rate, n_samples = 16_000, 800

    def __init__(self, n_channels):
        super().__init__()
        self.n_channels, self.settings = n_channels, {"n_classes": 2}
        self.head = nn.Linear(n_channels, 2)

    def forward(self, wave):
        wave = wave.unsqueeze(1) if self.n_channels == 1 else wave
        assert wave.shape[1:] == (self.n_channels, 800)
        return self.head(wave.std(dim=2))


class Rooms:
    """Made-up stereo files: the louder ear is the class, so the mean of the channels knows nothing."""

    def __init__(self, n, n_samples=2500):
        rng = np.random.default_rng(0)
        self.waves, self.tracks = {}, []
        for i in range(n):
            wave = rng.standard_normal((2, n_samples)) * np.array([[0.5, 0.05], [0.05, 0.5]][i % 2])[:, None]
            self.waves[f"r{i}"] = wave.astype(np.float32)
            self.tracks.append(Track(f"r{i}", None, np.eye(2, dtype=np.float32)[i % 2], f"w{i}"))

    def sample_rate(self, _):
        return 16_000

    def n_samples(self, track_id):
        return self.waves[track_id].shape[1]

    def read(self, track_id, start=0, n_samples=None, mono=True):
        wave = self.waves[track_id][:, start:][:, :n_samples]
        return wave.mean(axis=0) if mono else wave


def corpus(single_label=True):
    rooms = Rooms(24)
    parts = rooms.tracks[:12], rooms.tracks[12:18], rooms.tracks[18:]
    splits = Splits(*parts, ("left", "right"), "made-up", single_label=single_label)
    return types.SimpleNamespace(splits=splits, store=rooms)


def train(out, n_channels=2, **changes):
    torch.manual_seed(0)
    model, told = Ears(n_channels), []
    history = supervised.train(model, corpus(), out, **{**RECIPE, "report": told.append, **changes})
    return model, history


# --- two channels ---


def test_only_a_network_of_two_channels_can_tell_left_from_right(tmp_path):
    data = corpus()
    truth = np.array([t.target.argmax() for t in data.splits.test])
    model, _ = train(tmp_path / "two", stages=(Stage("adam", 5e-2, 8, 8),))
    assert (scoring.score(model, data.store, data.splits.test, True).scores.argmax(axis=1) == truth).all()


def test_crops_and_chunks_of_two_channels_are_those_of_one():
    store = Rooms(1)
    both = loop.crop(store, "r0", 16_000, 800, 123, mono=False)
    assert both.shape == (2, 800)
    assert np.allclose(both.mean(axis=0), loop.crop(store, "r0", 16_000, 800, 123), atol=1e-6)
    longer = loop.crop(store, "r0", 16_000, 6000, 5, mono=False)
    assert longer.shape == (2, 6000) and np.array_equal(longer[:, :2500], longer[:, 2500:5000])
    track = store.tracks[0]
    assert scoring.read_track(store, track, 8000, mono=False).shape == (2, 1250)


def test_a_file_shorter_than_the_input_is_repeated_in_both_channels():
    data = corpus()
    model = Ears(2)
    model.n_samples = 800
    data.store.waves["r18"] = data.store.waves["r18"][:, :300]
    scored = scoring.score(model, data.store, data.splits.test, True)
    assert scored.n_repeated == 1 and np.isfinite(scored.scores).all()


# --- mixed pairs ---


def test_the_loss_of_mixed_pairs_is_that_of_the_equation(tmp_path):
    run = object.__new__(supervised._Run)
    run.corpus, run.identity = corpus(), {"mixup": 0.3}
    run.fabric, run.model = types.SimpleNamespace(device=torch.device("cpu")), Ears(2)
    wave, target = torch.randn(4, 2, 800), torch.eye(2)[[0, 1, 1, 0]]
    torch.manual_seed(7)
    loss = run._loss((["a", "b", "c", "d"], wave, target))
    torch.manual_seed(7)
    share, other = torch.distributions.Beta(0.3, 0.3).sample(), torch.randperm(4)
    expected = 0.0
    for i, j in enumerate(other.tolist()):
        logits = run.model((share * wave[i] + (1 - share) * wave[j]).unsqueeze(0)).log_softmax(dim=1)[0]
        expected -= (share * logits[target[i].argmax()] + (1 - share) * logits[target[j].argmax()]) / 4
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_without_mixing_the_loss_is_plain_cross_entropy():
    run = object.__new__(supervised._Run)
    run.corpus, run.identity = corpus(), {}
    run.fabric, run.model = types.SimpleNamespace(device=torch.device("cpu")), Ears(2)
    wave, target = torch.randn(4, 2, 800), torch.eye(2)[[0, 1, 1, 0]]
    assert run._loss(([], wave, target)).item() == pytest.approx(
        protocols.loss_of(run.model(wave), target, True).item(), rel=1e-6
    )


def test_tags_are_not_mixed(tmp_path):
    with pytest.raises(ValueError, match=r"mixup=0.3: expected 0 or above, and above 0 for classes only"):
        supervised.train(Ears(2), corpus(single_label=False), tmp_path, **{**RECIPE, "select": "roc_auc"}, mixup=0.3)
    with pytest.raises(ValueError, match="mixup=-1"):
        supervised.train(Ears(2), corpus(), tmp_path, **RECIPE, mixup=-1)


# --- windows with a loss each ---


def test_the_loss_of_windows_is_the_mean_over_each_of_them():
    run = object.__new__(supervised._Run)
    run.corpus, run.identity = corpus(), {"each_window": True}
    run.fabric = types.SimpleNamespace(device=torch.device("cpu"))
    run.model = systems.build("dnn", n_classes=2, n_samples=21 * 1024).eval()
    wave, target = 0.1 * torch.randn(3, 21 * 1024), torch.eye(2)[[0, 1, 1]]
    loss = run._loss((["a", "b", "c"], wave, target))
    expected = 0.0
    for i in range(3):
        for k in range(3):
            start = 5 * 1024 * k
            said = run.model.windows(wave[i : i + 1, start : start + 11 * 1024])[0, 0].log_softmax(dim=0)
            expected -= said[target[i].argmax()] / 9
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)


def test_mixed_pairs_and_windows_of_their_own_exclude_each_other(tmp_path):
    with pytest.raises(ValueError, match="mixup mixes whole waves, each_window has a loss for every window"):
        train(tmp_path, mixup=0.3, each_window=True)


class Filtered(Rooms):
    """Steady noise or noise that flutters, each recording through a filter of its own, in pieces of three seconds."""

    def __init__(self, n_recordings, n_pieces, seed):
        rng = np.random.default_rng(seed)
        t = np.arange(3 * 44_100) / 44_100
        f = np.log(np.maximum(np.fft.rfftfreq(len(t), 1 / 44_100), 20))
        self.waves, self.tracks = {}, []
        for i in range(n_recordings):
            gain = 10 ** (np.interp(f, np.linspace(3, 10, 12), rng.normal(0, 10, 12)) / 20)
            for piece in range(n_pieces):
                flutter = 1 + (i % 2) * 0.7 * np.sin(2 * np.pi * 9 * t + rng.uniform(0, 6))
                wave = np.fft.irfft(np.fft.rfft(rng.standard_normal(len(t))) * gain, len(t)) * flutter
                name = f"f{seed}_{i}_{piece}"
                self.waves[name] = (0.05 * wave[None] / wave.std()).astype(np.float32)
                self.tracks.append(Track(name, None, np.eye(2, dtype=np.float32)[i % 2], f"w{seed}_{i}"))

    def sample_rate(self, _):
        return 44_100


def test_the_dnn_knows_recordings_and_centred_it_knows_what_they_have_in_common(tmp_path):
    known, others = Filtered(8, 2, 0), Filtered(16, 1, 1)
    known.waves |= others.waves
    learnt, again = ([t for t in known.tracks if t.id.endswith(piece)] for piece in ("_0", "_1"))
    splits = Splits(learnt, again, others.tracks, ("steady", "fluttering"), "made-up", single_label=True)
    data = types.SimpleNamespace(splits=splits, store=known)
    truth = {part: np.array([t.target.argmax() for t in getattr(splits, part)]) for part in ("valid", "test")}
    right = {}
    for centre in ("training", "wave"):
        torch.manual_seed(0)
        model = systems.build("dnn", n_classes=2, centre=centre, n_samples=121 * 1024)
        recipe = {**RECIPE, "stages": (Stage("adam", 1e-3, 2, 2),), "batch_size": 8, "steps_per_epoch": 15}
        supervised.train(model, data, tmp_path / centre, **{**recipe, "each_window": True}, report=lambda _: None)
        right[centre] = {
            part: np.mean(scenes.votes(model, known, getattr(splits, part)).argmax(axis=1) == truth[part])
            for part in truth
        }
    assert right["training"]["valid"] == right["wave"]["valid"] == 1, "other pieces of the same recordings"
    assert right["wave"]["test"] >= 0.9 > right["training"]["test"], "other recordings"


# --- a falling rate ---


def test_the_rate_falls_in_a_straight_line_and_begins_anew_with_a_stage(tmp_path, monkeypatch):
    rates = []
    told = supervised._Run._set_rate
    monkeypatch.setattr(supervised._Run, "_set_rate", lambda self, rate: (rates.append(rate), told(self, rate))[1])
    stages = (Stage("adam", 1e-2, 2, 2), Stage("adam", 1e-3, 1, 1))
    train(tmp_path, stages=stages, falling_rate=True)
    assert rates == pytest.approx([1e-2 * (1 - k / 6) for k in range(6)] + [1e-3 * (1 - k / 3) for k in range(3)])


def test_a_stopped_run_with_mixing_and_a_falling_rate_ends_in_the_same_weights(tmp_path):
    settings = {"mixup": 0.3, "falling_rate": True}
    whole, history = train(tmp_path / "whole", **settings)
    train(tmp_path / "parts", **settings, stop_after_steps=5)
    parts, again = train(tmp_path / "parts", **settings)
    assert [e["loss"] for e in history] == [e["loss"] for e in again]
    assert torch.equal(whole.head.weight, parts.head.weight)
    with pytest.raises(ValueError, match="mixup"):
        train(tmp_path / "whole", falling_rate=True)


# --- recipes ---


@pytest.mark.parametrize("slug", systems.names("scenes"))
@pytest.mark.parametrize("scale", ["toy", "small", "paper"])
def test_every_scene_system_has_a_recipe_that_train_understands(slug, scale):
    maker = systems.system(slug)
    windows = hasattr(maker, "windows")
    found = supervised.recipe("scene_windows" if windows else "scene_files", scale)
    assert found["select"] == "accuracy" and found["batch_size"] == {
        "toy": 16 if windows else 4, "small": 50 if windows else 10, "paper": 100 if windows else 10,
    }[scale]  # fmt: skip
    assert ("each_window" in found) == windows and ("mixup" in found) == (not windows)
    for stage in found["stages"]:
        assert stage.patience <= stage.n_epochs


@pytest.mark.parametrize("slug", [name for name in systems.names("scenes") if name != "dnn"])
def test_at_small_a_network_is_narrower_with_the_same_receptive_field(slug):
    maker = systems.system(slug)
    small, toy, paper = (maker.at_scale(scale) for scale in ("small", "toy", "paper"))
    assert paper == {"n_samples": 661_500} and small["n_samples"] == 220_500 and toy["n_samples"] == 110_250
    assert maker.at_scale("small", 50_000)["n_samples"] == 50_000
    made = systems.build(slug, n_classes=15, **small)
    whole = systems.build(slug, n_classes=15)
    assert sum(p.numel() for p in made.parameters()) < sum(p.numel() for p in whole.parameters()) / 3
    assert getattr(made, "rho", None) == getattr(whole, "rho", None)
    sides = [[m.kernel_size for m in net.modules() if isinstance(m, nn.Conv2d)] for net in (made, whole)]
    assert sides[0] == sides[1]


def test_equal_work_counts_both_channels():
    settings = {"width": 4, "n_samples": 22_050}
    mono, stereo = (systems.build("rn1", n_classes=15, n_channels=n, **settings) for n in (1, 2))
    steps = [supervised.equal_work(net, RECIPE["stages"], 10, work=1e10, bounds=(1, 10**6)) for net in (mono, stereo)]
    assert steps[0] > steps[1] > 0
