"""pawlib.bench.twins.gtzan: what is drawn alike, what no split shares, and a few rendered tracks."""

import collections
import json
import shutil

import numpy as np
import pytest
import soundfile

from pawlib.bench import corpora
from pawlib.bench.datasets import Splits, Track
from pawlib.bench.datasets import gtzan as reader
from pawlib.bench.files import read_json, write_json
from pawlib.bench.twins import freeze, gtzan, making, mtat, registry, scores

SPREAD = ("rate_hz", "centre", "level_db", "gate", "room_s", "room_db")


@pytest.fixture(scope="module")
def small():
    return gtzan.plan("small", 0)


@pytest.fixture(scope="module")
def few():
    """One track of two classes in each split."""
    toy = gtzan.plan("toy", 0)
    wanted = [(name, split) for name in ("slip_jig", "china") for split in registry.SPLITS]
    return [next(r for r in toy if (r["class"], r["split"]) == pair) for pair in wanted]


@pytest.fixture(scope="module")
def twin(tmp_path_factory, few):
    """A twin of these six tracks, made as `make` makes a whole one."""
    root = tmp_path_factory.mktemp("twins") / "gtzan"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gtzan, "plan", lambda size, seed: few)
        patch.setattr(gtzan, "CLASSES", ("china", "slip_jig"))
        gtzan.make(root, "toy", 0, n_workers=1)
    return root


def groups(recipes):
    found = collections.defaultdict(list)
    for recipe in recipes:
        found[recipe["class"], recipe["split"]].append(recipe)
    return found


# --- what is drawn ----------------------------------------------------------------------------------------------------


def test_ten_classes_in_every_split_and_never_more_than_asked_for(small):
    found = groups(small)
    assert set(found) == {(name, split) for name in gtzan.CLASSES for split in registry.SPLITS}
    assert len(gtzan.CLASSES) == 10 and gtzan.CLASSES == tuple(sorted(gtzan.CLASSES))
    for (name, split), recipes in found.items():
        assert 4 <= len(recipes) <= gtzan.SIZES["small"][split]
        assert len(recipes) == gtzan.SIZES["small"][split] or name in ("slip_jig", "strathspey", "march", "chorale")


def test_the_toy_size_has_the_first_tracks_of_the_small_one(small):
    toy, found = groups(gtzan.plan("toy", 0)), groups(small)
    assert set(toy) == set(found)
    for key, recipes in toy.items():
        assert len(recipes) == 4
        for mine, theirs in zip(recipes, found[key], strict=False):
            assert {k: v for k, v in mine.items() if k not in ("clip_id", "file")} == {
                k: v for k, v in theirs.items() if k not in ("clip_id", "file")
            }


def test_ids_and_files_are_gtzans(small):
    for name in gtzan.CLASSES:
        mine = [recipe for recipe in small if recipe["class"] == name]
        assert [recipe["clip_id"] for recipe in mine] == [f"{name}.{k:05d}" for k in range(len(mine))]
        assert [recipe["file"] for recipe in mine] == [f"genres/{name}/{r['clip_id']}.wav" for r in mine]


def test_instruments_are_dealt_alike_to_all_classes(small):
    for recipes in groups(small).values():
        counts = collections.Counter(recipe["program"] for recipe in recipes)
        every = [counts[program] for program in gtzan.PROGRAMS]
        assert sum(every) == len(recipes) and max(every) - min(every) <= 1


def test_rate_register_level_articulation_and_room_are_spread_alike(small):
    limits = (gtzan.RATE_HZ, gtzan.CENTRE, gtzan.LEVEL_DB, gtzan.GATE, gtzan.ROOM_S, gtzan.ROOM_DB)
    for recipes in groups(small).values():
        for key, (low, high) in zip(SPREAD, limits, strict=True):
            values = np.sort([recipe[key] for recipe in recipes])
            strata = (values - low) / (high - low) * len(values)
            assert (np.abs(strata - np.arange(len(values)) - 0.5) <= 0.5 + 0.03).all(), key  # drawn values are rounded


def test_no_program_is_one_of_the_pretraining_twins():
    assert not set(gtzan.PROGRAMS) & {p for pair in mtat.FAMILIES.values() for programs in pair for p in programs}


def test_a_spread_fills_its_range_evenly():
    values = making.spread(np.random.default_rng(0), 8, 2.0, 4.0)
    assert sorted(np.floor((values - 2.0) / 2.0 * 8)) == list(range(8))


# --- works and splits -------------------------------------------------------------------------------------------------


def test_every_tune_is_in_the_split_of_its_work(small):
    for recipe in small:
        assert {registry.split_of(tune["work"]) for tune in recipe["tunes"]} == {recipe["split"]}


def test_no_work_crosses_a_split_or_a_class_and_a_pair_gives_two_tracks_at_most(small):
    where, pairs = collections.defaultdict(set), collections.defaultdict(set)
    for recipe in small:
        for tune in recipe["tunes"]:
            where[tune["work"]].add((recipe["class"], recipe["split"]))
            pairs[tune["work"]].add(recipe["pair"])
    assert all(len(found) == 1 for found in where.values())
    assert all(len(found) == 1 for found in pairs.values())  # so tracks of two pairs share nothing
    counts = collections.Counter(recipe["pair"] for recipe in small)
    assert set(counts.values()) == {1, 2}


def test_nothing_the_mtat_twin_trains_on_is_tested(small):
    work_of = {score.id: score.work for score in registry.read()}
    pretrained = {work_of[recipe["work"]] for recipe in mtat.plan("small", 0) if recipe["split"] == "train"}
    held_out = {tune["work"] for recipe in small if recipe["split"] != "train" for tune in recipe["tunes"]}
    assert len(pretrained) > 1000 and len(held_out) > 500
    assert not pretrained & held_out


def test_essen_songs_are_placed_by_the_registrys_rule():
    songs = registry.read(registry.ESSEN_FILE)
    assert {song.path for song in songs} == set(registry.ESSEN.values())
    assert {song.collection for song in songs} == {"essen"} and {song.n_voices for song in songs} == {1}
    assert all(song.split == registry.split_of(song.work) for song in songs)
    assert not {song.id for song in songs} & {score.id for score in registry.read()}
    known = {score.work for score in registry.read()}
    assert any(song.work in known for song in songs)


def _song(name, grams, title=""):
    labels = {"id": name, "collection": "essen", "path": "p", "number": 1, "title": title, "dance": "air"}
    rest = {"metre": "2/4", "mode": "", "tonic": None, "n_voices": 1, "n_onsets": 50, "length_q": 40.0, "dotted": 0.0}
    return {**labels, **rest, "grams": frozenset(grams)}


def test_a_song_that_is_a_tune_of_the_registry_takes_its_work_and_one_between_two_is_left_out():
    a, b = registry.read()[0], next(w for w in registry.read() if w.work != registry.read()[0].work)
    melodies = {a.id: frozenset(range(20)), b.id: frozenset(range(100, 120))}
    songs = [
        _song("essen/1", range(20)),
        _song("essen/2", [*range(18), *range(100, 118)]),
        _song("essen/3", range(300, 320)),
        _song("essen/4", range(302, 322)),
    ]
    placed = {song.id: song for song in registry.place(songs[2:] + songs[:1], [a, b], melodies)}
    assert placed["essen/1"].work == a.work and placed["essen/1"].split == a.split
    assert placed["essen/3"].work == placed["essen/4"].work == "essen/3"
    assert {song.dance for song in placed.values()} == {""}
    assert "essen/2" not in {song.id for song in registry.place(songs, [a, b], melodies)}


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"dance": "reel", "metre": "2/2"}, "reel"),
        ({"dance": "reel", "metre": "6/8"}, None),
        ({"dance": "jig", "metre": "6/8"}, "jig"),
        ({"dance": "jig", "metre": "9/8"}, "slip_jig"),
        ({"dance": "slip jig", "metre": "9/8"}, "slip_jig"),
        ({"dance": "", "collection": "oneill", "number": 625, "metre": "3/4"}, "air"),
        ({"dance": "", "collection": "oneill", "number": 626, "metre": "3/4"}, None),
        ({"dance": "march", "metre": "6/8", "n_voices": 2}, None),
        ({"collection": "bach", "n_voices": 4}, "chorale"),
        ({"collection": "bach", "n_voices": 5}, None),
        ({"collection": "essen", "path": registry.ESSEN["china"]}, "china"),
    ],
)
def test_classes_by_hand(changes, name):
    labels = {key: value for key, value in _song("x/1", ()).items() if key != "grams"}
    assert (
        gtzan.class_of(registry.Work(**{**labels, "collection": "ryan", **changes}, work="x/1", split="train")) == name
    )


def test_another_seed_gives_another_plan_and_the_same_seed_the_same(small):
    assert gtzan.plan("small", 0) == small
    assert gtzan.plan("small", 1) != small


def test_an_unknown_size_is_refused():
    with pytest.raises(ValueError, match="size='huge' is unknown"):
        gtzan.plan("huge")


# --- what is played ---------------------------------------------------------------------------------------------------


def _tune(n=96, upbeat_q=0.5, pitch=60):
    """Eighth notes with an upbeat, in bars of 3 quarter notes; each note a semitone above the last, over an octave."""
    onsets = np.arange(n) * 0.5
    notes = np.column_stack([np.zeros(n), onsets, np.full(n, 0.5), pitch + np.arange(n) % 12])
    return notes, np.arange(upbeat_q, n * 0.5, 3.0), "6/8"


def _recipe(**changes):
    return {"seed": 3, "rate_hz": 2.4, "program": 46, "centre": 66.0, "gate": 0.8, **changes}


def test_each_tune_has_its_half_with_the_number_of_notes_that_was_drawn():
    notes = gtzan.arranged([_tune(), _tune(60, pitch=72)], _recipe())
    starts = np.array([note[1] for note in notes])
    assert [(starts < 15).sum(), (starts >= 15).sum()] == [36, 36]
    np.testing.assert_allclose(np.diff(starts), 15 / 36, atol=1e-9)
    assert all(end - start == pytest.approx(0.8 * 15 / 36) for _, start, end, _, _ in notes)
    for half in (starts < 15, starts >= 15):  # the register is the drawn one, wherever the tune was written
        assert np.mean([note[3] for note, mine in zip(notes, half, strict=True) if mine]) == pytest.approx(66, abs=0.51)


def test_an_excerpt_begins_with_a_bar_and_a_short_tune_is_played_once():
    notes, bars, _ = _tune()
    onsets = notes[:, scores.ONSET]
    firsts = {gtzan.excerpt(onsets, bars, 36, np.random.default_rng(seed))[0] for seed in range(40)}
    assert len(firsts) > 5 and all(onsets[first] in bars and first + 36 <= len(onsets) for first in firsts)
    assert gtzan.excerpt(onsets[:20], bars, 36, np.random.default_rng(0)) == (0, 20)
    assert gtzan.excerpt(onsets, np.zeros(0), 36, np.random.default_rng(0)) == (60, 96)
    played = gtzan.arranged([_tune(20), _tune(20)], _recipe())
    assert len(played) == 40 and max(end for _, _, end, _, _ in played) <= 30


def test_accents_by_hand():
    """6/8 after an upbeat of one eighth: bar, -, -, beat, -, -."""
    notes, bars, metre = _tune(13)
    low, bar, beat = gtzan.VELOCITY, gtzan.VELOCITY + gtzan.BAR_ACCENT, gtzan.VELOCITY + gtzan.BEAT_ACCENT
    found = gtzan.accents(notes[:, scores.ONSET], bars, metre).tolist()
    assert found == [low, bar, low, low, beat, low, low, bar, low, low, beat, low, low]
    assert gtzan.accents(np.arange(4.0), np.zeros(0), "4/4").tolist() == [low] * 4


@pytest.mark.parametrize(
    ("metre", "beat_q"), [("4/4", 1), ("2/2", 2), ("3/4", 1), ("6/8", 1.5), ("9/8", 1.5), ("3/8", 0.5)]
)
def test_a_beat_is_as_long_as_its_metre_says(metre, beat_q):
    assert gtzan._beat(metre) == beat_q


def test_bars_of_a_jig_are_three_quarter_notes_after_its_upbeat():
    score = scores.parse("ryansMammoth/LanigansBallJig.abc")
    bars = scores.bars_of(score)
    assert len(bars) >= 16 and (np.diff(bars)[:7] == 3.0).all()
    assert set(np.round(bars, 3)) <= set(np.round(scores.notes_of(score)[:, scores.ONSET], 3))


def test_a_room_adds_a_tail_of_the_drawn_level_and_length():
    click = np.zeros(gtzan.SAMPLE_RATE, np.float32)
    click[100] = 1.0
    heard = gtzan.in_room(click, {"seed": 1, "room_s": 0.5, "room_db": -10.0})
    tail = heard - click
    assert 10 * np.log10(np.sum(tail**2)) == pytest.approx(-10.0, abs=0.01)
    assert np.abs(tail[:100]).max() < 1e-9 and np.abs(tail[100 + gtzan.SAMPLE_RATE // 2 :]).max() < 1e-9


# --- make -------------------------------------------------------------------------------------------------------------


def _audio(root):
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*.wav"))}


def test_the_twin_has_the_layout_of_gtzan(twin, few):
    assert set(_audio(twin)) == {recipe["file"] for recipe in few}
    for recipe in few:
        info = soundfile.info(twin / recipe["file"])
        assert (info.samplerate, info.channels, info.subtype, info.frames) == (22_050, 1, "PCM_16", 661_500)
        wave = soundfile.read(twin / recipe["file"])[0]
        if np.abs(wave).max() < 0.97:
            assert 20 * np.log10(np.sqrt(np.mean(wave**2))) == pytest.approx(recipe["level_db"], abs=0.1)
        told = read_json((twin / recipe["file"]).with_suffix(".json"))
        assert told["clip_id"] == recipe["clip_id"] and told["class"] == recipe["class"]
        assert [tune["work"] for tune in told["tunes"]] == [tune["work"] for tune in recipe["tunes"]]


def test_the_reader_reads_it_and_the_card_names_the_licence(twin, few):
    splits = reader.read(twin)
    assert splits.counts == (2, 2, 2) and splits.name == "gtzan-twin" and splits.labels == ("china", "slip_jig")
    assert {track.work for track in splits.tracks} == {recipe["pair"] for recipe in few}
    card = read_json(twin / "twin.json")
    assert "NON-COMMERCIAL" in card["licence"] and card["registry"] == ["works-v1.csv", "works-v1-essen.csv"]
    assert card["n_per_class"]["china"] == {"train": 1, "valid": 1, "test": 1}


def test_a_run_that_was_stopped_is_finished_with_the_same_bytes(twin, few, tmp_path, monkeypatch):
    root = tmp_path / "gtzan"
    shutil.copytree(twin, root)
    before, kept = _audio(root), (root / few[1]["file"]).stat().st_mtime_ns
    (root / few[0]["file"]).unlink()
    (root / few[4]["file"]).with_suffix(".json").unlink()
    card = read_json(root / "twin.json")
    write_json(root / "making.json", {key: card[key] for key in ("name", "version", "seed", "size", "n_tracks")})
    (root / "twin.json").unlink()
    monkeypatch.setattr(gtzan, "plan", lambda size, seed: few)
    monkeypatch.setattr(gtzan, "CLASSES", ("china", "slip_jig"))
    gtzan.make(root, "toy", 0, n_workers=1)
    assert _audio(root) == before and (root / few[1]["file"]).stat().st_mtime_ns == kept
    assert read_json(root / "twin.json") == card and not (root / "making.json").exists()


def test_a_complete_twin_is_left_alone_and_another_one_refused(twin, few, monkeypatch):
    monkeypatch.setattr(gtzan, "plan", lambda size, seed: few)
    monkeypatch.setattr(gtzan, "_render_one", None)
    assert gtzan.make(twin, "toy", 0) == twin
    with pytest.raises(ValueError, match="another twin.*seed 0"):
        gtzan.make(twin, "toy", 1)


def test_open_corpus_makes_reads_and_decodes(few, tmp_path, monkeypatch):
    monkeypatch.setenv("PAWLIB_DATA", str(tmp_path))
    monkeypatch.setattr(gtzan, "plan", lambda size, seed: few[:3])
    monkeypatch.setattr(gtzan, "CLASSES", ("slip_jig",))
    corpus = corpora.open_corpus("gtzan", "twin", "toy", n_workers=1)
    assert corpus.name == "gtzan-twin-toy" and corpus.splits.counts == (1, 1, 1) and corpus.left_out == []
    (track,) = corpus.splits.test
    assert corpus.store.sample_rate(track.id) == 22_050 and corpus.store.read(track.id).shape == (661_500,)
    assert json.loads((tmp_path / "twins/gtzan-toy/twin.json").read_text())["size"] == "toy"


# --- frozen on cheap baselines ----------------------------------------------------------------------------------------


def _splits(n=12, n_classes=3):
    """n tracks of each class in each part, class after class."""
    rows = np.repeat(np.eye(n_classes, dtype=np.float32), n, axis=0)
    parts = [[Track(f"{part}.{k}", None, row, f"{part}.{k}") for k, row in enumerate(rows)] for part in range(3)]
    return Splits(*parts, labels=("a", "b", "c"), name="x", single_label=True), np.tile(rows, (3, 1))


def test_features_that_are_the_class_score_one_and_noise_scores_less():
    splits, told = _splits()
    noise = np.random.default_rng(0).standard_normal((len(told), 8)).astype(np.float32)
    overall, by_class = freeze.accuracies(np.hstack([told, 0.1 * noise[:, :2]]), splits)
    assert overall == 1.0 and by_class == {"a": 1.0, "b": 1.0, "c": 1.0}
    overall, by_class = freeze.accuracies(noise, splits)
    assert overall < 0.7 and overall == pytest.approx(np.mean(list(by_class.values())))


def test_the_frozen_baselines_are_of_this_plan_above_chance_and_far_from_the_ceiling(small):
    told = read_json(freeze.GTZAN_FILE)
    counts = collections.Counter((recipe["class"], recipe["split"]) for recipe in small)
    assert (told["version"], told["n_tracks"]) == (gtzan.VERSION, len(small))
    assert {(name, split): n for name, of in told["n_per_class"].items() for split, n in of.items()} == counts
    n_test = told["n_per_split"]["test"]
    chance = told["most_frequent_class"]
    noise = 2 * np.sqrt(chance * (1 - chance) / n_test)
    assert len(told["baselines"]) == 3
    for found in told["baselines"].values():
        assert chance + noise < found["accuracy"] < 0.6
