"""Pictures of runs: what is drawn is what was found, in the order asked."""

import matplotlib.pyplot as plt
import pytest

from pawlib.show import effects

POINTS = {"a": {0: 0.70, 1: 0.72}, "c": {0: 0.60}}


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def test_a_point_per_seed_and_open_ones_for_marked_seeds():
    fig = effects.seeds({"all": (POINTS, {"a": {"estimate": 0.71, "low": 0.69, "high": 0.73}})}, ["a", "b", "c"], "x",
                        marked=(0,))  # fmt: skip
    (axis,) = fig.axes
    dots = [line for line in axis.lines if line.get_marker() == "o"]
    assert [(round(d.get_xdata()[0], 2), d.get_ydata()[0]) for d in dots] == [(0.70, 0), (0.72, 0), (0.60, 1)]
    assert [d.get_markerfacecolor() == "none" for d in dots] == [True, False, True]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["a", "c"]  # b has no point
    band = [line.get_xdata().tolist() for line in axis.lines if line.get_marker() != "o"]
    assert [0.69, 0.73] in [list(b) for b in band]


def test_guessing_is_a_dotted_line_where_it_is_known():
    with_chance, without = effects.seeds({"x": (POINTS, {}), "y": (POINTS, {})}, ["a"], "x", chance={"x": 0.5}).axes
    assert [line.get_xdata() for line in with_chance.lines if line.get_linestyle() == ":"] == [[0.5, 0.5]]
    assert not any(line.get_linestyle() == ":" for line in without.lines)


def test_without_points_there_is_no_picture():
    assert effects.seeds({"all": ({}, {})}, ["a"], "x") is None and effects.differences({"all": {}}, "x") is None


def test_differences_stand_around_zero():
    one = {"estimate": 0.01, "low": -0.02, "high": 0.04}
    fig = effects.differences({"all": {"mix=0.1": one}, "part": {}}, "x")
    assert [label.get_text() for label in fig.axes[0].get_yticklabels()] == ["mix=0.1"]
    assert any(list(line.get_xdata()) == [-0.02, 0.04] for line in fig.axes[0].lines)
    assert len(fig.axes[1].lines) == 1  # the zero alone


def test_what_no_change_made_is_shaded_on_both_sides():
    one = {"estimate": 0.01, "low": -0.02, "high": 0.04}
    shaded, plain = effects.differences({"all": {"mix=0.1": one}, "part": {}}, "x", between_seeds={"all": 0.005}).axes
    (band,) = shaded.patches
    assert band.get_extents().transformed(shaded.transData.inverted()).intervalx == pytest.approx([-0.01, 0.01])
    assert not plain.patches


def test_a_score_along_a_reading_stands_at_its_value():
    found = {"temperature": {"a": {1.0: 73.0, 0.1: 74.0, 0.5: 74.5}, "b": {0.5: 72.0}}, "mix": {"a": {0.5: 74.5}}}
    first, second = effects.along(found, "value", "validation", between_seeds=0.25).axes
    lines = {line.get_label(): line for line in first.lines}
    assert [label.get_text() for label in first.get_xticklabels()] == ["0.1", "0.5", "1"]
    assert lines["a"].get_xdata().tolist() == [0, 1, 2] and lines["a"].get_ydata().tolist() == [74.0, 74.5, 73.0]
    assert lines["b"].get_xdata().tolist() == [1] and lines["b"].get_color() != lines["a"].get_color()
    assert lines["between seeds"].get_ydata().tolist() == [73.0, 73.5]
    assert (first.get_xlabel(), first.get_ylabel()) == ("value", "validation")
    assert second.lines[0].get_color() == lines["a"].get_color()  # a system keeps its colour
    assert effects.along({"mix": {}}, "value", "validation") is None
