"""The table of a test: baselines that are not beaten are marked; metrics have their titles."""

import io

import pytest
from rich.console import Console

from metrics.baselines.flags import baseline_warning, baselines_above
from metrics.baselines.rows import HUMAN, LANGUAGE_ONLY, NEAREST
from reporting.tables import evaluation_table

ROWS = {NEAREST: {"bleu4": 0.6, "cider_d": 2.8}, LANGUAGE_ONLY: {"cider_d": 0.7}, HUMAN: {"cider_d": 3.8}}


def printed(cider_d):
    console = Console(file=io.StringIO(), width=120)
    console.print(evaluation_table("test", {"this model": {"cider_d": cider_d}, **ROWS}))
    return console.file.getvalue()


@pytest.mark.parametrize(("cider_d", "unbeaten"), [(0.5, 2), (0.7, 2), (2.0, 1), (3.0, 0)])
def test_table_marks_baselines_that_are_not_beaten(cider_d, unbeaten):
    assert printed(cider_d).count("<- not beaten") == unbeaten
    assert len(baselines_above({"cider_d": cider_d}, ROWS, "cider_d")) == unbeaten
    assert (baseline_warning("it", {"cider_d": cider_d}, ROWS) is None) == (unbeaten == 0)


def test_without_a_score_nothing_is_said():
    assert baseline_warning("it", {"loss": 1.0}, ROWS) is None
    assert "not beaten" not in str(evaluation_table("val", {"this model": {"loss": 1.0}, **ROWS}))
