"""README's numbers are those of published rows."""

import copy
import io
import statistics

import pytest
from PIL import Image

from pawlib import paths
from pawlib.bench import results
from pawlib.show import readme


@pytest.fixture(scope="module")
def rows():
    return results.read("committed", scale=readme.SCALE)


def probe(system, seed, roc_auc, tag=None, dataset="mtat-twin"):
    """What the ablation reads of a row."""
    groups = {group: {"roc_auc": roc_auc - 0.1} for group in readme.GROUPS}
    id = results.make_id(system, "fcn_4", dataset, "linear_probe", "small", seed, tag)
    kind = {"dataset": dataset, "scale": "small", "backbone": "fcn_4", "protocol": "linear_probe"}
    return {"id": id, "system": system, "seed": seed, "tag": tag, "groups": groups} | kind | {
        "metrics": {"roc_auc": roc_auc, "accuracy": roc_auc - 0.2}
    }  # fmt: skip


def test_readme_is_what_the_rows_say(rows):
    text = readme.README.read_text(encoding="utf-8")
    assert readme.filled(text, rows) == text, "README is not what data/results says: python -m pawlib.show.readme"


def test_picture_is_of_these_rows(rows):
    picture = Image.open(paths.committed() / "results" / "figure3.png")
    assert picture.info["rows"] == readme.stamp(rows), "rows were published since: python -m pawlib.show.readme"


def test_another_score_makes_another_readme(rows):
    text = readme.README.read_text(encoding="utf-8")
    other = copy.deepcopy(rows)
    found = next(row for row in other if row["id"] == "mtat-twin.small.random.fcn_4.linear_probe.seed1")
    found["metrics"]["roc_auc"] -= 0.05
    assert readme.filled(text, other) != text and readme.stamp(other) != readme.stamp(rows)


def test_ablation_is_of_fresh_seeds_with_the_chosen_readings():
    scores = {1: 0.61, 2: 0.64, 3: 0.65}
    made = [probe("hc", seed, score) for seed, score in scores.items()]
    made += [probe("hc", 0, 0.99), probe("hc", 1, 0.99, tag="temperature_0_1"), probe("hc", 1, 0.70, tag="top")]
    made += [probe("baseline", 1, 0.99), probe("baseline", 1, 0.66, tag="temperature_1_0")]
    made += [probe("hc", 1, 0.50, dataset="gtzan-twin")]
    lines = readme.ablation(made).splitlines()
    mean, sd = 100 * statistics.mean(scores.values()), 100 * statistics.stdev(scores.values())
    all_tags, groups = f"{mean:.1f} ± {sd:.1f}", f"{mean - 10:.1f} ± {sd:.1f}"
    assert lines[2] == f"| hc | {all_tags} | {groups} | 60.0 | {groups} | 30.0 | 1 or 3 |"
    assert lines[3] == "| baseline | 66.0 | 56.0 | - | 56.0 | - | 1 |" and len(lines) == 4


def test_picture_carries_its_stamp(monkeypatch):
    monkeypatch.setattr(readme.effects, "interval", lambda *args, **kw: None)
    made = [probe("hc", seed, 0.6) for seed in (1, 2)]
    assert Image.open(io.BytesIO(readme.picture(made))).info["rows"] == readme.stamp(made)
    assert readme.picture([]) is None


@pytest.mark.parametrize("name", list(readme.BLOCKS))
def test_a_block_that_is_missing_or_twice_is_named(rows, name):
    text = readme.README.read_text(encoding="utf-8")
    with pytest.raises(ValueError, match=f"0 blocks '{name}'"):
        readme.filled(text.replace(f"<!-- rows: {name} -->", ""), rows)
    with pytest.raises(ValueError, match=f"2 blocks '{name}'"):
        readme.filled(text + f"\n<!-- rows: {name} -->\n\n<!-- end of rows -->\n", rows)
