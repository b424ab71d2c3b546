"""Figures of several runs: a panel per metric, a line or bar per run."""

import pytest

from reporting.comparison_figures import bar_figure, curve_figure, sweep_figure


def test_curves_have_a_line_per_run_and_skip_what_is_not_finite():
    logged = {"a": {"val/loss": [(0.0, 2.0), (1.0, float("nan")), (2.0, 1.0)]}, "b": {}}
    (axis,) = curve_figure(logged, ["val/loss"]).axes
    assert axis.get_title() == "val/loss"
    assert [list(line.get_ydata()) for line in axis.lines] == [[2.0, 1.0]]


def test_long_curves_are_smoothed():
    logged = {"a": {"train/loss": [(float(step), float(step % 2)) for step in range(90)]}}
    (axis,) = curve_figure(logged, ["train/loss"]).axes
    faint, smooth = axis.lines
    assert faint.get_alpha() == 0.2
    assert max(smooth.get_ydata()[10:]) < 1


def test_bars_have_titles_and_lines_of_baselines():
    scores = {"a": {"cider_d": [1.0, 3.0]}, "b": {"fact_f1": [0.5]}}
    figure = bar_figure(scores, ["cider_d", "fact_f1"], {"constant caption": {"cider_d": 0.5}})
    first, second = figure.axes
    assert (first.get_title(), second.get_title()) == ("CIDEr-D", "fact F1")
    assert [patch.get_width() for patch in first.patches] == pytest.approx([2.0])
    assert [label.get_text() for label in first.get_yticklabels()] == ["a", "b"]
    assert next(line.get_label() for line in first.lines if line.get_linestyle() != "None") == "constant caption"


def test_sweep_has_a_band_over_seeds():
    (axis,) = sweep_figure({"": {0.0: [1.0, 3.0], 1.0: [2.0]}}, "depth", "macro AP").axes
    assert list(axis.lines[0].get_ydata()) == [2.0, 2.0]
    assert len(axis.collections) == 1
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("depth", "macro AP")
