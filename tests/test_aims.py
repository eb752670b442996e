"""aims: the worst row counts, less may be better, and what nobody measured is said to be so."""

import pytest

from pawlib import paths, systems
from pawlib.bench import aims
from pawlib.bench.files import read_json

MORE = aims.Aim("faster", lambda row: row["times"], 4, "{:.1f} times", "measure more")
LESS = aims.Aim("waiting", lambda row: row["parts"]["waiting"], 0.1, "{:.0%}", "measure less", at_most=True)


def test_the_worst_of_several_rows_counts():
    rows = {"one": {"times": 6.0}, "two": {"times": 5.0}, "another": {"parts": {}}}
    (found,) = aims.beside_measurements([MORE], rows)
    assert found["aim"] == "at least 4.0 times" and found["worst"] == "5.0 times" and found["command"] == "measure more"
    assert found["measured"] == {"one": "6.0 times", "two": "5.0 times"}
    assert found["times_aim"] == pytest.approx(1.25)


def test_where_less_is_better_the_largest_counts():
    rows = {"one": {"parts": {"waiting": 0.02}}, "two": {"parts": {"waiting": 0.2}}}
    (found,) = aims.beside_measurements([LESS], rows)
    assert found["aim"] == "at most 10%" and found["worst"] == "20%" and found["times_aim"] == pytest.approx(0.5)


def test_processors_without_bf16_are_judged_apart():
    rows = {"new": {"times": 6.0, "bf16": True}, "old": {"times": 3.0, "bf16": False}}
    (found,) = aims.beside_measurements([MORE], rows)
    assert found["worst"] == "6.0 times" and found["worst_float32"] == "3.0 times"
    assert found["times_aim"] == pytest.approx(1.5) and found["times_aim_float32"] == pytest.approx(0.75)
    assert found["measured"] == {"new": "6.0 times", "old": "3.0 times"}
    (found,) = aims.beside_measurements([LESS], rows)
    assert found["worst_float32"] is None and found["times_aim_float32"] is None


def test_what_was_not_measured_or_only_under_rare_settings_has_no_number():
    rows = {"rare": {"times": 9.0, "environment": {"MALLOC": "1"}}, "tiny": {"times": 9.0, "scale": "toy"}, "empty": {}}
    (found,) = aims.beside_measurements([MORE], rows)
    assert found["worst"] is None and found["times_aim"] is None and found["measured"] == {}


def test_every_aim_of_the_cpu_has_a_kept_measurement_of_its_own():
    """And no two aims read the same number: a slip of a slug would show."""
    folder = paths.results() / "speed"
    rows = {path.stem: read_json(path) for path in folder.glob("*.json")}
    found = aims.beside_measurements(aims.aims(systems.names("taggers"), ("clmr", "byol_a")), rows)
    missing = [one["what"] for one in found if one["worst"] is None]
    assert set(missing) <= {"one GPU, pretraining of fcn_4", "one GPU, pretraining of fcn_7"}
    taggers = [one["times_aim"] for one in found if "plain way" in one["what"]]
    assert len(taggers) == len(set(taggers)) == 10
    assert len({one["what"] for one in found}) == len(found)
