"""The table of a test: a captioner below a floor is marked, one above all floors is not."""

import io

import pytest
from rich.console import Console

from callbacks.report import score_table
from datamodules.scenes.baselines import LANGUAGE_ONLY
from metrics.baselines.captions import BLIND, HUMAN, NEAREST, floor_warning, floors_above

BOUNDS = {NEAREST: {"bleu4": 0.6, "cider_d": 2.8}, LANGUAGE_ONLY: {"cider_d": 0.7}, HUMAN: {"cider_d": 3.8}}


def printed(cider_d):
    console = Console(file=io.StringIO(), width=120)
    console.print(score_table("test", {"this model": {"cider_d": cider_d}, **BOUNDS}))
    return console.file.getvalue()


@pytest.mark.parametrize(("cider_d", "unbeaten"), [(0.5, 2), (0.7, 2), (2.0, 1), (3.0, 0)])
def test_table_marks_floors_that_are_not_beaten(cider_d, unbeaten):
    assert printed(cider_d).count("<- not beaten") == unbeaten
    assert len(floors_above({"cider_d": cider_d}, BOUNDS)) == unbeaten
    assert (floor_warning("it", {"cider_d": cider_d}, BOUNDS) is None) == (unbeaten == 0)


def test_the_scenes_floor_is_one():
    assert LANGUAGE_ONLY == BLIND


def test_without_a_score_nothing_is_said():
    assert floor_warning("it", {"loss": 1.0}, BOUNDS) is None
    assert "not beaten" not in str(score_table("val", {"this model": {"loss": 1.0}, **BOUNDS}))
