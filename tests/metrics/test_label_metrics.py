"""The metric class: each image counts once, however many processes saw it."""

import numpy as np
import pytest
import torch

from core.errors import UserError
from metrics.label_metrics import LabelMetrics
from metrics.labels import choose_threshold, label_scores

TARGETS = {f"{place}.jpg": tuple(map(float, row)) for place, row in enumerate(np.eye(4)[[0, 1, 2, 3, 1, 0, 2]])}
PROBABILITIES = torch.rand(7, 4, generator=torch.Generator().manual_seed(1))


def test_batches_make_no_difference():
    metric = LabelMetrics(TARGETS, threshold=0.4, prior=[0.3] * 4)
    for rows in torch.arange(7).split(3):
        metric.update([f"{row}.jpg" for row in rows.tolist()], PROBABILITIES[rows])
    expected = label_scores(PROBABILITIES.numpy(), list(TARGETS.values()), 0.4, [0.3] * 4)
    found = {name: value.item() for name, value in metric.compute().items()}
    assert found.pop("threshold") == pytest.approx(0.4)
    assert found == pytest.approx(expected, rel=1e-6)


def test_an_image_given_to_two_processes_counts_once():
    alone, *parts = (LabelMetrics(TARGETS, threshold=None) for _ in range(3))
    alone.update(list(TARGETS), PROBABILITIES)
    for part, rows in zip(parts, ([0, 2, 4, 6], [1, 3, 5, 0]), strict=True):  # the sampler fills up with the first
        part.update([f"{row}.jpg" for row in rows], PROBABILITIES[rows])
    parts[0].rows = torch.maximum(parts[0].rows, parts[1].rows)  # what torchmetrics does with dist_reduce_fx="max"
    assert parts[0]._reductions["rows"] is torch.max or parts[0]._reductions["rows"].__name__ == "dim_zero_max"
    joined, expected = parts[0].compute(), alone.compute()
    assert all(torch.equal(joined[name], expected[name]) or joined[name].isnan() for name in expected)


def test_threshold_is_chosen_where_none_is_given():
    metric = LabelMetrics(TARGETS, threshold=None)
    metric.update(list(TARGETS), PROBABILITIES)
    expected = choose_threshold(PROBABILITIES.numpy(), list(TARGETS.values()))
    assert metric.compute()["threshold"].item() == pytest.approx(expected)


def test_images_not_seen_yet_do_not_count():
    metric = LabelMetrics(TARGETS)
    metric.update(["3.jpg"], torch.tensor([[0.0, 0.0, 0.0, 0.9]]))
    assert metric.scored().image_ids == ["3.jpg"]
    assert metric.compute()["top1"] == 1
    assert metric.compute()["labels_without_positives"] == 3


@pytest.mark.parametrize(
    ("targets", "said"), [({}, "no labels"), ({"a": ()}, "no labels"), ({"a": (1.0,), "b": (1.0, 0.0)}, "1 or 2")]
)
def test_images_must_have_labels(targets, said):
    with pytest.raises(UserError, match=said):
        LabelMetrics(targets)


def test_strangers_and_diverged_models_are_refused():
    metric = LabelMetrics(TARGETS)
    with pytest.raises(UserError, match=r"'x\.jpg' has no labels"):
        metric.update(["x.jpg"], PROBABILITIES[:1])
    with pytest.raises(UserError, match="diverged"):
        metric.update(["0.jpg"], PROBABILITIES[:1] / 0 * 0)
