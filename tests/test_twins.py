"""pawlib.bench.twins: registry, scores, arrangement, rendering, and the MTAT twin."""

import collections
import csv
import multiprocessing
import shutil

import numpy as np
import pytest
import soundfile

from pawlib.bench import files
from pawlib.bench.files import read_json, write_json
from pawlib.bench.twins import arrange, mtat, registry, render, scores

TUNE = [60, 62, 64, 65, 67, 65, 64, 62, 60, 67, 72, 71, 69, 67, 65, 64, 62, 60]
OTHER = [60, 60, 67, 67, 69, 69, 67, 60, 65, 65, 64, 64, 62, 62, 60, 55, 60, 48]


@pytest.fixture(scope="module")
def small():
    return mtat.plan("small", 0)


@pytest.fixture(scope="module")
def few():
    """Six quick tracks of the toy twin, one of each split at least."""
    quick = [recipe for recipe in mtat.plan("toy", 0) if recipe["collection"] in ("ryan", "aird", "oneill")]
    return [next(r for r in quick if r["split"] == split) for split in ("valid", "test")] + [
        r for r in quick if r["split"] == "train"
    ][:4]


@pytest.fixture(scope="module")
def twin(tmp_path_factory, few):
    """A twin of these six tracks, made as `make` makes a whole one."""
    root = tmp_path_factory.mktemp("twins") / "mtat"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mtat, "plan", lambda size, seed: few)
        mtat.make(root, "toy", 0, n_workers=2)
    return root


def _audio(root):
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*.flac"))}


# --- registry ---------------------------------------------------------------------------------------------------------


def test_a_transposed_tune_has_the_same_grams():
    assert registry.grams(TUNE) == registry.grams(np.array(TUNE) + 5)
    assert len(registry.grams([60, 62, 64, 65, 67])) == 1
    assert registry.grams([60, 62]) == frozenset()


def test_overlap_by_hand():
    a, b = frozenset("abcd"), frozenset("cdef")
    assert registry.overlap(a, b) == 0.5
    assert registry.overlap(a, a) == 1.0
    assert registry.overlap(frozenset(), frozenset()) == 0.0


def test_doubles_are_joined_and_others_are_not():
    melodies = {
        "x/1": registry.grams(TUNE),
        "x/2": registry.grams(np.array(TUNE) - 3),
        "y/1": registry.grams(TUNE[:14] + [60, 61, 60]),
        "z/1": registry.grams(OTHER),
    }
    works = registry.join(melodies, {"x/1": "The Rover", "x/2": "Another", "y/1": "Third", "z/1": "The Rover"})
    assert works == {"x/1": "x/1", "x/2": "x/1", "y/1": "x/1", "z/1": "z/1"}


def test_an_equal_title_joins_only_where_the_melody_agrees_somewhat():
    a = frozenset(range(20))
    near, far = frozenset(range(14, 34)), frozenset(range(19, 39))
    assert registry.join({"a": a, "b": near}, {"a": "The Lark -- Reel", "b": "Lark, The"})["b"] == "a"
    assert registry.join({"a": a, "b": near}, {"a": "Lark", "b": "Wren"})["b"] == "b"
    assert registry.join({"a": a, "b": far}, {"a": "Lark", "b": "Lark"})["b"] == "b"


def test_no_work_is_in_two_splits_and_all_splits_are_there():
    works = registry.read()
    splits = collections.defaultdict(set)
    for work in works:
        splits[work.work].add(work.split)
        assert work.split == registry.split_of(work.work)
    assert works and all(len(found) == 1 for found in splits.values())
    assert {work.split for work in works} == set(registry.SPLITS)


def test_the_registry_joins_real_doubles():
    by_id = {work.id: work for work in registry.read()}
    sizes = collections.Counter(work.work for work in by_id.values())
    assert by_id["oneill/0626-0635/626"].work == by_id["oneill/0626-0700/626"].work  # the corpus holds these twice
    assert sum(size > 1 for size in sizes.values()) > 500
    assert max(sizes.values()) < 0.01 * len(by_id)


def test_the_registry_is_small_has_unique_ids_and_six_collections():
    works = registry.read()
    assert registry.FILE.stat().st_size < 1_000_000
    assert len({work.id for work in works}) == len(works)
    assert len({work.collection for work in works}) >= 6


def test_the_registry_survives_writing_and_reading(tmp_path):
    works = list(registry.read()[:20])
    registry.write(works, tmp_path / "works.csv")
    assert list(registry.read(tmp_path / "works.csv")) == works


def test_a_registry_of_other_columns_is_refused(tmp_path):
    (tmp_path / "works.csv").write_text("id,split\na,train\n")
    with pytest.raises(ValueError, match="another version"):
        registry.read(tmp_path / "works.csv")


def test_the_registry_describes_scores_as_they_are():
    wanted = {work.id: work for work in registry.read()}
    for name in ("ryan/LanigansBallJig", "bach/bwv269"):
        work = wanted[name]
        notes = scores.load(work.path, work.number)
        assert (work.n_onsets, work.n_voices) == (scores.n_onsets(notes), len(np.unique(notes[:, 0])))
    assert (wanted["ryan/LanigansBallJig"].dance, wanted["ryan/LanigansBallJig"].metre) == ("jig", "6/8")
    assert (wanted["ryan/LanigansBallJig"].mode, wanted["ryan/LanigansBallJig"].tonic) == ("minor", 4)


# --- scores -----------------------------------------------------------------------------------------------------------


def test_the_first_bars_of_a_tune_by_hand():
    notes = scores.load("ryansMammoth/LanigansBallJig.abc")
    assert notes[:4, scores.PITCH].tolist() == [66, 64, 66, 67]
    assert notes[:4, scores.DURATION].tolist() == [0.5, 1.0, 0.5, 1.0]
    assert (np.diff(notes[:, scores.ONSET]) > 0).all()


def test_a_missing_score_and_a_missing_tune_are_named():
    with pytest.raises(FileNotFoundError, match="bach/bwv0.mxl"):
        scores.parse("bach/bwv0.mxl")
    with pytest.raises(FileNotFoundError, match="no tune number 9999"):
        scores.parse("airdsAirs/book1.abc", 9999)


# --- rendering --------------------------------------------------------------------------------------------------------


def test_a_note_is_heard_where_it_is_written_and_at_its_pitch():
    audio = render.render([(73, 0.5, 1.5, 69, 90)], 32_000)
    assert audio.shape == (32_000,) and audio.dtype == np.float32
    assert np.abs(audio[:7_900]).max() < 1e-3 < np.abs(audio[8_000:24_000]).max()
    spectrum = np.abs(np.fft.rfft(audio[10_000:22_000]))
    assert abs(spectrum.argmax() * 16_000 / 12_000 - 440) < 5


def _last_heard(pianos):
    """Samples of the last of these programs, each played as a clip of its own, in a process that has played nothing."""
    clips = [render.render([(piano, 0.1, 0.7, 61, 72)], 16_000) for piano in pianos]
    return clips[-1]


def test_what_was_played_before_does_not_change_a_clip():
    """A synthesiser kept from clip to clip fails here: two pianos share samples, the first to play colours both."""
    with multiprocessing.get_context("fork").Pool(1, maxtasksperchild=1) as pool:
        alone, after_another = pool.map(_last_heard, [(3,), (0, 3)], chunksize=1)
    np.testing.assert_array_equal(alone, after_another)


def test_nothing_to_play_is_an_error():
    with pytest.raises(ValueError, match="no note starts"):
        render.render([(0, 5.0, 6.0, 60, 80)], 16_000)


# --- arrangement ------------------------------------------------------------------------------------------------------


def _recipe(**changes):
    recipe = {
        "work": "w", "seed": 1, "n_voices": 1, "texture": "score", "canon_q": 2, "form": "straight", "entries": "all",
        "pitch": "steady", "modulation": 4, "pace": "steady", "loudness": "level", "instruments": "one",
        "programs": [0], "mode": "major", "tonic_written": 0, "tonic": 0, "key_shift": 0, "rate_hz": 2.0,
        "level_db": -20.0, "events": [],
    }  # fmt: skip
    return {**recipe, **changes}


def _scale_tune(n=120):
    """A tune whose pitch says where in the score it is played from."""
    pitch = 57 + np.arange(n) // 5
    return np.column_stack([np.zeros(n), np.arange(n), np.ones(n), pitch]).astype(float)


def _pitches(recipe):
    return [note[3] for note in sorted(arrange.arrange(_scale_tune(), recipe)[0], key=lambda note: note[1])]


@pytest.mark.parametrize(("a", "b"), [("aba", "aab"), ("abab", "aabb")])
def test_a_pair_of_forms_has_the_same_notes_in_another_order(a, b):
    first, second = _pitches(_recipe(form=a)), _pitches(_recipe(form=b))
    assert sorted(first) == sorted(second)
    assert first != second


@pytest.mark.parametrize(("a", "b"), [("accelerando", "ritardando")])
def test_paces_mirror_each_other(a, b):
    def onsets(pace):
        return np.array(sorted(note[1] for note in arrange.arrange(_scale_tune(), _recipe(pace=pace))[0]))

    first, second = onsets(a), onsets(b)
    assert np.all(np.diff(np.diff(first)) < 1e-9) and np.diff(first)[0] > 1.7 * np.diff(first)[-1]
    np.testing.assert_allclose(np.diff(first), np.diff(second)[::-1][-len(np.diff(first)) :], rtol=0.05)


def test_registers_and_modulations_hold_the_same_shifts_in_another_order():
    for a, b in (("rising", "falling"), ("up", "down")):
        shifts = [[arrange._shift(t, _recipe(pitch=scheme)) for t in (1.0, 14.0, 16.0, 28.0)] for scheme in (a, b)]
        assert shifts[0] == shifts[1][::-1] or sorted(set(shifts[0])) == sorted(set(shifts[1]))
        assert shifts[0][0] < shifts[0][-1] and shifts[1][0] > shifts[1][-1]


def test_loudness_schemes_mirror_each_other():
    up, down = (arrange.level(_recipe(loudness=name), {}) for name in ("crescendo", "diminuendo"))
    assert up[0] < up[-1]
    assert 20 * np.log10(up[-1] / up[0]) == pytest.approx(arrange.LOUDNESS_RANGE_DB, abs=0.01)
    np.testing.assert_allclose(up[1:], down[:0:-1], rtol=1e-6)


def test_voices_enter_one_by_one_and_leave_in_the_other_order():
    for entries, first, last in (("entering", 1, 3), ("leaving", 3, 1)):
        recipe = _recipe(texture="parallel", n_voices=3, entries=entries)
        notes = arrange.arrange(_scale_tune(), recipe)[0]
        at = [sum(start <= t < end for _, start, end, _, _ in notes) for t in (2.2, 27.2)]
        assert at == [first, last]


def test_a_canon_plays_the_tune_later_and_lower():
    lines = arrange.voices(_scale_tune(), _recipe(texture="canon", n_voices=2))
    np.testing.assert_array_equal(lines[1], lines[0] + [2, 0, -12])


def test_parallel_thirds_stay_in_the_scale():
    tune = np.array([[0, k, 1, p] for k, p in enumerate([60, 62, 64, 65, 67])], dtype=float)
    lines = arrange.voices(tune, _recipe(texture="parallel", n_voices=2))
    assert lines[1][:, 2].tolist() == [57, 59, 60, 62, 64]


def _part(tag):
    return _recipe(
        events=[{"tag": tag, "group": "part", "start_s": 10.0, "end_s": 14.0}], texture="parallel", n_voices=2
    )


def test_a_silence_is_silent_and_only_there():
    audio = arrange.to_audio(_scale_tune(), _part("silence"))
    inside = audio[160_000:224_000]
    assert np.abs(inside).max() == 0 < np.abs(audio[:158_000]).max()
    assert audio.shape == (arrange.N_SAMPLES,) and np.abs(audio).max() <= 1


@pytest.mark.parametrize("tag", [tag for tag in mtat.PARTS if tag != "silence"])
def test_a_part_event_changes_the_notes_in_its_time_and_no_others(tag):
    with_it = set(map(tuple, arrange.arrange(_scale_tune(), _part(tag))[0]))
    without = set(map(tuple, arrange.arrange(_scale_tune(), {**_part(tag), "events": []})[0]))
    changed = with_it ^ without
    assert changed
    assert all(9.0 < start < 14.0 and end > 10.0 - 1e-9 or start >= 10.0 for _, start, end, _, _ in changed)
    assert all(start < 14.0 for _, start, _, _, _ in changed)


# --- plan -------------------------------------------------------------------------------------------------------------


def test_the_plan_has_enough_works_and_collections_each_work_once(small):
    assert len(small) >= 1500
    assert len({recipe["collection"] for recipe in small}) >= 6
    work_of = {work.id: work.work for work in registry.read()}
    assert len({work_of[recipe["work"]] for recipe in small}) == len(small)


def test_the_plan_keeps_the_registrys_split_in_the_folders(small):
    split_of = {work.id: work.split for work in registry.read()}
    for recipe in small:
        assert recipe["split"] == split_of[recipe["work"]]
        assert recipe["file"][0] in mtat.FOLDERS[recipe["split"]]
    assert len({recipe["file"] for recipe in small}) == len(small)


@pytest.mark.parametrize("split", registry.SPLITS)
def test_every_tag_has_positives_and_negatives_in_every_split(small, split):
    tracks = [recipe for recipe in small if recipe["split"] == split]
    assert len(mtat.TAGS) <= 50 and all(len(tags) >= 6 for tags in mtat.GROUPS.values())
    for tag in mtat.TAGS:
        assert 0 < sum(tag in recipe["tags"] for recipe in tracks) < len(tracks), tag


def test_at_toy_size_every_tag_has_a_positive_in_train_and_almost_all_elsewhere():
    toy = mtat.plan("toy", 0)
    assert len(toy) == 64
    for split, least in (("train", 50), ("valid", 45), ("test", 48)):
        found = {tag for recipe in toy if recipe["split"] == split for tag in recipe["tags"]}
        assert len(found) >= least


def test_part_events_lie_inside_every_crop_and_fill_a_tenth_to_a_half(small):
    events = [event for recipe in small for event in recipe["events"] if event["group"] == "part"]
    assert events
    for event in events:
        assert arrange.DURATION_S - 22.4 < event["start_s"] < event["end_s"] < 22.4
        assert 0.1 <= (event["end_s"] - event["start_s"]) / arrange.DURATION_S <= 0.5


def test_silence_overlaps_no_other_part_event(small):
    for recipe in small:
        parts = [event for event in recipe["events"] if event["group"] == "part"]
        for event in parts:
            if event["tag"] == "silence":
                others = [other for other in parts if other is not event]
                assert all(o["end_s"] <= event["start_s"] or o["start_s"] >= event["end_s"] for o in others)


def test_programs_of_test_tracks_are_heard_in_no_other_track(small):
    heard = {split: {p for r in small if r["split"] == split for p in r["programs"]} for split in registry.SPLITS}
    assert heard["test"] and not heard["test"] & (heard["train"] | heard["valid"])


def test_key_rate_and_level_do_not_depend_on_the_mode(small):
    """Kolmogorov-Smirnov at a level no honest draw misses."""
    from scipy.stats import ks_2samp

    for key in ("tonic", "rate_hz", "level_db"):
        major, minor = ([r[key] for r in small if name in r["tags"]] for name in ("major", "minor"))
        assert ks_2samp(major, minor).pvalue > 1e-4


def test_both_schemes_of_a_pair_are_drawn_about_equally_often(small):
    for schemes in mtat.PAIRS.values():
        for a, b in mtat._tag_pairs(schemes):
            n_a, n_b = (sum(tag in recipe["tags"] for recipe in small) for tag in (a, b))
            assert abs(n_a - n_b) < 5 * np.sqrt(n_a + n_b)


def test_another_seed_gives_another_plan_and_the_same_seed_the_same(small):
    assert mtat.plan("small", 0) == small
    assert mtat.plan("small", 1) != small


def test_an_unknown_size_is_refused():
    with pytest.raises(ValueError, match="size='huge'"):
        mtat.plan("huge")


# --- make -------------------------------------------------------------------------------------------------------------


def test_the_twin_has_the_layout_of_magnatagatune(twin, few):
    with open(twin / "annotations_final.csv", newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file, delimiter="\t")
    assert header == ["clip_id", *mtat.TAGS, "mp3_path"] and len(rows) == len(few)
    for row, recipe in zip(rows, few, strict=True):
        assert [tag for tag, value in zip(mtat.TAGS, row[1:-1], strict=True) if value == "1"] == recipe["tags"]
        info = soundfile.info(twin / row[-1])
        assert (info.frames, info.samplerate, info.channels, info.format) == (465_984, 16_000, 1, "FLAC")
    with open(twin / "clip_info_final.csv", newline="", encoding="utf-8") as file:
        clips = list(csv.DictReader(file, delimiter="\t"))
    assert [clip["original_url"] for clip in clips] == [f"work:{recipe['work']}" for recipe in few]


def test_a_file_beside_each_track_says_when_each_tag_holds(twin, few):
    for recipe in few:
        truth = read_json((twin / recipe["file"]).with_suffix(".json"))
        assert truth["duration_s"] == 29.124
        assert truth["events"] == recipe["events"]
        assert {event["tag"] for event in truth["events"]} == set(recipe["tags"])
        assert all(0 <= event["start_s"] < event["end_s"] <= 29.124 for event in truth["events"])


def test_level_is_the_one_that_was_drawn(twin, few):
    for recipe in few:
        audio = soundfile.read(twin / recipe["file"])[0]
        if np.abs(audio).max() < 0.97 and "silence" not in recipe["tags"]:
            assert 20 * np.log10(np.sqrt(np.mean(audio**2))) == pytest.approx(recipe["level_db"], abs=0.1)


def test_a_run_that_was_stopped_is_finished_with_the_same_bytes(twin, few, tmp_path, monkeypatch):
    root = tmp_path / "mtat"
    shutil.copytree(twin, root)
    before, kept = _audio(root), (root / few[1]["file"]).stat().st_mtime_ns
    (root / few[0]["file"]).unlink()
    (root / few[2]["file"]).with_suffix(".json").unlink()
    identity = {
        key: value
        for key, value in read_json(root / "twin.json").items()
        if key in ("name", "version", "seed", "size", "n_tracks")
    }
    (root / "twin.json").unlink()
    write_json(root / "making.json", identity)
    monkeypatch.setattr(mtat, "plan", lambda size, seed: few)
    mtat.make(root, "toy", 0, n_workers=1)
    assert _audio(root) == before
    assert (root / few[1]["file"]).stat().st_mtime_ns == kept
    assert read_json(root / "twin.json") == read_json(twin / "twin.json")


def test_a_complete_twin_is_left_alone_and_another_one_refused(twin, few, monkeypatch):
    monkeypatch.setattr(mtat, "plan", lambda size, seed: few)
    monkeypatch.setattr(mtat, "_render_one", None)
    assert mtat.make(twin, "toy", 0) == twin
    with pytest.raises(ValueError, match="another twin.*seed 0"):
        mtat.make(twin, "toy", 1)


def _ask_for_the_lock(root, asking, inside, go):
    go.wait(20)
    asking.set()
    with files.locked(root, "making this twin"):
        inside.set()


def test_a_second_run_waits_for_the_lock(tmp_path):
    context = multiprocessing.get_context("fork")
    asking, inside, go = context.Event(), context.Event(), context.Event()
    other = context.Process(target=_ask_for_the_lock, args=(tmp_path, asking, inside, go))
    other.start()  # before the lock is taken here, so that it inherits no open lock file
    with files.locked(tmp_path, "making this twin"):
        go.set()
        assert asking.wait(20) and not inside.wait(0.5)
    assert inside.wait(20)
    other.join(20)
