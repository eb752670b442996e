"""A table as a picture: a dot per system with its interval; a panel per corpus, or per group of tags.

Told in: notebooks/61_table1.ipynb, 62_table2.ipynb, 63_table3.ipynb, 64_table4.ipynb
"""

import collections

from pawlib.show import figures

NOT_OURS = ("paper", "difference")
THICK, THIN = 5, 1.5  # lines through a dot


def of_table(table, column, title=None):
    """Our numbers under one column of a table: mean with deviation over seeds, or the interval of a single seed.

    Numbers of several corpora are several tests, so each has a panel of its own, and the paper's stand in none.

    Parameters
    ----------
    table : bench.tables.Table
        From table1, table2 or table3.
    column : str
        A column of its records, e.g. "roc_auc" or "roc_auc_10".
    title : str, optional

    Returns
    -------
    matplotlib.figure.Figure or None
        None where there is no number of ours.

    Told in: notebooks/61_table1.ipynb
    """
    found = {}
    for record in table.records:
        for corpus, cell in record[column].items():
            if corpus not in NOT_OURS and cell:
                found.setdefault(corpus, []).append((record, cell))
    if not found:
        return None
    groups = list(dict.fromkeys(record["group"] for record in table.records))
    names = list(dict.fromkeys(_name(record) for record in table.records if any(_has(record, found))))
    fig, axes = figures.panels(len(found), height=1.3 + 0.26 * len(names), sharey=True)
    for axis, (corpus, cells) in zip(axes, found.items(), strict=True):
        for record, cell in cells:
            colour, at = figures.level_colour(groups.index(record["group"])), names.index(_name(record))
            _dot(axis, cell, at, colour)
        axis.set(title="the dataset itself" if corpus == "ours" else corpus, xlabel=f"{table.names[column]} [%]")
    for group in groups:
        if any(record["group"] == group for cells in found.values() for record, _ in cells):
            axes[0].plot([], [], "o-", color=figures.level_colour(groups.index(group)), label=group)
    _tell_lines(axes[0], [cell for panel in found.values() for _, cell in panel])
    axes[0].set_yticks(range(len(names)), names)
    axes[0].set_ylim(len(names) - 0.5, -0.5)
    fig.legend(loc="outside lower center", ncols=2, fontsize=9)
    fig.suptitle(title or table.title, fontsize=12)
    return fig


def of_groups(table, title=None):
    """A table of tag groups: a panel per group, a row per system, chance as a grey line.

    Parameters
    ----------
    table : bench.tables.Table
        From groups_table.
    title : str, optional

    Returns
    -------
    matplotlib.figure.Figure

    Told in: notebooks/61_table1.ipynb
    """
    names = table.columns[2:]
    fig, axes = figures.panels(len(names), height=1.5 + 0.3 * len(table.records), sharex=True, sharey=True)
    several = collections.Counter((record["slug"], record["tag"]) for record in table.records)
    shown = [
        record["slug"]
        + (f" {record['backbone']}" if several[record["slug"], record["tag"]] > 1 else "")
        + (f" ({record['tag']})" if record["tag"] else "")
        for record in table.records
    ]
    for number, (axis, group) in enumerate(zip(axes, names, strict=True)):
        axis.axvline(50, color=figures.GREY, lw=1)
        for at, record in enumerate(table.records):
            if record[group]:
                _dot(axis, record[group], at, figures.level_colour(number))
        axis.set(title=group, xlabel="ROC-AUC [%]")
    _tell_lines(axes[0], [record[group] for record in table.records for group in names if record[group]])
    axes[0].set_yticks(range(len(shown)), shown)
    axes[0].set_ylim(len(shown) - 0.5, -0.5)
    fig.legend(loc="outside lower center", ncols=2, fontsize=9)
    fig.suptitle(title or table.title, fontsize=12)
    return fig


def span(cell):
    """The line through a dot, (low, high): a deviation to both sides, or the interval of a single seed, or nothing."""
    if cell["sd"] is not None:
        return cell["mean"] - cell["sd"], cell["mean"] + cell["sd"]
    return cell["interval"] or (cell["mean"], cell["mean"])


def _dot(axis, cell, at, colour):
    """A dot and its line: a deviation over seeds is thick, because it is no interval over works."""
    axis.plot([100 * x for x in span(cell)], [at, at], color=colour, lw=THIN if cell["sd"] is None else THICK)
    axis.plot(100 * cell["mean"], at, "o", color=colour)


def _tell_lines(axis, cells):
    """What thick and thin lines mean, for the legend, where there are such."""
    for width, meaning in ((THICK, "deviation over seeds"), (THIN, "one seed, 95 % interval over works")):
        if any((THIN if cell["sd"] is None else THICK) == width for cell in cells):
            axis.plot([], [], color=figures.GREY, lw=width, label=meaning)


def _has(record, found):
    """For each panel, whether the line has a dot in it."""
    return [any(record is one for one, _ in cells) for cells in found.values()]


def _name(record):
    """What stands beside a dot: a system, and the encoder where it could be another."""
    alone = record["backbone_slug"] in ("", "none") or not record["backbone"]
    return record["method"] if alone else f"{record['method']}, {record['backbone']}"
