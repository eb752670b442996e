"""Whole networks learn labels: the loop resumes to the bit, keeps the best weights, and hears every second.

How a trained network answers for a track: test_scoring.py. Drawing few labels: test_datasets.py.
"""

import dataclasses
import json
import types

import numpy as np
import pytest
import torch
from torch import nn

from pawlib import checkpoints
from pawlib.bench import datasets, loop, protocols, supervised
from pawlib.bench.datasets import Splits, Track
from pawlib.bench.supervised import Stage

STAGES = (Stage("adam", 1e-2, 2, 2), Stage("sgd", 1e-3, 1, 1))
RECIPE = {"stages": STAGES, "batch_size": 4, "weight_decay": 1e-4, "select": "roc_auc", "precision": "32-true"}


class Tiny(nn.Module):
    """A network of two numbers: level and brightness of a wave of 800 samples."""

    sample_rate, n_samples = 16_000, 800

    def __init__(self, n_classes=3):
        super().__init__()
        self.settings = {"n_classes": n_classes}
        self.norm, self.head = nn.BatchNorm1d(2), nn.Sequential(nn.Dropout(0.2), nn.Linear(2, n_classes))

    def forward(self, wave):
        return self.head(self.norm(torch.stack([wave.std(dim=1), wave.diff(dim=1).std(dim=1)], dim=1)))


class Songs:
    """Made-up songs whose level says which of three labels they carry."""

    def __init__(self, n, n_samples=2500, single_label=False):
        random = np.random.default_rng(0)
        self.waves, self.tracks = {}, []
        for i in range(n):
            wave = (0.05 + 0.3 * (i % 3)) * random.standard_normal(n_samples)
            self.waves[f"s{i}"] = wave.astype(np.float32)
            target = np.eye(3, dtype=np.float32)[i % 3]
            if not single_label:
                target[2] = i % 2
            self.tracks.append(Track(f"s{i}", None, target, f"w{i}", "ann" if i % 4 else "bob"))

    def sample_rate(self, _):
        return 16_000

    def n_samples(self, track_id):
        return len(self.waves[track_id])

    def read(self, track_id, start=0, n_samples=None):
        return self.waves[track_id][start:][:n_samples]


def corpus(n_train=10, single_label=False, **kw):
    songs = Songs(n_train + 12, single_label=single_label, **kw)
    parts = songs.tracks[:n_train], songs.tracks[n_train : n_train + 6], songs.tracks[n_train + 6 :]
    splits = Splits(*parts, ("soft", "loud", "odd"), "made-up", single_label=single_label)
    return types.SimpleNamespace(splits=splits, store=songs)


def network(seed=0, n_classes=3):
    torch.manual_seed(seed)
    return Tiny(n_classes)


def train(out, model=None, data=None, **changes):
    told = []
    model, data = model or network(), data or corpus()
    return model, supervised.train(model, data, out, **{**RECIPE, "report": told.append, **changes}), told


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    out = tmp_path_factory.mktemp("undisturbed")
    return out, *train(out)


def test_a_run_leaves_a_checkpoint_with_its_labels_and_nothing_to_resume(undisturbed):
    out, model, history, told = undisturbed
    card = checkpoints.read_card(out / "checkpoint.safetensors")
    assert card["kind"] == "tagger" and card["labels"] == ["soft", "loud", "odd"]
    assert card["training"]["stages"][1]["optimizer"] == "sgd"
    assert sorted(p.name for p in out.iterdir() if p.name[0] != ".") == [
        "checkpoint.json", "checkpoint.safetensors", "history.json",
    ]  # fmt: skip
    assert [one["stage"] for one in history] == [1, 1, 2] and len(told) == 3
    loaded = network(seed=3)
    checkpoints.load_weights(loaded, out / "checkpoint.safetensors")
    assert all(
        torch.equal(a, b) for a, b in zip(loaded.state_dict().values(), model.state_dict().values(), strict=True)
    )


@pytest.mark.parametrize("stops", [(1,), (3,), (2, 4), (7,)], ids=["in an epoch", "after one", "twice", "in SGD"])
def test_stopping_and_resuming_gives_bit_equal_weights(undisturbed, tmp_path, stops):
    _, model, history, _ = undisturbed
    for n_steps in stops:
        train(tmp_path, stop_after_steps=n_steps)
        assert (tmp_path / "last.safetensors").exists() and not (tmp_path / "checkpoint.safetensors").exists()
    resumed, again, _ = train(tmp_path)
    for name, value in model.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    assert [e["loss"] for e in again] == [e["loss"] for e in history]


def test_a_finished_run_is_read_back(undisturbed):
    out, model, history, _ = undisturbed
    other, again, told = train(out)
    assert again == history and told == []
    assert torch.equal(other.head[1].weight, model.head[1].weight)
    assert not torch.equal(other.head[1].weight, network().head[1].weight)


def test_a_run_from_other_weights_is_another_run(undisturbed, tmp_path):
    out, *_ = undisturbed
    with pytest.raises(ValueError, match="was made with start=.* choose another folder"):
        train(out, model=network(seed=9))
    train(tmp_path, stop_after_steps=1)
    with pytest.raises(ValueError, match="last.safetensors was made with start="):
        train(tmp_path, model=network(seed=9))


def test_a_setting_that_only_one_of_two_runs_has_tells_them_apart(tmp_path):
    for there, wanted in (({"a": 1, "first": True}, {"a": 1}), ({"a": 1}, {"a": 1, "first": True})):
        with pytest.raises(ValueError, match="was made with first="):
            loop.same_run(there, wanted, tmp_path)
    loop.same_run({"a": 1, "settings": {"b": 2}}, {"settings": {"b": 2}, "a": 1}, tmp_path)


def test_the_best_weights_are_kept_and_taken_up_by_the_next_stage(tmp_path, monkeypatch):
    scores, seen = iter([0.9, 0.5, 0.6]), []

    def validate(run):
        seen.append(run.bare.head[1].weight.detach().clone())
        return next(scores)

    monkeypatch.setattr(supervised._Run, "_validate", validate)
    model, history, _ = train(tmp_path, stages=(Stage("adam", 1e-2, 2, 5), Stage("sgd", 0.0, 1, 1)))
    assert torch.equal(model.head[1].weight, seen[0])
    assert torch.equal(seen[2], seen[0])  # the second stage, at rate 0, began with the first epoch's weights
    assert not torch.equal(seen[1], seen[0])


def test_a_stage_ends_when_patience_does_and_the_rate_falls_on_a_plateau(tmp_path, monkeypatch):
    monkeypatch.setattr(supervised._Run, "_validate", lambda run: 0.5)
    _, history, _ = train(tmp_path, stages=(Stage("adam", 1e-2, 50, 5, plateau=2),))
    assert len(history) == 6  # one that is the best, five that are not better
    assert [one["learning_rate"] for one in history] == pytest.approx([1e-2] * 3 + [1e-3] * 2 + [1e-4])


def test_max_epochs_holds_over_all_stages(tmp_path):
    _, history, _ = train(tmp_path, stages=(Stage("adam", 1e-2, 5, 5), Stage("sgd", 1e-3, 5, 5)), max_epochs=6)
    assert [one["optimizer"] for one in history] == ["adam"] * 5 + ["sgd"]


def test_every_track_is_heard_once_in_a_pass_before_any_is_heard_again():
    data = corpus(n_train=10)
    targets = torch.from_numpy(datasets.targets(data.splits.train))
    identity = {"batch_size": 4, "seed": 0}
    run = types.SimpleNamespace(
        tracks=data.splits.train, corpus=data, bare=network(), targets=targets, identity=identity
    )
    batches = supervised._Run._batches(run, 0)
    heard = [song for _ in range(5) for song in next(batches)[0]]
    assert sorted(heard[:10]) == sorted(heard[10:]) == sorted(track.id for track in data.splits.train)
    assert heard[:10] != heard[10:]
    later = supervised._Run._batches(run, 3)  # a resumed run begins there
    songs, wave, _ = next(later)
    assert songs == heard[12:16] and wave.shape == (4, 800)
    for _ in range(15):
        through = next(batches)[0]  # its steps 5 to 19: the last spans passes 7 and 8
    assert next(supervised._Run._batches(run, 19))[0] == through


def test_losses_are_those_of_the_definitions():
    logits, target = torch.tensor([[0.5, -1.0, 2.0]]), torch.tensor([[0.0, 0.0, 1.0]])
    p = [1 / (1 + np.exp(-x)) for x in (0.5, -1.0, 2.0)]
    by_hand = -(np.log(1 - p[0]) + np.log(1 - p[1]) + np.log(p[2])) / 3
    assert float(protocols.loss_of(logits, target, single_label=False)) == pytest.approx(by_hand, rel=1e-6)
    by_hand = -np.log(np.exp(2) / (np.exp(0.5) + np.exp(-1) + np.exp(2)))
    assert float(protocols.loss_of(logits, target, single_label=True)) == pytest.approx(by_hand, rel=1e-6)


def test_a_loss_that_is_not_finite_says_where_and_keeps_what_was_good(tmp_path):
    data = corpus()
    train(tmp_path, data=data, stop_after_steps=4)
    for wave in data.store.waves.values():
        wave[:] = np.nan
    with pytest.raises(FloatingPointError, match=r"epoch 2, step 5, songs s\d+.*samples from nan to nan"):
        train(tmp_path, data=data)
    assert (tmp_path / "last.safetensors").exists() and (tmp_path / "best.safetensors").exists()


def test_a_label_without_a_positive_is_named(tmp_path):
    data = corpus()
    tracks = [track for track in data.splits.train if not track.target[1]]
    with pytest.warns(UserWarning, match="1 labels have no positive training track: loud"):
        train(tmp_path, data=data, tracks=tracks)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"tracks": []}, "0 training and 6 validation tracks"),
        ({"select": "f1"}, "select='f1' is unknown"),
        ({"select": "accuracy"}, "accuracy for classes only"),
        ({"stages": (Stage("lion", 1e-3, 1, 1),)}, "optimizer='lion' is unknown"),
        ({"model": network(n_classes=5)}, "answers for 5 labels, made-up has 3"),
    ],
)
def test_what_cannot_work_is_refused_at_once(tmp_path, changes, said):
    with pytest.raises(ValueError, match=said):
        train(tmp_path, **changes)


def test_a_folder_of_another_run_is_refused(undisturbed):
    with pytest.raises(ValueError, match="was made with seed=0, this run wants 1"):
        train(undisturbed[0], seed=1)


def test_classes_are_chosen_by_accuracy_too(tmp_path):
    model, history, _ = train(
        tmp_path, data=corpus(n_train=12, single_label=True), select="accuracy", stages=(Stage("adam", 0.05, 20, 20),)
    )
    assert history[-1]["valid_accuracy"] == 1.0  # three levels are easy to tell apart


# --- recipes ---


def test_the_published_recipe_is_the_published_one():
    recipe = supervised.recipe("supervised", "paper")
    assert [(s.optimizer, s.learning_rate) for s in recipe["stages"]] == [
        ("adam", 1e-4), ("sgd", 1e-3), ("sgd", 1e-4), ("sgd", 1e-5),
    ]  # fmt: skip
    assert (recipe["batch_size"], recipe["max_epochs"], recipe["weight_decay"]) == (16, 200, 1e-4)
    assert recipe["stages"][0].patience == 80
    assert supervised.recipe("fine_tune", "paper")["stages"][0].patience == 10  # paper Sec. 4.1
    assert json.dumps([dataclasses.asdict(stage) for stage in recipe["stages"]])


@pytest.mark.parametrize("asked", [("probe", "toy"), ("supervised", "huge")])
def test_unknown_recipes_are_refused(asked):
    with pytest.raises(ValueError, match="is unknown, expected one of"):
        supervised.recipe(*asked)


def test_equal_work_gives_a_network_twice_as_dear_half_the_steps():
    class Dense(nn.Module):
        n_samples = 1000

        def __init__(self, n):
            super().__init__()
            self.layer = nn.Linear(1000, n)

        def forward(self, x):
            return self.layer(x)

    stages = (Stage("adam", 1e-3, 2, 2),)
    one, two = (supervised.equal_work(Dense(n), stages, 4, work=8e9, bounds=(1, 10**6)) for n in (1000, 2000))
    assert one == 1000 and two == 500  # 8e9 / (1e6 * 4) = 2000 steps in 2 epochs
    assert supervised.equal_work(Dense(1000), stages, 4, work=8e9, bounds=(1, 100)) == 50
