"""pawlib/crops.py: the tree of clips, its families, and songs cut into wholes."""

import pytest
import torch

from pawlib import crops


@pytest.mark.parametrize(("n_levels", "n_parts"), [(1, 2), (2, 2), (4, 2), (3, 3)])
def test_crops_of_each_level_join_back_into_the_song(n_levels, n_parts):
    wave = torch.randn(3, 5 * n_parts ** (n_levels - 1))
    clips = crops.hierarchical_crops(wave, n_levels, n_parts)
    assert len(clips) == n_levels
    for n, level in enumerate(clips):
        assert level.shape == (3, n_parts**n, wave.shape[1] // n_parts**n)
        assert torch.equal(torch.cat(list(level.unbind(1)), dim=-1), wave)


@pytest.mark.parametrize("n_parts", [2, 3])
def test_parts_of_a_clip_are_its_consecutive_pieces(n_parts):
    wave = torch.arange(2 * n_parts**3 * 4.0).view(2, -1)
    clips = crops.hierarchical_crops(wave, 4, n_parts)
    for n in range(3):
        for m in range(n_parts**n):
            parts = [clips[n + 1][:, m * n_parts + i] for i in range(n_parts)]
            assert torch.equal(torch.cat(parts, dim=-1), clips[n][:, m])


def test_crops_copy_nothing():
    wave = torch.zeros(1, 16)
    for level in crops.hierarchical_crops(wave):
        assert level.data_ptr() == wave.data_ptr()


def test_paper_whole_has_eight_clips_of_44800_samples():
    assert crops.whole_length(22.4, 16_000) == 358_400
    assert crops.hierarchical_crops(torch.zeros(1, 358_400))[3].shape == (1, 8, 44_800)


@pytest.mark.parametrize(
    ("seconds", "rate", "n_levels", "n_parts", "hop"), [(2.8, 16_000, 4, 2, 16), (10, 22_050, 3, 3, 128)]
)
def test_whole_length_divides_into_whole_hops_and_is_the_nearest(seconds, rate, n_levels, n_parts, hop):
    length = crops.whole_length(seconds, rate, n_levels, n_parts, hop)
    unit = hop * n_parts ** (n_levels - 1)
    assert length % unit == 0
    assert abs(length - seconds * rate) <= unit / 2


def test_whole_without_a_single_hop_is_refused():
    with pytest.raises(ValueError, match="no hop of 128 samples.*longer whole or fewer levels"):
        crops.whole_length(0.01, 16_000)


def test_song_that_does_not_divide_is_refused_with_a_length_that_does():
    with pytest.raises(ValueError, match="100 samples do not divide into 8 equal clips.*96 samples"):
        crops.hierarchical_crops(torch.zeros(1, 100))


@pytest.mark.parametrize("shape", [(16,), (1, 1, 16)])
def test_wave_of_another_shape_is_refused(shape):
    with pytest.raises(ValueError, match=r"expected \(B, n_samples\)"):
        crops.hierarchical_crops(torch.zeros(shape))


def test_empty_song_is_refused():
    with pytest.raises(ValueError, match="0 samples do not divide"):
        crops.hierarchical_crops(torch.zeros(1, 0))
    with pytest.raises(ValueError, match="no samples"):
        crops.split_wholes(torch.zeros(1, 0), 8)


@pytest.mark.parametrize(("n_levels", "n_parts"), [(0, 2), (4, 1)])
def test_tree_without_levels_or_parts_is_refused(n_levels, n_parts):
    with pytest.raises(ValueError, match="at least 1 level and 2 parts"):
        crops.hierarchical_crops(torch.zeros(1, 16), n_levels, n_parts)


@pytest.mark.parametrize("n_samples", [3, 8, 9, 20, 24])
def test_wholes_are_the_song_repeated_as_often_as_needed(n_samples):
    wave = torch.stack([torch.arange(n_samples), 100 + torch.arange(n_samples)]).float()
    wholes, n_real = crops.split_wholes(wave, 8)
    flat = wholes.flatten(1)
    assert wholes.shape == (2, -(-n_samples // 8), 8)
    for song in range(2):
        assert flat[song].tolist() == [wave[song, i % n_samples].item() for i in range(flat.shape[1])]
    assert (wholes.shape[1] - 1) * 8 + n_real == n_samples
    assert 1 <= n_real <= 8


def test_own_families_are_the_parts_in_order():
    parts = torch.arange(8.0).view(1, 8, 1)
    assert crops.families(parts, 4).squeeze(-1).tolist() == [[[0, 1], [2, 3], [4, 5], [6, 7]]]


def test_cousins_are_the_parts_of_the_next_clip_of_the_same_parent():
    two = torch.arange(8.0).view(1, 8, 1)
    assert crops.families(two, 4, "cousins").squeeze(-1).tolist() == [[[2, 3], [0, 1], [6, 7], [4, 5]]]
    three = torch.arange(9.0).view(1, 9, 1)
    assert crops.families(three, 3, "cousins").squeeze(-1).tolist() == [[[3, 4, 5], [6, 7, 8], [0, 1, 2]]]


def test_top_level_keeps_its_own_parts_among_cousins():
    parts = torch.randn(2, 3, 4)
    assert torch.equal(crops.families(parts, 1, "cousins"), parts.unsqueeze(1))


@pytest.mark.parametrize("tree", ["own", "cousins"])
@pytest.mark.parametrize("n_parts", [2, 3])
@pytest.mark.parametrize("level", [0, 1, 2])
def test_families_dealt_out_return_to_where_they_came_from(tree, n_parts, level):
    parts = torch.randn(2, n_parts ** (level + 1), 3)
    dealt = crops.families(parts, n_parts**level, tree).flatten(1, 2)
    back = crops.families(dealt, n_parts**level, tree, back=True).flatten(1, 2)
    assert torch.equal(back, parts)


def test_unknown_tree_is_refused():
    with pytest.raises(ValueError, match="tree='uncles' is unknown"):
        crops.families(torch.zeros(1, 4, 1), 2, "uncles")


def test_levels_that_are_no_tree_are_refused():
    tree = [torch.zeros(2, 2**n, 5) for n in range(3)]
    crops.check_levels(tree, 3, 2)
    with pytest.raises(ValueError, match="3 levels, expected 4"):
        crops.check_levels(tree, 4, 2)
    with pytest.raises(ValueError, match=r"level 2 has 6 clips of 2 songs, expected M\*\*2 = 4"):
        crops.check_levels([*tree[:2], torch.zeros(2, 6, 5)], 3, 2)
    with pytest.raises(ValueError, match="level 1 has 2 clips of 3 songs"):
        crops.check_levels([tree[0], torch.zeros(3, 2, 5), tree[2]], 3, 2)


def test_a_path_has_the_parts_of_the_clip_followed_and_that_which_is_followed_first():
    tree = [torch.arange(2**n).repeat(2, 1) for n in range(4)]
    path = crops.follow(tree, torch.tensor([[1, 0, 1], [0, 1, 0]]))
    assert [level[0].tolist() for level in path] == [[0], [1, 0], [2, 3], [5, 4]]
    assert [level[1].tolist() for level in path] == [[0], [0, 1], [1, 0], [2, 3]]
    three = crops.follow([torch.arange(3**n).view(1, -1) for n in range(3)], torch.tensor([[2, 1]]))
    assert [level[0].tolist() for level in three] == [[0], [2, 0, 1], [7, 8, 6]]


def test_a_path_of_clips_keeps_their_samples():
    wave = torch.randn(2, 16)
    clips = crops.hierarchical_crops(wave, 3)
    path = crops.follow(clips, torch.tensor([[1, 1], [0, 0]]))
    assert torch.equal(path[2][0, 0], wave[0, 12:]) and torch.equal(path[2][1, 1], wave[1, 4:8])
    crops.check_levels(path, 3, 2, "path")
    with pytest.raises(ValueError, match="level 2 has 2 clips of 2 songs, expected M\\*\\*2"):
        crops.check_levels(path, 3, 2)


def test_a_path_without_a_choice_for_every_level_is_refused():
    with pytest.raises(ValueError, match="expected one for each of 2 songs and 2 levels with parts"):
        crops.follow(crops.hierarchical_crops(torch.randn(2, 16), 3), torch.zeros(2, 3, dtype=torch.long))
