"""What finds covers without learning: chroma, 2DFTM and Qmax know keys, alignment knows tempo, chance knows nothing."""

import numpy as np
import pytest

from pawlib.bench import cover_baselines, retrieval


def melody(notes, n_repeat=4, shift=0):
    """A song of single notes, each some frames long, over a quiet floor."""
    one = np.full((84, len(notes) * n_repeat), 0.01, np.float32)
    one[np.repeat(np.asarray(notes) + 36 + shift, n_repeat), np.arange(one.shape[1])] = 1
    return one


def melodies(n, seed=0, n_notes=30):
    random = np.random.default_rng(seed)
    return [random.integers(0, 12, n_notes) for _ in range(n)]


def test_chroma_is_the_mean_over_octaves_by_hand():
    one = np.zeros((84, 2), np.float32)
    one[0, 0], one[12, 0], one[83, 1] = 7.0, 14.0, 7.0
    found = cover_baselines.chroma(one)
    assert found.shape == (12, 2) and found[0].tolist() == [3.0, 0.0] and found[11].tolist() == [0.0, 1.0]
    assert found.sum() == 4


def test_averaged_chroma_is_the_best_of_twelve_cosines():
    cqts = [melody(one) for one in melodies(5)]
    found = cover_baselines.averaged_chroma(cqts)
    means = [cover_baselines.chroma(one).mean(axis=1) for one in cqts]
    for i, a in enumerate(means):
        for j, b in enumerate(means):
            cosines = [a @ np.roll(b, k) / np.linalg.norm(a) / np.linalg.norm(b) for k in range(12)]
            assert found[i, j] == pytest.approx(max(cosines), abs=1e-6)


@pytest.mark.parametrize("baseline", ["averaged_chroma", "two_d_fourier", "qmax"])
def test_a_transposed_song_is_found_by_every_baseline(baseline):
    notes = melodies(6)
    cqts = [melody(one) for one in notes] + [melody(one, shift=3 + i) for i, one in enumerate(notes)]
    found = getattr(cover_baselines, baseline)(cqts)
    if baseline == "two_d_fourier":
        np.testing.assert_allclose(found[:6], found[6:], rtol=1e-3, atol=1e-3)
        assert found.shape == (12, 12 * 38)
        unit = retrieval.unit_rows(found)
        found = unit @ unit.T
    scores = retrieval.retrieval(found, [*range(6), *range(6)])
    assert scores["map"] == 1.0


def test_a_song_at_another_tempo_is_found_by_alignment():
    notes = melodies(6, seed=1)
    cqts = [melody(one, 4) for one in notes] + [melody(one, 5, shift=5) for one in notes]
    assert retrieval.retrieval(cover_baselines.qmax(cqts), [*range(6), *range(6)])["map"] == 1.0


def test_two_d_fourier_is_the_definition_in_slow_loops():
    one = np.random.default_rng(0).random((84, 7)).astype(np.float32)
    song = cover_baselines.chroma(one).astype(float) ** 1.96
    patches = []
    for start in range(3):
        patch, spectrum = song[:, start : start + 5], np.zeros((12, 3))
        for p in range(12):
            for q in range(3):
                waves = np.exp(-2j * np.pi * (p * np.arange(12)[:, None] / 12 + q * np.arange(5) / 5))
                spectrum[p, q] = abs((patch * waves).sum())
        patches.append(spectrum)
    found = cover_baselines.two_d_fourier([one], n_frames=5)
    np.testing.assert_allclose(found[0], np.median(patches, axis=0).ravel(), rtol=1e-4)
    assert cover_baselines.two_d_fourier([one[:, :2]], n_frames=5).shape == (1, 36)  # shorter than a patch


def test_frames_are_alike_that_are_near_each_other_from_both_sides():
    from librosa.segment import cross_similarity

    random = np.random.default_rng(0)
    a, b = random.random((108, 30)), random.random((108, 50))
    found = cover_baselines._alike(a, b, 0.1)
    expected = cross_similarity(a, b, k=5).T & cross_similarity(b, a, k=3)
    assert found.shape == (30, 50) and np.array_equal(found, expected) and found.any()


def test_qmax_of_a_song_with_itself_is_its_length_and_a_gap_costs():
    song = np.random.default_rng(0).random((12, 40))  # no two stacks of frames alike
    assert cover_baselines._longest_stretch(song, song, 1, 1 / 40, 0.5) == 40
    holed = np.delete(song, [19, 20, 21], axis=1)
    assert 30 < cover_baselines._longest_stretch(song, holed, 1, 1 / 40, 0.5) < 37
    assert cover_baselines._longest_stretch(song, np.roll(song, 5, axis=0), 9, 1 / 40, 0.5) == 32  # 40 - 9 + 1


def test_stacked_frames_are_those_that_follow():
    song = np.arange(24.0).reshape(12, 2)
    assert cover_baselines._stacked(song, 9).shape == (24, 1) and cover_baselines._stacked(song, 1).shape == (12, 2)
    assert cover_baselines._stacked(song, 2)[:, 0].tolist() == [*song[:, 0], *song[:, 1]]


def test_random_embeddings_know_nothing_twice_alike():
    a, b, c = (cover_baselines.random_embeddings(5, seed) for seed in (0, 0, 1))
    assert a.shape == (5, 300) and np.array_equal(a, b) and not np.array_equal(a, c)


def test_cross_similarity_of_a_transposed_song_has_ones_on_its_diagonal():
    notes = melodies(2, seed=3)
    a, b = melody(notes[0]), melody(notes[0], shift=5)
    found, shift = cover_baselines.cross_similarity(a, b, n_stack=9)
    assert shift == 7 and found.shape == (112, 112)  # five up, seven more make an octave
    np.testing.assert_allclose(np.diag(found), 1, atol=1e-5)
    other, _ = cover_baselines.cross_similarity(a, melody(notes[1]), n_stack=9)
    assert np.diag(other).mean() < 0.6 and 0 <= found.min() and found.max() <= 1 + 1e-9


def test_silence_has_a_cross_similarity_too():
    found, _ = cover_baselines.cross_similarity(np.zeros((84, 20), np.float32), melody(melodies(1)[0]))
    assert np.isfinite(found).all()
