"""Cross-entropy of tokens.

Letters: M scored tokens, V vocabulary.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable


def token_loss(logits: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Cross-entropy, mean over tokens (natural log): ``F.cross_entropy`` with less memory for large vocabularies.

    With 50,000 tokens the logits are the largest tensor of a step. The softmax is computed a few rows at a time and
    again in the backward pass, so that only the logits and their gradient are ever held. Sums are computed in float32
    whatever the dtype of the logits. Second derivatives are not supported.

    Args:
        logits: unnormalised scores at the real positions, `(M, V)`, as in `CaptionOutput`.
        targets: tokens, `(M,)`, long in [0, V); without padding.
        label_smoothing: share of the target's probability spread evenly over the vocabulary, in [0, 1).

    Returns:
        A scalar, float32; 0 if there are no tokens.

    >>> round(token_loss(torch.zeros(3, 8), torch.tensor([0, 5, 7])).item(), 4)  # log 8
    2.0794
    """
    if len(targets) == 0:
        return logits.float().sum()  # zero, but part of the graph
    loss: Tensor = _TokenLoss.apply(logits, targets, label_smoothing)
    return loss


class _TokenLoss(Function):
    """The loss of `token_loss` and its gradient."""

    ROWS = 64  # fits the processor's cache and needs few calls

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor, smoothing: float) -> Tensor:
        """Loss of M tokens."""
        normalisers = torch.cat([rows.float().logsumexp(dim=1) for rows in torch.split(logits, _TokenLoss.ROWS)])
        chosen = logits.gather(1, targets.unsqueeze(1)).squeeze(1).float()
        losses = normalisers - (1 - smoothing) * chosen
        if smoothing:
            losses -= smoothing * logits.mean(dim=1, dtype=torch.float32)
        ctx.save_for_backward(logits, targets, normalisers)
        ctx.smoothing = smoothing
        return losses.mean()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        """(softmax - smoothed target) / M."""
        logits, targets, normalisers = ctx.saved_tensors
        gradient = torch.empty_like(logits)
        scale = grad / len(targets)
        for start in range(0, len(targets), _TokenLoss.ROWS):
            rows = slice(start, start + _TokenLoss.ROWS)
            part = (logits[rows].float() - normalisers[rows].unsqueeze(1)).exp_()
            if ctx.smoothing:
                part -= ctx.smoothing / logits.shape[1]
            chosen = targets[rows].unsqueeze(1)
            part.scatter_add_(1, chosen, part.new_full(chosen.shape, ctx.smoothing - 1))
            gradient[rows] = part.mul_(scale)
        return gradient, None, None
