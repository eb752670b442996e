"""The diagnostic on a made-up corpus: what an oracle, noise and a collapsed encoder must score, and clear errors."""

import dataclasses

import numpy as np
import pytest
import torch

from pawlib import model, paths, systems
from pawlib.bench import corpora, datasets, diagnostic, results, stats

RATE = 1000
LABELS = ("a", "b", "c", "d")
GROUPS = {"timbre": ("a", "b"), "order": ("c", "d")}
FEW = {"n_boot": 50, "max_epochs": 60}


class Waves:
    """A store of songs whose samples say which song it is: its tags' code in the first channel's values."""

    def __init__(self, waves):
        self.waves = waves

    def read(self, track_id, start=0, n_samples=None):
        return self.waves[track_id][start : None if n_samples is None else start + n_samples]

    def sample_rate(self, _track_id):
        return RATE


@pytest.fixture
def corpus():
    """200 songs of 29 s; every sample of a song is its tags, read as a binary number, plus its own small fraction."""
    random = np.random.default_rng(0)
    tracks, waves = [], {}
    for k in range(200):
        target = (random.random(4) < 0.5).astype(np.float32)
        tracks.append(datasets.Track(f"song{k}", None, target, f"work{k}"))
        waves[f"song{k}"] = np.full(29 * RATE, target @ [8, 4, 2, 1] + k / 400, np.float32)
    splits = datasets.Splits(tracks[:160], tracks[160:180], tracks[180:], LABELS, "made-up", groups=GROUPS)
    return corpora.Corpus("made-up", splits, Waves(waves), [])


@pytest.fixture
def pairs(corpus):
    """Twelve test songs of the corpus as six works recorded twice: 0 with 1, 2 with 3, ..."""
    twice = [dataclasses.replace(track, work=f"work{k // 2}") for k, track in enumerate(corpus.splits.test[:12])]
    return dataclasses.replace(corpus, splits=dataclasses.replace(corpus.splits, test=twice))


def answers(waves):
    """The tags themselves, one after the other, and which song it is."""
    code = waves.double().mean(dim=1)
    bits = torch.stack([torch.floor(code / 2**k) % 2 for k in (3, 2, 1, 0)], dim=1)
    return torch.cat([bits, 50 * torch.cos(np.pi * torch.outer(code, torch.arange(1, 30.0).double()) / 16)], dim=1)


def tags_only(waves):
    return answers(waves)[:, :4]


def noise(waves):
    generator = torch.Generator().manual_seed(int(waves[0, 0] * 100))
    return torch.randn(len(waves), 16, generator=generator)


def test_the_answers_score_one_and_noise_a_half(corpus):
    found = diagnostic.evaluate(tags_only, RATE, corpus, name="answers", **FEW)
    for group in GROUPS:
        assert found.clips["groups"][group]["roc_auc"] > 0.99
        assert found.wholes["groups"][group]["roc_auc"] > 0.99
    lost = diagnostic.evaluate(noise, RATE, corpus, n_samples=2_800, **FEW)
    assert 0.3 < lost.clips["metrics"]["roc_auc"] < 0.7 and lost.wholes is None
    low, high = found.clips["groups"]["order"]["roc_auc_interval"]
    assert 0.9 < low <= high <= 1


def test_an_oracle_finds_every_whole(corpus):
    found = diagnostic.evaluate(answers, RATE, corpus, **FEW).retrieval
    assert list(found) == ["level_1", "level_2", "level_3"]
    assert [one["accuracy"] for one in found.values()] == [1.0, 1.0, 1.0]
    assert [one["n_clips"] for one in found.values()] == [40, 80, 160]
    assert {one["chance"] for one in found.values()} == {1 / 20}


def test_clips_have_the_encoders_own_length(corpus):
    seen = set()

    def watched(waves):
        seen.add(waves.shape[1])
        return tags_only(waves)

    report = diagnostic.evaluate(watched, RATE, corpus, n_samples=3_000, **FEW)
    assert seen == {3_000} and report.pooled and report.clip_seconds == 3
    seen.clear()
    report = diagnostic.evaluate(watched, 2 * RATE, corpus, **FEW)  # resampled
    assert seen == {5_600, 11_200, 22_400, 44_800} and not report.pooled


def test_covers_are_found_by_the_mean_of_their_clips(corpus, pairs):
    samples = {track.id: pairs.store.waves[track.id] for track in pairs.splits.test}
    for k, wave in enumerate(samples.values()):
        wave[:] = 1 + k // 2  # which work it is
        wave[: 15 * RATE] += (-1) ** k * (k // 2 + 0.25)  # the first half tells another tale: less so on average

    def told(waves):
        heard = waves.double().mean(dim=1)
        return torch.stack([torch.cos(heard), torch.sin(heard)], dim=1)

    def slow(length):
        """Average precision of every recording, asked by hand."""
        vectors = []
        for wave in samples.values():
            starts = [*range(0, len(wave) - length + 1, length), *([len(wave) - length] if len(wave) % length else [])]
            heard = np.array([wave[a : a + length].astype(float).mean() for a in starts])
            vectors.append([np.cos(heard).mean(), np.sin(heard).mean()])
        unit = np.array(vectors) / np.linalg.norm(vectors, axis=1, keepdims=True)
        ranks = []
        for k in range(len(unit)):
            fellow = k + 1 if k % 2 == 0 else k - 1
            cosines = unit @ unit[k]
            ranks.append(1 + sum(cosines[j] > cosines[fellow] for j in range(len(unit)) if j not in (k, fellow)))
        return np.mean(1 / np.array(ranks))

    found = diagnostic.evaluate(told, RATE, corpus, covers=pairs, **FEW).covers
    assert list(found) == ["clips", "wholes"]
    assert found["clips"]["map"] == pytest.approx(slow(2_800), abs=1e-9)
    assert found["wholes"]["map"] == pytest.approx(slow(22_400), abs=1e-9)
    assert found["clips"]["chance"] < found["clips"]["map"] < 1 and found["clips"]["n_recordings"] == 12
    low, high = found["clips"]["map_interval"]
    assert low <= found["clips"]["map"] <= high
    report = diagnostic.evaluate(told, RATE, corpus, n_samples=2_800, covers=pairs, **FEW)
    assert report.covers == {"clips": found["clips"]}  # an encoder of one length is not asked of wholes
    assert report.row()["metrics"]["covers_of_clips_map"] == found["clips"]["map"]
    assert "covers, clips" in report.table() and "covers, wholes" not in report.table()
    assert diagnostic.evaluate(told, RATE, corpus, n_samples=2_800, **FEW).covers is None


# --- retrieval by hand ---


def slow_part_to_whole(tree):
    wholes = [w[0] / np.linalg.norm(w[0]) for w in tree[0]]
    shares = []
    for level in tree[1:]:
        hits = [
            np.argmax([clip @ w / np.linalg.norm(clip) for w in wholes]) == song
            for song, clips in enumerate(level) for clip in clips
        ]  # fmt: skip
        shares.append(np.mean(hits))
    return shares


def test_retrieval_is_that_of_slow_loops():
    random = np.random.default_rng(0)
    songs = random.standard_normal((7, 1, 5))
    tree = [songs + 0.8 * random.standard_normal((7, 2**n, 5)) for n in range(3)]
    found = diagnostic.part_to_whole(tree, n_boot=20)
    assert [one["accuracy"] for one in found.values()] == pytest.approx(slow_part_to_whole(tree))
    assert 0 < found["level_2"]["accuracy"] < 1


def test_a_collapsed_encoder_scores_chance_and_the_length_of_vectors_does_not_matter():
    same = [np.ones((5, 2**n, 3)) for n in range(3)]
    assert [one["accuracy"] for one in diagnostic.part_to_whole(same, n_boot=20).values()] == [0.2, 0.2]
    own = [np.repeat(np.eye(5)[:, None], 2**n, axis=1) * 10.0**n for n in range(3)]
    assert diagnostic.part_to_whole(own, n_boot=20)["level_2"]["accuracy"] == 1
    zeros = [np.zeros((5, 2**n, 3)) for n in range(3)]
    assert diagnostic.part_to_whole(zeros, n_boot=20)["level_1"]["accuracy"] == pytest.approx(0.2)


def test_retrieval_needs_two_songs():
    with pytest.raises(ValueError, match="one song alone cannot be mistaken for another"):
        diagnostic.part_to_whole([np.ones((1, 1, 3)), np.ones((1, 2, 3))])


# --- what is kept and printed ---


def test_the_report_makes_a_row_a_table_and_a_licence(corpus, tmp_path):
    report = diagnostic.evaluate(tags_only, RATE, corpus, name="my_net", **FEW)
    row = report.row(settings={"checkpoint": {"seed": 3}})
    assert row["id"] == "made-up.small.my_net.none.diagnostic.seed0" and row["n_tracks"] == 20
    assert row["settings"]["diagnostic"] == diagnostic.ID == "mtat-v2.covers-v1.works-v1.diagnostic-v2"
    assert row["settings"]["intervals"] == stats.INTERVALS and row["settings"]["checkpoint"] == {"seed": 3}
    assert set(row["groups"]) == {"timbre", "order", "timbre, wholes", "order, wholes"}
    assert row["metrics"]["part_to_whole_level_3_chance"] == 0.05 and row["metrics"]["roc_auc_wholes"] > 0.99
    assert results.write(row, tmp_path).is_file()
    table = report.table()
    assert "asked of clips of 2.8 s" in table and "asked of wholes of 22.4 s" in table
    assert "log_mel_statistics, wholes" in table and "random, fcn_4, clips of 2.8 s" in table
    assert "NOT comparable" in table and max(map(len, table.splitlines())) <= 120
    assert "music21" in report.licence() and "MagnaTagATune" in report.licence()


def test_the_table_lays_what_was_found_again_beside_chance_and_baselines(corpus, pairs):
    report = diagnostic.evaluate(tags_only, RATE, corpus, covers=pairs, name="mine", **FEW)
    lines = report.table().splitlines()
    start = next(i for i, line in enumerate(lines) if "(pieces): of one length" in line)
    heading, own, chance, *others = lines[start + 1 :]
    assert heading.split("  ")[-1].strip() == "covers, wholes" and own.startswith("mine ")
    assert own.count("[") == 5 and f" {100 * report.retrieval['level_2']['accuracy']:.1f} [" in own
    assert chance.split()[2:] == ["5.0"] * 3 + [f"{100 * report.covers['clips']['chance']:.1f}"] * 2
    (row,) = (row for row in diagnostic.baselines() if row["system"] == "mfcc_statistics")
    names = [f"part_to_whole_level_{n}_accuracy" for n in (1, 2, 3)] + ["covers_of_clips_map", "covers_of_wholes_map"]
    (line,) = (line for line in others if line.startswith("mfcc_statistics"))
    assert line.split()[1:] == [f"{100 * row['metrics'][name]:.1f}" for name in names]


def test_baselines_learned_nothing_and_were_asked_the_same(tmp_path, monkeypatch):
    rows = diagnostic.baselines()
    assert {row["system"] for row in rows} == {"log_mel_statistics", "mfcc_statistics", "random"}
    assert all(not row["settings"].get("checkpoint") and row["dataset"] == "mtat-twin" for row in rows)
    assert diagnostic.name_of(rows[0]) == "log_mel_statistics" and "random, fcn_4" in map(diagnostic.name_of, rows)
    monkeypatch.setattr(paths, "results", lambda: tmp_path)
    assert diagnostic.baselines() == []


def test_without_published_rows_the_table_says_so(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "results", lambda: tmp_path)
    assert "no baselines: their rows are in data/results" in str(diagnostic.evaluate(tags_only, RATE, corpus, **FEW))


def test_an_encoder_of_one_length_has_no_line_for_wholes(corpus):
    table = diagnostic.evaluate(tags_only, RATE, corpus, n_samples=5_600, **FEW).table()
    assert (
        "wholes of" not in table
        and "encoder (pieces) " in table
        and "mean of its pieces" in table
        and "clips of 5.6 s" in table
    )


@pytest.mark.parametrize(
    "embed_fn, said",
    [
        (lambda w: torch.zeros(len(w), 3, 4), r"64 clips of 2,800 samples, .* returned shape \(64, 3, 4\), expected"),
        (lambda w: torch.zeros(8), r"returned shape \(8,\), expected \(64, D\)"),
        (lambda w: torch.zeros(1, 8), r"returned shape \(1, 8\)"),
        (lambda w: torch.full((len(w), 2), torch.nan), "NaN or infinite values for clip 0"),
        (lambda w: torch.ones(len(w), w.shape[1] // 700), "8 values a clip, 4 before|32 values a clip, 4 before"),
    ],
)
def test_wrong_vectors_are_one_clear_error(corpus, embed_fn, said):
    with pytest.raises(ValueError, match=said):
        diagnostic.evaluate(embed_fn, RATE, corpus, **FEW)


def test_arrays_are_taken_too(corpus):
    report = diagnostic.evaluate(lambda w: tags_only(w).numpy(), RATE, corpus, n_samples=2_800, **FEW)
    assert report.width == 4


def test_only_the_frozen_twin_is_the_diagnostic(corpus):
    with pytest.raises(ValueError, match="defined on corpus='twin'"):
        diagnostic.evaluate(noise, RATE, corpus="real")
    with pytest.raises(ValueError, match="at scale 'paper'"):
        diagnostic.evaluate(noise, RATE, scale="paper")
    with pytest.raises(ValueError, match="cannot be part of a run id"):
        diagnostic.evaluate(noise, RATE, corpus, name="My Net!")
    with pytest.raises(ValueError, match="n_samples=0"):
        diagnostic.evaluate(noise, RATE, corpus, n_samples=0)
    corpus = dataclasses.replace(corpus, splits=dataclasses.replace(corpus.splits, groups={}))
    with pytest.raises(ValueError, match="no groups of tags"):
        diagnostic.evaluate(noise, RATE, corpus)


def test_the_twins_are_opened_by_their_names(corpus, pairs, monkeypatch):
    asked = []
    opened = {"mtat": corpus, "covers80": pairs}
    monkeypatch.setattr(corpora, "open_corpus", lambda *args: asked.append(args) or opened[args[0]])
    diagnostic.evaluate(answers, RATE, scale="toy", n_samples=2_800, **FEW)
    assert asked == [("mtat", "twin", "toy"), ("covers80", "twin", "toy")]


def test_the_example_of_the_module_runs_on_the_toy_twin_where_it_is_there():
    if not all((paths.store(f"{name}-twin-toy") / "store.json").is_file() for name in ("mtat", "covers80")):
        pytest.skip("the toy twin is made by the notebooks")
    basis = torch.randn(400, 8, generator=torch.Generator().manual_seed(0))

    def embed_fn(waves):
        return waves[:, : waves.shape[1] // 400 * 400].unflatten(1, (-1, 400)).matmul(basis).abs().mean(dim=1)

    report = diagnostic.evaluate(embed_fn, sample_rate=16_000, scale="toy", **FEW)
    assert set(report.clips["groups"]) == {"timbre", "musical", "part", "order"}
    assert 0 < report.retrieval["level_1"]["accuracy"] <= 1
    assert {found["n_recordings"] for found in report.covers.values()} == {16}


def test_music_paw_is_asked_at_the_level_of_a_clips_length_and_others_at_their_own():
    paw = model.MusicPAW("baseline", whole_seconds=0.64, n_levels=2).eval()
    asked = diagnostic.asking(paw)
    waves = 0.1 * torch.randn(2, paw.n_whole, generator=torch.Generator().manual_seed(0))
    assert asked["sample_rate"] == 16_000 and asked["n_samples"] is None
    for level, clips in enumerate((waves, waves[:, : paw.n_whole // 2])):
        with torch.no_grad():
            expected = paw.embed_clips(clips, level)
            got = asked["embed_fn"](clips)
        assert torch.nn.functional.cosine_similarity(got, expected).min() > 0.99  # bf16 where the device has it
    net = systems.system("byol_a")(encoder="audio_ntt")
    fixed = diagnostic.asking(net)
    assert fixed["n_samples"] == net.n_clip and fixed["sample_rate"] == net.sample_rate
