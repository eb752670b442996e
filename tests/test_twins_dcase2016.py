"""pawlib.bench.twins.dcase2016 and textures: what is drawn alike, what no fold shares, and a few painted recordings."""

import collections
import dataclasses

import numpy as np
import pytest
import soundfile
import torch

from pawlib.bench import baselines, corpora, protocols, store
from pawlib.bench.datasets import dcase2016 as reader
from pawlib.bench.files import read_json
from pawlib.bench.twins import dcase2016 as twin
from pawlib.bench.twins import freeze, textures
from pawlib.systems import transfer

RATE = 16_000
FOLLOWS_DB = 2.0  # how far an average spectrum may lie from what was asked for, in any band


@pytest.fixture(scope="module")
def small():
    return twin.plan("small", 0)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The toy size with pieces of one second and two pieces a recording, made as `make` makes a whole one."""
    root = tmp_path_factory.mktemp("twins") / "dcase2016"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(twin.SIZES, "toy", dataclasses.replace(twin.SIZES["toy"], pieces=2, piece_s=1))
        twin.make(root, "toy", 0, n_workers=1)
    return root


# --- what is drawn ----------------------------------------------------------------------------------------------------


def test_there_are_fifteen_classes_and_every_name_says_synthetic():
    assert len(twin.CLASSES) == len(set(twin.CLASSES)) == 15 == len(reader.CLASSES)
    assert {name.removeprefix("synthetic_") for name in twin.CLASSES} == {
        name.replace("/", "_") for name in reader.CLASSES
    }
    assert all(name.startswith("synthetic_") for name in twin.CLASSES)


def test_every_class_has_as_many_recordings_in_every_fold(small):
    counts = collections.Counter((recipe["class"], recipe["fold"]) for recipe in small)
    assert counts == {(name, fold): 2 if fold else 3 for name in twin.CLASSES for fold in range(5)}
    assert sum(len(recipe["files"]) for recipe in small) == 15 * (16 + 6)


def test_names_tell_the_recording_and_nothing_of_the_class(small):
    assert len({recipe["recording"] for recipe in small}) == len(small)
    first = [recipe["class"] for recipe in small if recipe["recording"].startswith("a")][:15]
    assert len(set(first)) > 5, "recordings of a class are not numbered in a row"
    files = [one["file"] for recipe in small for one in recipe["files"] if recipe["set"] == reader.EVALUATION]
    assert sorted(files) == sorted(f"audio/{k}.wav" for k in range(1, 91))


def test_what_is_alike_in_every_class_is_spread_alike(small):
    for name in twin.CLASSES:
        for key, (low, high) in twin.SPREAD.items():
            values = np.sort([r[f"{key}_db"] for r in small if r["class"] == name and r["set"] == reader.DEVELOPMENT])
            strata = (values - low) / (high - low) * len(values)
            assert (np.abs(strata - np.arange(len(values)) - 0.5) <= 0.51).all(), (name, key)


def test_the_plan_is_the_same_again_and_another_with_another_seed(small):
    assert twin.plan("small", 0) == small
    assert [r["seed"] for r in twin.plan("small", 1)] != [r["seed"] for r in small]
    with pytest.raises(ValueError, match="size='large' is unknown"):
        twin.plan("large")


def test_every_fold_has_a_device_of_its_own(small):
    f = np.geomspace(100, 10_000, 20)
    one = {**small[0], "seed": 1}
    curves = np.array([twin.filter_db(f, {**one, "fold": fold}) for fold in range(5)])
    apart = np.sqrt(((curves[:, None] - curves[None]) ** 2).mean(axis=-1))
    assert (apart[~np.eye(5, dtype=bool)] > 2).all(), "two devices hardly differ"
    again = twin.filter_db(f, {**one, "fold": 3})
    assert np.array_equal(again, curves[3])


# --- what is painted --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", twin.CLASSES)
def test_every_scene_has_events_and_the_spectrum_that_was_asked_for(small, name):
    recipe = next(r for r in small if r["class"] == name)
    wave, events = twin.painted(recipe, 12, rate=RATE)
    assert wave.shape == (2, 12 * RATE) and wave.dtype == np.float32 and np.isfinite(wave).all()
    assert abs(20 * np.log10(np.sqrt(np.mean(wave**2))) - recipe["level_db"]) < 0.1
    assert len(events) and all(0 <= at < 12 for _, at in events)
    powers, centres = textures.band_powers(wave, RATE)
    off = 10 * np.log10(powers) - twin.wanted_db(centres) - twin.filter_db(centres, recipe)
    assert np.abs(off - off.mean()).max() < FOLLOWS_DB
    assert not np.array_equal(wave[0], wave[1])


def test_a_recording_is_painted_the_same_again(small):
    (wave, events), (again, other) = (twin.painted(small[0], 3, rate=RATE) for _ in range(2))
    assert np.array_equal(wave, again) and events == other


def test_sounds_lie_where_they_were_put_and_are_cut_at_the_end():
    canvas = textures.Canvas(1.0, 1000, np.random.default_rng(0))
    canvas.put("click", 0.9, np.ones(300, np.float32), gain=2.0, pan=0.0)
    assert np.array_equal(canvas.front[0], np.r_[np.zeros(900), np.full(100, 2.0)].astype(np.float32))
    assert np.abs(canvas.front[1]).max() < 1e-6
    canvas.put("late", 1.2, np.ones(3, np.float32))
    assert canvas.events == [("click", 0.9)]


def test_noise_has_unit_power_and_lies_between_its_frequencies():
    canvas = textures.Canvas(2.0, RATE, np.random.default_rng(0))
    wave = canvas.noise(500, 1000, 0.0)
    power = np.abs(np.fft.rfft(wave)) ** 2
    f = np.fft.rfftfreq(len(wave), 1 / RATE)
    assert np.mean(wave**2) == pytest.approx(1, rel=1e-3)
    assert power[(f > 400) & (f < 1200)].sum() > 0.9 * power.sum()


def test_what_passes_by_is_kept_apart_from_the_scene_and_as_loud_as_asked():
    canvas = textures.Canvas(8.0, RATE, np.random.default_rng(0))
    textures.beach(canvas)
    scene = canvas.front.copy()
    textures.passers_by(canvas)
    assert np.array_equal(canvas.front, scene) and np.abs(canvas.passing).max() > 0
    loudest = {}
    for passing_db in (-60.0, 60.0):
        canvas.rng = np.random.default_rng(1)
        wave = textures.mixed(canvas, 60.0, passing_db)  # hardly any bed
        loudest[passing_db] = [np.corrcoef(wave[0], layer[0])[0, 1] for layer in (canvas.front, canvas.passing)]
    assert loudest[-60.0][0] > 0.99 and loudest[60.0][1] > 0.99


def test_drift_is_as_deep_as_asked_and_none_at_zero():
    canvas = textures.Canvas(400.0, 50, np.random.default_rng(0))
    assert (textures.drift(canvas, 0.0) == 1).all()
    level = 20 * np.log10(textures.drift(canvas, 3.0))
    assert len(level) == canvas.n_samples and 1.5 < level.std() < 3.5  # straight lines between points deviate less
    assert abs(level.mean()) < 1.5


def test_a_curve_goes_through_its_points():
    canvas = textures.Canvas(2.0, 100, np.random.default_rng(0))
    curve = canvas.curve([0.0, 1.0, 0.0], 1.0)
    assert curve[0] == 0 and curve[100] == pytest.approx(1) and curve[50] == pytest.approx(0.5, abs=0.02)


# --- what is written --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", reader.SPLITS)
def test_the_reader_of_the_real_set_reads_it_without_a_warning(made, split, recwarn):
    splits = reader.read(made, split, errors="cut")
    assert not recwarn.list
    assert splits.name == "dcase2016-twin" and splits.labels == twin.CLASSES and splits.single_label
    assert splits.counts == ((90, 30, 30) if split == "evaluation" else (60, 30, 30))
    parts = [{track.work for track in part} for part in (splits.train, splits.valid, splits.test)]
    assert not parts[0] & parts[1] and not (parts[0] | parts[1]) & parts[2]
    device = read_json(made / "twin.json")["devices"]
    assert not {device[work] for work in parts[0] | parts[1]} & {device[work] for work in parts[2]}


def test_files_are_44_100_hz_24_bit_stereo_and_pieces_of_a_recording_join(made):
    path = made / reader.DEVELOPMENT / "audio" / "a001_0_1.wav"
    told = soundfile.info(path)
    assert (told.samplerate, told.channels, told.subtype, told.frames) == (44_100, 2, "PCM_24", 44_100)
    truth = read_json(made / "truth" / "a001.json")
    recipe = next(r for r in twin.plan("toy", 0) if r["recording"] == "a001")
    assert truth["class"] == recipe["class"] and {"events", "front_db", "fold"} <= set(truth)
    if not truth["files"][0]["fault"]:
        wave, _ = twin.painted(recipe, 2)
        there = soundfile.read(path, dtype="float32")[0].T
        assert np.abs(there - wave[:, :44_100]).max() <= 1.01 / 2**23


def test_faults_are_where_error_txt_says(made):
    rows = [line.split("\t") for line in (made / reader.DEVELOPMENT / "error.txt").read_text().splitlines()]
    assert rows and {row[3] for row in rows} <= {"silence", "interference"}
    for file, onset, offset, what in rows:
        wave, rate = soundfile.read(made / reader.DEVELOPMENT / file)
        span = wave[round(float(onset) * rate) : round(float(offset) * rate)]
        rest = np.r_[wave[: round(float(onset) * rate)], wave[round(float(offset) * rate) :]]
        assert (what == "silence") == (np.abs(span).max() == 0)
        assert what == "silence" or np.mean(span**2) > np.mean(rest**2)


def test_a_finished_twin_is_left_alone_and_another_one_refused(made):
    before = (made / "twin.json").stat().st_mtime_ns
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(twin.SIZES, "toy", dataclasses.replace(twin.SIZES["toy"], pieces=2, piece_s=1))
        assert twin.make(made, "toy", 0) == made
        with pytest.raises(ValueError, match="holds another twin"):
            twin.make(made, "toy", 1)
    assert (made / "twin.json").stat().st_mtime_ns == before and not (made / "making.json").exists()
    assert (
        "synthetic" in read_json(made / "twin.json")
        and "imitates no recording" in read_json(made / "twin.json")["licence"]
    )


def test_the_corpus_opens_with_its_store_once_for_all_folds(made, tmp_path, monkeypatch):
    monkeypatch.setenv("PAWLIB_DATA", str(tmp_path))
    (tmp_path / "twins").mkdir()
    (tmp_path / "twins" / "dcase2016-toy").symlink_to(made)
    monkeypatch.setattr(twin, "make", lambda root, **_: root)
    one = corpora.open_corpus("dcase2016", "twin", "toy", split="fold1", errors="cut", n_workers=0)
    other = corpora.open_corpus("dcase2016", "twin", "toy", split="evaluation", n_workers=0)
    assert one.name == "dcase2016-twin-toy" and len(one.store) == len(other.store) == 150
    track = next(t for t in [*one.splits.train, *one.splits.valid] if t.cut)
    assert one.store.n_samples(track.id) < other.store.n_samples(track.id)
    assert other.store.read(track.id, mono=False).shape == (2, 44_100)


# --- on what it is frozen ---------------------------------------------------------------------------------------------


def test_cheap_baselines_are_above_chance_and_below_a_half_on_every_split():
    told = read_json(freeze.SCENES_FILE)
    assert told["name"] == "dcase2016-twin" and told["version"] == twin.VERSION and told["size"] == "small"
    assert told["n_tracks"] == 330 and told["n_per_set"] == {reader.DEVELOPMENT: 240, reader.EVALUATION: 90}
    assert set(told["baselines"]) == {
        "log-mel statistics", "MFCC statistics", "MFCC statistics, 16 kHz", "random FCN-4"
    }  # fmt: skip
    for name, found in told["baselines"].items():
        assert set(found["by_split"]) == set(reader.SPLITS)
        assert found["accuracy"] > told["most_frequent_class"], name
        assert max(found["by_split"].values()) < 0.5, name
    assert told["baselines"]["MFCC statistics"]["accuracy"] > 2 * told["most_frequent_class"]


def test_baselines_of_all_splits_are_summed_up_as_said():
    labels = ("a", "b")
    scored = [[(0.2, {"a": 0.0, "b": 0.4}), (0.4, {"a": 0.4, "b": 0.4}), (0.9, {"a": 1.0, "b": 0.8})]]
    found = freeze._summary_of_splits(scored, ("fold1", "fold2", "evaluation"), labels)
    assert found["accuracy"] == pytest.approx(0.3) and found["spread"] == 0
    assert found["by_split"]["evaluation"] == 0.9 and found["per_class"] == {"a": 0.2, "b": 0.4}


def test_the_frozen_encoder_is_the_one_that_the_tables_begin_with():
    clips = torch.randn(3, 44_800, generator=torch.Generator().manual_seed(0))
    ours, theirs = freeze.Untrained(4, 15).eval(), transfer.from_scratch("fcn_4", 15, 4).eval()
    assert torch.equal(ours.embed_clips(clips), theirs.embed_clips(clips))


@pytest.mark.parametrize("pool", ["embeddings", "probabilities"])
def test_scenes_are_scored_by_the_probe_of_the_tables_rows(pool):
    rng = np.random.default_rng(0)
    classes = np.arange(30) % 3
    x = torch.from_numpy((np.eye(3)[classes] + rng.normal(0, 0.6, (30, 3))).astype(np.float32))
    every = protocols.ClipFeatures(x, torch.arange(30), torch.from_numpy(np.eye(3, dtype=np.float32)[classes]))
    parts = {part: every for part in ("train", "valid", "test")}
    accuracy, per_class = freeze.scene_accuracies(parts, ("a", "b", "c"), 1, pool)
    row = protocols.linear_probe(every, every, every, 3, 1, pool=pool, single_label=True)
    assert accuracy == np.mean(row.scores.argmax(axis=1) == classes)
    assert per_class["b"] == np.mean(row.scores[classes == 1].argmax(axis=1) == 1)


def test_statistics_of_every_file_come_in_the_order_of_each_split(made, tmp_path):
    splits = [reader.read(made, split) for split in ("fold1", "evaluation")]
    kept = store.prepare(reader.all_tracks(made), tmp_path / "store", n_workers=0)
    one, other = (corpora.Corpus("dcase2016-twin", split, kept, []) for split in splits)
    features = freeze._statistics_of_scenes(lambda wave, rate: np.float32([np.abs(wave).max(), rate]), other)
    for corpus in (one, other):
        for part, found in features(corpus).items():
            tracks = getattr(corpus.splits, part)
            loudest = [np.abs(kept.read(track.id)).max() for track in tracks]
            assert np.allclose(found.x[:, 0], loudest) and (found.x[:, 1] == 44_100).all()
            assert np.array_equal(found.targets, np.stack([track.target for track in tracks]))


def test_a_twin_at_16_khz_sounds_the_same_to_the_harder_measure():
    wave = np.random.default_rng(0).normal(0, 0.1, 32_000).astype(np.float32)
    assert np.array_equal(freeze.mfcc_statistics_at_16_khz(wave, 16_000), baselines.mfcc_statistics(wave, 16_000))
    assert freeze.mfcc_statistics_at_16_khz(wave, 44_100).shape == (40,)
