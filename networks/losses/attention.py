"""Losses on attention weights.

Letters: N captions, T tokens of the longest one, R regions, P words that name an object.
"""

from torch import Tensor


def doubly_stochastic_penalty(attention: Tensor, caption_lengths: Tensor) -> Tensor:
    """How unevenly captions spread their attention over the regions (Xu et al. 2015).

    Mean over captions of ``sum_r (tau - sum_t p_tr)^2`` with ``tau`` = steps / regions. The paper has 1 for ``tau``,
    which only adds a constant, because the attention of a caption sums to its number of steps either way.

    Args:
        attention: `(N, T - 1, R)`, zero after a caption's end.
        caption_lengths: tokens with BOS and EOS, `(N,)`.

    >>> import torch
    >>> doubly_stochastic_penalty(torch.tensor([[[1.0, 0.0], [0.0, 1.0]]]), torch.tensor([3])).item()
    0.0
    """
    even = (caption_lengths - 1).unsqueeze(1) / attention.shape[2]  # (N, 1)
    return (even - attention.float().sum(1)).square().sum(1).mean()


def supervision_loss(weights: Tensor, inside: Tensor) -> Tensor:
    """Negative log of the attention on the object being named, mean over the words that name an object.

    Args:
        weights: attention at these words, `(P, R)`.
        inside: regions of the object that each names, `(P, R)`, bool.

    Returns:
        A scalar; 0 when P is 0.
    """
    if not len(weights):
        return weights.sum()  # zero, but part of the graph
    return -(weights.float() * inside).sum(1).clamp_min(1e-6).log().mean()
