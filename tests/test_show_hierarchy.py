"""Pictures of the hierarchy and the explorer's page: what is drawn, looked up and played."""

import io
import re

import matplotlib
import numpy as np
import pytest
import soundfile
import torch
from PIL import Image as Picture

matplotlib.use("Agg")

import matplotlib.pyplot as plt

from pawlib import interaction, model
from pawlib.bench import audio, hierarchy
from pawlib.show import figures, page
from pawlib.show import hierarchy as pictures

TOLERANCE = 1e-6


@pytest.fixture(autouse=True)
def _no_figure_stays_open():
    yield
    plt.close("all")


@pytest.fixture
def levels():
    return {n: np.random.default_rng(n).normal(size=(5, 2**n, 6)) for n in range(3)}


# maps and numbers


def test_a_map_has_a_point_per_clip_whose_area_is_its_length_and_a_line_per_part(levels):
    points = {n: clips[..., :2] for n, clips in levels.items()}
    _, ax = pictures.maps({"a": points, "b": points}, lines=True)
    assert len(ax) == 2
    for axis in ax:
        drawn = [(c.get_offsets(), c.get_sizes()[0]) for c in axis.collections]
        assert sum(len(offsets) for offsets, _ in drawn) == 5 * (1 + 2 + 4)
        areas = sorted({round(float(area), 6) for _, area in drawn}, reverse=True)
        assert [areas[0] / area for area in areas] == pytest.approx([1, 2, 4])
        assert len(axis.lines) == 5 * (2 + 4)
    _, (without,) = pictures.maps({"a": points}, lines=False)
    assert len(without.lines) == 0


def test_lines_join_a_clip_with_its_own_parts(levels):
    points = {n: clips[..., :2] for n, clips in levels.items()}
    _, (axis,) = pictures.maps({"a": points})
    joined = {tuple(np.round(line.get_xydata().ravel(), 9)) for line in axis.lines}
    for song in range(5):
        for m in range(4):
            assert tuple(np.round([*points[1][song, m // 2], *points[2][song, m]], 9)) in joined


def test_a_chosen_song_is_in_full_colour_and_the_others_are_pale(levels):
    points = {n: clips[..., :2] for n, clips in levels.items()}
    _, (axis,) = pictures.maps({"a": points}, song=2)
    alphas = [c.get_alpha() for c in axis.collections]
    assert alphas.count(1.0) == 3 and alphas[-3:] == [1.0] * 3  # three levels, drawn last


@pytest.mark.parametrize("n_systems", [1, 3, 4])
def test_any_number_of_systems_fits_and_the_picture_is_small(levels, n_systems):
    points = {n: clips[..., :2] for n, clips in levels.items()}
    fig, ax = pictures.maps({str(k): points for k in range(n_systems)}, title="t")
    assert [axis.get_title() for axis in ax] == [str(k) for k in range(n_systems)]
    assert len(figures.show(fig).data) < 100_000


def test_numbers_are_drawn_where_they_are(levels):
    found = {"a": hierarchy.numbers(levels, k=2, n_boot=50)}
    _, ax = pictures.numbers(found)
    dots = [line.get_xdata()[0] for axis in ax for line in axis.lines if line.get_marker() == "o"]
    assert dots == pytest.approx([one["estimate"] for one in found["a"].values()])


def test_levels_without_a_number_have_no_dot():
    one = {"estimate": 0.7, "low": 0.6, "high": 0.8}
    nothing = {"estimate": None, "low": None, "high": None}
    alone = {"estimate": 0.6, "low": None, "high": None}
    _, (axis,) = pictures.by_level({"part": {"a": {0: nothing, 1: alone, 2: one, 3: None}}}, "ROC-AUC")
    (dots,) = [line for line in axis.lines if line.get_marker() == "o"]
    assert dots.get_ydata().tolist() == [0.6, 0.7]


# tags in time

EVENTS = [
    {"tag": "strings", "group": "timbre", "start_s": 0.0, "end_s": 4.0},
    {"tag": "piano", "group": "timbre", "start_s": 4.0, "end_s": 8.0},
    {"tag": "major", "group": "musical", "start_s": 0.0, "end_s": 8.0},
    {"tag": "duple", "group": "musical", "start_s": 0.0, "end_s": 8.0},
    {"tag": "drums", "group": "part", "start_s": 2.0, "end_s": 5.0},
    {"tag": "trill", "group": "part", "start_s": 3.0, "end_s": 4.0},
]


def told(axis):
    return [text.get_text() for text in axis.texts]


def test_boxes_say_which_tag_holds_when_and_probabilities_stand_where_their_clips_sound():
    answers = {n: (hierarchy.spans(800, 400 // 2**n, 100), np.linspace(0, 0.3, 2 ** (n + 1))) for n in range(2)}
    _, ax = pictures.tags_in_time(np.sin(np.arange(800)), 100, EVENTS, answers, "drums", "t")
    assert len(ax) == 4
    assert told(ax[1]) == ["strings", "piano", "major, duple", "drums", "trill"]
    for axis, (spans, p) in zip(ax[2:], answers.values(), strict=True):
        segments = np.array(axis.collections[0].get_segments())  # (n_clips, 2, 2)
        np.testing.assert_allclose(segments[:, :, 0], spans)
        np.testing.assert_allclose(segments[:, 0, 1], p)
        (marked,) = axis.patches
        assert (marked.get_x(), marked.get_x() + marked.get_width()) == (2, 5)


def test_events_at_the_same_time_lie_in_rows_of_their_own():
    rows = pictures._rows(EVENTS, 8.0)
    assert [(group, [box[2] for box in row]) for group, row, _ in rows] == [
        ("timbre", ["strings", "piano"]), ("musical", ["major, duple"]), ("part", ["drums"]), ("part", ["trill"])
    ]  # fmt: skip


def test_tags_without_times_are_one_box_over_the_whole_track():
    boxes = pictures.untimed(["rock", "loud"], 8.0)
    answers = {0: (np.array([[0.0, 8.0]]), np.array([0.2]))}
    _, ax = pictures.tags_in_time(np.ones(800), 100, boxes, answers, "rock")
    assert told(ax[1]) == ["rock, loud"]


# the page


@pytest.fixture(scope="module")
def paw():
    torch.manual_seed(0)
    return model.MusicPAW(whole_seconds=2.8, n_levels=3, n_layers=2, n_heads=2).eval()


@pytest.fixture(scope="module")
def shown(paw):
    generator = torch.Generator().manual_seed(1)
    waves = 0.1 * torch.randn(4, paw.n_whole, generator=generator)
    return page.Page(paw, waves, [f"song {k}" for k in range(4)], "made up")


def test_attention_is_read_and_the_block_left_as_it_was(paw):
    s = [torch.randn(3, 2**n, 512, generator=torch.Generator().manual_seed(n)) for n in range(3)]
    with torch.no_grad():
        plain = paw.block(s)
    s_hat, looked = page.attend(paw.block, s, paw.block.units[0].mix[0])
    assert all(torch.equal(a, b) for a, b in zip(plain, s_hat, strict=True))
    assert [one.shape for one in looked] == [(3, 1, 2, 2, 2), (3, 2, 2, 2, 2)]
    assert all(np.allclose(one.sum(-1), 1, atol=1e-5) for one in looked)
    untouched, _ = page.attend(paw.block, s, 0.0)
    assert all(torch.equal(a, b) for a, b in zip(untouched, s, strict=True))
    assert [unit.mix for unit in paw.block.units] == [(0.5, 0.5)] * 2


def test_the_mix_is_put_back_after_an_error(paw):
    with pytest.raises(ValueError):
        page.attend(paw.block, [torch.zeros(1, 1, 512)], 0.25)
    assert [unit.mix for unit in paw.block.units] == [(0.5, 0.5)] * 2


def test_vectors_at_mix_zero_are_the_encoders(paw, shown):
    embedded = paw.embed(shown.waves, paw.sample_rate)
    for n in range(3):
        unit = torch.nn.functional.normalize(embedded[n], dim=-1).numpy()
        assert (unit * shown.vectors[0.0][n]).sum(-1).min() > 0.999  # the page computes in bf16 where it can


@pytest.mark.parametrize("own_song", [False, True])
@pytest.mark.parametrize("look_in", [page.SAME, 0, 2])
def test_neighbours_are_a_search_through_all_clips(shown, look_in, own_song):
    song, level, clip, mix = 2, 1, 1, 0.5
    target = level if look_in == page.SAME else look_in
    every = [
        (float(shown.vectors[mix][target][b, m] @ shown.vectors[mix][level][song, clip]), b, target, m)
        for b in range(4)
        for m in range(2**target)
        if (own_song or b != song) and (b, target, m) != (song, level, clip)
    ]
    expected = sorted(every, reverse=True)[:5]
    found = shown.neighbours(song, level, clip, look_in, own_song, mix)
    assert [one[1:] for one in found] == [one[1:] for one in expected]
    assert [one[0] for one in found] == pytest.approx([one[0] for one in expected], abs=TOLERANCE)


def sounds(html):
    return re.findall(r'src="data:audio/mpeg;base64,([^"]+)"', html.data)


def test_a_click_shows_a_picture_a_player_and_the_neighbours_players(shown):
    picture, own, others = shown.look(song=1, level=2, clip=3)
    with Picture.open(io.BytesIO(picture.data)) as drawn:
        assert drawn.size == (800, 590)
    assert len(picture.data) < 100_000
    assert len(sounds(own)) == 1 and len(sounds(others)) == page.N_PLAYED
    assert "song 1, level 2, 2.1 to 2.8 s" in own.data
    best = shown.neighbours(1, 2, 3, mix=0.5)
    assert all(shown.name(*one[1:]) in others.data for one in best[: page.N_PLAYED])


@pytest.mark.parametrize(
    "change", [{"song": 2}, {"level": 0}, {"clip": 0}, {"mix": 1.0}, {"hop": 0.25}, {"look_in": 0}, {"own_song": True}]
)
def test_every_selector_changes_the_picture(shown, change):
    first = {"song": 1, "level": 1, "clip": 1, "mix": 0.5, "hop": 1.0}
    assert shown.look(**first)[0].data == shown.look(**first)[0].data
    assert shown.look(**first)[0].data != shown.look(**first | change)[0].data


def test_the_hop_changes_the_frames_and_nothing_else(shown):
    mel, hop = shown.log_mel(0, 1, 0)
    np.testing.assert_allclose(mel, shown.model.mels.level(1, shown.clips[1][:1])[0, 0, 0].numpy(), atol=1e-4)
    finer, half = shown.log_mel(0, 1, 0, 0.5)
    assert half == hop / 2 and finer.shape == (128, 2 * mel.shape[1] - 1)
    np.testing.assert_allclose(finer[:, ::2], mel, atol=1e-4)


def test_only_clips_with_parts_have_looked_and_cousins_at_their_siblings_parts(shown):
    assert shown.looked_at(0, 2, 1, 0.5) is None
    weights, met = shown.looked_at(0, 1, 1, 0.5)
    assert weights.shape == (2, 2, 2) and met == [2, 3]
    before = shown.model.block.tree
    shown.model.block.tree = "cousins"
    try:
        assert shown.looked_at(0, 1, 1, 0.5)[1] == [0, 1]
    finally:
        shown.model.block.tree = before


def test_a_model_without_a_block_shows_its_songs_too(shown):
    plain = model.MusicPAW("baseline", whole_seconds=2.8, n_levels=2)
    alone = page.Page(plain, shown.waves[:2, : plain.n_whole], ["a", "b"])
    assert alone.mixes == (0.0,) and alone.looked_at(0, 0, 0, 0.0) is None
    assert len(alone.look(0, 0, 0, mix=1.0)) == 3


def test_a_page_needs_two_songs_of_the_models_length(paw, shown):
    with pytest.raises(ValueError, match="two songs or more"):
        page.Page(paw, shown.waves[:1], ["a"])
    with pytest.raises(ValueError, match="with 1 names"):
        page.Page(paw, shown.waves[:2], ["a"])


def test_a_file_of_any_rate_and_channels_becomes_wholes(paw, tmp_path):
    path = tmp_path / "stereo.wav"
    soundfile.write(path, 0.1 * np.random.default_rng(0).normal(size=(44_100 * 5, 2)), 44_100)
    waves, names = page.wholes_of_file(path, paw)
    assert waves.shape == (2, paw.n_whole) and names == ["file +0.0 s", "file +2.8 s"]
    assert page.wholes_of_file(path, paw, n_wholes=1)[0].shape == (1, paw.n_whole)
    (tmp_path / "no.wav").write_text("<html>")
    with pytest.raises(audio.AudioError, match="a web page"):
        page.wholes_of_file(tmp_path / "no.wav", paw)


def test_the_parts_attend_to_one_key_so_there_is_nothing_to_draw():
    unit = interaction.InteractionUnit(width=8, n_heads=2, head_width=4, n_layers=1, feed_forward=8).eval()
    weights = []
    layer = unit.to_parts.layers[0]
    hook = layer.register_forward_hook(lambda module, given, made: weights.append(made[1]))
    unit(torch.randn(1, 1, 8), torch.randn(1, 2, 8))
    hook.remove()
    of_whole, of_parts = weights  # both equations pass the same transformer
    assert of_whole.shape[-1] == 2 and of_parts.shape[-1] == 1
    assert torch.equal(of_parts, torch.ones_like(of_parts))


def test_songs_colours_differ():
    assert len({pictures.song_colour(k) for k in range(20)}) == 20
