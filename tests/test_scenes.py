"""scenes: scores, votes and the mixture baseline against hand-worked cases and slow loops."""

import math

import numpy as np
import pytest
import torch
import torchaudio

from pawlib.bench import scenes
from pawlib.bench.datasets import dcase2016

LABELS = ("home", "office", "park")


# --- scores ---


def test_hand_worked_scores():
    # home: 2 of 3 right, office: 1 of 1, park: 0 of 2
    classes = [0, 0, 0, 1, 2, 2]
    answers = [0, 0, 2, 1, 1, 0]
    found = scenes.fold_scores(answers, classes, LABELS)
    assert found["accuracy"] == pytest.approx(3 / 6)
    assert found["class_mean"] == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert found["per_class"] == pytest.approx({"home": 2 / 3, "office": 1.0, "park": 0.0})
    assert found["confusion"] == [[2, 0, 1], [0, 1, 0], [1, 1, 0]]
    assert found["n_files"] == 6


def test_with_as_many_files_of_each_class_both_scores_are_one():
    rng = np.random.default_rng(0)
    classes, answers = np.repeat(np.arange(3), 26), rng.integers(0, 3, 78)
    found = scenes.fold_scores(answers, classes, LABELS)
    assert found["accuracy"] == pytest.approx(found["class_mean"])


def test_perfect_answers_score_one():
    found = scenes.fold_scores([2, 0, 1], [2, 0, 1], LABELS)
    assert (found["accuracy"], found["class_mean"]) == (1.0, 1.0)


def test_a_class_without_files_is_named_and_left_out():
    with pytest.warns(UserWarning, match="no test file of office"):
        found = scenes.fold_scores([0, 0], [0, 2], LABELS)
    assert found["class_mean"] == 0.5 and found["per_class"]["office"] is None


def test_folds_are_averaged_plainly_and_confusions_added():
    one = scenes.fold_scores([0, 1, 2], [0, 1, 2], LABELS)
    with pytest.warns(UserWarning, match="no test file of park"):
        two = scenes.fold_scores([1, 1, 1, 1], [0, 0, 0, 1], LABELS)
    found = scenes.over_folds([one, two])
    assert found["accuracy"] == pytest.approx((1 + 1 / 4) / 2)  # not 4 / 7
    assert found["class_mean"] == pytest.approx((1 + 0.5) / 2)
    assert found["per_class"] == {"home": 0.5, "office": 1.0, "park": 1.0}
    assert found["confusion"] == [[1, 3, 0], [0, 2, 0], [0, 0, 1]] and found["n_files"] == 7


def test_impossible_answers_are_refused():
    with pytest.raises(ValueError, match="need one answer per file"):
        scenes.fold_scores([0], [0, 1], LABELS)
    with pytest.raises(ValueError, match="need one answer per file, and at least one"):
        scenes.fold_scores([], [], LABELS)
    with pytest.raises(ValueError, match="class 3 is no column of 3 labels"):
        scenes.fold_scores([0, 1], [0, 3], LABELS)
    with pytest.raises(ValueError, match="answer .*0.5.* is no column .* are these scores"):
        scenes.fold_scores([0.5, 1.0], [0, 1], LABELS)
    with pytest.raises(ValueError, match="no folds"):
        scenes.over_folds([])
    with pytest.raises(ValueError, match="different labels"):
        scenes.over_folds([scenes.fold_scores([0, 1], [0, 1], names) for names in (("a", "b"), ("a", "c"))])


# --- the vote ---


def test_the_majority_wins_over_one_loud_window():
    scores = [[1.0, 0.0, 0.0], [0.2, 0.1, 0.0], [0.0, 90.0, 0.0]]
    assert scenes.majority_vote(scores) == 0
    assert int(np.mean(scores, axis=0).argmax()) == 1  # the mean would have said otherwise


def test_a_tie_goes_to_the_surer_class_not_to_the_first():
    assert scenes.majority_vote([[0.1, 0.0, 0.0], [0.0, 5.0, 0.0]]) == 1
    assert scenes.majority_vote([[5.0, 0.0, 0.0], [0.0, 0.1, 0.0]]) == 0


def test_a_class_without_the_most_votes_cannot_win_by_its_probability():
    assert scenes.majority_vote([[1.0, 0.9, -9], [1.0, 0.9, -9], [-9.0, 9.0, -9]]) == 0


def test_order_of_windows_and_scale_of_scores_do_not_matter():
    scores = torch.randn(31, 5)
    assert scenes.majority_vote(scores) == scenes.majority_vote(scores.flip(0)) == scenes.majority_vote(3 * scores)


def test_no_window_or_a_broken_one_is_refused():
    with pytest.raises(ValueError, match=r"scores of shape \(0, 3\)"):
        scenes.majority_vote(torch.zeros(0, 3))
    with pytest.raises(ValueError, match="all finite"):
        scenes.majority_vote([[math.nan, 1.0]])


class FakeStore:
    """Waves by id at one rate."""

    def __init__(self, waves, rate):
        self.waves, self.rate = waves, rate

    def read(self, track_id, start=0, n_samples=None, mono=True):
        wave = self.waves[track_id]
        return wave[..., start : None if n_samples is None else start + n_samples]

    def sample_rate(self, track_id):
        return self.rate

    def n_samples(self, track_id):
        return self.waves[track_id].shape[-1]


class ByLevel(torch.nn.Module):
    """A class for each quarter second: 1 where it is loud."""

    sample_rate = 4000

    def __init__(self):
        super().__init__()
        self.unused = torch.nn.Parameter(torch.zeros(1))

    def windows(self, wave):
        level = wave.unfold(-1, 1000, 1000).abs().mean(-1)
        return torch.stack([torch.full_like(level, 0.25), level], dim=-1)


def track(track_id, scene=0, cut=()):
    return dcase2016.SceneTrack(track_id, None, np.eye(3, dtype=np.float32)[scene], track_id, cut=cut)


def test_files_are_answered_by_all_their_windows():
    loud = np.repeat([1.0, 0.0, 1.0, 0.0, 1.0], 1000).astype(np.float32)
    store = FakeStore({"a": loud, "b": 1 - loud}, 4000)
    model = ByLevel().train()
    answers, shares = scenes.vote(model, store, [track("a"), track("b")])
    assert answers.tolist() == [1, 0] and shares.tolist() == pytest.approx([0.6, 0.6])
    assert model.training
    cut = [track("a", cut=((0.0, 0.25), (1.0, 1.25)))]  # two of its three loud quarters
    assert scenes.vote(model, scenes.WithoutSpans(store, cut), cut)[0].tolist() == [0]


# --- spans ---


def test_vote_shares_are_counts_and_one_more_window_of_probability():
    scores = torch.tensor([[9.0, 0, 0], [0, 1, 0], [0, 1, 0]])
    mean = scores.double().softmax(dim=1).mean(dim=0).numpy()
    assert np.allclose(scenes.vote_shares(scores), (np.array([1, 2, 0]) + mean) / 4)
    rng = torch.Generator().manual_seed(0)
    for n_windows in (1, 2, 3, 4, 7):  # small numbers tie often
        for _ in range(50):
            some = torch.randn(n_windows, 4, generator=rng) * 3
            shares = scenes.vote_shares(some)
            assert shares.argmax() == scenes.majority_vote(some) and shares.sum() == pytest.approx(1)


def test_a_store_without_spans_reads_what_remains_by_hand():
    store = FakeStore({"a": np.arange(20), "b": np.arange(5)}, 10)
    view = scenes.WithoutSpans(store, [track("a", cut=((0.2, 0.4), (0.95, 1.2), (1.8, 9.0))), track("b")])
    remains = [0, 1, *range(4, 9), *range(12, 18)]
    assert view.n_samples("a") == len(remains) and view.n_samples("b") == 5
    np.testing.assert_array_equal(view.read("a"), remains)
    np.testing.assert_array_equal(view.read("b", 1, 2), [1, 2])


def test_every_clip_of_a_store_without_spans_is_a_slice_of_what_remains():
    store = FakeStore({"a": np.stack([np.arange(20), -np.arange(20)])}, 10)
    view = scenes.WithoutSpans(store, [track("a", cut=((0.0, 0.3), (0.7, 0.8), (1.1, 1.5)))])
    whole = view.read("a", mono=False)
    for start in range(view.n_samples("a")):
        for n in range(1, view.n_samples("a") - start + 1):
            np.testing.assert_array_equal(view.read("a", start, n, mono=False), whole[:, start : start + n])


def test_clips_beyond_what_remains_and_spans_over_everything_are_refused():
    store = FakeStore({"a": np.arange(20)}, 10)
    view = scenes.WithoutSpans(store, [track("a", cut=((0.5, 1.0),))])
    for start, n in ((0, 16), (15, 1), (-1, 2), (3, 0)):
        with pytest.raises(ValueError, match="does not lie in a, of which 15 samples remain at 10 Hz"):
            view.read("a", start, n)
    with pytest.raises(ValueError, match="cover all of track a: read with errors='drop'"):
        scenes.WithoutSpans(store, [track("a", cut=((0.0, 2.0),))])


# --- the baseline ---


def test_mfcc_frames_equal_slow_loops():
    wave = 0.1 * torch.randn(44_100)
    got = scenes.mfcc_frames(wave)
    assert got.shape == (51, 60)
    window = torch.zeros(2048)
    window[142 : 142 + 1764] = torch.hamming_window(1764)
    padded = torch.nn.functional.pad(wave[None], (1024, 1024), mode="reflect")[0].double()
    frames = torch.stack([padded[i * 882 : i * 882 + 2048] * window for i in range(51)])
    power = torch.fft.rfft(frames).abs().square()
    filters = torchaudio.functional.melscale_fbanks(1025, 0, 22_050, 40, 44_100, norm="slaney", mel_scale="slaney")
    level = 10 * (power @ filters.double()).clamp_min(1e-10).log10()
    level = level.maximum(level.max() - 80)
    mfcc = np.zeros((51, 20))
    for k in range(20):
        row = np.cos(np.pi * k * (2 * np.arange(40) + 1) / 80) * np.sqrt((1 if k == 0 else 2) / 40)
        mfcc[:, k] = level.numpy() @ row
    np.testing.assert_allclose(got[:, :20], mfcc, atol=2e-2)

    def slope(values):
        out = np.zeros_like(values)
        for t in range(len(values)):
            for n in range(1, 5):
                ahead, behind = values[min(t + n, len(values) - 1)], values[max(t - n, 0)]
                out[t] += n * (ahead - behind) / (2 * (1 + 4 + 9 + 16))
        return out

    np.testing.assert_allclose(got[:, 20:40], slope(mfcc), atol=2e-2)
    np.testing.assert_allclose(got[:, 40:], slope(slope(mfcc)), atol=2e-2)


def test_short_or_broken_audio_is_refused():
    with pytest.raises(ValueError, match="at least 7938 samples"):
        scenes.mfcc_frames(torch.zeros(7000))
    with pytest.raises(ValueError, match="mono"):
        scenes.mfcc_frames(torch.zeros(2, 20_000))
    with pytest.raises(ValueError, match="NaN or infinite"):
        scenes.mfcc_frames(torch.full((20_000,), math.nan))


def test_digital_silence_has_finite_frames():
    assert np.isfinite(scenes.mfcc_frames(torch.zeros(20_000))).all()


def clouds(rng, centre, n_files=4, n_frames=60):
    return [rng.normal(centre, 1.0, (n_frames, 3)) for _ in range(n_files)]


def test_one_gaussian_per_class_gives_the_density_worked_by_hand():
    rng = np.random.default_rng(0)
    frames, classes = [*clouds(rng, 0.0), *clouds(rng, 2.0)], [0] * 4 + [1] * 4
    baseline = scenes.MixtureBaseline(n_components=1).fit(frames, classes, 2)
    everything = np.concatenate(frames)
    mean, deviation = everything.mean(axis=0), everything.std(axis=0, ddof=1)
    new = rng.normal(0.3, 1.0, (10, 3))
    expected = []
    for scene in (0, 1):
        own = (np.concatenate(frames[4 * scene : 4 * scene + 4]) - mean) / deviation
        centre, variance, total = own.mean(axis=0), own.var(axis=0) + 1e-3, 0.0
        for frame in (new - mean) / deviation:
            for x, m, v in zip(frame, centre, variance, strict=True):
                total += -0.5 * (math.log(2 * math.pi * v) + (x - m) ** 2 / v)
        expected.append(total)
    np.testing.assert_allclose(baseline.log_likelihoods(new), expected, rtol=1e-6)
    assert baseline.answer(new) == 0


@pytest.mark.filterwarnings("ignore:the mixtures of")
def test_mixtures_tell_classes_of_equal_mean_apart():
    rng = np.random.default_rng(1)
    two_sided = [np.concatenate(clouds(rng, 4.0, 1) + clouds(rng, -4.0, 1)) for _ in range(4)]
    frames, classes = [*two_sided, *clouds(rng, 0.0)], [0] * 4 + [1] * 4
    baseline = scenes.MixtureBaseline(n_components=2).fit(frames, classes, 2)
    assert baseline.answer(np.concatenate(clouds(rng, 4.0, 1) + clouds(rng, -4.0, 1))) == 0
    assert baseline.answer(clouds(rng, 0.0, 1)[0]) == 1


@pytest.mark.filterwarnings("ignore:the mixtures of")
def test_the_seed_decides_and_features_that_never_change_do_no_harm():
    rng = np.random.default_rng(2)
    frames = [np.concatenate([one, np.ones((60, 1))], axis=1) for one in [*clouds(rng, 0.0), *clouds(rng, 1.0)]]
    classes = [0] * 4 + [1] * 4
    one, two = (scenes.MixtureBaseline(4, seed=3).fit(frames, classes, 2) for _ in range(2))
    np.testing.assert_array_equal(one.log_likelihoods(frames[0]), two.log_likelihoods(frames[0]))
    assert np.isfinite(one.log_likelihoods(frames[0])).all()


@pytest.mark.filterwarnings("ignore:the mixtures of")
def test_the_baseline_hears_two_noises_apart_from_a_store():
    rng = np.random.default_rng(0)
    rate = 44_100
    waves, tracks = {}, []
    for i in range(8):
        white = rng.standard_normal(rate // 2).astype(np.float32)
        waves[str(i)] = 0.1 * (np.convolve(white, np.ones(40) / 40, "same").astype(np.float32) if i % 2 else white)
        tracks.append(track(str(i), i % 2))
    tracks.append(track("8", 2))
    waves["8"] = 0.1 * np.sin(np.arange(rate // 2) * 0.05).astype(np.float32) + 1e-3 * waves["0"]
    answers = scenes.mixture_answers([*tracks[:4], tracks[8]], tracks[4:8], FakeStore(waves, rate), n_components=2)
    assert answers.tolist() == [0, 1, 0, 1]


def test_impossible_fits_are_refused():
    with pytest.raises(ValueError, match="2 files for 1 classes"):
        scenes.MixtureBaseline().fit([np.zeros((9, 2))] * 2, [0], 1)
    with pytest.raises(ValueError, match="class 1 has 0 training files with 0 frames"):
        scenes.MixtureBaseline(2).fit([np.random.default_rng(0).normal(size=(9, 2))], [0], 2)
    with pytest.raises(ValueError, match="NaN or infinite"):
        scenes.MixtureBaseline(2).fit([np.full((9, 2), np.nan)], [0], 1)
    with pytest.raises(ValueError, match="has not been fitted"):
        scenes.MixtureBaseline().log_likelihoods(np.zeros((9, 2)))
