"""Reading metrics of any version, choosing columns and panels, means over seeds."""

import json

import pytest

from commands.comparison.metrics_table import (
    OWN,
    cell_frame,
    choose_columns,
    choose_lines,
    choose_panels,
    current_names,
    mean_rows,
    read_metrics,
    tidy_frame,
)
from commands.comparison.results import best_validation, curves
from core.errors import UserError
from metrics.baselines.rows import CONSTANT, HUMAN, NEAREST, TRUE_CLASS

SEEDS = {"a": {"bleu4": [0.4, 0.6], "loss": [1.0, 2.0]}, "b": {"bleu4": [0.5]}, "c": {}}


def test_metrics_of_the_version_before_have_the_names_of_this_one(tmp_path):
    rows = {OWN: {"truth": 0.5, "note": "x"}, "image-blind floor": {"truth": 0.1}, "human against the others": {}}
    (tmp_path / "metrics.json").write_text(json.dumps(rows))
    expected = {OWN: {"fact_f1": 0.5}, "language-only baseline": {"fact_f1": 0.1}, "leave-one-out human": {}}
    assert read_metrics(tmp_path) == expected


def test_a_single_row_is_that_of_the_run(tmp_path):
    (tmp_path / "metrics.json").write_text('{"bleu4": 0.5}')
    assert read_metrics(tmp_path) == {OWN: {"bleu4": 0.5}}
    (tmp_path / "metrics.json").write_text("[1]")
    with pytest.raises(UserError, match=r"metrics.json: expected a JSON object, found \[1\]"):
        read_metrics(tmp_path)


def test_an_old_name_is_reported(capsys):
    assert current_names(["truth", "bleu4", "val/truth"], "--metrics") == ["fact_f1", "bleu4", "val/fact_f1"]
    assert capsys.readouterr().err.splitlines() == [
        "note: --metrics: metric 'truth' is now called 'fact_f1'",
        "note: --metrics: metric 'val/truth' is now called 'val/fact_f1'",
    ]


def test_columns_and_panels():
    rows = [{"loss": 1.0, "cider_d": 1.0}, {"bleu4": 1.0, "mine": 1.0}]
    assert choose_columns([], rows, "--metrics") == ["bleu4", "cider_d"]
    assert choose_columns(["mine"], rows, "--metrics") == ["mine"]
    assert choose_columns([], [{"mine": 1.0, "loss": 1.0}], "--metrics") == ["loss", "mine"]
    assert choose_panels(["loss", "mine"]) == ["mine"]
    assert choose_panels(["bleu1", "bleu2", "bleu3", "bleu4", "cider_d"]) == ["cider_d", "bleu4"]


def test_of_many_baselines_the_highest_and_the_upper_bounds_are_drawn():
    rows = {CONSTANT: {"bleu4": 0.1}, NEAREST: {"bleu4": 0.5}, TRUE_CLASS: {"bleu4": 0.4}, HUMAN: {"bleu4": 0.9}}
    assert list(choose_lines(rows, ["bleu4"])) == [NEAREST, TRUE_CLASS, HUMAN]
    few = {name: rows[name] for name in (CONSTANT, NEAREST, HUMAN)}
    assert choose_lines(few, ["bleu4"]) == few


def test_means_and_cells_over_seeds():
    assert mean_rows(SEEDS) == {"a": {"bleu4": 0.5, "loss": 1.5}, "b": {"bleu4": 0.5}, "c": {}}
    assert mean_rows({}) == {}
    cells = cell_frame(SEEDS, ["bleu4", "loss"])
    assert cells.to_numpy().tolist() == [["0.500 ± 0.141", "1.500 ± 0.707"], ["0.500", ""], ["", ""]]
    assert tidy_frame(SEEDS).shape == (5, 4)
    assert cell_frame({}, ["bleu4"]).shape == (0, 1)


def test_curves_join_the_old_and_the_new_name_of_a_metric(tmp_path):
    (tmp_path / "metrics.csv").write_text(
        "step,val/truth,val/fact_f1,val/cider_d\n1,0.1,,2.0\n2,,0.30000000000000004,1\n"
    )
    assert curves(tmp_path)["val/fact_f1"] == [(1.0, 0.1), (2.0, 0.30000000000000004)]
    assert best_validation(tmp_path) == {"fact_f1": 0.1, "cider_d": 2.0}
    assert curves(None) == {}


@pytest.mark.parametrize("content", ["", "step,val/loss\n1,abc\n", "val/loss\n1\n", "step,a\n1,2,3\n1,2,3,4\n"])
def test_a_broken_log_is_one_line(tmp_path, content):
    (tmp_path / "metrics.csv").write_text(content)
    if not content:
        assert curves(tmp_path) == {}
        return
    with pytest.raises(UserError, match=r"metrics\.csv, line \d: .*; correct the file") as error:
        curves(tmp_path)
    assert "\n" not in str(error.value)
