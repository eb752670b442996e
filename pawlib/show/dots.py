"""A table of the paper as a picture: a dot per system with its interval, a panel per corpus, a colour per group.

Told in: notebooks/61_table1.ipynb, 62_table2.ipynb, 63_table3.ipynb, 64_table4.ipynb
"""

from pawlib.show import figures

NOT_OURS = ("paper", "difference")


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
            several = cell["sd"] is not None  # a deviation over seeds and an interval over works are not the same thing
            axis.plot([100 * x for x in span(cell)], [at, at], color=colour, lw=5 if several else 1.5)
            axis.plot(100 * cell["mean"], at, "o", color=colour)
        axis.set(title="the dataset itself" if corpus == "ours" else corpus, xlabel=f"{table.names[column]} [%]")
    for group in groups:
        if any(record["group"] == group for cells in found.values() for record, _ in cells):
            axes[0].plot([], [], "o-", color=figures.level_colour(groups.index(group)), label=group)
    cells = [cell for panel in found.values() for _, cell in panel]
    for thick, meaning in ((5, "deviation over seeds"), (1.5, "one seed, 95 % interval over works")):
        if any((cell["sd"] is not None) == (thick == 5) for cell in cells):
            axes[0].plot([], [], color=figures.GREY, lw=thick, label=meaning)
    axes[0].set_yticks(range(len(names)), names)
    axes[0].set_ylim(len(names) - 0.5, -0.5)
    fig.legend(loc="outside lower center", ncols=2, fontsize=9)
    fig.suptitle(title or table.title, fontsize=12)
    return fig


def span(cell):
    """The line through a dot, (low, high): a deviation to both sides, or the interval of a single seed, or nothing."""
    if cell["sd"] is not None:
        return cell["mean"] - cell["sd"], cell["mean"] + cell["sd"]
    return cell["interval"] or (cell["mean"], cell["mean"])


def _has(record, found):
    """For each panel, whether the line has a dot in it."""
    return [any(record is one for one, _ in cells) for cells in found.values()]


def _name(record):
    """What stands beside a dot: a system, and the encoder where it could be another."""
    alone = record["backbone_slug"] in ("", "none") or not record["backbone"]
    return record["method"] if alone else f"{record['method']}, {record['backbone']}"
