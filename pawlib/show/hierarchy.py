"""Pictures of the hierarchy: a map of all clips of some songs (Figure 4), and tags in time at every level (Figure 5).

Conventions
    maps    : dict {system: dict {level n: array [shape=(n_songs, M**n, 2)]}}, from bench.hierarchy.tsne.
    numbers : dict {system: what bench.hierarchy.numbers gives}.
    Area of a point is the length of its clip; colour is the song in maps, the level in time, the system in numbers.

Told in: notebooks/71_figure4_hierarchy_tsne.ipynb, notebooks/72_figure5_tags_in_time.ipynb
"""

import textwrap

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import to_rgb

from pawlib.show import figures

WHOLE_AREA = 190.0  # points squared, of a clip of the whole's length
SONGS = "tab20"
BOXES = {"timbre": figures.LEVEL_COLOURS[5], "order": figures.LEVEL_COLOURS[3], "part": figures.LEVEL_COLOURS[2]}
CHOSEN = figures.LEVEL_COLOURS[4]


@figures.styled
def maps(found, lines=True, song=None, title=""):
    """All clips of some songs in the plane, a panel per system.

    Parameters
    ----------
    found : dict {system: dict {level n: array [shape=(n_songs, M**n, 2)]}}
    lines : bool
        Whether each clip is joined with its parts.
    song : int, optional
        A song to show in full colour, the others paled.
    title : str

    Returns
    -------
    fig, ax : ax of shape (n_systems,)

    Told in: notebooks/71_figure4_hierarchy_tsne.ipynb
    """
    n_columns = min(len(found), 2 if len(found) % 3 else 3)
    n_rows = -(-len(found) // n_columns)
    height = 0.75 * figures.WIDTH / n_columns
    fig, grid = plt.subplots(
        n_rows + 1, n_columns, figsize=(figures.WIDTH, n_rows * height + 1.0), squeeze=False,
        height_ratios=[height] * n_rows + [0.13],
    )  # fmt: skip
    grid, keys = grid[:-1], grid[-1]
    for axis in grid.ravel()[len(found) :]:
        axis.set_visible(False)
    n_songs = len(next(iter(found.values()))[0])
    for axis, (system, levels) in zip(grid.ravel(), found.items(), strict=False):
        for one in sorted(range(n_songs), key=lambda s: s == song):  # the chosen one on top
            _song(axis, levels, one, lines, 1.0 if song in (None, one) else 0.12)
        axis.set(title=system, xticks=[], yticks=[])
        axis.set_aspect("equal", adjustable="datalim")
        for side in axis.spines.values():
            side.set_visible(True)
            side.set_color(figures.GREY)
    _key(keys, sorted(next(iter(found.values()))), n_songs)
    fig.suptitle(title, fontsize=12)
    return fig, grid.ravel()[: len(found)]


@figures.styled
def numbers(found, title=""):
    """Silhouettes, and shares with their chance, a dot and a 95 % interval per system.

    Parameters
    ----------
    found : dict {system: dict {name: {"estimate", "low", "high", "chance"}}}
        From bench.hierarchy.numbers.
    title : str

    Returns
    -------
    fig, ax : ax of shape (2,)

    Told in: notebooks/71_figure4_hierarchy_tsne.ipynb
    """
    names = list(next(iter(found.values())))
    halves = [name for name in names if "silhouette" in name], [name for name in names if "silhouette" not in name]
    height = 1.6 + 0.17 * len(found) * max(map(len, halves))
    fig, ax = plt.subplots(1, 2, figsize=(figures.WIDTH, height))
    for axis, half in zip(ax, halves, strict=True):
        for row, name in enumerate(half):
            for i, (system, one) in enumerate(found.items()):
                at = row + 0.6 * ((i + 0.5) / len(found) - 0.5)
                colour = system_colour(i)
                axis.plot([one[name]["low"], one[name]["high"]], [at, at], color=colour)
                axis.plot(one[name]["estimate"], at, "o", color=colour, ms=5, label=system if row == 0 else None)
            chance = next(iter(found.values()))[name]["chance"]
            axis.plot([chance or 0] * 2, [row - 0.4, row + 0.4], color="black", lw=1, ls=":")
        labels = [name.removeprefix("silhouette by ").replace(" finds its ", "\nfinds its ") for name in half]
        axis.set_yticks(range(len(half)), [label.replace(" of the ", "\nof the ") for label in labels], fontsize=10)
        axis.set_ylim(len(half) - 0.5, -0.5)
    ax[0].set_xlabel("silhouette by ... (dotted: 0)")
    ax[1].set_xlabel("share (dotted: chance)")
    ax[1].set_xlim(0, 1.02)
    handles, names = ax[0].get_legend_handles_labels()
    fig.legend(handles, names, loc="outside lower center", ncols=len(found), fontsize=10)
    fig.suptitle(title, fontsize=12)
    return fig, ax


@figures.styled
def by_level(found, y_label, title="", chance=0.5):
    """A number with its interval at every level, a dot per system.

    Parameters
    ----------
    found : dict {panel: dict {system: dict {level n: {"estimate", "low", "high"} or None}}}
    y_label, title : str
    chance : float

    Returns
    -------
    fig, ax : ax of shape (n_panels,)

    Told in: notebooks/72_figure5_tags_in_time.ipynb
    """
    fig, ax = plt.subplots(1, len(found), figsize=(figures.WIDTH, 3.6), squeeze=False, sharey=True)
    n_systems = max(map(len, found.values()))
    levels = sorted({n for panel in found.values() for one in panel.values() for n in one})
    for axis, (panel, systems) in zip(ax[0], found.items(), strict=True):
        for i, (system, numbers) in enumerate(systems.items()):
            drawn = {n: one for n, one in numbers.items() if one and one["estimate"] is not None}
            at = [n + 0.5 * ((i + 0.5) / n_systems - 0.5) for n in drawn]
            axis.plot(at, [one["estimate"] for one in drawn.values()], "o", color=system_colour(i), ms=5, label=system)
            for x, one in zip(at, drawn.values(), strict=True):
                if one["low"] is not None:
                    axis.plot([x, x], [one["low"], one["high"]], color=system_colour(i))
        axis.axhline(chance, color="black", lw=1, ls=":")
        axis.set(title=panel, xlabel="level", xticks=levels, xlim=(min(levels) - 0.5, max(levels) + 0.5))
    ax[0, 0].set_ylabel(y_label)
    handles, names = ax[0, 0].get_legend_handles_labels()
    fig.legend(handles, names, loc="outside lower center", ncols=max(1, len(names)), fontsize=10)
    fig.suptitle(title, fontsize=12)
    return fig, ax[0]


@figures.styled
def tags_in_time(wave, sample_rate, boxes, answers, tag, title=""):
    """A track's waveform, its tags as boxes in time, and below what clips of every level say of one tag.

    Parameters
    ----------
    wave : array [shape=(n_samples,)]
    sample_rate : int [Hz]
    boxes : list of dict
        "tag", "group", "start_s", "end_s": from datasets.mtat.events, or `untimed` where nobody knows when.
    answers : dict {level n: (spans, probabilities)}
        Arrays (n_clips, 2) in seconds, and (n_clips,): the clips of level n and how probable the tag is in each.
    tag : str
        Its boxes are marked.
    title : str

    Returns
    -------
    fig, ax : ax of shape (2 + n_levels,)

    Told in: notebooks/72_figure5_tags_in_time.ipynb
    """
    wave = np.asarray(wave)
    seconds = len(wave) / sample_rate
    rows = _rows(boxes, seconds)
    heights = [1.0, 0.27 * sum(lines for _, _, lines in rows) + 0.1, *[0.75] * len(answers)]
    fig, ax = plt.subplots(
        len(heights), 1, figsize=(figures.WIDTH, sum(heights) + 1.3), sharex=True, height_ratios=heights
    )
    blocks = np.array_split(wave, min(len(wave), 800))
    at = np.linspace(0, seconds, len(blocks))
    peak = max(float(np.abs(wave).max()), 1e-9)
    ax[0].fill_between(at, [b.min() / peak for b in blocks], [b.max() / peak for b in blocks], color="#444444", lw=0)
    ax[0].set(yticks=[], xlim=(0, seconds), ylabel="wave")
    _draw_boxes(ax[1], rows, tag, seconds)
    held = [(box["start_s"], box["end_s"]) for box in boxes if box["tag"] == tag]
    top = max(float(np.max(p)) for _, p in answers.values())
    for axis, (n, (spans, p)) in zip(ax[2:], answers.items(), strict=True):
        axis.hlines(p, spans[:, 0], spans[:, 1], color=figures.level_colour(n), lw=3)
        axis.vlines(spans[:, 0], 0, p, color=figures.level_colour(n), lw=0.6)
        axis.set(ylim=(0, max(1.15 * top, 1e-3)), yticks=[0, float(f"{top:.2g}")], ylabel=f"level {n}")
        axis.yaxis.label.set_color(figures.level_colour(n))
    for axis in (ax[0], *ax[2:]):
        for start, end in held:
            axis.axvspan(start, end, color=_pale(CHOSEN, 0.25), lw=0, zorder=0)
    ax[-1].set_xlabel("time [s]")
    ax[2].set_title(f'what the clips say: probability of "{tag}"', loc="left", fontsize=10)
    fig.suptitle(title, fontsize=12)
    return fig, ax


def untimed(tags, seconds):
    """Boxes of a track's tags where nobody knows when they hold: all of them over the whole track."""
    return [{"tag": tag, "group": "tags", "start_s": 0.0, "end_s": seconds} for tag in tags]


def system_colour(i):
    """Colour of the i-th system in pictures of numbers."""
    return figures.OTHER_COLOURS[i % len(figures.OTHER_COLOURS)]


def song_colour(song):
    """Colour of a song in maps; twenty differ."""
    return plt.get_cmap(SONGS)(song % 20)


def _pale(colour, share):
    """A colour with that share of its strength on white: one that a small picture keeps."""
    return tuple(1 - share * (1 - part) for part in to_rgb(colour))


def _song(axis, levels, song, lines, alpha):
    """One song's points, and lines from each clip to its parts."""
    colour = song_colour(song)
    order = sorted(levels)
    if lines:
        for upper, lower in zip(order, order[1:], strict=False):
            n_parts = levels[lower].shape[1] // levels[upper].shape[1]
            for m, part in enumerate(levels[lower][song]):
                whole = levels[upper][song, m // n_parts]
                axis.plot(*zip(whole, part, strict=True), color=colour, lw=0.8, alpha=0.6 * alpha, zorder=1)
    for n in order:
        points = levels[n][song]
        area = WHOLE_AREA / len(points)
        axis.scatter(*points.T, s=area, color=colour, alpha=alpha, edgecolor="white", linewidth=0.4, zorder=2 + n)


def _key(ax, levels, n_songs):
    """What colour and area mean: a strip of the songs' colours, and a point per level."""
    strip, points = ax[0], ax[-1]
    for axis in ax[1:]:
        axis.set_axis_off()
    strip.imshow(np.arange(n_songs)[None] % 20, aspect="auto", cmap=SONGS, vmin=0, vmax=19)
    strip.set(yticks=[], xticks=[0, n_songs - 1])
    strip.set_ylabel("song", rotation=0, ha="right", va="center", fontsize=10)
    strip.tick_params(length=0, labelsize=9, pad=1)
    if len(ax) > 1:
        for n in levels:
            points.scatter([], [], s=WHOLE_AREA / 2**n, color=figures.GREY, label=f"level {n}")
        key = points.legend(loc="center right", ncols=len(levels), fontsize=9, handletextpad=0.1, columnspacing=0.8)
        key.set_in_layout(False)  # wider than its panel: the maps must not give way to it


def _rows(boxes, seconds):
    """Boxes in rows (name, [(start, end, text, tags)], lines of text): whole-level tags of a group share one box."""
    rows = []
    for group in dict.fromkeys(box["group"] for box in boxes):
        own = [box for box in boxes if box["group"] == group]
        whole = [box["tag"] for box in own if box["end_s"] - box["start_s"] >= 0.99 * seconds]
        if whole:
            text = textwrap.wrap(", ".join(whole), 88)
            rows.append((group, [(0.0, seconds, "\n".join(text), whole)], len(text)))
        packed = []
        for box in own:
            if box["tag"] in whole:
                continue
            free = next((row for row in packed if row[-1][1] <= box["start_s"]), None)
            one = (box["start_s"], box["end_s"], box["tag"], [box["tag"]])
            if free is None:
                packed.append([one])
            else:
                free.append(one)
        rows += [(group, row, 1) for row in packed]
    return rows


def _draw_boxes(axis, rows, tag, seconds):
    top, ticks = 0.0, {}
    for group, row, lines in rows:
        for start, end, text, tags in row:
            colour = _pale(CHOSEN if tags == [tag] else BOXES.get(group, figures.GREY), 0.6)
            axis.broken_barh([(start, end - start)], (top + 0.06, lines - 0.12), facecolor=colour, edgecolor="white")
            axis.text((start + end) / 2, top + lines / 2, text, ha="center", va="center", fontsize=8.5, linespacing=1.0)
        ticks.setdefault(group, []).append(top + lines / 2)
        top += lines
    axis.set_yticks([float(np.mean(at)) for at in ticks.values()], list(ticks), fontsize=9)
    axis.set(ylim=(max(top, 1.0), 0), xlim=(0, seconds))
    axis.tick_params(length=0, axis="y")
    axis.spines["left"].set_visible(False)
