"""Baselines that are not beaten are named, of captioners and of classifiers."""

import pytest

from metrics.baselines.flags import baseline_warning, baselines_above, flagged, unbeaten
from metrics.baselines.rows import (
    BASELINES,
    CONSTANT,
    HUMAN,
    LOWER,
    NEAREST,
    PREDICTED_CLASS,
    PRIOR,
    UPPER,
    UPPER_BOUNDS,
    WORD_REGRESSION,
)

LABELS = {PRIOR: {"macro_ap": 0.14, "top1": 0.7}, WORD_REGRESSION: {"macro_ap": 0.2, "top1": 0.7}}


def test_a_row_is_a_baseline_or_an_upper_bound():
    assert not set(LOWER) & set(UPPER)
    assert len(set(LOWER + UPPER)) == len(LOWER) + len(UPPER)


def test_captioners():
    rows = {row: {"cider_d": float(place)} for place, row in enumerate((*BASELINES, *UPPER_BOUNDS))}
    assert baselines_above({"cider_d": 6.5}, rows, "cider_d") == [PREDICTED_CLASS, NEAREST]
    assert baselines_above({"cider_d": 99.0}, rows, "cider_d") == []
    assert unbeaten({"cider_d": 7.0, "macro_ap": 0.1}, rows) == ("cider_d", [PREDICTED_CLASS, NEAREST])


@pytest.mark.parametrize(
    ("macro_ap", "expected"),
    [(0.1, [WORD_REGRESSION, PRIOR]), (0.2, [WORD_REGRESSION]), (float("nan"), [WORD_REGRESSION, PRIOR]), (0.3, [])],
)
def test_classifiers(macro_ap, expected):
    assert baselines_above({"macro_ap": macro_ap}, LABELS, "macro_ap") == expected  # equal is not better


def test_top1_is_held_against_the_prior():
    assert baseline_warning("it", {"macro_ap": 0.3, "top1": 0.7}, LABELS) is None
    warning = baseline_warning("it", {"macro_ap": 0.3, "top1": 0.6}, LABELS)
    assert warning == "BELOW A BASELINE: top1 0.600 of it does not beat label prior 0.700"


def test_without_the_metric_nothing_is_flagged():
    assert baseline_warning("it", {"bleu4": 0.3}, LABELS) is None
    assert flagged({"it": {"loss": 1.0}}, {CONSTANT: {"cider_d": 1.0}, HUMAN: {"cider_d": 3.0}}) == {}
