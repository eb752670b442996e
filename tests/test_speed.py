"""pawlib/bench/speed.py: both steps are the same step, turns are taken in turn, and nothing here asserts a time."""

import copy

import numpy as np
import pytest
import soundfile
import torch

from pawlib import encoders, model
from pawlib.bench import engine, speed

TOLERANCE = 1e-8


@pytest.fixture(scope="module")
def tiny():
    """Two levels, so that a whole of 5.6 s has 351 frames; float64, batch norm and dropout at rest."""
    torch.manual_seed(0)
    made = model.MusicPAW("music_paw", n_levels=2, whole_seconds=5.6, feed_forward=32, n_layers=1)
    return made.double().eval()


def waves(tiny, n_songs=2):
    return torch.randn(n_songs, tiny.n_whole, dtype=torch.float64) / 4, torch.randn(n_songs, tiny.n_whole).double() / 4


def test_both_steps_represent_alike_and_their_gradients_are_equal(tiny):
    wave, wave_aug = waves(tiny)
    plain, fronts = speed.as_first_written(tiny)
    ours = copy.deepcopy(tiny)
    results = []
    for made, z in (
        (plain, speed.represent_as_first_written(plain, fronts, wave, wave_aug)),
        (ours, speed.represent(ours, wave, wave_aug)),
    ):
        made.loss(*z).mean().backward()
        results.append((z, {name: p.grad for name, p in made.named_parameters()}))
    (z, gradients), (z_ours, gradients_ours) = results
    for a, b in zip([*z[0], z[1]], [*z_ours[0], z_ours[1]], strict=True):
        torch.testing.assert_close(a, b, atol=TOLERANCE, rtol=TOLERANCE)
    assert gradients.keys() == gradients_ours.keys() and gradients
    for name, gradient in gradients.items():
        assert gradient is not None, name
        torch.testing.assert_close(gradients_ours[name], gradient, atol=TOLERANCE, rtol=1e-6)


def test_the_first_written_copy_leaves_the_model_alone(tiny):
    plain, _ = speed.as_first_written(tiny)
    assert not any(layer.pool_first for layer in plain.encoder.layers)
    assert all(layer.pool_first for layer in tiny.encoder.layers)


def test_functions_take_turns_and_the_first_call_is_not_counted():
    order = []
    times = speed.take_turns({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, n_rounds=3)
    assert order == ["a", "b"] * 4
    assert all(len(times[name][clock]) == 3 for name in "ab" for clock in ("wall_s", "cpu_s"))


def test_a_function_may_tell_its_own_seconds():
    times = speed.take_turns({"told": lambda: 2.5, "timed": lambda: torch.tensor(9.0)}, n_rounds=2)
    assert times["told"]["wall_s"] == [2.5, 2.5]
    assert all(isinstance(seconds, float) and seconds < 2.5 for seconds in times["timed"]["wall_s"])


def test_no_round_is_an_error():
    with pytest.raises(ValueError, match="n_rounds=0"):
        speed.take_turns({"a": print}, 0)


def test_ratio_is_the_median_over_rounds_not_of_sums():
    times = {"slow": {"wall_s": [4.0, 30.0, 6.0]}, "fast": {"wall_s": [2.0, 10.0, 1.0]}}
    assert speed.ratio(times, "slow", "fast") == 3.0


def test_operations_of_a_step_are_those_counted_by_hand(tiny):
    """Two levels: 3 clips and a view; 8.93 G multiply-accumulates for 16 inputs (Table 1), times 2, times 3."""
    assert speed.operations_of_step(tiny.float(), 2) == pytest.approx(8.93e9 / 16 * 2 * 3 * 4 * 2, rel=1e-3)
    tiny.double()


def test_a_matrix_product_counts_two_operations_per_multiply_accumulate():
    product, operations = speed.matrix_product(torch.float32, n=8)
    assert product().shape == (8, 8) and operations == 2 * 8**3


class _Store:
    def sample_rate(self, track):
        return 16_000

    def n_samples(self, track):
        return 200_000

    def read(self, track, start, n_samples, mono=True):
        return np.random.default_rng(0).standard_normal(n_samples).astype(np.float32) / 4


def test_every_stage_of_a_step_is_there_in_the_order_of_work():
    made = model.MusicPAW("music_paw", n_levels=2, whole_seconds=5.6, feed_forward=32, n_layers=1)
    before = {name: p.clone() for name, p in made.named_parameters()}
    found = speed.stages(made, _Store(), ["a", "b"], n_rounds=1)
    assert list(found)[:4] == ["crop", "augmentation", "log-mels", "encoder, forward"]
    assert list(found)[-1] == "optimiser" and all(seconds > 0 for seconds in found.values())
    assert all(torch.equal(before[name], p) for name, p in made.named_parameters())  # timed on a copy


def test_embedding_counts_the_seconds_heard(monkeypatch):
    made = model.MusicPAW("baseline", n_levels=2, whole_seconds=5.6)
    clock = iter([0.0, 2.0])
    monkeypatch.setattr(speed.time, "perf_counter", lambda: next(clock))
    assert speed.embedding_rate(made, [torch.randn(96_000)] * 2, level=1) == pytest.approx(2 * 6.0 / 2.0)


def test_supervised_rates_leave_the_network_as_it_was():
    class Tiny(torch.nn.Module):
        n_samples = 64

        def __init__(self):
            super().__init__()
            self.settings = {"n_classes": 3}
            self.layer = torch.nn.Linear(64, 3)

        def forward(self, wave):
            return self.layer(wave)

    network = Tiny()
    before = network.layer.weight.detach().clone()
    rates = speed.supervised_rates(network, batch_size=4, n_rounds=1)
    assert rates["macs"] == 64 * 3
    assert torch.equal(network.layer.weight, before) and network.layer.weight.grad is None
    assert 0 <= rates["largest_difference"] < 1e-2 and rates["rank_agreement"] > 0.4 and rates["times_plain"] > 0
    assert rates["training_share"] * rates["inference_songs_per_s"] == pytest.approx(
        3 * rates["inference_share"] * rates["training_songs_per_s"], rel=1e-6
    )  # with one round both shares are operations over the same convolution


def test_the_yardstick_counts_its_operations():
    convolve, operations = speed.convolution(torch.float32, n_channels=2, n_clips=3, size=(4, 5))
    assert convolve().shape == (3, 2, 4, 5)
    assert operations == 2 * (3 * 2 * 4 * 5) * (2 * 3 * 3)  # two for every product: outputs x products of each


# --- pretraining beside pretraining ---


class Toy(torch.nn.Module):
    """The least that bench.engine trains; what it hears of a song is `n_clip` twice, or all of it."""

    sample_rate = 100

    def __init__(self, n_whole, n_clip=None):
        super().__init__()
        self.n_whole, self.settings = n_whole, {}
        self.encoder = torch.nn.Linear(n_whole, 3)
        if n_clip is not None:
            self.n_clip = n_clip

    def views(self, wave, keys):
        return (wave,)

    def forward(self, wave):
        return (self.encoder(wave),)

    def objective(self, s):
        return s.square().sum(1), {}


def test_what_a_step_hears_is_the_whole_or_two_crops_of_it():
    assert speed.heard_seconds(Toy(800)) == 8.0
    assert speed.heard_seconds(Toy(800, n_clip=100)) == 2.0
    assert speed.heard_seconds(Toy(100, n_clip=100)) == 1.0  # two distortions of one segment
    assert speed.heard_seconds(model.MusicPAW("baseline", n_levels=2, whole_seconds=5.6)) == pytest.approx(5.6)


def test_every_call_of_a_pass_is_the_next_epoch_of_one_run(tmp_path):
    one = speed.EnginePass(Toy(50), _Store(), ["a", "b", "c"], batch_size=2, n_steps=2, folder=tmp_path)
    assert one.ids == ["a", "b", "c", "a"]  # too few songs are taken again
    seconds = [one(), one()]
    history = engine.loop.read_json(tmp_path / "history.json")
    assert [entry["epoch"] for entry in history] == [1, 2]
    assert seconds == pytest.approx([4 / entry["songs_per_s"] for entry in history])


def test_a_pass_leaves_the_model_as_it_was(tmp_path):
    toy = Toy(50)
    before = toy.encoder.weight.detach().clone()
    speed.EnginePass(toy, _Store(), ["a", "b"], 2, 1, tmp_path)()
    assert torch.equal(toy.encoder.weight, before)


def test_pretrainings_are_compared_at_equal_audio_per_step(monkeypatch):
    """Epochs of 2 s and 1 s for 16 s of audio a step each: half the time is twice the music, and 8 times the songs."""
    told = {"whole": 2.0, "crops": 1.0}
    monkeypatch.setattr(
        speed.EnginePass, "__call__", lambda one: told["whole" if one.model.n_whole == 800 else "crops"]
    )
    models = {"whole": Toy(800), "crops": Toy(900, n_clip=100)}
    rates = speed.pretraining_rates(models, _Store(), ["a", "b"], seconds_per_step=16.0, n_rounds=3, n_steps=2)
    assert [rates[name]["songs_per_step"] for name in rates] == [2, 8]
    assert rates["whole"]["songs_per_s"] == 2 * 2 / 2.0 and rates["crops"]["songs_per_s"] == 8 * 2 / 1.0
    assert rates["whole"]["audio_per_s"] == 16.0 and rates["crops"]["audio_per_s"] == 32.0
    assert rates["whole"]["times_as_much_audio"] == rates["whole"]["times_as_many_songs"] == 1.0
    assert rates["crops"]["times_as_much_audio"] == 2.0 and rates["crops"]["times_as_many_songs"] == 8.0


def test_a_step_of_less_than_two_songs_is_refused_by_name():
    with pytest.raises(ValueError, match="less than two songs of long, of which each step hears 8.0 s"):
        speed.pretraining_rates({"long": Toy(800)}, _Store(), ["a"], seconds_per_step=10.0, n_rounds=1)


@pytest.mark.parametrize("training", [True, False])
def test_the_printed_order_gives_the_same_numbers_and_keeps_what_is_frozen(training):
    ours = encoders.build("fcn_4").double().train(training)
    ours.layers[0].norm.requires_grad_(False)
    plain = speed.in_plain_order(copy.deepcopy(ours))
    mel = torch.randn(2, 1, 128, 351, dtype=torch.float64)
    torch.testing.assert_close(plain(mel), ours(mel), atol=TOLERANCE, rtol=TOLERANCE)
    assert not any(isinstance(module, encoders.BatchNorm) for module in plain.modules())
    frozen = [[name for name, p in network.named_parameters() if not p.requires_grad] for network in (ours, plain)]
    assert frozen[0] == frozen[1] and frozen[0]


# --- a folder of mp3 ---


class Mean(torch.nn.Module):
    """A tagger of two classes: the mean of its input, and less that."""

    sample_rate, n_samples = 16_000, 16_000

    def __init__(self):
        super().__init__()
        self.sizes, self.weight = [], torch.nn.Parameter(torch.ones(1))

    def forward(self, wave):
        self.sizes.append(len(wave))
        mean = wave.square().mean(1, keepdim=True)
        return torch.cat([mean, -mean], dim=1)


@pytest.fixture(scope="module")
def mp3s(tmp_path_factory):
    root = tmp_path_factory.mktemp("mp3")
    rng = np.random.default_rng(0)
    waves = [(0.1 * rng.standard_normal(16_000 * seconds)).astype(np.float32) for seconds in (6, 3)]
    return root, speed.write_mp3s(root, waves, 16_000, n_copies=2)


def test_mp3s_are_stereo_of_the_rate_asked_for_and_as_many_as_asked_for(mp3s):
    root, seconds = mp3s
    files = sorted(root.glob("*.mp3"))
    assert len(files) == 4 and seconds == 2 * (6 + 3)
    for file in files:
        told = soundfile.info(file)
        assert (told.channels, told.samplerate) == (2, 44_100)
    assert sum(soundfile.info(file).duration for file in files) == pytest.approx(seconds, abs=0.5)


def test_a_folder_is_embedded_whole_and_its_file_is_gone(mp3s):
    paw = model.MusicPAW("baseline", n_levels=2, whole_seconds=5.6)
    made = speed.embed_folder(paw, mp3s[0], "shortest")
    assert made.n_tracks == made.n_new == 4 and made.complete and not made.out.exists()


def test_a_tagger_answers_every_file_by_the_mean_over_its_inputs(mp3s):
    tagger = Mean()
    found = speed.tag_folder(tagger, mp3s[0], batch_size=4)
    assert len(found) == 4 and max(tagger.sizes) == 4 and sum(tagger.sizes) >= 2 * (6 + 3)
    for probabilities in found.values():
        assert probabilities[0] == pytest.approx(
            torch.tensor(0.005).sigmoid().item(), abs=5e-4
        )  # noise of power 0.01, and itself a little late: half is left
        assert probabilities.sum() == pytest.approx(1.0, abs=1e-5)


def test_every_stage_of_a_folder_takes_time_in_the_order_of_work(mp3s):
    paw = model.MusicPAW("baseline", n_levels=2, whole_seconds=5.6)
    found = speed.folder_stages(paw, mp3s[0])
    assert list(found) == ["decoding", "mixing down and resampling", "log-mels", "encoder"]
    assert all(seconds > 0 for seconds in found.values())
    assert paw.training  # timed on a copy
