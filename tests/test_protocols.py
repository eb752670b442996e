"""The linear probe on features whose answer is known."""

import dataclasses

import numpy as np
import pytest
import torch

from pawlib.bench import metrics, protocols

WIDTH, N_LABELS = 12, 3
FAST = {"weight_decays": (1e-6, 1e-3), "max_epochs": 40}


def features(n_tracks, seed, n_clips=4, noise=1.0, scale=1.0):
    """Clips whose first features carry the tags, under noise; one weight for all splits."""
    generator = torch.Generator().manual_seed(seed)
    targets = (torch.rand(n_tracks, N_LABELS, generator=generator) < 0.4).float()
    tracks = torch.arange(n_tracks).repeat_interleave(n_clips)
    x = torch.nn.functional.pad(2 * targets[tracks], (0, WIDTH - N_LABELS))
    x = scale * (x + noise * torch.randn(x.shape, generator=generator))
    return protocols.ClipFeatures(x, tracks, targets, tuple(f"track {k}" for k in range(n_tracks)))


@pytest.fixture
def splits():
    return features(120, 0), features(40, 1), features(50, 2)


def test_tags_that_lie_in_the_features_are_found(splits):
    probe = protocols.linear_probe(*splits, N_LABELS, seed=0, **FAST)
    assert metrics.tagging(probe.scores, probe.targets)["roc_auc"] > 0.95
    assert probe.n_tracks == 50
    assert probe.scores.dtype == np.float32 and probe.scores.min() >= 0 and probe.scores.max() <= 1
    np.testing.assert_array_equal(probe.targets, splits[2].targets.numpy())


def test_tags_that_do_not_lie_in_the_features_stay_at_chance(splits):
    strangers = [dataclasses.replace(split, x=torch.randn(split.x.shape, generator=torch.Generator().manual_seed(k)))
                 for k, split in enumerate(splits)]  # fmt: skip
    probe = protocols.linear_probe(*strangers, N_LABELS, seed=0, **FAST)
    assert 0.3 < metrics.tagging(probe.scores, probe.targets)["roc_auc"] < 0.7


def test_same_seed_same_scores_another_seed_others(splits):
    first, again, other = (protocols.linear_probe(*splits, N_LABELS, seed=seed, **FAST) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.scores, again.scores)
    assert first.history == again.history
    assert not np.array_equal(first.scores, other.scores)


def test_global_generator_is_neither_read_nor_moved(splits):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = protocols.linear_probe(*splits, N_LABELS, seed=0, **FAST)
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(6)
    np.testing.assert_array_equal(first.scores, protocols.linear_probe(*splits, N_LABELS, seed=0, **FAST).scores)


def test_thread_count_comes_back(splits):
    before = torch.get_num_threads()
    protocols.linear_probe(*splits, N_LABELS, seed=0, **FAST)
    assert torch.get_num_threads() == before


def test_scale_of_features_does_not_matter(splits):
    large = [dataclasses.replace(split, x=1000 * split.x + 7) for split in splits]
    a = protocols.linear_probe(*splits, N_LABELS, seed=0, **FAST)
    b = protocols.linear_probe(*large, N_LABELS, seed=0, **FAST)
    np.testing.assert_allclose(a.scores, b.scores, atol=2e-2)


def test_test_split_never_decides_anything(splits):
    train, valid, test = splits
    upside_down = dataclasses.replace(test, targets=1 - test.targets)
    a = protocols.linear_probe(train, valid, test, N_LABELS, seed=0, **FAST)
    b = protocols.linear_probe(train, valid, upside_down, N_LABELS, seed=0, **FAST)
    np.testing.assert_array_equal(a.scores, b.scores)
    assert a.weight_decay == b.weight_decay


def test_stops_after_patience_epochs_without_a_better_validation_score(splits):
    probe = protocols.linear_probe(*splits, N_LABELS, seed=0, weight_decays=(1e-6,), patience=4)
    history = probe.history[1e-6]
    scores = [epoch["valid_score"] for epoch in history]
    assert len(history) < 300
    assert len(history) == probe.best_epoch + 4
    assert probe.best_epoch == 1 + int(np.argmax(scores))
    assert probe.valid_score == max(scores)


def test_best_weights_are_restored_not_the_last():
    train, valid, test = features(120, 0, noise=4), features(40, 1, noise=4), features(50, 2, noise=4)
    probe = protocols.linear_probe(train, valid, test, N_LABELS, seed=0, weight_decays=(1e-6,), patience=4)
    clips = probe.predict(valid.x)
    tracks, _ = protocols.pool_tracks(clips, valid.track_index, len(valid.targets))
    assert metrics.tagging(tracks, valid.targets)["roc_auc"] == pytest.approx(probe.valid_score, abs=1e-9)
    assert probe.history[1e-6][-1]["valid_score"] < probe.valid_score - 1e-4  # so that the last would show


def test_chosen_weight_decay_has_the_best_validation_score(splits):
    probe = protocols.linear_probe(*splits, N_LABELS, seed=0, weight_decays=(1e-6, 1e-2, 10.0), max_epochs=30)
    best = {decay: max(epoch["valid_score"] for epoch in history) for decay, history in probe.history.items()}
    assert best[probe.weight_decay] == max(best.values()) == probe.valid_score


def test_learning_rate_falls_on_a_plateau(splits):
    probe = protocols.linear_probe(*splits, N_LABELS, seed=0, weight_decays=(1e-6,))
    rates = [epoch["learning_rate"] for epoch in probe.history[1e-6]]
    assert rates[0] == 3e-3
    assert min(rates) == pytest.approx(3e-4, rel=1e-6) or min(rates) < 3e-4


def test_track_score_is_the_mean_of_its_clips_probabilities(splits):
    test = splits[2]
    probe = protocols.linear_probe(*splits, N_LABELS, seed=0, **FAST)
    for track in (0, 17, 49):
        rows = [k for k in range(len(test.x)) if test.track_index[k] == track]
        x = (test.x[rows] - probe.mean) / probe.deviation
        expected = torch.sigmoid(x @ probe.weight.T + probe.bias).mean(dim=0)
        np.testing.assert_allclose(probe.scores[track], expected, atol=1e-6)


def test_pooling_embeddings_is_the_score_of_the_mean_clip(splits):
    test = splits[2]
    probe = protocols.linear_probe(*splits, N_LABELS, seed=0, pool="embeddings", **FAST)
    mean = test.x[test.track_index == 9].mean(dim=0, keepdim=True)
    np.testing.assert_allclose(probe.scores[9], probe.predict(mean)[0], atol=1e-6)


def test_one_clip_per_track_makes_both_poolings_equal():
    one = [features(60, seed, n_clips=1) for seed in range(3)]
    a, b = (protocols.linear_probe(*one, N_LABELS, seed=0, pool=pool, **FAST) for pool in protocols.POOLS)
    np.testing.assert_array_equal(a.scores, b.scores)
    c = protocols.logistic(*one, N_LABELS, seed=0, **FAST)
    np.testing.assert_array_equal(a.scores, c.scores)


def test_order_of_clips_does_not_matter_at_test(splits):
    train, valid, test = splits
    order = torch.randperm(len(test.x), generator=torch.Generator().manual_seed(0))
    shuffled = dataclasses.replace(test, x=test.x[order], track_index=test.track_index[order])
    a = protocols.linear_probe(train, valid, test, N_LABELS, seed=0, **FAST)
    b = protocols.linear_probe(train, valid, shuffled, N_LABELS, seed=0, **FAST)
    np.testing.assert_allclose(a.scores, b.scores, atol=1e-6)


def test_standardisation_comes_from_training_rows_alone(splits):
    train, valid, test = splits
    probe = protocols.linear_probe(train, valid, test, N_LABELS, seed=0, **FAST)
    torch.testing.assert_close(probe.mean, train.x.mean(dim=0))
    torch.testing.assert_close(probe.deviation, train.x.std(dim=0, correction=0))


def test_constant_feature_does_no_harm(splits):
    for split in splits:
        split.x[:, 5] = 3.0
    probe = protocols.linear_probe(*splits, N_LABELS, seed=0, **FAST)
    assert np.isfinite(probe.scores).all()
    assert probe.deviation[5] == 1


def test_label_unseen_in_training_is_scored_by_chance_and_reported(splits):
    train, valid, test = splits
    train.targets[:, 1] = 0
    with pytest.warns(UserWarning, match=r"1 label\(s\) have no positive .* columns \[1\]"):
        probe = protocols.linear_probe(train, valid, test, N_LABELS, seed=0, **FAST)
    assert probe.untrained == {1: 0.0}
    assert metrics.tagging(probe.scores, probe.targets)["per_tag"]["1"]["roc_auc"] == 0.5


def test_test_track_without_clips_is_counted_and_left_out(splits):
    train, valid, test = splits
    heard = test.track_index != 3
    test = dataclasses.replace(test, x=test.x[heard], track_index=test.track_index[heard])
    with pytest.warns(UserWarning, match="1 of 50 test tracks have no clip"):
        probe = protocols.linear_probe(train, valid, test, N_LABELS, seed=0, **FAST)
    assert probe.n_tracks == 49
    assert 3 not in probe.tracks.tolist()
    np.testing.assert_array_equal(probe.targets, test.targets[probe.tracks].numpy())


def test_pool_tracks_by_slow_loop():
    values = torch.arange(12.0).reshape(6, 2)
    index = torch.tensor([2, 0, 2, 0, 2, 3])
    means, n_clips = protocols.pool_tracks(values, index, 4)
    assert n_clips.tolist() == [2, 0, 3, 1]
    assert means[0].tolist() == [(2 + 6) / 2, (3 + 7) / 2]
    assert means[2].tolist() == [(0 + 4 + 8) / 3, (1 + 5 + 9) / 3]
    assert torch.isnan(means[1]).all()
    with pytest.raises(ValueError, match="runs from 0 to 3, but there are 3 tracks"):
        protocols.pool_tracks(values, index, 3)


def test_nan_features_name_the_track(splits):
    splits[1].x[4 * 7 + 2, 0] = float("nan")
    with pytest.raises(ValueError, match=r"valid features of track 7 \(track 7\) are NaN or infinite, 1 clip"):
        protocols.linear_probe(*splits, N_LABELS, seed=0, **FAST)


def test_bad_arguments_are_named(splits):
    train, valid, test = splits
    with pytest.raises(ValueError, match="pool='probs' is unknown"):
        protocols.linear_probe(*splits, N_LABELS, seed=0, pool="probs")
    with pytest.raises(ValueError, match="select='auc' is unknown"):
        protocols.linear_probe(*splits, N_LABELS, seed=0, select="auc")
    with pytest.raises(ValueError, match="at least one weight decay"):
        protocols.linear_probe(*splits, N_LABELS, seed=0, weight_decays=())
    with pytest.raises(ValueError, match=r"train targets have shape \(120, 3\), expected \(n_tracks, 50\)"):
        protocols.linear_probe(*splits, 50, seed=0)
    narrow = dataclasses.replace(test, x=test.x[:, :5])
    with pytest.raises(ValueError, match=r"test features have shape \(200, 5\), the classifier takes width 12"):
        protocols.linear_probe(train, valid, narrow, N_LABELS, seed=0)
    empty = dataclasses.replace(valid, x=valid.x[:0], track_index=valid.track_index[:0])
    with pytest.raises(ValueError, match="the valid split is empty"):
        protocols.linear_probe(train, empty, test, N_LABELS, seed=0)
    short = dataclasses.replace(test, track_index=test.track_index[:-1])
    with pytest.raises(ValueError, match="200 clips but track_index of shape"):
        protocols.linear_probe(train, valid, short, N_LABELS, seed=0)


def test_validation_that_cannot_choose_is_refused(splits):
    splits[1].targets[:] = 0
    with pytest.raises(ValueError, match="nothing can be chosen"):
        protocols.linear_probe(*splits, N_LABELS, seed=0, **FAST)


def test_given_features_are_left_as_they_were(splits):
    copies = [split.x.clone() for split in splits]
    protocols.linear_probe(*splits, N_LABELS, seed=0, **FAST)
    assert all(torch.equal(copy, split.x) for copy, split in zip(copies, splits, strict=True))


def test_classes_are_told_apart_by_softmax():
    generator = torch.Generator().manual_seed(0)
    classes = torch.randint(0, 4, (120,), generator=generator)
    truth = torch.nn.functional.one_hot(classes, 4).float()
    index = torch.arange(120).repeat_interleave(2)
    x = truth[index] + 0.15 * torch.randn(240, 4, generator=generator)
    cuts = ((0, 60), (60, 90), (90, 120))
    parts = [protocols.ClipFeatures(x[2 * i : 2 * j], index[2 * i : 2 * j] - i, truth[i:j]) for i, j in cuts]
    probe = protocols.linear_probe(*parts, 4, seed=0, single_label=True)
    assert probe.scores.sum(axis=1) == pytest.approx(np.ones(30), abs=1e-5)
    assert (probe.scores.argmax(axis=1) == classes[90:].numpy()).mean() > 0.9
    clip = probe.predict(parts[2].x[:2])
    assert clip.mean(dim=0).numpy() == pytest.approx(probe.scores[0], abs=1e-6)
    assert probe.settings["single_label"] is True


def test_the_features_of_some_tracks_are_theirs():
    x = torch.arange(12.0).view(6, 2)
    features = protocols.ClipFeatures(x, torch.tensor([2, 0, 1, 2, 0, 1]), torch.eye(3), ("a", "b", "c"))
    some = protocols.only(features, {"c", "a"})
    assert some.ids == ("a", "c") and some.targets.tolist() == [[1, 0, 0], [0, 0, 1]]
    assert some.track_index.tolist() == [1, 0, 1, 0] and some.x.tolist() == x[[0, 1, 3, 4]].tolist()
    with pytest.raises(ValueError, match="1 ids are none of these 3 tracks, e.g. 'd'"):
        protocols.only(features, {"a", "d"})
