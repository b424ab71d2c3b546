"""Means of losses."""

from torchmetrics import MeanMetric


def loss_metric() -> MeanMetric:
    """Mean of a loss over an epoch; a loss that is no number must show."""
    return MeanMetric(nan_strategy=float("nan"))
