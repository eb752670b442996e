"""README's results, made of published rows, so that no number there lacks its row.

    python -m pawlib.show.readme      writes what stands between README's comments, and the picture above it

    rows -> tagging, ablation, scenes, covers -> filled(README) -> README.md
    rows of the ablation -> picture -> data/results/figure3.png, stamped with what it shows

`make publish` ends with it; a test compares README with the rows.
"""

import hashlib
import io
import re
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from pawlib import paths
from pawlib.bench import effects, files, results, tables
from pawlib.show import effects as pictures
from pawlib.show import figures

README = Path(__file__).resolve().parents[2] / "README.md"
SCALE, ENCODER = "small", "fcn_4"
GROUPS = ("timbre", "musical", "part", "order")
ABLATION = {  # which dataset, level of the clips, group of tags, score
    "all tags": ("mtat-twin", "", None, "roc_auc"),
    "part": ("mtat-twin", "", "part", "roc_auc"),
    "order, asked of wholes": ("mtat-twin", "top", "order", "roc_auc"),
    "timbre": ("mtat-twin", "", "timbre", "roc_auc"),
    "genres, accuracy": ("gtzan-twin", "", None, "accuracy"),
}


def tagging(rows):
    """Table 1 at small with its tag groups: the systems that have a row of seed 0."""
    probes = [row for row in rows if row["protocol"] in ("linear_probe", "supervised") and row["seed"] == 0]
    probes = [row for row in probes if row["dataset"] == "mtat-twin"]
    by_id = {row["id"]: row for row in probes}
    head = ("System", "paper, MTAT", "ours, mtat-twin", "16 epochs instead of 4", *GROUPS, "order, asked of wholes")
    lines = []
    for record, cell in _of_ours(tables.table1([row for row in probes if not row["tag"]]), "roc_auc"):
        (id,) = cell["ids"]
        longer, wholes = (by_id.get(id.replace(".seed0", f".{tag}.seed0")) for tag in ("epochs_16", "top"))
        lines.append([
            _name(record), tables.percent(record["roc_auc"]["paper"]), tables.mean_and_spread(cell),
            _score(longer), *(_score(by_id[id], group) for group in GROUPS), _score(wholes, "order"),
        ])  # fmt: skip
    return _markdown(head, lines)


def ablation(rows):
    """Figure 3: mean and deviation over the fresh seeds of its variants and of random weights."""
    found = {what: _fresh(rows, *asked) for what, asked in ABLATION.items()}
    lines = []
    for system in effects.VARIANTS:
        made = [effects.summary(points[system]) if system in points else None for points in found.values()]
        if any(made):
            seeds = sorted({one["k"] for one in made if one})
            lines.append([system, *map(_mean, made), " or ".join(map(str, seeds))])
    return _markdown(("Variant", *found, "fresh seeds"), lines)


def scenes(rows):
    """Table 6: accuracy on the evaluation set, systems that have a row."""
    lines = [
        [_name(record), tables.percent(record["evaluation"]["paper"]), tables.mean_and_spread(cell)]
        for record, cell in _of_ours(tables.table6(rows), "evaluation")
    ]
    return _markdown(("System", "paper", "ours, dcase2016-twin"), lines)


def covers(rows):
    """Table 4: mean average precision on both test sets, systems that have a row."""
    table, lines = tables.table4(rows), []
    second = {id(record): cell for record, cell in _of_ours(table, "covers80_map")}
    for record, cell in _of_ours(table, "shs100k_sub_map"):
        paper = (tables.percent(record[column]["paper"]) for column in ("shs100k_sub_map", "covers80_map"))
        ours = (tables.mean_and_spread(one) for one in (cell, second.get(id(record))))
        lines.append([_name(record), *(text for pair in zip(paper, ours, strict=True) for text in pair)])
    return _markdown(
        ("System", "paper, SHS100K", "ours, shs100k-twin", "paper, Covers80", "ours, covers80-twin"), lines
    )


BLOCKS = {"tagging": tagging, "ablation": ablation, "scenes": scenes, "covers": covers}


def filled(text, rows):
    """README with its blocks made anew.

    Parameters
    ----------
    text : str
        With `<!-- rows: NAME -->` and `<!-- end of rows -->` around each block.
    rows : list of dict
        Published rows at small.

    Raises
    ------
    ValueError
        If a block is missing, or there twice.
    """
    for name, block in BLOCKS.items():
        between = re.compile(rf"(<!-- rows: {name} -->\n).*?(<!-- end of rows -->)", re.DOTALL)
        made = block(rows)
        text, n_found = between.subn(lambda found, made=made: f"{found[1]}\n{made}\n\n{found[2]}", text)
        if n_found != 1:
            raise ValueError(f"{README.name} has {n_found} blocks {name!r}, expected one: <!-- rows: {name} -->")
    return text


def picture(rows):
    """The ablation of the fresh seeds, a point a run, as PNG; its text "rows" is the `stamp` of what it shows."""
    asked = {what: one for what, one in ABLATION.items() if what != "genres, accuracy"}
    panels = {}
    for what, (dataset, level, group, metric) in asked.items():
        fresh = _rows_of(rows, dataset, level)
        intervals = {
            name: effects.interval(fresh, name, metric=metric, group=group, n_boot=300, source="committed")
            for name in effects.VARIANTS
        }
        panels[what.replace(", asked", "\nasked")] = (_fresh(rows, dataset, level, group, metric), intervals)
    fig = pictures.seeds(panels, effects.VARIANTS, "ROC-AUC", f"Figure 3 on the stand-in, {SCALE}, {ENCODER}")
    if fig is None:
        return None
    said, drawn = PngInfo(), io.BytesIO()
    said.add_text("rows", stamp(rows))
    with Image.open(io.BytesIO(figures.show(fig).data)) as small:
        small.save(drawn, format="png", optimize=True, pnginfo=said)
    return drawn.getvalue()


def stamp(rows):
    """Sixteen hex digits of the numbers that the picture shows."""
    shown = {what: _fresh(rows, *asked) for what, asked in ABLATION.items()}
    return hashlib.sha256(repr(shown).encode()).hexdigest()[:16]


def write():
    """README.md and its picture, made of the published rows; returns the paths of both."""
    rows = results.read("committed", scale=SCALE)
    made = filled(README.read_text(encoding="utf-8"), rows)
    with files.atomic(README) as temporary:
        temporary.write_text(made, encoding="utf-8")
    drawn, path = picture(rows), paths.committed() / "results" / "figure3.png"
    if drawn is not None:
        with files.atomic(path) as temporary:
            temporary.write_bytes(drawn)
    return README, path


def _of_ours(table, column):
    """(record, cell) of each line that has a number of ours under a column."""
    for record in table.records:
        for corpus, cell in record[column].items():
            if corpus not in ("paper", "ours", "difference") and cell:
                yield record, cell


def _rows_of(rows, dataset, level):
    """Rows of the ablation on one dataset, seeds that nothing was chosen on."""
    kind = {"dataset": dataset, "scale": SCALE, "backbone": ENCODER, "protocol": "linear_probe"}
    rows = [row for row in rows if all(row[field] == value for field, value in kind.items())]
    return [row for row in effects.ablation(rows, level) if row["seed"] not in effects.EXPLORED]


def _fresh(rows, dataset, level, group, metric):
    return effects.points(_rows_of(rows, dataset, level), metric, group)


def _name(record):
    """A system, and its encoder where it could be another."""
    plain = record["backbone"] in ("", "-", "none", None)
    return record["method"] if plain else f"{record['method']}, {record['backbone']}"


def _score(row, group=None):
    """One number of a row as the tables print it, a dash for none."""
    numbers = {} if row is None else row["metrics"] if group is None else row["groups"].get(group, {})
    return tables.percent(numbers.get("roc_auc"))


def _mean(summary):
    return tables.mean_and_spread(summary | {"interval": None} if summary else None)


def _markdown(head, lines):
    lines = ["| " + " | ".join(line) + " |" for line in (head, *lines)]
    return "\n".join([lines[0], "|" + "---|" * len(head), *lines[1:]])


if __name__ == "__main__":
    print("written:", *write())
