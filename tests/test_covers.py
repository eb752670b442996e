"""Cover songs: crops by key, a loop that resumes to the bit, embeddings of whole songs."""

import types

import numpy as np
import pytest
import soundfile
import torch
import torch.nn.functional as F
from torch import nn

from pawlib import checkpoints, systems
from pawlib.bench import cover_baselines, covers, cqt, retrieval, store
from pawlib.bench.datasets import Track
from pawlib.model import MusicPAW
from pawlib.systems import layers, transfer

RECIPE = {
    "lengths": (20, 30), "speed": (0.7, 1.3), "n_masks": 2, "mask_bins": 24, "n_epochs": 3, "batch_size": 4,
    "learning_rate": 1e-2, "weight_decay": 1e-5, "n_clips": 2, "precision": "32-true",
}  # fmt: skip


class Tiny(layers.CoverNet):
    """A cover-song system of two small layers."""

    slug, min_frames = "tiny", 20

    def __init__(self, n_classes=4):
        super().__init__(n_classes)
        self.layer = layers.Conv2dLayer(1, 4, (12, 3), stride=2)
        self.add_head(4 * 73)

    def features(self, x):
        return self.layer(x).mean(dim=3).flatten(1)


class TinyWithClips(Tiny):
    """The same, with the level of some clips beside it."""

    slug, needs_clips, sample_rate, n_samples = "tiny_with_clips", True, 8000, 400

    def __init__(self, n_classes=4):
        layers.CoverNet.__init__(self, n_classes)
        self.layer = layers.Conv2dLayer(1, 4, (12, 3), stride=2)
        self.encoder = nn.Linear(400, 512)
        self.add_head(4 * 73 + 512)

    def log_mels(self, waves):
        return waves

    def forward(self, x, clips):
        clips = clips if clips.shape[-1] == 512 else self.encoder(clips)
        return self.embed(torch.cat([self.features(self.check(x)), clips.mean(dim=1)], dim=1))


class Waves:
    """A store of made-up songs: constant waves, song i at the level i / 100."""

    def sample_rate(self, _):
        return 8000

    def n_samples(self, _):
        return 1000

    def read(self, track_id, start=0, n_samples=None):
        return np.full(1000, int(track_id[1:]) / 100, np.float32)[start:][:n_samples]


def made_up(first_work, n_works, n_covers=3, n_frames=40, **kw):
    """Songs whose work says which two semitones sound, each cover a little noisy and of its own length."""
    random = np.random.default_rng(first_work)
    ids, works, cqts = [], [], []
    for i in range(n_works * n_covers):
        work = first_work + i // n_covers
        one = 0.2 * random.random((84, n_frames + i), dtype=np.float32)
        one[[5 * work % 84, (7 * work + 30) % 84]] += 0.8
        ids.append(f"s{first_work * n_covers + i}")
        works.append(f"w{work}")
        cqts.append(one / one.max())
    return covers.Songs(tuple(ids), tuple(works), cqts, **kw)


def network(seed=0, made=Tiny, n_classes=4):
    torch.manual_seed(seed)
    return made(n_classes)


def train(out, model=None, some=None, valid=None, **changes):
    told, model = [], model or network()
    some, valid = made_up(0, 4) if some is None else some, made_up(10, 3) if valid is None else valid
    return model, covers.train(model, some, valid, out, **{**RECIPE, "report": told.append, **changes}), told


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    out = tmp_path_factory.mktemp("undisturbed")
    return out, *train(out)


# --- what a song undergoes ---


@pytest.mark.parametrize(("speed", "n_frames"), [((1.3, 1.3), 50), ((0.7, 0.7), 20), ((1, 1), 30), ((0.9, 0.9), 27)])
def test_speed_is_torchs_linear_interpolation_of_the_whole_song(speed, n_frames):
    song = np.random.default_rng(0).random((84, 40), dtype=np.float32)
    new_length = int(40 * speed[0])
    whole = F.interpolate(torch.from_numpy(song)[None], size=new_length, mode="linear", align_corners=False)[0].numpy()
    starts = set()
    for key in range(20):
        found = covers.crop(song, n_frames, key, speed, n_masks=0)
        heard = min(n_frames, new_length)
        (start,) = (
            i
            for i in range(new_length - heard + 1)
            if np.allclose(found[:, :heard], whole[:, i : i + heard], atol=1e-5)
        )
        assert (found[:, heard:] == 0).all()
        starts.add(start)
    assert len(starts) > 1 or new_length <= n_frames


def test_speeds_cover_their_range():
    song = np.ones((84, 1000), np.float32)
    lengths = [(covers.crop(song, 2000, key, n_masks=0)[0] > 0).sum() for key in range(200)]
    assert 700 <= min(lengths) < 730 and 1270 < max(lengths) <= 1300


def test_bands_are_silenced_up_to_their_width_anywhere():
    song, silent = np.ones((84, 30), np.float32), []
    for key in range(300):
        found = covers.crop(song, 30, key, (1, 1), n_masks=1)
        rows = np.flatnonzero((found == 0).all(axis=1))
        assert ((found == 0) == (found == 0).all(axis=1)[:, None]).all()
        assert len(rows) <= 24 and (len(rows) == 0 or len(rows) == rows[-1] - rows[0] + 1)
        silent.append(rows)
    assert {len(rows) for rows in silent} == set(range(25))
    assert {0, 83} <= {int(r) for rows in silent for r in rows}
    assert covers.crop(song, 30, 1, (1, 1), n_masks=2, mask_bins=0).all()


@pytest.mark.parametrize("key", range(8))
def test_a_song_is_moved_by_whole_rows_and_keeps_everything_else(key):
    random = np.random.default_rng(3)
    song = random.random((84, 60), dtype=np.float32)
    plain, moved = (covers.crop(song, 40, key, n_masks=0, semitones=n) for n in (0, 6))
    shifts = [n for n in range(-6, 7) if np.array_equal(np.roll(plain, n, axis=0)[6:-6], moved[6:-6])]
    assert len(shifts) == 1
    lost = slice(0, shifts[0]) if shifts[0] >= 0 else slice(84 + shifts[0], 84)
    assert not moved[lost].any() and np.count_nonzero(moved) == (84 - abs(shifts[0])) * 40
    assert np.array_equal(moved, covers.crop(song, 40, key, n_masks=0, semitones=6))


def test_every_key_comes_about_equally_often_and_bands_are_silenced_after_the_move():
    song = np.zeros((84, 20), np.float32)
    song[40] = 1
    keys = [int(covers.crop(song, 20, key, (1, 1), 0, 0, 6)[:, 0].argmax()) - 40 for key in range(1300)]
    assert np.bincount(np.array(keys) + 6).min() > 60 and {*keys} == {*range(-6, 7)}
    silent = [covers.crop(song + 1, 20, key, (1, 1), 1, 24, 6)[:, 0] == 0 for key in range(200)]
    alone = [covers.crop(song + 1, 20, key, (1, 1), 1, 24)[:, 0] == 0 for key in range(200)]
    assert all(band[alone[i]].all() for i, band in enumerate(silent)), "a band that was to be silent sounds"


def test_moving_by_more_rows_than_there_are_leaves_silence():
    assert not covers._moved(np.ones((3, 2), np.float32), 3).any()
    assert covers._moved(np.ones((3, 2), np.float32), 1).sum(axis=1).tolist() == [0, 2, 2]
    assert covers._moved(np.ones((3, 2), np.float32), -1).sum(axis=1).tolist() == [2, 2, 0]


def test_a_key_says_everything():
    song = np.random.default_rng(0).random((84, 300), dtype=np.float32)
    a, b, c = (covers.crop(song, 200, key) for key in (3, 3, 4))
    assert np.array_equal(a, b) and not np.array_equal(a, c)


# --- training ---


def test_a_run_leaves_a_checkpoint_with_its_works_and_nothing_to_resume(undisturbed):
    out, model, history, told = undisturbed
    card = checkpoints.read_card(out / "checkpoint.safetensors")
    assert card["kind"] == "cover" and card["labels"] == ["w0", "w1", "w2", "w3"]
    assert card["metrics"]["valid_map"] == max(entry["valid_map"] for entry in history)
    assert card["training"]["lengths"] == [20, 30] and card["training"]["steps_per_epoch"] == 6  # 12 songs, 4, twice
    assert sorted(p.name for p in out.iterdir() if p.name[0] != ".") == [
        "checkpoint.json", "checkpoint.safetensors", "history.json",
    ]  # fmt: skip
    assert len(history) == len(told) == 3 and "valid MAP" in told[0]


@pytest.mark.parametrize("stops", [(1,), (6,), (2, 9), (17,)], ids=["in an epoch", "after one", "twice", "at last"])
def test_stopping_and_resuming_gives_bit_equal_weights(undisturbed, tmp_path, stops):
    _, model, history, _ = undisturbed
    for n_steps in stops:
        train(tmp_path, stop_after_steps=n_steps)
        assert (tmp_path / "last.safetensors").exists() and not (tmp_path / "checkpoint.safetensors").exists()
    resumed, again, _ = train(tmp_path, model=network(seed=5))
    for name, value in model.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    assert [(e["loss"], e["valid_map"]) for e in again] == [(e["loss"], e["valid_map"]) for e in history]


def test_a_finished_run_is_read_back_and_another_ones_folder_refused(undisturbed):
    out, model, history, _ = undisturbed
    other, again, told = train(out, model=network(seed=9))
    assert again == history and told == []
    assert torch.equal(other.embedding.weight, model.embedding.weight)
    with pytest.raises(ValueError, match="was made with seed=0, this run wants 1"):
        train(out, seed=1)


def test_the_best_weights_are_kept_and_the_rate_falls_after_three_epochs_not_better(tmp_path, monkeypatch):
    scores, seen = iter([0.1, 0.9, *[0.5] * 7]), []

    def validate(run):
        seen.append(run.bare.embedding.weight.detach().clone())
        return next(scores)

    monkeypatch.setattr(covers._Run, "_validate", validate)
    model, history, _ = train(tmp_path, n_epochs=9, steps_per_epoch=1)
    assert torch.equal(model.embedding.weight, seen[1]) and not torch.equal(seen[1], seen[8])
    assert [e["learning_rate"] for e in history] == pytest.approx([1e-2] * 5 + [8e-3] * 3 + [6.4e-3])


def test_the_cosine_rises_to_its_height_and_falls_to_nothing():
    rates = [covers.cosine(step, 1000, 1e-3) for step in range(1000)]
    assert rates[0] == pytest.approx(1e-3 / covers.WARM_UP) and max(rates) == pytest.approx(1e-3, rel=0.01)
    top = int(np.argmax(rates))
    assert top == covers.WARM_UP - 1 and rates[:top] == sorted(rates[:top])
    assert rates[top:] == sorted(rates[top:], reverse=True) and rates[-1] < 1e-8
    assert rates[500] == pytest.approx(0.5e-3)


def test_a_run_by_the_cosine_has_its_rates_and_resumes_to_the_bit(tmp_path):
    changes = {"schedule": "cosine", "semitones": 6}
    model, history, _ = train(tmp_path / "once", **changes)
    n_steps = len(history) * 6
    assert [e["learning_rate"] for e in history] == [covers.cosine(k, n_steps, 1e-2) for k in (5, 11, 17)]
    resumed = network()
    for stop in (4, 3, None):
        resumed, again, _ = train(tmp_path / "stopped", resumed, stop_after_steps=stop, **changes)
        resumed = resumed if stop is None else network()
    assert [e["loss"] for e in again] == [e["loss"] for e in history]
    for name, value in model.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    with pytest.raises(ValueError, match="was made with sem"):
        train(tmp_path / "once", schedule="cosine", semitones=5)
    with pytest.raises(ValueError, match="schedule='linear' is unknown"):
        train(tmp_path / "other", schedule="linear")


def with_instruments(first_work, n_works, n_covers=4):
    """Songs whose lower half says which work it is, and whose louder upper half says who plays: each cover another."""
    random = np.random.default_rng(first_work)
    works = np.repeat(np.arange(n_works), n_covers)
    notes, instruments = random.random((n_works, 42)) ** 4, random.random((len(works), 42)) ** 4
    columns = np.concatenate([0.5 * notes[works], instruments], axis=1).astype(np.float32)
    cqts = [np.repeat(column[:, None], 30, axis=1) for column in columns]
    return covers.Songs(tuple(f"s{i}" for i in range(len(works))), tuple(f"w{first_work + w}" for w in works), cqts)


def test_what_is_learnt_finds_covers_of_unheard_works(tmp_path):
    model, some, valid = network(n_classes=16), with_instruments(0, 16), with_instruments(100, 8)
    before = retrieval.from_embeddings(covers.embed(model, valid, precision="32-true"), valid.works)["map"]
    changes = {"n_epochs": 6, "batch_size": 16, "learning_rate": 3e-3, "lengths": (20,), "n_masks": 0}
    _, history, _ = train(tmp_path, model, some, valid, **changes)
    after = retrieval.from_embeddings(covers.embed(model, valid, precision="32-true"), valid.works)["map"]
    assert history[-1]["loss"] < 0.1 * history[0]["loss"]
    assert after == pytest.approx(max(e["valid_map"] for e in history), abs=1e-3)
    assert after > before + 0.1 > 0.6  # chance is 0.21


def test_batches_have_one_length_and_each_length_passes_over_all_songs():
    some = made_up(0, 5, 2)
    identity = {"batch_size": 4, "seed": 0, "lengths": [20, 30], "speed": [1, 1], "n_masks": 0, "mask_bins": 0}
    run = types.SimpleNamespace(songs=some, identity=identity, bare=network())
    batches = covers._Run._batches(run, 0)
    heard = {20: [], 30: []}
    for _ in range(10):
        rows, (x,) = next(batches)
        heard[x.shape[-1]] += rows
    for rows in heard.values():
        assert sorted(rows[:10]) == sorted(rows[10:]) == list(range(10)) and rows[:10] != rows[10:]
    assert heard[20] != heard[30]


def test_a_run_resumed_at_any_step_goes_on_with_the_same_batches():
    some = made_up(0, 5, 1)
    identity = {"batch_size": 4, "seed": 0, "lengths": [20], "speed": [1, 1], "n_masks": 0, "mask_bins": 0}
    run = types.SimpleNamespace(songs=some, identity=identity, bare=network())
    batches = covers._Run._batches(run, 0)
    for step in range(25):  # 20 passes, with batches that begin in one and end in the next
        rows, (x,) = next(batches)
        again, (y,) = next(covers._Run._batches(run, step))
        assert rows == again and torch.equal(x, y), step


@pytest.mark.parametrize("kind", ["waves", "features"])
def test_systems_that_hear_clips_get_them_and_resume_to_the_bit(tmp_path, kind):
    def some(first, n):
        if kind == "waves":
            return made_up(first, n, store=Waves())
        random = np.random.default_rng(first)
        features = [random.random((2 + i % 3, 512), dtype=np.float32) for i in range(3 * n)]
        return made_up(first, n, clip_features=features)

    def run(out, **changes):
        model = network(made=TinyWithClips)
        return train(out, model, some(0, 4), some(10, 3), n_epochs=1, **changes)[0]

    once = run(tmp_path / "once")
    run(tmp_path / "twice", stop_after_steps=2)
    twice = run(tmp_path / "twice")
    assert all(torch.equal(a, b) for a, b in zip(once.state_dict().values(), twice.state_dict().values(), strict=True))
    assert checkpoints.read_card(tmp_path / "once" / "checkpoint.safetensors")["training"]["clips"] == kind


def test_a_loss_that_is_not_finite_says_where(tmp_path):
    model = network()
    with torch.no_grad():
        model.classifier.bias[0] = np.nan
    with pytest.raises(FloatingPointError, match=r"the loss is nan in epoch 1, step 1, songs s\d"):
        train(tmp_path, model)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model": network(n_classes=9)}, "tells 9 songs apart, the training recordings are of 4"),
        ({"valid": made_up(3, 2)}, "1 works are in training and validation, w3"),
        ({"valid": made_up(10, 5, 1)}, "none of the 5 tracks has another recording"),
        ({"lengths": (10, 30)}, "crops of 10 frames are too short for tiny, which needs 20"),
        ({"model": network(made=TinyWithClips)}, "hears clips beside the CQT"),
        ({"valid": covers.Songs((), (), [])}, "12 training and 0 validation songs"),
    ],
)
def test_what_cannot_work_is_refused_at_once(tmp_path, changes, said):
    with pytest.raises(ValueError, match=said):
        train(tmp_path, **changes)


# --- embedding ---


def test_songs_keep_their_order_and_what_else_is_in_the_list_changes_nothing():
    model, some = network().train(), made_up(0, 4)
    together = covers.embed(model, some, precision="32-true")
    assert together.shape == (12, 300) and together.dtype == np.float32 and model.training
    for i in (0, 5, 11):
        alone = covers.embed(model, [some.cqts[i]], precision="32-true")
        np.testing.assert_allclose(alone[0], together[i], atol=1e-5)


def test_a_song_too_short_for_the_network_is_followed_by_zeros():
    model, song = network(), np.random.default_rng(0).random((84, 12), dtype=np.float32)
    found, expected = (
        covers.embed(model, [one], precision="32-true") for one in (song, np.pad(song, ((0, 0), (0, 8))))
    )
    assert np.array_equal(found, expected)


def test_clips_of_a_whole_song_are_heard_evenly_spread():
    model, some = network(made=TinyWithClips), made_up(1, 1, 2, store=Waves())
    found = covers.embed(model, some, precision="32-true")
    with torch.inference_mode():
        clips = torch.full((1, 3, 400), 0.02)  # 1000 samples are three clips of 400; the song is s2
        x = torch.from_numpy(some.cqts[0])[None, None]
        expected = model.eval()(x, clips).numpy()
    np.testing.assert_allclose(found[:1], expected, atol=1e-5)
    np.testing.assert_allclose(covers.embed(model, some, n_clips=1, precision="32-true"), found, atol=1e-5)


def test_nothing_to_embed_and_what_is_not_finite_are_errors():
    with pytest.raises(ValueError, match="no songs to embed"):
        covers.embed(network(), [])
    model = network()
    with torch.no_grad():
        model.embedding.bias[0] = np.nan
    with pytest.raises(ValueError, match="the embedding of s0 is not finite"):
        covers.embed(model, made_up(0, 1))


# --- a system from the registry ---


def test_a_trained_system_is_loaded_from_its_checkpoint(tmp_path):
    some, valid = made_up(0, 2, 2, 210), made_up(10, 2, 2, 210)
    model = covers.start("ki_net", 2, seed=0)
    recipe = covers.recipe("toy", steps_per_epoch=1, n_epochs=1, batch_size=2, precision="32-true")
    covers.train(model, some, valid, tmp_path, report=lambda line: None, **recipe)
    loaded = covers.load(tmp_path / "checkpoint.safetensors")
    assert loaded.slug == "ki_net" and not loaded.training
    a, b = (covers.embed(one, valid, precision="32-true") for one in (model, loaded))
    np.testing.assert_allclose(a, b, atol=1e-5)  # another memory order
    with pytest.raises(FileNotFoundError):
        covers.load(tmp_path / "other.safetensors")


def test_a_start_is_drawn_by_its_seed_and_disturbs_nobody():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    a, b, c = (covers.start("tpp_net", 2, seed).embedding.weight for seed in (0, 0, 1))
    assert torch.equal(torch.rand(1), expected)
    assert torch.equal(a, b) and not torch.equal(a, c)


def test_starts_that_make_no_sense_are_refused(tmp_path):
    with pytest.raises(ValueError, match="'crnn' is no cover-song system, expected one of ki_net"):
        covers.start("crnn", 2, 0)
    with pytest.raises(ValueError, match="tpp_net has no pretrained encoder in it"):
        covers.start("tpp_net", 2, 0, init=tmp_path / "x.safetensors")
    checkpoints.save(systems.build("fcn_4", n_classes=2), tmp_path / "x.safetensors", "tagger", {"labels": ["a", "b"]})
    with pytest.raises(ValueError, match="holds a 'tagger' checkpoint, not a cover-song system"):
        covers.load(tmp_path / "x.safetensors")
    made = covers.start("fcn_4_on_cqt_net", 2, 0, init=tmp_path / "x.safetensors")
    assert made.settings["n_classes"] == 2


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A file for each start of Table 4 but "random", as the chapters of pretraining leave it."""
    folder = tmp_path_factory.mktemp("starts")
    torch.manual_seed(0)
    for slug in ("byol_a", "multi_format", "cola"):
        systems.system(slug)().save(folder / f"{slug}.safetensors", {"seed": 0})
    MusicPAW("music_paw").save(folder / "music_paw.safetensors", {"seed": 0})
    tagger = systems.build("fcn_4", n_classes=2)
    checkpoints.save(tagger, folder / "supervised_mtat.safetensors", "tagger", {"labels": ["a", "b"]})
    return lambda init: None if init == "random" else folder / f"{init}.safetensors"


@pytest.mark.parametrize("init", ["random", "supervised_mtat", "byol_a", "multi_format", "cola", "music_paw"])
def test_every_start_of_table_4_learns_from_its_own_weights(init, checkpoint, tmp_path):
    model = covers.start("fcn_4_on_cqt_net", 2, seed=0, init=checkpoint(init))
    assert (model.sample_rate, model.n_samples) == (16_000, 44_800)
    if init != "random":
        theirs = transfer.from_checkpoint(checkpoint(init), 2, seed=0)[0].encoder.state_dict()
        assert all(torch.equal(value, theirs[name]) for name, value in model.encoder.state_dict().items())
    before = [p.detach().clone() for p in model.parameters()]
    some, valid = (made_up(first, 2, 2, 200, store=Waves()) for first in (0, 10))
    recipe = covers.recipe("toy", steps_per_epoch=1, n_epochs=1, batch_size=2, precision="32-true")
    history = covers.train(model, some, valid, tmp_path, report=lambda line: None, **recipe)
    assert np.isfinite(history[0]["loss"]) and 0 < history[0]["valid_map"] <= 1
    moved = [not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True)]
    assert sum(moved) > 0.9 * len(moved)  # both branches and what joins them
    card = checkpoints.read_card(tmp_path / "checkpoint.safetensors")
    assert card["training"]["clips"] == "waves" and len(card["training"]["start"]) == 16


def test_a_run_from_another_pretraining_is_another_run(tmp_path):
    some, valid = made_up(0, 4, store=Waves()), made_up(10, 3, store=Waves())
    model = network(made=TinyWithClips)
    train(tmp_path, model, some, valid, n_epochs=1)
    with pytest.raises(ValueError, match="was made with start="):
        train(tmp_path, network(seed=1, made=TinyWithClips), some, valid, n_epochs=1)


def test_the_published_recipe_is_the_published_one():
    recipe = covers.recipe("paper")
    assert recipe["lengths"] == (200, 300, 400) and recipe["speed"] == (0.7, 1.3)
    assert (recipe["n_masks"], recipe["mask_bins"], recipe["batch_size"]) == (2, 24, 32)
    assert (recipe["learning_rate"], recipe["weight_decay"]) == (1e-3, 1e-5)
    assert recipe["n_epochs"] == 100 and not {"semitones", "schedule"} & set(recipe), "of ours, not published"
    assert covers.start("cqt_net", 3, 0, scale="paper").settings == {"slug": "cqt_net", "n_classes": 3}
    assert covers.recipe("toy", n_epochs=7)["n_epochs"] == 7
    with pytest.raises(ValueError, match="scale='huge' is unknown"):
        covers.recipe("huge")


def test_tracks_without_a_feature_are_left_out():
    tracks = [Track(name, None, np.zeros(0), f"work of {name}") for name in "abc"]
    found = cqt.Cqts(("c", "a"), [np.zeros((84, 3)), np.ones((84, 4))], [{"id": "b", "path": "", "reason": ""}])
    some = covers.songs(tracks, found, clip_features={"a": "A", "c": "C"})
    assert some.ids == ("a", "c") and some.works == ("work of a", "work of c") and some.clip_features == ["A", "C"]
    assert [one.shape[1] for one in some.cqts] == [4, 3] and len(some) == 2


# --- from audio ---


def played(notes, shift, seconds_a_note, rate=8000):
    """A melody as audio: each note a sine with two overtones, fading."""
    time = np.arange(int(seconds_a_note * rate)) / rate
    pieces = []
    for note in notes:
        hz = 262 * 2 ** ((note + shift) / 12)
        pieces.append(sum(np.sin(2 * np.pi * k * hz * time) / k for k in (1, 2, 3)) * np.exp(-2 * time))
    return (0.2 * np.concatenate(pieces)).astype(np.float32)


def test_from_audio_files_to_a_score(tmp_path):
    random, tracks = np.random.default_rng(0), []
    for work in range(4):
        notes = random.choice([0, 2, 4, 5, 7, 9, 11], 16, p=random.dirichlet(np.ones(7)))
        for shift, seconds_a_note in ((0, 0.4), (3 + work, 0.5)):
            path = tmp_path / f"{work} {shift}.wav"
            soundfile.write(path, played(notes, shift, seconds_a_note), 8000)
            tracks.append(Track(path.stem, path, np.zeros(0, np.float32), f"work {work}"))
    opened = store.prepare(tracks, tmp_path / "store", n_workers=0)
    some = covers.songs(tracks, cqt.features(tracks, opened, n_mean=4, n_workers=0), opened)
    assert len(some) == 8 and {one.shape[1] for one in some.cqts} == {69, 86}
    for similarity in (cover_baselines.averaged_chroma(some.cqts), cover_baselines.qmax(some.cqts)):
        assert retrieval.retrieval(similarity, some.works)["map"] == 1.0
    found = covers.embed(covers.start("ki_net", 2, seed=0), some)
    assert found.shape == (8, 300)
