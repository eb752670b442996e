"""An encoder from anywhere, with a new head: the weights arrive, the front-end is its own, strangers are refused."""

import types

import numpy as np
import pytest
import torch
from torch import nn

from pawlib import checkpoints, model, systems
from pawlib.bench import datasets, scoring, stats, supervised
from pawlib.bench.datasets import Splits, Track
from pawlib.bench.supervised import Stage
from pawlib.systems import transfer

SMALL = {"whole_seconds": 5.6, "n_levels": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("checkpoints")
    torch.manual_seed(0)
    model.MusicPAW("hc", **SMALL).save(out / "hc.safetensors", {"seed": 7})
    for slug in ("short_chunk_cnn", "sample_cnn"):
        checkpoints.save(
            systems.build(slug, n_classes=3), out / f"{slug}.safetensors", "tagger", {"labels": ["a", "b", "c"]}
        )
    return out


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_the_pretrained_encoder_hears_its_shortest_clips(folder):
    tagger, card = transfer.from_checkpoint(folder / "hc.safetensors", 10, seed=0)
    paw = model.MusicPAW.load(folder / "hc.safetensors")
    assert card["seed"] == 7 and tagger.n_samples == paw.n_whole // 2 == 44_800
    assert same(tagger.encoder, paw.encoder)
    wave = 0.1 * torch.randn(2, 44_800)
    paw.eval(), tagger.eval()
    s = paw.embed_clips(wave, level=1)
    assert torch.equal(tagger.encoder(tagger.front_end(wave)), s)
    assert torch.allclose(tagger(wave), tagger.head(s), atol=1e-6)


def test_supervised_mtat_keeps_the_front_end_of_its_tagger(folder):
    tagger, card = transfer.from_checkpoint(folder / "short_chunk_cnn.safetensors", 10, seed=0)
    trained = transfer.load(folder / "short_chunk_cnn.safetensors")
    assert card["kind"] == "tagger" and tagger.n_samples == 59_049
    wave = 0.1 * torch.randn(1, 59_049)
    assert torch.equal(tagger.front_end(wave), trained.front_end(wave))
    assert same(tagger.encoder, trained.encoder)


def test_the_new_head_depends_on_the_seed_and_disturbs_nobody(folder):
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    heads = [transfer.from_checkpoint(folder / "hc.safetensors", 10, seed)[0].head.weight for seed in (0, 0, 1)]
    assert torch.equal(heads[0], heads[1]) and not torch.equal(heads[0], heads[2])
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize("encoder", ["fcn_4", "fcn_7"])
def test_a_start_from_scratch_is_he_initialised(encoder):
    tagger = transfer.from_scratch(encoder, 5, seed=0)
    for layer in tagger.encoder.modules():
        if isinstance(layer, nn.Conv2d) and layer.in_channels > 1:
            fan_in = layer.weight[0].numel()
            assert float(layer.weight.std().detach()) == pytest.approx((2 / fan_in) ** 0.5, rel=0.05)  # He 2015, ReLU
            assert not layer.bias.any()
    assert same(tagger, transfer.from_scratch(encoder, 5, seed=0))
    assert not same(tagger, transfer.from_scratch(encoder, 5, seed=1))


def test_gradients_reach_the_whole_network():
    tagger = transfer.from_scratch("fcn_4", 5, seed=0)
    tagger(0.1 * torch.randn(2, 44_800)).square().sum().backward()
    assert all(parameter.grad is not None for parameter in tagger.parameters())


def test_a_fine_tuned_network_is_read_back(tmp_path):
    tagger = transfer.from_scratch("fcn_4", 3, seed=0)
    checkpoints.save(tagger, tmp_path / "tuned.safetensors", "tagger", {"labels": ["a", "b", "c"]})
    again = transfer.load(tmp_path / "tuned.safetensors", ["a", "b", "c"])
    assert same(again, tagger) and not again.training


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (["b", "a", "c"], "same 3 labels in another order .column 0 is 'a', here 'b'"),
        (["a", "b", "d"], "trained on 3 labels, here are 3; it knows c: is it a checkpoint of another dataset"),
        (["a", "b"], "trained on 3 labels, here are 2"),
    ],
)
def test_other_labels_are_refused(folder, labels, said):
    with pytest.raises(ValueError, match=said):
        transfer.load(folder / "sample_cnn.safetensors", labels)


def test_a_pretraining_is_no_tagger(folder):
    with pytest.raises(ValueError, match=r"hc.safetensors holds a 'music_paw' checkpoint, not a trained tagger"):
        transfer.load(folder / "hc.safetensors")


def test_a_system_without_one_of_the_encoders_is_refused(folder):
    with pytest.raises(ValueError, match="holds 'sample_cnn', which has none of the encoders fcn_4, fcn_7"):
        transfer.from_checkpoint(folder / "sample_cnn.safetensors", 10, seed=0)


def test_a_missing_checkpoint_is_named():
    with pytest.raises(FileNotFoundError, match="nowhere is neither a file nor a released checkpoint"):
        transfer.from_checkpoint("nowhere", 10, seed=0)


def test_a_wave_of_another_length_is_refused():
    with pytest.raises(ValueError, match=r"shape \(1, 16000\), expected \(B, 44800\)"):
        transfer.from_scratch("fcn_4", 5, seed=0)(torch.zeros(1, 16_000))


# --- where fine-tuning begins ---


class Small(nn.Module):
    """A network with the parts that a probe needs: an encoder of three numbers, whose batch norm knows nothing yet."""

    sample_rate, n_samples, n_levels, n_parts = 16_000, 800, 1, 1

    def __init__(self, n_classes=3):
        super().__init__()
        self.settings = {"n_classes": n_classes}
        self.encoder, self.head = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)), nn.Linear(3, n_classes)

    @property
    def n_whole(self):
        return self.n_samples

    def embed_clips(self, clips, level=0):
        heard = torch.stack([clips.std(dim=1), clips.diff(dim=1).std(dim=1), clips.abs().amax(dim=1)], dim=1)
        return self.encoder(heard)

    def forward(self, wave):
        return self.head(self.embed_clips(wave).float())


def songs(n=240, single_label=True):
    """Made-up songs of two clips; their level says the class."""
    random = np.random.default_rng(0)
    waves = {f"s{i}": ((0.05 + 0.2 * (i % 3)) * random.standard_normal(1600)).astype(np.float32) for i in range(n)}
    tracks = [Track(f"s{i}", None, np.eye(3, dtype=np.float32)[i % 3], f"w{i}") for i in range(n)]
    store = types.SimpleNamespace(
        sample_rate=lambda _: 16_000, n_samples=lambda _: 1600,
        read=lambda name, start=0, n_samples=None: waves[name][start:][:n_samples],
    )  # fmt: skip
    splits = Splits(tracks[:192], tracks[192:216], tracks[216:], ("a", "b", "c"), "made-up", single_label=single_label)
    return types.SimpleNamespace(splits=splits, store=store, name="made-up")


@pytest.fixture
def begun(tmp_path, monkeypatch):
    monkeypatch.setenv("PAWLIB_DATA", str(tmp_path))
    torch.manual_seed(0)
    network, data = Small(), songs()
    before = [p.clone() for p in network.encoder.parameters()]
    return network, data, before, supervised.begin_with_probe(network, data, data.splits.train, seed=0)


def test_the_last_layer_answers_as_the_probe_does(begun):
    network, data, before, probe = begun
    network.eval()
    clips = torch.stack([torch.from_numpy(data.store.read("s200", i, 800)) for i in (0, 800)])
    with torch.no_grad():
        s = network.embed_clips(clips)
        answers = torch.softmax(network.head(s), dim=1)
    assert torch.allclose(answers, torch.as_tensor(probe.predict(s)), atol=1e-5)
    scored = scoring.score(network, data.store, data.splits.valid, True, precision="32-true")
    assert stats.once("roc_auc", scored.scores.astype(float), datasets.targets(data.splits.valid)) == 1  # easy to hear


def test_only_the_statistics_of_the_encoder_change(begun):
    network, _, before, _ = begun
    assert all(torch.equal(a, b) for a, b in zip(before, network.encoder.parameters(), strict=True))
    assert network.encoder[1].num_batches_tracked == 50


RECIPE = {"stages": (Stage("adam", 1e-3, 2, 2),), "batch_size": 4, "weight_decay": 0.0, "select": "roc_auc",
          "precision": "32-true", "probe_first": True, "report": lambda _: None}  # fmt: skip


def test_a_run_that_begins_with_a_probe_resumes_to_the_same_bits(tmp_path, monkeypatch):
    monkeypatch.setenv("PAWLIB_DATA", str(tmp_path))
    runs = []
    for name, stops in {"through": (), "stopped": (1, 3, 4)}.items():
        torch.manual_seed(0)
        network, data = Small(), songs()
        for stop in stops:
            supervised.train(network, data, tmp_path / name, stop_after_steps=stop, **RECIPE)
            torch.manual_seed(0)
            network = Small()
        runs.append((supervised.train(network, data, tmp_path / name, **RECIPE), network))
    assert same(runs[0][1], runs[1][1])
    assert [e["epoch"] for e in runs[1][0]] == [0, 1, 2] and runs[1][0][0]["optimizer"] == "linear probe"


def test_fine_tuning_that_only_harms_leaves_the_probe(tmp_path, monkeypatch):
    monkeypatch.setenv("PAWLIB_DATA", str(tmp_path))
    torch.manual_seed(0)
    network, data = Small(), songs()
    ruinous = {**RECIPE, "stages": (Stage("adam", 3.0, 2, 2),)}
    history = supervised.train(network, data, tmp_path / "run", **ruinous)
    card = checkpoints.read_card(tmp_path / "run" / "checkpoint.safetensors")
    assert card["metrics"]["best_epoch"] == 0 and card["metrics"]["valid_roc_auc"] == history[0]["valid_roc_auc"]
    assert max(e["valid_roc_auc"] for e in history[1:]) < history[0]["valid_roc_auc"]


# --- starts from other pretrainings ---


@pytest.mark.parametrize("slug", ["clmr", "cola", "multi_format", "byol_a"])
def test_another_pretraining_hears_its_own_clips(slug, tmp_path):
    torch.manual_seed(0)
    made = systems.system(slug)()
    made.save(tmp_path / "made.safetensors", {"seed": 7})
    tagger, card = transfer.from_checkpoint(tmp_path / "made.safetensors", 10, seed=0)
    trained = systems.load_pretrained(tmp_path / "made.safetensors")
    assert card["seed"] == 7 and tagger.n_samples == trained.n_clip and tagger.sample_rate == trained.sample_rate
    wave = 0.1 * torch.randn(2, trained.n_clip)
    tagger.eval()
    assert torch.equal(tagger.embed_clips(wave), trained.embed_clips(wave)) and tagger(wave).shape == (2, 10)
    checkpoints.save(tagger, tmp_path / "tuned.safetensors", "tagger", {"labels": [str(i) for i in range(10)]})
    again = transfer.load(tmp_path / "tuned.safetensors")
    assert torch.equal(again(wave), tagger(wave))


def test_an_encoder_of_another_kind_is_refused(tmp_path):
    systems.system("byol_a")("audio_ntt").save(tmp_path / "ntt.safetensors")
    with pytest.raises(ValueError, match="'byol_a', which has none of the encoders"):
        transfer.from_checkpoint(tmp_path / "ntt.safetensors", 10, seed=0)


def test_a_tagger_is_no_pretrained_encoder(folder):
    with pytest.raises(ValueError, match="holds a 'tagger' checkpoint, not a pretrained encoder"):
        systems.load_pretrained(folder / "sample_cnn.safetensors")


def test_an_untrained_network_is_drawn_from_its_seed_alone():
    for encoder in ("fcn_4", "sample_cnn", "audio_ntt"):
        one, again, other = (systems.untrained(encoder, seed).encoder.state_dict() for seed in (0, 0, 1))
        assert all(torch.equal(one[name], again[name]) for name in one)
        assert any(not torch.equal(one[name], other[name]) for name in one)
    with pytest.raises(ValueError, match="encoder='vgg' is unknown"):
        systems.untrained("vgg")


def test_readings_change_what_it_hears_and_not_its_weights():
    default, long = systems.untrained("fcn_4"), systems.untrained("fcn_4", n_levels=2)
    assert long.settings["n_levels"] == 2 and default.settings["n_levels"] == 4
    weights = zip(default.encoder.state_dict().values(), long.encoder.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in weights)
    with pytest.raises(ValueError, match="sample_cnn hears clips of one length.*leave readings out"):
        systems.untrained("sample_cnn", n_levels=2)
