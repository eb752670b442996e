"""Figures: arrays in, (fig, ax) out, units on the axes, one colour per level throughout the book.

Conventions
    clips[n] : array [shape=(M**n, n_samples)] and mels[n] : array [shape=(M**n, n_mels, n_frames)] of one song.
    Tensors are taken, too. `ax` is one Axes, or an array of them where the figure has several.
    Level n has the colour `level_colour(n)`, in every figure and player; the colours differ for colour-blind readers.
    A figure is to be read at 100 %: 8 inches wide, letters of 10 to 12 points, less than 100 kB.

Told in: notebooks/02_crops.ipynb
"""

import functools
import io

import matplotlib.pyplot as plt
import numpy as np
import torch
from IPython.display import Image
from matplotlib.colors import to_rgb

LEVEL_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#AA3377", "#B8860B", "#56B4E9")
OTHER_COLOURS = ("#222222", "#B8860B", "#56B4E9", "#888888")  # for what is not a level
GREY = "#888888"
WIDTH = 8.0
FEW_BYTES = 50_000
STYLE = {
    "figure.dpi": 100,
    "figure.constrained_layout.use": True,
    "font.size": 11,
    "axes.titlesize": 12,
    "axes.labelsize": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "lines.linewidth": 2,
    "legend.frameon": False,
}
_LINES = ("-", "--", ":", "-.")


def level_colour(n):
    """Colour of level n, the same in every figure and player."""
    return LEVEL_COLOURS[n % len(LEVEL_COLOURS)]


def styled(function):
    """Give a figure function the book's letters and lines; nothing outside it changes."""

    @functools.wraps(function)
    def wrapped(*args, **kw):
        with plt.rc_context(STYLE):
            return function(*args, **kw)

    return wrapped


@styled
def wave_tree(clips, sample_rate, chosen=None, title="One song, cut level by level"):
    """The waveform of a song at every level, its clips as boxes.

    Parameters
    ----------
    clips : list of N arrays, [n] of shape (M**n, n_samples)
    sample_rate : int [Hz]
    chosen : (n, m), optional
        A clip to fill with its level's colour, together with all it contains.
    title : str

    Returns
    -------
    fig, ax : ax of shape (N,)

    Told in: notebooks/02_crops.ipynb
    """
    clips = [_array(level) for level in clips]
    fig, ax = plt.subplots(len(clips), 1, figsize=(WIDTH, 1.05 * len(clips) + 0.8), sharex=True, squeeze=False)
    ax = ax[:, 0]
    peak = max(np.abs(clips[0]).max(), 1e-9)
    for n, (level, axis) in enumerate(zip(clips, ax, strict=True)):
        seconds = level.shape[1] / sample_rate
        for m, clip in enumerate(level):
            low, high = _envelope(clip / peak, max(20, 800 // len(level)))
            at = (m + np.linspace(0, 1, len(low))) * seconds
            inside = chosen is not None and _contains(chosen, n, m, len(level) / len(clips[chosen[0]]))
            axis.fill_between(
                at, low, high, color=level_colour(n), alpha=1.0 if chosen is None or inside else 0.25, lw=0
            )
            axis.axvline(m * seconds, color="black", lw=1)
            if len(level) <= 16:
                axis.text((m + 0.5) * seconds, 1.08, str(m), ha="center", va="bottom", fontsize=10)
        axis.axvline(len(level) * seconds, color="black", lw=1)
        axis.set(ylim=(-1.05, 1.05), yticks=[], xlim=(0, len(level) * seconds))
        axis.set_ylabel(f"level {n}\n{seconds:.3g} s", rotation=0, ha="right", va="center", color=level_colour(n))
        axis.spines["left"].set_visible(False)
    ax[-1].set_xlabel("time [s]")
    fig.suptitle(title, fontsize=12)
    return fig, ax


@styled
def mel_tree(mels, sample_rate, hop_lengths, title="The same song: every clip one picture of the same size"):
    """Log-mels of all clips of a song, one row per level, each picture above the time it covers.

    Parameters
    ----------
    mels : list of N arrays, [n] of shape (M**n, n_mels, n_frames), in dB
    sample_rate : int [Hz]
    hop_lengths : list of N int [samples]
    title : str

    Returns
    -------
    fig, ax : ax of shape (N,)

    Told in: notebooks/03_mels.ipynb
    """
    mels = [_array(level) for level in mels]
    limits = _decibels(mels)
    fig, ax = plt.subplots(len(mels), 1, figsize=(WIDTH, 1.25 * len(mels) + 0.9), sharex=True, squeeze=False)
    ax = ax[:, 0]
    for n, (level, axis) in enumerate(zip(mels, ax, strict=True)):
        seconds = (level.shape[2] - 1) * hop_lengths[n] / sample_rate
        for m, mel in enumerate(level):
            box = (m * seconds, (m + 1) * seconds, 0, mel.shape[0])
            drawn = axis.imshow(mel, origin="lower", aspect="auto", extent=box, vmin=limits[0], vmax=limits[1])
            axis.axvline(m * seconds, color="white", lw=1.5)
        axis.set(xlim=(0, len(level) * seconds), ylim=(0, level.shape[1]), yticks=[0, 64, 128])
        axis.set_ylabel(f"level {n}\nhop {hop_lengths[n]}", color=level_colour(n))
    ax[-1].set_xlabel("time [s]")
    fig.supylabel("mel band", fontsize=11)
    fig.colorbar(drawn, ax=list(ax), label="power [dB]", pad=0.01, aspect=30)
    fig.suptitle(title, fontsize=12)
    return fig, ax


@styled
def log_mels(mels, titles, seconds, n_columns=2, title=""):
    """Some log-mels beside each other under one colour scale.

    Parameters
    ----------
    mels : list of K arrays [shape=(n_mels, n_frames)], in dB
    titles : list of K str
    seconds : list of K floats [s]
        How much time each picture covers.
    n_columns : int
    title : str

    Returns
    -------
    fig, ax : ax of shape (K,)

    Told in: notebooks/03_mels.ipynb
    """
    mels = [_array(mel) for mel in mels]
    limits = _decibels(mels)
    n_rows = -(-len(mels) // n_columns)
    fig, grid = plt.subplots(n_rows, n_columns, figsize=(WIDTH, 2.1 * n_rows + 0.4), squeeze=False)
    ax = grid.ravel()
    for axis, mel, name, duration in zip(ax, mels, titles, seconds, strict=False):
        drawn = axis.imshow(
            mel, origin="lower", aspect="auto", extent=(0, duration, 0, mel.shape[0]), vmin=limits[0], vmax=limits[1]
        )
        axis.set(title=name, yticks=[0, 64, 128])
        axis.title.set_fontsize(11)
    for axis in ax[len(mels) :]:
        axis.set_visible(False)
    for axis in grid[-1]:
        axis.set_xlabel("time [s]")
    for axis in grid[:, 0]:
        axis.set_ylabel("mel band")
    fig.colorbar(drawn, ax=list(ax), label="power [dB]", pad=0.01)
    if title:
        fig.suptitle(title, fontsize=12)
    return fig, ax[: len(mels)]


@styled
def attention(weights, title="What the whole looks at"):
    """Attention of the wholes of one level over their parts, per layer and head.

    Parameters
    ----------
    weights : list of n_layers arrays, each (K, n_heads, M)
        `InteractionUnit.last_attention` of one song: for each of K wholes and each head, M weights that sum to 1.
    title : str

    Returns
    -------
    fig, ax : ax of shape (n_layers,)

    Told in: notebooks/05_interaction.ipynb
    """
    weights = [_array(layer) for layer in weights]
    n_wholes, n_heads, n_parts = weights[0].shape
    height = 0.6 + 0.42 * max(n_heads, 2)
    fig, ax = plt.subplots(len(weights), 1, figsize=(WIDTH, height * len(weights) + 0.8), squeeze=False, sharex=True)
    ax = ax[:, 0]
    for i, (layer, axis) in enumerate(zip(weights, ax, strict=True)):
        table = layer.transpose(1, 0, 2).reshape(n_heads, n_wholes * n_parts)
        drawn = axis.imshow(table, aspect="auto", vmin=0, vmax=1, cmap="viridis")
        for head in range(n_heads):
            for part in range(n_wholes * n_parts):
                value = table[head, part]
                colour = "white" if value < 0.6 else "black"
                axis.text(part, head, f"{value:.2f}", ha="center", va="center", color=colour, fontsize=10)
        for k in range(1, n_wholes):
            axis.axvline(k * n_parts - 0.5, color="white", lw=3)
        axis.set(yticks=range(n_heads), yticklabels=[f"head {h}" for h in range(n_heads)], ylabel=f"layer {i}")
        axis.set(xticks=range(n_wholes * n_parts))
        axis.tick_params(length=0)
    ax[-1].set_xlabel("part, in time order (white lines: where one whole ends and the next begins)")
    fig.colorbar(drawn, ax=list(ax), label="attention [share]", pad=0.01)
    fig.suptitle(title, fontsize=12)
    return fig, ax


@styled
def table(
    values, rows, columns, title="", x_label="", y_label="", unit="", form="{:.2f}", colours="viridis", limits=None
):
    """A small table of numbers as a coloured grid.

    Parameters
    ----------
    values : array [shape=(R, C)]
    rows, columns : list of str
    title, x_label, y_label, unit : str
        `unit` labels the colour bar.
    form : str
        Format of the numbers.
    colours : str
        A matplotlib colour map.
    limits : (float, float), optional
        Of the colours; the values' own by default.

    Returns
    -------
    fig, ax
    """
    values = _array(values)
    fig, ax = plt.subplots(figsize=(min(WIDTH, 2.6 + 1.0 * len(columns)), 1.3 + 0.5 * len(rows)))
    low, high = limits or (values.min(), values.max())
    drawn = ax.imshow(values, aspect="auto", cmap=colours, vmin=low, vmax=high)
    for r, line in enumerate(values):
        for c, value in enumerate(line):
            dark = sum(drawn.cmap(drawn.norm(value))[:3]) < 1.5
            ax.text(c, r, form.format(value), ha="center", va="center", color="white" if dark else "black", fontsize=11)
    ax.set(xticks=range(len(columns)), xticklabels=columns, yticks=range(len(rows)), yticklabels=rows)
    ax.set(title=title, xlabel=x_label, ylabel=y_label)
    ax.tick_params(length=0)
    fig.colorbar(drawn, ax=ax, label=unit, pad=0.02)
    return fig, ax


@styled
def curves(x, ys, x_label, y_label, title="", mark=None, log_x=False, log_y=False, colours=None, ax=None, legend=True):
    """Curves over one axis, told apart by colour and by line.

    Parameters
    ----------
    x : array [shape=(K,)]
    ys : dict of str to array [shape=(K,)]
    x_label, y_label : str
        With units.
    title : str
    mark : float, optional
        An x to mark with a vertical line, the slider's value.
    log_x, log_y : bool
    colours : list of str, optional
    ax : Axes, optional
        To draw into; a new figure by default.
    legend : bool

    Returns
    -------
    fig, ax

    Told in: notebooks/06_loss.ipynb
    """
    if ax is None:
        _, ax = plt.subplots(figsize=(WIDTH, 3.6))
    colours = colours or OTHER_COLOURS
    for i, (name, y) in enumerate(ys.items()):
        ax.plot(_array(x), _array(y), _LINES[i % len(_LINES)], color=colours[i % len(colours)], label=name)
    if mark is not None:
        ax.axvline(mark, color=GREY, lw=1)
    if log_x:
        ax.set_xscale("log")
    if log_y:
        ax.set_yscale("log")
    ax.set(xlabel=x_label, ylabel=y_label, title=title)
    if legend and len(ys) > 1:
        ax.legend(fontsize=10)
    return ax.figure, ax


@styled
def panels(n_panels, height=3.4, **kw):
    """An empty figure in the book's style, (fig, ax of shape (n_panels,)), for `curves(..., ax=ax[i])`."""
    fig, ax = plt.subplots(1, n_panels, figsize=(WIDTH, height), squeeze=False, **kw)
    return fig, ax[0]


@styled
def bars(names, values, y_label, title="", colours=None, form="{:.2f}"):
    """One bar per name, its number above it; returns (fig, ax)."""
    fig, ax = plt.subplots(figsize=(WIDTH, 3.0))
    at = np.arange(len(names))
    drawn = ax.bar(at, _array(values), color=colours or [level_colour(i) for i in range(len(names))], width=0.7)
    ax.bar_label(drawn, labels=[form.format(v) for v in values], fontsize=10, padding=2)
    ax.set(ylabel=y_label, title=title)
    ax.set_xticks(at, names)
    ax.margins(y=0.15)
    return fig, ax


def show(fig, n_shades=40):
    """The last line of a cell: the figure as a small picture, and closed, so that the cell does not draw it twice.

    Parameters
    ----------
    fig : matplotlib Figure
    n_shades : int, 2..200
        Shades of its colour map that a large figure keeps: 40 keep fifteen spectrograms at 100 kB or below.

    Returns
    -------
    IPython.display.Image
    """
    picture = image(fig, n_shades)
    plt.close(fig)
    return picture


def image(fig, n_shades=40):
    """A figure as a PNG; one of more than 50 kB gets few colours: those of its map, the levels' own, and greys."""
    from PIL import Image as Picture

    drawn = io.BytesIO()
    fig.savefig(drawn, format="png", dpi=STYLE["figure.dpi"], bbox_inches="tight", facecolor="white")
    small = io.BytesIO()
    with Picture.open(drawn) as opened:
        picture = opened.convert("RGB")
    picture.save(small, format="png", optimize=True)
    if small.tell() > FEW_BYTES:
        palette = Picture.new("P", (1, 1))
        palette.putpalette(_palette(fig, n_shades))
        small = io.BytesIO()
        picture.quantize(palette=palette, dither=Picture.Dither.NONE).save(small, format="png", optimize=True)
    return Image(data=small.getvalue(), format="png")


def _palette(fig, n_shades):
    """Bytes of a palette: shades of the figure's maps, greys, and the levels' colours, also paled for thin letters."""
    maps = {picture.cmap.name: picture.cmap for axis in fig.axes for picture in axis.images}
    shades = [colours(np.linspace(0, 1, n_shades // len(maps)))[:, :3] for colours in maps.values()]
    greys = np.repeat(np.linspace(0, 1, 8)[:, None], 3, axis=1)
    own = np.array([to_rgb(colour) for colour in LEVEL_COLOURS])
    paled = [1 - share * (1 - own) for share in (1.0, 0.6, 0.25)]
    return (np.concatenate([*shades, greys, *paled]) * 255).round().astype(np.uint8).ravel().tolist()


def _array(x):
    return np.asarray(x.detach().float().cpu() if isinstance(x, torch.Tensor) else x)


def _envelope(clip, n_points):
    """Lowest and highest sample of n_points equal stretches."""
    blocks = np.array_split(clip, min(n_points, len(clip)))
    return np.array([b.min() for b in blocks]), np.array([b.max() for b in blocks])


def _contains(chosen, n, m, per_clip):
    """Is clip m of level n the chosen clip or inside it? per_clip: clips of level n per clip of the chosen level."""
    return n >= chosen[0] and int(m // per_clip) == chosen[1]


def _decibels(mels, depth_db=70.0):
    """Colour limits: from the loudest cell down to 70 dB below, so that empty filters do not eat the scale."""
    loudest = max(float(mel.max()) for mel in mels)
    return loudest - depth_db, loudest
