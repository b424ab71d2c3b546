"""The torchmetrics class: exact when its states are joined, whatever the processes saw."""

import math

import pytest
import torch

from core.errors import UserError
from metrics.caption_metrics import CaptionMetrics
from metrics.captions import SCORES, score_captions
from tests.metrics.test_captions import corpus

PREDICTIONS, REFERENCES = corpus(11, images=24)


def metric_over(image_ids, batch=5):
    metric = CaptionMetrics(REFERENCES)
    for start in range(0, len(image_ids), batch):
        part = image_ids[start : start + batch]
        metric.update(part, [PREDICTIONS[i] for i in part])
    return metric


def test_is_the_pure_function_in_batches_and_any_order():
    ids = list(PREDICTIONS)
    expected = score_captions(PREDICTIONS, REFERENCES)
    for order in (ids, ids[::-1], ids + ids[3:9]):
        scores = metric_over(order).compute()
        assert set(scores) == set(SCORES)
        assert {k: v.item() for k, v in scores.items()} == pytest.approx(expected, rel=1e-6)


def test_two_processes_joined_by_max_are_one_process_bit_for_bit():
    ids = list(PREDICTIONS)
    # 24 images over 2 processes with 3 duplicates, as a distributed sampler pads
    first, second = metric_over(ids[:14]), metric_over(ids[11:])
    alone = metric_over(ids)
    reduction = alone._reductions["rows"]
    joined = CaptionMetrics(REFERENCES)
    joined.rows = reduction(torch.stack([first.rows, second.rows]))
    joined._update_count = 1
    assert torch.equal(joined.rows, alone.rows)
    assert all(torch.equal(joined.compute()[name], alone.compute()[name]) for name in SCORES)


def test_images_not_scored_do_not_count_and_reset_forgets():
    metric = metric_over(["0", "1"])
    part = {i: PREDICTIONS[i] for i in ("0", "1")}
    assert metric.compute()["cider_d"].item() == pytest.approx(score_captions(part, REFERENCES)["cider_d"], rel=1e-6)
    assert metric.image_scores().image_ids == ["0", "1"]
    metric.reset()
    metric.update([], [])
    assert all(math.isnan(value) for value in metric.compute().values())


def test_last_caption_of_an_image_counts():
    metric = CaptionMetrics(REFERENCES)
    metric.update(["0", "1"], ["zebra zebra", PREDICTIONS["1"]])
    metric.update(["0"], [PREDICTIONS["0"]])
    assert torch.equal(metric.rows, metric_over(["0", "1"]).rows)


def test_counts_stay_exact_when_the_module_changes_its_precision():
    metric = torch.nn.ModuleDict({"val": metric_over(list(PREDICTIONS))}).half()["val"]
    assert metric.rows.dtype == torch.float64


def test_mistakes_are_named():
    metric = CaptionMetrics(REFERENCES)
    with pytest.raises(UserError, match="image 'nobody' is not among the 24 images"):
        metric.update(["nobody"], ["a dog"])
    with pytest.raises(ValueError, match="2 image ids for 1 captions"):
        metric.update(["0", "1"], ["a dog"])


def test_state_is_not_in_checkpoints():
    assert not CaptionMetrics(REFERENCES).state_dict()
