"""Retrieval of captions by images, by hand."""

import math

import pytest
import torch

from metrics.retrieval import CodeRetrieval, recall_at


def test_recall_by_hand():
    similarity = torch.tensor([[0.1, 0.9, 0.5], [0.4, 0.3, 0.2], [0.0, 0.1, 0.2]])
    relevant = torch.tensor([[1, 0, 0], [1, 0, 1], [0, 0, 1]]).bool()
    # ranks of the best own caption: 3, 1, 1
    assert recall_at(similarity, relevant, (1, 2, 3)) == pytest.approx({1: 2 / 3, 2: 2 / 3, 3: 1.0})


def test_collapsed_codes_find_nothing():
    assert recall_at(torch.ones(4, 4), torch.eye(4).bool(), (1, 3, 4)) == {1: 0.0, 3: 0.0, 4: 1.0}


def test_images_without_captions_are_left_out():
    assert recall_at(torch.eye(2), torch.tensor([[True, False], [False, False]]), (1,)) == {1: 1.0}
    assert math.isnan(recall_at(torch.zeros(0, 3), torch.zeros(0, 3).bool(), (1,))[1])


def test_equal_captions_are_one_and_parts_make_the_whole():
    a, b, c = (1, 5, 2), (1, 6, 2), (1, 7, 2)
    metric = CodeRetrieval({"x": [a, b], "y": [b, c]}, 2)
    codes = {a: torch.tensor([1.0, 0.0]), b: torch.tensor([0.6, 0.8]), c: torch.tensor([0.0, 1.0])}
    x, y = torch.tensor([[0.5, 1.0]]), torch.tensor([[0.1, 9.0]])
    metric.update(["x"], x, [a, b], torch.stack([codes[a], codes[b]]))
    metric.update(["y"], y, [b, c], torch.stack([codes[b], codes[c]]))
    assert len(metric.codes()[2]) == 3
    assert metric.compute()["recall_at_1"] == 1.0
    # two processes, an image in both: the maximum joins them
    one, two = (CodeRetrieval({"x": [a, b], "y": [b, c]}, 2) for _ in range(2))
    one.update(["x"], x, [a, b], torch.stack([codes[a], codes[b]]))
    two.update(["x", "y"], torch.cat([x, y]), [a, b, b, c], torch.stack([codes[t] for t in (a, b, b, c)]))
    for state in ("images", "sentences"):
        joined = torch.maximum(getattr(one, state), getattr(two, state))
        assert torch.equal(joined, getattr(metric, state))
