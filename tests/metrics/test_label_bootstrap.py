"""Paired bootstrap of classifiers."""

import numpy as np
import pytest

from core.errors import UserError
from metrics.label_bootstrap import SCORES, paired_label_bootstrap
from metrics.labels import label_scores


@pytest.fixture
def systems():
    random = np.random.default_rng(0)
    targets = random.random((80, 5)) < 0.3
    good = np.clip(targets + random.normal(0, 0.4, targets.shape), 0, 1)
    bad = np.clip(targets + random.normal(0, 2.0, targets.shape), 0, 1)
    return bad, good, targets


def test_scores_are_those_of_the_table(systems):
    bad, good, targets = systems
    found = paired_label_bootstrap(bad, good, targets, thresholds=(0.4, 0.6), samples=20)
    first, second = label_scores(bad, targets, 0.4), label_scores(good, targets, 0.6)
    for name in SCORES:
        assert (found[name].a, found[name].b) == pytest.approx((first[name], second[name]))
        assert found[name].difference == pytest.approx(second[name] - first[name])


def test_better_is_found_and_equal_is_not(systems):
    bad, good, targets = systems
    better = paired_label_bootstrap(bad, good, targets, samples=200)["macro_ap"]
    assert better.low > 0
    assert better.p == pytest.approx(2 / 201)
    equal = paired_label_bootstrap(good, good, targets, samples=200)["macro_ap"]
    assert (equal.difference, equal.low, equal.high, equal.p) == (0, 0, 0, 1)


def test_interval_is_that_of_a_loop_written_out(systems):
    bad, good, targets = systems
    found = paired_label_bootstrap(bad, good, targets, samples=50, seed=3)["top1"]
    random, differences = np.random.default_rng(3), []
    for _ in range(50):
        rows = random.integers(0, 80, 80)
        scores = [label_scores(system[rows], targets[rows])["top1"] for system in (bad, good)]
        differences.append(scores[1] - scores[0])
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(differences, [0.025, 0.975])))


def test_runs_are_averaged(systems):
    bad, good, targets = systems
    once = paired_label_bootstrap(bad, good, targets, samples=50)
    assert paired_label_bootstrap([bad, bad], [good, good], targets, samples=50) == once
    mixed = paired_label_bootstrap([bad, good], [good, bad], targets, samples=50)["macro_ap"]
    assert (mixed.difference, mixed.low, mixed.high) == pytest.approx((0, 0, 0))
    own = paired_label_bootstrap([bad, bad[:40]], [good, good[:40]], [targets, targets[:40]], samples=50)["macro_ap"]
    mean = (label_scores(bad, targets)["macro_ap"] + label_scores(bad[:40], targets[:40])["macro_ap"]) / 2
    assert own.a == pytest.approx(mean)


def test_rare_label_does_not_spoil_the_interval(systems):
    bad, good, targets = systems
    targets = targets.copy()
    targets[:, 0] = False
    targets[0, 0] = True  # a third of the draws lack it
    found = paired_label_bootstrap(bad, good, targets, samples=100)
    assert all(np.isfinite([score.low, score.high]).all() for score in found.values())


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"samples": 0}, "samples=0"),
        ({"confidence": 1.0}, "confidence=1.0"),
        ({"b": np.zeros((80, 4))}, "shape"),
        ({"b": [np.zeros((80, 5))] * 2}, "1, 2 and 1 runs"),
    ],
)
def test_wrong_arguments(systems, change, expected):
    bad, good, targets = systems
    with pytest.raises(UserError, match=expected.replace("(", r"\(")):
        paired_label_bootstrap(**{"a": bad, "b": good, "targets": targets, **change})
