"""The cover twins: rules that hold for every pair, splits by work and melody, layouts, the sound font in tune."""

import collections
import itertools

import numpy as np
import pytest

from pawlib.bench import retrieval
from pawlib.bench.datasets import covers80 as covers80_reader
from pawlib.bench.datasets import shs100k as shs100k_reader
from pawlib.bench.files import read_json, write_json
from pawlib.bench.twins import covers, covers80, covers_table, mtat, registry, render, scores, shs100k, soundfont

LAYOUTS = {"covers80": covers80, "shs100k": shs100k}
READERS = {"covers80": covers80_reader, "shs100k": shs100k_reader}
TUNE = np.array([60, 62, 64, 65, 67, 65, 64, 62, 60, 67, 72, 71, 69, 67, 65, 64, 62, 60])


def by_work(recipes):
    found = collections.defaultdict(list)
    for recipe in recipes:
        found[recipe["work"]].append(recipe)
    return found


@pytest.fixture(scope="module", params=["covers80", "shs100k"])
def recipes(request):
    return LAYOUTS[request.param].plan("small")


def quick(dataset, n):
    """The toy recipes of a few works, short ones first."""
    made = by_work(LAYOUTS[dataset].plan("toy"))
    chosen = [some for some in made.values() if some[0]["collection"] != "bach"]
    firsts = {split: [some for some in chosen if some[0]["split"] == split][:n] for split in registry.SPLITS}
    return [recipe for some in firsts.values() for found in some for recipe in found]


@pytest.fixture(scope="module")
def twins(tmp_path_factory):
    """Both twins with one or two works a list, made as `make` makes whole ones."""
    roots = {}
    for dataset, n in (("covers80", 2), ("shs100k", 1)):
        roots[dataset] = tmp_path_factory.mktemp("twins") / dataset
        few = quick(dataset, n)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(covers, "plan", lambda dataset, size, seed, few=few: few)
            LAYOUTS[dataset].make(roots[dataset], "toy", n_workers=2)
    return roots


# --- plan -------------------------------------------------------------------------------------------------------------


def test_in_every_pair_instrument_key_and_tempo_differ(recipes):
    pairs = [pair for some in by_work(recipes).values() for pair in itertools.combinations(some, 2)]
    assert len(pairs) >= 80
    for a, b in pairs:
        assert a["family"] != b["family"] and a["program"] != b["program"]
        assert 1 <= abs(a["key"] - b["key"]) <= 6
        ratio = max(a["tempo"], b["tempo"]) / min(a["tempo"], b["tempo"])
        assert 1.049 < ratio < 1.3
        heard = [one["q_per_s"] / one["stretch"] for one in (a, b)]  # in quarter notes of the first setting
        assert max(heard) / min(heard) == pytest.approx(ratio, rel=1e-3)
        sounding = [one["transpose"] + one["shift"] for one in (a, b)]  # of the first setting's notes
        assert sounding[0] - sounding[1] == a["key"] - b["key"]


def test_a_work_is_of_one_tier_real_ones_have_other_scores_and_synthetic_ones_other_forms(recipes):
    for some in by_work(recipes).values():
        assert len(some) >= 2 and len({one["tier"] for one in some}) == len({one["split"] for one in some}) == 1
        scores_of = [one["score"] for one in some]
        if some[0]["tier"] == "real":
            assert len(set(scores_of)) == len(some) and {one["form"] for one in some} == {"AB"}
            books = [one["collection"] for one in some]
            assert len(set(books)) == len(some) or collections.Counter(books).most_common(1)[0][0] == "bach"
        else:
            assert len(set(scores_of)) == 1 and len({one["form"] for one in some}) == len(some)
        assert len({one["metre"] for one in some}) == 1


def test_every_metre_of_a_list_is_that_of_several_works(recipes):
    for split in {one["split"] for one in recipes}:
        some = [found[0] for found in by_work(recipes).values() if found[0]["split"] == split]
        assert min(collections.Counter(one["metre"] for one in some).values()) >= covers_table.LEAST_WORKS


def test_no_work_is_in_two_lists_or_in_another_split_than_its_own():
    of_registry = {score.work: score.split for score in registry.read()}
    lists = collections.defaultdict(set)
    for setting in covers.table():
        lists[setting.work].add((setting.dataset, setting.split))
        assert setting.split == of_registry[setting.work]
    assert len(lists) > 300 and all(len(found) == 1 for found in lists.values())
    trained = {recipe["split"] for recipe in mtat.plan("small") if recipe["work"] in lists}
    tested = {work for work, found in lists.items() if ("covers80", "test") in found or ("shs100k", "test") in found}
    heard = {recipe["work"] for recipe in mtat.plan("small") if recipe["split"] == "train"}
    by_id = {score.id: score.work for score in registry.read()}
    assert trained and not tested & {by_id[name] for name in heard}


def test_no_two_works_have_one_melody_and_all_settings_of_a_real_work_have():
    for setting in covers.table():
        assert setting.nearest <= covers_table.OTHERS
        if setting.tier == "real":
            assert covers_table.OVERLAP[0] < setting.overlap < covers_table.OVERLAP[1]


def test_programs_of_the_test_are_heard_in_no_training():
    used = collections.defaultdict(set)
    for dataset in covers.WORKS:
        for recipe in covers.plan(dataset):
            used[recipe["split"]].add(recipe["program"])
    assert used["test"] and not used["test"] & (used["train"] | used["valid"])


def test_sizes_and_the_toy_twins_are_works_of_the_small_ones():
    works = {dataset: by_work(covers.plan(dataset)) for dataset in covers.WORKS}
    assert len(works["covers80"]) == 80 and all(len(some) == 2 for some in works["covers80"].values())
    counts = collections.Counter(some[0]["split"] for some in works["shs100k"].values())
    assert counts == {"train": 200, "valid": 32, "test": 40}
    assert {len(some) for some in works["shs100k"].values()} == {2, 3, 4, 5}
    for dataset, toy in covers.TOY.items():
        few = by_work(covers.plan(dataset, "toy"))
        assert all(few[work] == works[dataset][work] for work in few)
        assert collections.Counter(some[0]["split"] for some in few.values()) == toy
        for split in toy:
            metres = collections.Counter(some[0]["metre"] for some in few.values() if some[0]["split"] == split)
            assert min(metres.values()) >= 2
    with pytest.raises(ValueError, match="size='large'"):
        covers.plan("covers80", "large")
    with pytest.raises(ValueError, match="dataset='mtat'"):
        covers.plan("mtat")


def test_the_plan_is_the_same_each_time_and_other_with_another_seed():
    assert covers.plan("covers80", "toy") == covers.plan("covers80", "toy") != covers.plan("covers80", "toy", 1)


def test_the_table_of_other_columns_is_refused(tmp_path):
    (tmp_path / "covers.csv").write_text("work,score\na,b\n")
    with pytest.raises(ValueError, match="another version"):
        covers.table(tmp_path / "covers.csv")


def test_the_table_survives_writing_and_reading(tmp_path):
    covers_table.write(covers.table()[:9], tmp_path / "covers.csv")
    assert covers.table(tmp_path / "covers.csv") == covers.table()[:9]


def test_shift_and_stretch_of_a_melody_written_otherwise_by_hand():
    melody = np.column_stack([np.zeros(18), np.arange(18.0), np.ones(18), TUNE])
    assert covers_table._relation(melody, melody * [1, 0.5, 0.5, 1] + [0, 3, 0, -7]) == (-7, 0.5)
    other = np.column_stack([np.zeros(6), np.arange(6.0), np.ones(6), [60, 61, 60, 61, 60, 61]])
    assert covers_table._relation(melody, other) == (None, None)


# --- folders ----------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*released list")
@pytest.mark.parametrize("dataset", ["covers80", "shs100k"])
def test_the_same_reader_reads_the_twin(twins, dataset):
    root = twins[dataset]
    splits = READERS[dataset].read(root)
    told = covers.truth(root)
    assert (
        splits.name == f"{dataset}-twin" and {track.id for track in splits.tracks} == set(told) and not splits.missing
    )
    card = read_json(root / "twin.json")
    for track in splits.tracks:
        assert track.work == told[track.id]["song"] and card["works"][track.work] == told[track.id]["work"]
        assert covers.tiers(root)[track.id] == told[track.id]["tier"]
    assert all(n >= 2 for n in collections.Counter(track.work for track in splits.tracks).values())
    assert not (root / "making.json").exists()


@pytest.mark.filterwarnings("ignore:.*released list")
def test_the_symbolic_melody_finds_every_cover(twins):
    for dataset, root in twins.items():
        splits, found = READERS[dataset].read(root), covers.melodies(root)
        ids = [track.id for track in splits.tracks]
        for how in ("alignment", "grams"):
            similarity = covers.symbolic([found[one] for one in ids], how)
            score = retrieval.retrieval(similarity, [track.work for track in splits.tracks], "drop")
            assert score["map"] == 1.0


def test_a_twin_is_made_once_and_no_other_in_its_folder(twins, monkeypatch):
    few = quick("covers80", 2)
    monkeypatch.setattr(covers, "plan", lambda dataset, size, seed: few)
    before = {path: path.stat().st_mtime_ns for path in twins["covers80"].rglob("*") if path.suffix}
    covers80.make(twins["covers80"], "toy")
    assert before == {path: path.stat().st_mtime_ns for path in twins["covers80"].rglob("*") if path.suffix}
    with pytest.raises(ValueError, match="another twin"):
        covers80.make(twins["covers80"], "toy", seed=1)


def test_what_only_twins_know_is_refused_elsewhere(tmp_path, twins):
    for asked in (covers.truth, covers.tiers, covers.melodies):
        with pytest.raises(FileNotFoundError, match="twin.json"):
            asked(tmp_path)
    file = next(iter(read_json(twins["shs100k"] / "twin.json")["files"].values()))
    path = (twins["shs100k"] / file).with_suffix(".json")
    told = read_json(path)
    write_json(path, {**told, "id": "999_9"})
    with pytest.raises(ValueError, match="two twins mixed"):
        covers.truth(twins["shs100k"])
    write_json(path, told)


def test_the_melody_that_is_told_is_the_one_that_sounds():
    recipe = quick("shs100k", 1)[0]
    notes = scores.load(recipe["path"], recipe["number"])
    played, melody, seconds = covers.arranged(notes, recipe)
    written = scores.melody(notes)
    written = written[(written[:, 1] >= recipe["first_q"] - 1e-6) & (written[:, 1] < recipe["last_q"] - 1e-6)]
    assert melody[:, 1].tolist() == (written[:, 3] + recipe["transpose"]).tolist()
    assert np.allclose(melody[:, 0], (written[:, 1] - recipe["first_q"]) / recipe["q_per_s"])
    assert seconds == pytest.approx((recipe["last_q"] - recipe["first_q"]) / recipe["q_per_s"])
    assert [note[3] for note in played[: len(melody)]] == melody[:, 1].astype(int).tolist()


# --- symbolic similarity ----------------------------------------------------------------------------------------------


def melody_of(pitches):
    return np.column_stack([np.arange(len(pitches)), pitches])


@pytest.mark.parametrize("how", ["alignment", "grams"])
def test_a_transposed_melody_is_the_same_and_another_is_less_like_it(how):
    similarity = covers.symbolic([melody_of(TUNE), melody_of(TUNE + 5), melody_of(TUNE[::-1] * 2 - 60)], how)
    assert similarity[0, 1] == pytest.approx(1.0) and similarity[0, 2] < 0.5
    assert np.allclose(similarity, similarity.T) and (np.diag(similarity) == 1).all()


def test_alignment_equals_slow_loops():
    rng = np.random.default_rng(0)
    found = [rng.integers(60, 66, n) for n in (2, 9, 14, 20)]
    similarity = covers.symbolic([melody_of(one) for one in found])
    for (i, a), (j, b) in itertools.combinations(enumerate(found), 2):
        a, b = np.diff(a), np.diff(b)
        table = np.zeros((len(a) + 1, len(b) + 1))
        for x, y in itertools.product(range(1, len(a) + 1), range(1, len(b) + 1)):
            hit = 1.0 if a[x - 1] == b[y - 1] else -1.0
            table[x, y] = max(0, table[x - 1, y - 1] + hit, table[x - 1, y] - 0.7, table[x, y - 1] - 0.7)
        assert similarity[i, j] == pytest.approx(table.max() / np.sqrt(len(a) * len(b)))


def test_what_cannot_be_compared_is_named():
    with pytest.raises(ValueError, match="how='ear'"):
        covers.symbolic([melody_of(TUNE)], "ear")
    with pytest.raises(ValueError, match="melody 1 has 1 notes"):
        covers.symbolic([melody_of(TUNE), melody_of([60])])


# --- sound font -------------------------------------------------------------------------------------------------------


def loudest_hz(program, pitch):
    audio = render.render([(program, 0.0, 1.0, pitch, 90)], 16_000)[800:]
    spectrum = np.abs(np.fft.rfft(audio * np.hanning(len(audio)), 1 << 17))
    return float(np.fft.rfftfreq(1 << 17, 1 / 16_000)[spectrum.argmax()])


def test_the_font_is_out_of_tune_as_it_is_and_in_tune_when_mended(tmp_path, monkeypatch):
    font = tmp_path / "font.sf2"
    assert soundfont.in_tune(render.sound_font(), font) > 1000
    for program, pitch in ((0, 60), (40, 60), (75, 69)):
        wanted = 440 * 2 ** ((pitch - 69) / 12)
        for path, fits in ((render.sound_font(), False), (font, True)):
            with monkeypatch.context() as patched:
                patched.setattr(render, "_in_tune", lambda path=path: path)
                semitones = 12 * np.log2(loudest_hz(program, pitch) / wanted)
            assert (abs((semitones + 6) % 12 - 6) < 0.3) == fits, (program, path, semitones)
        semitones = 12 * np.log2(loudest_hz(program, pitch) / wanted)
        assert abs((semitones + 6) % 12 - 6) < 0.3, "render plays out of tune"
    assert soundfont.in_tune(font, tmp_path / "again.sf2") == 0
    assert (tmp_path / "again.sf2").read_bytes() == font.read_bytes()
    assert font.stat().st_size - render.sound_font().stat().st_size < 100_000


def test_what_is_no_font_is_refused(tmp_path):
    (tmp_path / "a.sf2").write_bytes(b"RIFF0000WAVE")
    with pytest.raises(ValueError, match="is no SoundFont 2"):
        soundfont.in_tune(tmp_path / "a.sf2", tmp_path / "b.sf2")
    (tmp_path / "a.sf2").write_bytes(render.sound_font().read_bytes()[:2_000_000])
    with pytest.raises(ValueError, match="cut off"):
        soundfont.in_tune(tmp_path / "a.sf2", tmp_path / "b.sf2")
    assert not (tmp_path / "b.sf2").exists()
