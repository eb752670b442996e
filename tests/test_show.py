"""What notebooks show: players, figures, explorers, songs."""

import base64
import io
import re
from types import SimpleNamespace

import ipywidgets
import matplotlib
import numpy as np
import pytest
import soundfile
import torch

matplotlib.use("Agg")

import matplotlib.pyplot as plt

from pawlib import crops
from pawlib.show import explorers, figures, players, scores, songs

RATE = 16_000


@pytest.fixture(autouse=True)
def _no_figure_stays_open():
    yield
    plt.close("all")


@pytest.fixture
def tree():
    generator = torch.Generator().manual_seed(0)
    wave = torch.randn(1, 8 * 800, generator=generator) * torch.linspace(0.1, 1, 8 * 800)
    return [level[0] for level in crops.hierarchical_crops(wave)]


def sounds(shown):
    """The MP3 files inside a player's HTML, decoded."""
    data = re.findall(r"data:audio/mpeg;base64,([^\"]+)", shown.data)
    return [soundfile.read(io.BytesIO(base64.b64decode(d))) for d in data]


# players


def test_a_player_holds_the_clip_and_its_title():
    tone = np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)
    shown = players.player(0.1 * tone, RATE, "a < b")
    ((wave, rate),) = sounds(shown)
    assert "a &lt; b" in shown.data and rate == RATE
    assert abs(len(wave) - RATE) < 3000  # an MP3 is padded to whole frames
    peak = np.abs(np.fft.rfft(wave, RATE)).argmax()
    assert peak == 440
    assert np.abs(wave).max() == pytest.approx(players.PEAK, abs=0.15)


def test_a_level_has_one_player_per_clip_in_its_colour_with_its_seconds(tree):
    for n, clips in enumerate(tree):
        shown = players.level(clips, n, RATE)
        assert len(sounds(shown)) == 2**n
        assert shown.data.count(figures.level_colour(n)) == 2**n
        assert f"level {n}: {2**n} x " in shown.data


def test_clips_of_a_row_keep_their_loudness_relative_to_each_other():
    tone = np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)
    loud, quiet = (np.abs(wave).max() for wave, _ in sounds(players.row([tone, 0.1 * tone], RATE)))
    assert quiet / loud == pytest.approx(0.1, abs=0.03)


def test_other_rates_are_resampled_and_silence_stays_silent():
    assert sounds(players.player(np.zeros(44_100), 44_100))[0][1] == RATE
    assert np.abs(sounds(players.player(np.zeros(44_100), 44_100))[0][0]).max() < 1e-3


def test_a_whole_takes_less_than_70_kb():
    assert len(players.player(np.random.default_rng(0).standard_normal(358_400), RATE).data) < 70_000


@pytest.mark.parametrize(
    ("clip", "kw", "message"),
    [
        (np.zeros((2, 10)), {}, r"shape \(2, 10\)"),
        (np.zeros(0), {}, "one clip of one song"),
        (np.full(10, np.nan), {}, "NaN"),
        (np.zeros(1000), {"kbps": 500}, "kbps=500"),
    ],
)
def test_what_cannot_be_played_is_refused(clip, kw, message):
    with pytest.raises(ValueError, match=message):
        players.player(clip, RATE, **kw)


def test_a_row_needs_one_title_per_clip():
    with pytest.raises(ValueError, match="1 titles for 2 clips"):
        players.row([np.zeros(100)] * 2, RATE, ["one"])


# figures


def test_figures_come_back_with_units_on_their_axes(tree):
    mels = [torch.randn(2**n, 128, 20) for n in range(4)]
    weights = [torch.full((2, 3, 2), 0.5)] * 3
    drawn = [
        figures.wave_tree(tree, RATE, (1, 0)),
        figures.mel_tree(mels, RATE, [1024, 512, 256, 128]),
        figures.attention(weights),
        figures.curves([1, 2], {"a": [1, 2]}, "time [s]", "loss", "t", 1.5),
        figures.bars(["a", "b"], [1, 2], "GMAC"),
        figures.table(np.eye(2), ["a", "b"], ["c", "d"], x_label="x", unit="share"),
    ]
    for fig, ax in drawn:
        last = np.atleast_1d(ax)[-1]
        assert last.get_xlabel() or last.get_ylabel()
        assert fig.axes and isinstance(fig, matplotlib.figure.Figure)
    assert drawn[0][1][-1].get_xlabel() == drawn[1][1][-1].get_xlabel() == "time [s]"


def test_every_level_has_its_own_colour():
    assert len({figures.level_colour(n) for n in range(len(figures.LEVEL_COLOURS))}) == len(figures.LEVEL_COLOURS) >= 5


def test_a_chosen_clip_and_what_it_contains_stand_out(tree):
    _, ax = figures.wave_tree(tree, RATE, chosen=(1, 1))
    opaque = [[area.get_alpha() == 1.0 for area in axis.collections] for axis in ax]
    assert opaque == [[False], [False, True], [False] * 2 + [True] * 2, [False] * 4 + [True] * 4]


def test_showing_closes_the_figure_and_stays_small_with_the_levels_colours():
    mels = [torch.randn(2**n, 128, 351, generator=torch.Generator().manual_seed(n)) for n in range(4)]
    fig, _ = figures.mel_tree(mels, RATE, [1024, 512, 256, 128])
    picture = figures.show(fig, n_shades=16)
    assert not plt.fignum_exists(fig.number)
    pixels = (plt.imread(io.BytesIO(picture.data))[..., :3] * 255).round().astype(int).reshape(-1, 3)
    assert (pixels == [0x00, 0x72, 0xB2]).all(1).any(), "the colour of level 0 was lost"
    assert len(np.unique(pixels, axis=0)) <= 16 + 8 + 3 * len(figures.LEVEL_COLOURS)


def test_a_large_figure_keeps_the_colours_of_its_own_map():
    noise = np.random.default_rng(0).uniform(-1, 1, (300, 300))
    fig, ax = plt.subplots()
    ax.imshow(noise, cmap="RdBu_r")
    pixels = (plt.imread(io.BytesIO(figures.show(fig).data))[..., :3] * 255).round().astype(int).reshape(-1, 3)
    ends = (np.array([matplotlib.colormaps["RdBu_r"](end)[:3] for end in (0.0, 1.0)]) * 255).round().astype(int)
    assert all((pixels == end).all(1).any() for end in ends)


def test_a_figure_does_not_change_the_style_of_the_next():
    before = dict(plt.rcParams)
    figures.curves([1, 2], {"a": [1, 2]}, "x", "y")
    assert dict(plt.rcParams) == before


# explorers


def test_exploring_calls_the_function_once_with_its_defaults():
    calls = []

    def shown(level=2, song=0):
        calls.append((level, song))
        return "text"

    explorer = explorers.explore(shown, level=(0, 3), song=[0, 1])
    assert calls == [(2, 0)]
    assert "text" in explorer.shown[0].data
    assert explorer.widgets["level"].continuous_update is False


def test_moving_a_slider_changes_what_is_shown(monkeypatch):
    updated = []
    handle = SimpleNamespace(update=updated.append)
    monkeypatch.setattr(explorers, "display", lambda item, display_id=False: handle if display_id else None)
    explorer = explorers.explore(lambda mix=0.5: [f"mix {mix}", "second"], mix=(0.0, 1.0))
    explorer._ipython_display_()
    explorer.widgets["mix"].value = 1.0
    assert ["mix 1.0" in updated[0].data, "second" in updated[1].data] == [True, True]


def test_figures_in_an_explorer_become_pictures_and_are_closed():
    explorer = explorers.explore(lambda k=1: figures.curves([0, k], {"a": [0, 1]}, "x", "y"), k=(1, 3))
    assert explorer.shown[0].data.startswith(b"\x89PNG") and not plt.get_fignums()


def test_an_error_of_the_first_call_is_an_error_of_the_cell_and_later_ones_are_said():
    def shown(k=1):
        return f"{1 / k}"

    explorer = explorers.explore(shown, k=(0, 3))
    explorer.widgets["k"].value = 0
    assert "ZeroDivisionError" in explorer.shown[0].data
    with pytest.raises(ZeroDivisionError):
        explorers.explore(lambda k=0: 1 / k, k=(0, 3))


def test_sliders_must_be_arguments_and_makeable():
    with pytest.raises(ValueError, match="temperature: no argument"):
        explorers.explore(lambda tau=1: "", temperature=(0, 1))
    with pytest.raises(ValueError, match="makes no slider"):
        explorers.explore(lambda tau=1: "", tau=object())
    given = ipywidgets.IntSlider(value=2, min=1, max=5)
    assert explorers.explore(lambda k: f"{k}", k=given).widgets["k"] is given


# songs


class FakeStore:
    """Two songs: 3 s at 16 kHz, 1 s at 8 kHz."""

    waves = {"a": np.arange(48_000, dtype=np.float32), "b": np.ones(8_000, dtype=np.float32)}

    def sample_rate(self, track_id):
        return {"a": 16_000, "b": 8_000}[track_id]

    def n_samples(self, track_id):
        return len(self.waves[track_id])

    def read(self, track_id, start=0, n_samples=None):
        return self.waves[track_id][start : start + n_samples]


@pytest.fixture
def corpus():
    tracks = [
        SimpleNamespace(id="a", target=np.array([1.0, 0.0, 1.0])),
        SimpleNamespace(id="b", target=np.zeros(3)),
    ]
    splits = SimpleNamespace(train=tracks, labels=("guitar", "slow", "solo"))
    return SimpleNamespace(name="fake", splits=splits, store=FakeStore())


def test_wholes_have_one_length_and_start_at_the_beginning(corpus):
    wave, tracks = songs.wholes(corpus, n_songs=2, n_whole=32_000)
    assert wave.shape == (2, 32_000) and [t.id for t in tracks] == ["a", "b"]
    assert torch.equal(wave[0], torch.arange(32_000.0))
    assert wave[1, 1000:15_000].allclose(torch.ones(14_000), atol=0.01)  # resampled
    assert torch.equal(wave[1, :16_000], wave[1, 16_000:]), "a short song is repeated"


def test_tags_are_told_in_words(corpus):
    assert [songs.tags(corpus, t) for t in corpus.splits.train] == ["guitar, solo", "no tag"]


def test_a_song_that_is_not_there_is_named(corpus):
    with pytest.raises(ValueError, match="fake has 2 songs in its train part, so not 1 from number 2 on"):
        songs.wholes(corpus, n_songs=1, first=2)


# --- a training ---


def test_a_training_shows_its_losses_its_scores_and_the_epoch_that_was_chosen():
    history = [{"epoch": 0, "valid_roc_auc": 0.5}]
    history += [{"epoch": i, "loss": 1 / i, "valid_roc_auc": score} for i, score in ((1, 0.4), (2, 0.8), (3, 0.7))]
    losses, validation = scores.learning(history, ("averaged chroma", 0.6)).axes
    assert losses.lines[0].get_xdata().tolist() == [1, 2, 3]
    assert losses.lines[0].get_ydata().tolist() == [1, 1 / 2, 1 / 3]
    told = {line.get_label(): line for line in validation.lines}
    assert told["validation"].get_ydata().tolist() == [0.5, 0.4, 0.8, 0.7]
    assert told["averaged chroma"].get_ydata().tolist() == [0.6] * 4
    assert [list(line.get_xdata()) for line in validation.lines].count([2, 2]) == 1  # the chosen epoch
    assert validation.get_ylabel() == "ROC-AUC"
