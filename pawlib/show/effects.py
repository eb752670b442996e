"""Runs side by side: a point per seed, their mean and its interval; differences to a default; a score along a reading.

Told in: notebooks/70_figure3_ablation.ipynb, notebooks/73_readings.ipynb
"""

from pawlib.show import figures


def seeds(panels, order, x_label, title="", marked=(), plain=("random",), chance=None):
    """A point per run: a row per system, a panel per score.

    Parameters
    ----------
    panels : dict {title: (points, intervals)}
        points of `effects.points`; intervals {system: dict with "estimate", "low", "high", or None}.
    order : sequence of str
        Systems from the top; those without a point in any panel are left out.
    x_label : str
    title : str
    marked : sequence of int
        Seeds drawn as open circles, e.g. those that were looked at before.
    plain : sequence of str
        Systems in grey: yardsticks. The first of `order` has a colour of its own.
    chance : dict {title: float}, optional
        What guessing scores: a dotted line.

    Returns
    -------
    matplotlib.figure.Figure or None
        None where there is no point at all.
    """
    shown = [name for name in order if any(found.get(name) for found, _ in panels.values())]
    if not shown:
        return None
    fig, axes = figures.panels(len(panels), height=1.2 + 0.34 * len(shown), sharey=True)
    for axis, (heading, (found, intervals)) in zip(axes, panels.items(), strict=True):
        if heading in (chance or {}):
            axis.axvline(chance[heading], color="black", lw=1, ls=":")
        for at, name in enumerate(shown):
            colour = figures.GREY if name in plain else figures.level_colour(0 if name == order[0] else 1)
            one = intervals.get(name)
            if one:
                axis.plot([one["low"], one["high"]], [at, at], color=colour, lw=6, alpha=0.25, solid_capstyle="butt")
                axis.plot([one["estimate"]] * 2, [at - 0.3, at + 0.3], color=colour)
            for seed, value in found.get(name, {}).items():
                axis.plot(value, at, "o", ms=6, color=colour, mfc="none" if seed in marked else colour)
        _scale(axis, heading, x_label, len(panels))
        axis.grid(axis="x", color="#DDDDDD", lw=0.7)
    axes[0].set_yticks(range(len(shown)), shown)
    axes[0].set_ylim(len(shown) - 0.5, -0.5)
    fig.suptitle(title, fontsize=12)
    return fig


def differences(panels, x_label, title="", between_seeds=None):
    """How far each change moves a score from the default's, with intervals: a row per change, a panel per score.

    Parameters
    ----------
    panels : dict {title: {change: dict with "estimate", "low", "high"}}
    x_label : str
    title : str
    between_seeds : dict {title: float}, optional
        Standard deviation of a difference that no change made; twice that to both sides is shaded.

    Returns
    -------
    matplotlib.figure.Figure or None
        None where there is no change to show.
    """
    shown = list(dict.fromkeys(change for found in panels.values() for change in found))
    if not shown:
        return None
    fig, axes = figures.panels(len(panels), height=1.2 + 0.3 * len(shown), sharey=True)
    for i, (axis, (heading, found)) in enumerate(zip(axes, panels.items(), strict=True)):
        axis.axvline(0, color=figures.GREY, lw=1)
        if alone := (between_seeds or {}).get(heading):
            axis.axvspan(-2 * alone, 2 * alone, color=figures.GREY, alpha=0.15, lw=0)
        for at, change in enumerate(shown):
            if one := found.get(change):
                axis.plot([one["low"], one["high"]], [at, at], color=figures.level_colour(i))
                axis.plot(one["estimate"], at, "o", color=figures.level_colour(i))
        _scale(axis, heading, x_label, len(panels))
    axes[0].set_yticks(range(len(shown)), shown)
    axes[0].set_ylim(len(shown) - 0.5, -0.5)
    fig.suptitle(title, fontsize=12)
    return fig


def along(panels, x_label, y_label, title="", between_seeds=None):
    """A score along the values of a reading: a panel per reading, a line per system.

    Parameters
    ----------
    panels : dict {reading: {system: {value: score}}}
        Values are numbers, drawn evenly in rising order.
    x_label, y_label : str
    title : str
    between_seeds : float, optional
        Standard deviation of a difference that no change made: a grey bar as long as twice that, to lay beside a rise.

    Returns
    -------
    matplotlib.figure.Figure or None
        None where there is no score at all.
    """
    scores = [score for found in panels.values() for line in found.values() for score in line.values()]
    if not scores:
        return None
    fig, axes = figures.panels(len(panels), height=2.8, sharey=True)
    systems = list(dict.fromkeys(system for found in panels.values() for system in found))
    for axis, (reading, found) in zip(axes, panels.items(), strict=True):
        values = sorted({value for line in found.values() for value in line})
        for system, line in found.items():
            at = sorted(line)
            axis.plot([values.index(value) for value in at], [line[value] for value in at], "o-",
                      color=figures.level_colour(systems.index(system)), label=system)  # fmt: skip
        axis.set(title=reading, xlabel=x_label, xlim=(-0.5, len(values) - 0.5))
        axis.set_xticks(range(len(values)), [f"{value:g}" for value in values])
    if between_seeds:
        middle = (min(scores) + max(scores)) / 2
        axes[0].plot([-0.4] * 2, [middle - between_seeds, middle + between_seeds], color=figures.GREY, lw=6, alpha=0.4,
                     solid_capstyle="butt", label="between seeds")  # fmt: skip
    axes[0].set_ylabel(y_label)
    named = {name: line for axis in axes for line, name in zip(*axis.get_legend_handles_labels(), strict=True)}
    axes[-1].legend(named.values(), named.keys(), frameon=False, fontsize=8)
    fig.suptitle(title, fontsize=12)
    return fig


def _scale(axis, heading, x_label, n_panels):
    """Title and ticks of one panel: few and small where panels are many."""
    axis.set(title=heading, xlabel=x_label)
    axis.locator_params(axis="x", nbins=3 if n_panels > 3 else 5)
    axis.tick_params(axis="x", labelsize=8 if n_panels > 4 else 10)
