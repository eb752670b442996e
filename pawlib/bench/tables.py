"""The paper's tables with our columns beside them: the paper, ours, the difference, and every other corpus apart.

    rows = results.read("committed")
    print(tables.table1(rows).text())

Conventions
    A column of the paper is a metric under a protocol; beside it stand "ours", the rows on the real data at paper scale
    alone, and the difference. Every other corpus and scale has a column headed with its own name and no difference,
    because it is another test. Systems the paper does not have (controls, statistics) follow below. No row: a dash.
    A cell of ours is mean and deviation over seeds. **Bold** is the best and _underlined_ the second, where the paper's
    table marks them and among the lines that it compares; what rounds to the same printed number shares the mark.

Told in: notebooks/61_table1.ipynb, 62_table2.ipynb, 63_table3.ipynb, 64_table4.ipynb
"""

import dataclasses
import math
import re
import statistics
import unicodedata

from pawlib.bench import results

METRIC_NAMES = {
    "roc_auc": "ROC-AUC",
    "pr_auc": "PR-AUC",
    "accuracy": "Accuracy",
    "map": "MAP",
    "p10": "P@10",
    "mr1": "MR1",
}
OURS = "Not in the paper's table"
DASH = "-"
BOLD, UNDERLINED = "bold", "underlined"


@dataclasses.dataclass
class Table:
    """Cells as text under named columns; `records` keeps the numbers behind them, `names` what their keys mean."""

    title: str
    columns: list
    lines: list
    records: list
    notes: list
    names: dict = dataclasses.field(default_factory=dict)

    def text(self):
        """The table in aligned plain text."""
        widths = [max(map(_width, cells)) for cells in zip(self.columns, *self.lines, strict=True)]
        shown = [
            "  ".join(_pad(cell, w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in self._all()
        ]
        rule = "  ".join("-" * w for w in widths)
        return "\n".join([self.title, shown[0], rule, *shown[1:], *self.notes])

    def markdown(self):
        """The same as a markdown table."""
        shown = ["| " + " | ".join(map(_in_markdown, line)) + " |" for line in self._all()]
        rule = "|" + "---|" * len(self.columns)
        notes = [f"*{note}*" for note in self.notes]
        return "\n".join([f"**{self.title}**", "", shown[0], rule, *shown[1:], "", *notes]).rstrip() + "\n"

    def _all(self):
        return [self.columns, *self.lines]

    __str__ = text
    _repr_markdown_ = markdown


@dataclasses.dataclass(frozen=True)
class Layout:
    """What one of the paper's tables compares.

    Attributes
    ----------
    number : int
    title, dataset : str
    families : dict {protocol of a row: family of lines}
        Rows of other protocols do not belong to the table.
    groups : dict {group of the paper: family}
    ranked : tuple of str
        Groups among which the best is bold.
    underlined : bool
        Whether the second is underlined.
    said : dict {family: words behind the name of a system that the paper lacks}
    split : str or None
        Whose rows it shows where nothing else is asked; None for any.
    unit : str
        Behind the title.
    stand_in : str
        What a reader must know of the dataset's stand-in.
    """

    number: int
    title: str
    dataset: str
    families: dict
    groups: dict
    ranked: tuple
    underlined: bool = False
    said: dict = dataclasses.field(default_factory=dict)
    split: str | None = "all"
    unit: str = "percent"
    stand_in: str = ""


@dataclasses.dataclass(frozen=True)
class Column:
    """A column of the paper: its name in data/paper and in records, what is measured, and under which protocols.

    dataset : where it is measured, if not on the table's own dataset; a row then has both.
    rank    : a number of which less is better, printed as it is.
    """

    key: str
    name: str
    metric: str
    protocols: tuple
    dataset: str = ""
    rank: bool = False


# Rows made before intervals were centred (bench/stats.py) do not say how theirs were made; published rows are kept.
_PLAIN = (
    "PR-AUC intervals of the oldest rows (no settings.intervals) are not centred and lie too high: the score is at "
    "their edge."
)

_TABLE1 = Layout(
    1, "tagging on MTAT", "mtat", {"supervised": "supervised", "linear_probe": "linear_probe"},
    {"Supervised": "supervised", "Self-supervised": "linear_probe"}, ranked=("Self-supervised",),
)  # fmt: skip
_TABLE2 = Layout(
    2, "tagging on MTAT with few labels", "mtat", {"few_labels_1": "few_labels", "few_labels_10": "few_labels"},
    {"Supervised": "few_labels", "Self-supervised": "few_labels"}, ranked=("Supervised", "Self-supervised"),
)  # fmt: skip
_TABLE3 = Layout(
    3, "genres of GTZAN", "gtzan",
    {"supervised": "supervised", "fine_tune": "fine_tune", "linear_probe": "linear_probe"},
    {"Supervised": "supervised", "Supervised fine-tuning": "fine_tune", "Self-supervised fine-tuning": "fine_tune"},
    ranked=("Supervised", "Supervised fine-tuning", "Self-supervised fine-tuning"), underlined=True,
    said={"linear_probe": " (frozen)"}, split=None,
)  # fmt: skip

_TABLE4 = Layout(
    4, "cover songs", "shs100k", {"cover": "cover"}, {"Supervised": "cover", "FCN-4 on CQT-Net": "cover"},
    ranked=("Supervised", "FCN-4 on CQT-Net"), split=None, unit="percent; MR1 is a rank, less is better",
)  # fmt: skip

_FOLDS = ("fold1", "fold2", "fold3", "fold4")
_SCENE_FAMILIES = ("supervised", "fine_tune", "linear_probe")


def _scenes(number, title, parts):
    """The layout of Tables 5 and 6, whose rows say in their protocol what they were tested on: fine_tune_fold1."""
    return Layout(
        number, title, "dcase2016", {f"{family}_{part}": family for part in parts for family in _SCENE_FAMILIES},
        {"Supervised": "supervised", "FCN-4": "fine_tune", "Self-supervised": "fine_tune"},
        ranked=("Supervised", "FCN-4", "Self-supervised"), underlined=True, said={"linear_probe": " (frozen)"},
        split=None, stand_in="The scenes of the twin are synthetic: noise, resonances and timed events, no recordings.",
    )  # fmt: skip


_TABLE5 = _scenes(5, "acoustic scenes, four folds", (*_FOLDS, "average"))
_TABLE6 = _scenes(6, "acoustic scenes, evaluation set", ("evaluation",))


def table1(rows, metrics=("roc_auc", "pr_auc"), split=_TABLE1.split, only_ours=False):
    """Table 1 with our columns beside the paper's: MTAT tagging, mean and deviation over seeds, and the difference.

    Parameters
    ----------
    rows : list of dict
        From `results.read`; rows of other datasets, protocols or splits, and tagged ones, are left out.
    metrics : sequence of str
        "roc_auc", "pr_auc", or either with "_artist_filtered" behind it.
    split : str or None
        Reading R17; None takes rows of any split.
    only_ours : bool
        Leave out the lines for which there is no row.

    Returns
    -------
    Table
        Its `records`: one dict per line with group, method, slug, backbone, param_m, gflops, marks, and per column
        {"paper", "ours", "difference", <corpus>: cell}; a cell is {"mean", "sd", "k", "interval", "ids"} or None.
        marks is {column: {"paper" | "ours" | <corpus>: "bold" | "underlined" | ""}}.

    Raises
    ------
    ValueError
        If two rows of one cell have the same seed.

    Told in: notebooks/61_table1.ipynb
    """
    columns = [Column(metric, _name(metric), metric, tuple(_TABLE1.families)) for metric in metrics]
    return _table(_TABLE1, columns, rows, split, only_ours)


def table2(rows, metrics=("roc_auc", "pr_auc"), labels=(1, 10), split=_TABLE2.split, only_ours=False):
    """Table 2: MTAT tagging with 1 % and 10 % of the labels; otherwise as `table1`.

    Columns and keys of the records are "<metric>_<labels>", e.g. "roc_auc_1".

    Told in: notebooks/62_table2.ipynb
    """
    columns = [
        Column(f"{metric}_{percentage}", f"{_name(metric)} {percentage} %", metric, (f"few_labels_{percentage}",))
        for metric in metrics for percentage in labels
    ]  # fmt: skip
    return _table(_TABLE2, columns, rows, split, only_ours)


def table3(rows, metrics=("accuracy", "roc_auc", "pr_auc"), split=_TABLE3.split, only_ours=False):
    """Table 3: genres of GTZAN, trained on it alone or fine-tuned; otherwise as `table1`.

    Told in: notebooks/63_table3.ipynb
    """
    columns = [Column(metric, _name(metric), metric, tuple(_TABLE3.families)) for metric in metrics]
    return _table(_TABLE3, columns, rows, split, only_ours)


def table4(rows, metrics=("map", "p10"), tests=("shs100k", "covers80"), split=_TABLE4.split, only_ours=False):
    """Table 4: cover songs of SHS100K-SUB's test list and of Covers80, found by one and the same trained system.

    A row has the numbers of both tests: those of Covers80 as "covers80_<metric>". Columns and keys of the records are
    those of data/paper: "shs100k_sub_<metric>" and "covers80_<metric>". Otherwise as `table1`.

    Parameters
    ----------
    rows, split, only_ours
        As `table1`.
    metrics : sequence of "map" | "p10" | "mr1"
    tests : sequence of "shs100k" | "covers80"

    Told in: notebooks/64_table4.ipynb
    """
    columns = [
        Column("shs100k_sub_" + metric, _name(metric) + ", SHS100K", metric, ("cover",), rank=metric == "mr1")
        if test == "shs100k" else
        Column("covers80_" + metric, _name(metric) + ", Covers80", f"covers80_{metric}", ("cover",), "covers80",
               rank=metric == "mr1")
        for test in tests for metric in metrics
    ]  # fmt: skip
    return _table(_TABLE4, columns, rows, split, only_ours)


def table5(rows, parts=("average", *_FOLDS), metrics=("accuracy", "class_mean"), split=None, only_ours=False):
    """Table 5: acoustic scenes, the four folds of the development set and their average; otherwise as `table1`.

    Columns and keys of the records are the parts, e.g. "fold1", and "class_mean", the mean over classes averaged over
    folds as the challenge's own script has it; the paper prints file-wise accuracy alone. An average is formed where a
    seed has a row of every fold; its cell's "ids" are those of the folds.

    Parameters
    ----------
    rows, split, only_ours
        As `table1`.
    parts : sequence of "average" | "fold1" .. "fold4"
    metrics : sequence of "accuracy" | "class_mean"

    Told in: notebooks/65_table5.ipynb
    """
    columns = [Column(part, part.replace("fold", "fold "), "accuracy", _under(part)) for part in parts]
    if "class_mean" in metrics and "average" in parts:
        columns.insert(1, Column("class_mean", "class mean", "class_mean", _under("average")))
    return _table(_TABLE5, columns, [*rows, *_averages(rows)], split, only_ours)


def table6(rows, split=None, only_ours=False):
    """Table 6: acoustic scenes, trained on the development set, tested on the evaluation set; otherwise as `table1`.

    Told in: notebooks/66_table6.ipynb
    """
    column = Column("evaluation", "Accuracy", "accuracy", _under("evaluation"))
    return _table(_TABLE6, [column], rows, split, only_ours)


NUMBERED = {1: table1, 2: table2, 3: table3, 4: table4, 5: table5, 6: table6}
_LAYOUTS = {1: _TABLE1, 2: _TABLE2, 3: _TABLE3, 4: _TABLE4, 5: _TABLE5, 6: _TABLE6}


def of(rows):
    """The tables to which at least one of the rows belongs."""
    return [
        NUMBERED[number](rows) for number, one in _LAYOUTS.items()
        if any(_belongs(row, one, one.split) for row in rows)
    ]  # fmt: skip


def artist_filtered(rows, number=1):
    """Table 1 or 2 over test tracks whose artists were not heard in training: rows that have such scores, no others.

    Returns
    -------
    Table or None
        None where no row has them.

    Told in: notebooks/61_table1.ipynb
    """
    metrics = [metric + results.ARTISTS for metric in ("roc_auc", "pr_auc")]
    layout = _LAYOUTS[number]
    having = [row for row in rows if _belongs(row, layout, layout.split) and set(metrics) & set(row["metrics"])]
    if not having:
        return None
    table = NUMBERED[number](having, metrics=metrics, only_ours=True)
    return dataclasses.replace(table, title=table.title.replace(" (", ", test artists not heard in training ("))


def groups_table(rows, metric="roc_auc", title=None):
    """One line per system, one column per tag group, for rows of one corpus and scale: groups are never pooled.

    Parameters
    ----------
    rows : list of dict
        All of one dataset, scale and protocol; tagged rows are shown as systems of their own.
    metric : str

    Returns
    -------
    Table
        One seed shows its interval over test tracks, several seeds mean and deviation over seeds.

    Raises
    ------
    ValueError
        If the rows are of several datasets, scales or protocols, or two rows of one cell have the same seed.

    Told in: notebooks/61_table1.ipynb
    """
    kinds = {(*_corpus(one), one["split"], one["protocol"]) for one in rows}
    if len(kinds) > 1:
        raise ValueError(f"rows of {sorted(kinds)} cannot share a table of groups: filter them when reading")
    names = list(dict.fromkeys(group for one in rows for group in one["groups"]))
    records = []
    for key in dict.fromkeys((one["system"], one["backbone"], one["tag"]) for one in rows):
        mine = [one for one in rows if (one["system"], one["backbone"], one["tag"]) == key]
        cells = {group: _summary(mine, lambda one, g=group: one["groups"].get(g, {}), metric) for group in names}
        records.append({"slug": key[0], "backbone": key[1], "tag": key[2], **cells})
    columns = ["System", "Backbone", *names]
    lines = [
        [one["slug"] + (f" ({one['tag']})" if one["tag"] else ""), one["backbone"], *(_shown(one[g]) for g in names)]
        for one in records
    ]
    where = " at ".join(_corpus(rows[0])) if rows else "no rows"
    title = title or f"{METRIC_NAMES.get(metric, metric)} per tag group, {where} (percent)"
    return Table(title, columns, lines, records, [_LEGEND] if rows else [])


def percent(fraction, sign=False):
    """0.8941 -> "89.4"; with `sign` a difference: +0.3. A dash for None."""
    if fraction is None:
        return DASH
    return f"{100 * fraction:+.1f}" if sign else f"{100 * fraction:.1f}"


def mean_and_spread(cell):
    """A cell without its number of seeds: 89.4 ± 0.3, or 89.4 [88.1, 90.6], or a dash."""
    return _shown(cell).split(" (")[0]


def rank(number, sign=False):
    """A mean rank with two decimals; with `sign` a difference. A dash for None."""
    if number is None:
        return DASH
    return f"{number:+.2f}" if sign else f"{number:.2f}"


_LEGEND = "Ours: mean ± deviation over seeds (number of seeds); with one seed [95 % interval over test tracks]."


# --- one core for all tables ------------------------------------------------------------------------------------------


def _table(layout, columns, rows, split, only_ours):
    """The numbers of a table, then its text."""
    used = [one for one in rows if _belongs(one, layout, split)]
    real = (layout.dataset, "paper")
    others = {_corpus_name(corpus): corpus for corpus in sorted({_corpus(one) for one in used} - {real})}
    printed = [_paper_line(entry, layout, columns) for entry in _paper(layout)]
    records = []
    for line in [*printed, *_lines_of_ours(used, printed, layout)]:
        mine = [one for one in used if _fits(one, line, layout)]
        if only_ours and not mine:
            continue
        record = {key: value for key, value in line.items() if key != "printed"}
        for column in columns:
            record[column.key] = _cells(mine, line["printed"].get(column.key), column, real, others, layout)
        records.append(record)
    for column in columns:
        for place in _places(column, others, layout):
            _mark(records, column, place, layout)
    return _text(layout, columns, records, list(others))


def _paper(layout):
    """The paper's lines: as they stand, but for the scenes one per method, its columns by the part that is tested."""
    if layout.number not in (5, 6):
        return results.paper(layout.number)
    found = {}
    for one in results.paper(layout.number):
        backbone = one["backbone_slug"].replace("fcn_4", "FCN-4") or DASH
        entry = found.setdefault((one["group"], one["method"]), {**one, "backbone": backbone})
        part = one.get("folder", "evaluation").replace("folder", "fold")
        entry |= {part: one["accuracy"], f"{part}_mark": one["accuracy_mark"]}
    groups = list(layout.groups)
    return sorted(found.values(), key=lambda entry: groups.index(entry["group"]))


def _under(part):
    """Protocols of rows that were tested on a part of the scenes."""
    return tuple(f"{family}_{part}" for family in _SCENE_FAMILIES)


def _averages(rows):
    """A row for every system and seed that has one of each fold: the plain mean of its scores."""
    kinds = {}
    for one in rows:
        family, _, part = one["protocol"].rpartition("_")
        if part in _FOLDS and family in _SCENE_FAMILIES:
            key = (family, *(one[name] for name in ("system", "backbone", "dataset", "scale", "seed", "tag")))
            kinds.setdefault(key, {}).setdefault(part, []).append(one)
    found = []
    for (family, *_), parts in kinds.items():
        if set(parts) == set(_FOLDS) and all(len(some) == 1 for some in parts.values()):
            folds = [parts[fold][0] for fold in _FOLDS]
            scores = {name: [one["metrics"].get(name) for one in folds] for name in ("accuracy", "class_mean")}
            means = {name: statistics.fmean(four) for name, four in scores.items() if None not in four}
            made = {"protocol": f"{family}_average", "metrics": means, "ids": [one["id"] for one in folds]}
            found.append(folds[0] | made)
    return found


def _belongs(one, layout, split):
    """A row on the table's dataset or a stand-in of it, under its protocols, at the default readings."""
    named = one["dataset"] == layout.dataset or one["dataset"].startswith(f"{layout.dataset}-")
    return named and one["protocol"] in layout.families and split in (None, one["split"]) and not one["tag"]


def _paper_line(entry, layout, columns):
    """What a line is called, and what the paper prints and marks in it."""
    keep = {key: entry[key] for key in ("group", "method", "slug", "backbone", "backbone_slug")}
    keep |= {key: entry.get(key) for key in ("param_m", "gflops")}
    marks = {column.key: {"paper": entry.get(f"{column.key}_mark", "")} for column in columns}
    printed = {column.key: entry.get(column.key) for column in columns}
    return {**keep, "protocol": layout.groups[entry["group"]], "marks": marks, "printed": printed}


def _lines_of_ours(used, lines, layout):
    """Lines for systems the paper does not list."""
    extra = [one for one in used if not any(_fits(one, line, layout) for line in lines)]
    keys = dict.fromkeys((one["system"], one["backbone"], layout.families[one["protocol"]]) for one in extra)
    return [
        {
            "group": OURS, "method": system + layout.said.get(family, ""), "slug": system, "backbone": backbone,
            "backbone_slug": backbone, "param_m": None, "gflops": None, "protocol": family, "marks": {}, "printed": {},
        }
        for system, backbone, family in keys
    ]  # fmt: skip


def _fits(one, line, layout):
    """Does a row belong to a line? A system that is its own backbone has none in the paper's table."""
    same = one["system"] == line["slug"] and layout.families[one["protocol"]] == line["protocol"]
    return same and (not line["backbone_slug"] or one["backbone"] == line["backbone_slug"])


def _places(column, others, layout):
    """Names of what stands in our columns: "ours" and every other corpus, by the dataset that the column tests."""
    tested = column.dataset or layout.dataset
    return ["ours", *(name.replace(layout.dataset, tested, 1) for name in others)]


def _cells(mine, printed, column, real, others, layout):
    """What stands under one column in one line: the paper's number, ours, the difference, and the other corpora."""
    mine = [one for one in mine if one["protocol"] in column.protocols]
    ours = _cell(mine, real, column.metric)
    difference = ours["mean"] - printed if ours and printed is not None else None
    cells = {"paper": printed, "ours": ours, "difference": difference}
    places = zip(_places(column, others, layout)[1:], others.values(), strict=True)
    return cells | {name: _cell(mine, corpus, column.metric) for name, corpus in places}


def _mark(records, column, place, layout):
    """Best and second among the ranked lines that have a number in this column, if there are two to compare."""
    key = column.key
    ranked = [one for one in records if one["group"] in layout.ranked and one[key][place]]
    order = sorted({_printed(one[key][place], column) for one in ranked}, reverse=not column.rank)
    marks = dict(zip(order, (BOLD, UNDERLINED if layout.underlined else ""), strict=False)) if len(ranked) > 1 else {}
    for one in ranked:
        one["marks"][key][place] = marks.get(_printed(one[key][place], column), "")


def _text(layout, columns, records, others):
    """The cells of a table as text."""
    heads = ["Method", "Backbone"]
    for column in columns:
        known = any(one[column.key]["paper"] is not None for one in records)
        ours, *rest = f"ours on {column.dataset or layout.dataset}", *_places(column, others, layout)[1:]
        heads += [f"{column.name} paper", ours, "difference", *rest] if known else [f"{column.name} {ours}", *rest]
    lines, group = [], None
    for one in records:
        if one["group"] != group:
            group = one["group"]
            lines.append([f"{group}:"] + [""] * (len(heads) - 1))
        line = [one["method"], one["backbone"] or DASH]
        for column in columns:
            cell, marks = one[column.key], one["marks"].get(column.key, {})
            number = rank if column.rank else percent
            paper = _marked(number(cell["paper"]), marks.get("paper"))
            ours = [_shown(cell[place], marks.get(place), number) for place in _places(column, others, layout)]
            known = any(other[column.key]["paper"] is not None for other in records)
            line += [paper, ours[0], number(cell["difference"], sign=True), *ours[1:]] if known else ours
        lines.append(line)
    title = f"Table {layout.number}: {layout.title} ({layout.unit})"
    names = {column.key: column.name for column in columns}
    return Table(title, heads, lines, records, _notes(layout, columns, records, others), names)


def _notes(layout, columns, records, others):
    """What a reader of the table has to know."""
    groups = {one["group"] for one in records} - {OURS}
    among = "the paper's lines" if groups <= set(layout.ranked) else f"{', '.join(layout.ranked)} lines"
    second = ", _second_" if layout.underlined else ""
    notes = [
        _LEGEND,
        f"**best**{second}: among {among}, in each column alone; systems not in the paper are not ranked.",
    ]
    if others:
        named = dict.fromkeys(name for column in columns for name in _places(column, others, layout)[1:])
        notes.append(f"{', '.join(named)}: another test than the paper's column; compare only within that column.")
        notes += [layout.stand_in] if layout.stand_in else []
    cells = [one[c.key][place] for one in records for c in columns for place in _places(c, others, layout)]
    if any(cell and cell["plain"] for cell in cells):
        notes.append(_PLAIN)
    for column in columns:
        for place in _places(column, others, layout):
            notes += _controls_ahead(column, place, records, layout)
    return notes


def _controls_ahead(column, place, records, layout):
    """A sentence where a control reaches what the best ranked line reaches, so that bold type does not hide it."""
    sign, number, form = (-1, rank, "{:.2f}") if column.rank else (1, percent, "{:.1f}")  # less or more is better
    having = [one for one in records if one[column.key][place]]
    found = [(sign * _printed(one[column.key][place], column), one) for one in having]
    best = max((value for value, one in found if one["group"] in layout.ranked), default=math.inf)
    ahead = [one for value, one in found if one["group"] == OURS and value >= best]
    if not ahead:
        return []
    where = f"ours on {column.dataset or layout.dataset}" if place == "ours" else place
    named = ", ".join(f"{one['method']} {one['backbone']} {number(one[column.key][place]['mean'])}" for one in ahead)
    worse = "above" if column.rank else "below"
    return [f"{column.name}, {where}: not {worse} the best ranked line ({form.format(sign * best)}): {named}."]


def _name(metric):
    """ROC-AUC, or "ROC-AUC, new artists" for test tracks of artists that were not heard in training."""
    plain = metric.removesuffix(results.ARTISTS)
    return METRIC_NAMES.get(plain, plain) + (", new artists" if plain != metric else "")


def _corpus(one):
    return one["dataset"], one["scale"]


def _corpus_name(corpus):
    return f"{corpus[0]} at {corpus[1]}"


# --- cells ------------------------------------------------------------------------------------------------------------


def _cell(rows, corpus, metric):
    """Mean over the seeds of one corpus and scale."""
    return _summary([one for one in rows if _corpus(one) == corpus], lambda one: one["metrics"], metric)


def _summary(rows, where, metric):
    """Mean, deviation and number of seeds; None without a row that has the metric."""
    rows = [one for one in rows if where(one).get(metric) is not None]
    if not rows:
        return None
    seeds = [one["seed"] for one in rows]
    if len(set(seeds)) < len(seeds):
        raise ValueError(
            f"two rows of one cell have the same seed: {[one['id'] for one in rows]}. "
            "Give the one that is off the default readings a tag, or filter when reading"
        )
    values = [where(one)[metric] for one in rows]
    return {
        "mean": statistics.fmean(values),
        "sd": statistics.stdev(values) if len(values) > 1 else None,
        "k": len(values),
        "interval": where(rows[0]).get(f"{metric}_interval") if len(rows) == 1 else None,
        "ids": [name for one in rows for name in one.get("ids", [one["id"]])],
        "plain": metric.startswith("pr_auc") and len(rows) == 1 and "intervals" not in rows[0]["settings"],
    }


def _printed(cell, column):
    """The mean as it is printed: what looks the same is the same."""
    return float((rank if column.rank else percent)(cell["mean"]))


def _shown(cell, mark="", number=percent):
    """89.4 ± 0.3 (5), or 89.4 [88.1, 90.6] (1)."""
    if cell is None:
        return DASH
    spread = f" ± {number(cell['sd'])}" if cell["sd"] is not None else ""
    if cell["interval"]:
        spread = f" [{number(cell['interval'][0])}, {number(cell['interval'][1])}]"
    return f"{_marked(number(cell['mean']), mark)}{spread} ({cell['k']})"


def _marked(text, mark):
    return {BOLD: f"**{text}**", UNDERLINED: f"_{text}_"}.get(mark, text)


def _in_markdown(cell):
    """Markdown has bold type, but underlines only as HTML."""
    return re.sub(r"^_([\d.]+)_", r"<u>\1</u>", cell.replace("|", "\\|"))


def _width(text):
    """Columns that a text takes on a terminal."""
    return sum(0 if unicodedata.combining(letter) else 1 for letter in text)


def _pad(text, width):
    return text + " " * (width - _width(text))
