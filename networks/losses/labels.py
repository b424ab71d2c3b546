"""Losses of multi-label classification.

Letters: M scored rows, C labels.
"""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor

LabelLoss = Literal["bce", "balanced_bce"]

_RAREST = 0.01
"""Bounds of the frequencies that labels are balanced by, this and one minus this: a label seen twice must not outweigh
all others."""


def label_loss(logits: Tensor, targets: Tensor, prior: Tensor | None = None) -> Tensor:
    """Binary cross-entropy, mean over rows and labels (natural log); 0 if there are no rows.

    Args:
        logits: `(M, C)`.
        targets: `(M, C)` in [0, 1]; values between are soft targets.
        prior: frequency of every label in training, `(C,)`; balances each label: its positives weigh as much as its
            negatives, ``1 / (2 p)`` and ``1 / (2 (1 - p))``, so that the mean weight stays 1. None: plain.
    """
    if not len(logits):
        return logits.float().sum()  # zero, but part of the graph
    logits, targets = logits.float(), targets.float()
    if prior is None:
        return F.binary_cross_entropy_with_logits(logits, targets)
    share = prior.float().clamp(_RAREST, 1 - _RAREST)
    positive, negative = targets * F.softplus(-logits), (1 - targets) * F.softplus(logits)
    return (positive / (2 * share) + negative / (2 * (1 - share))).mean()
