"""Choosing, among the captions that a search has found, the one that agrees most with the others.

Minimum Bayes risk decoding (Kumar and Byrne 2004): the most probable caption may be an odd one, when several similar
ones share the probability. The agreement of two captions is CIDEr-D's (Vedantam et al. 2015) on token ids and without
word weights: cosine of the clipped n-gram counts for n = 1 .. 4, times a Gaussian of the difference in length.

What others said of similar pictures can have a voice, too (see `networks.neighbours`).

Letters: B images, K captions of each, L tokens of the longest one, E captions of similar pictures.
"""

import math
from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

from networks.neighbours import Evidence

_ORDERS = 4
_SIGMA = 6.0

Grams = list[Counter[tuple[int, ...]]]


def agreement(one: Sequence[int], other: Sequence[int]) -> float:
    """How much two captions say the same, in [0, 1]; 1 for equal ones that are not empty.

    >>> round(agreement([5, 6, 7], [5, 6, 8]), 3), agreement([5, 6], [5, 6])
    (0.389, 1.0)
    """
    return _agreement(_grams(one), _grams(other), len(one) - len(other))


def consensus_order(
    token_ids: Tensor,
    log_prob: Tensor,
    lengths: Tensor,
    eos_id: int,
    evidence: Evidence | None = None,
    evidence_share: float = 0.0,
) -> Tensor:
    """Ranks captions by their expected agreement with a caption of the model.

    The model's distribution is taken to be that of the K captions alone.

    Args:
        token_ids: `(B, K, L)`, long.
        log_prob: of each caption, natural log, `(B, K)`; minus infinity where there is none.
        lengths: tokens of each, EOS included, `(B, K)`; 0 where there is none.
        eos_id: left out of the comparison.
        evidence: captions of similar pictures, or None.
        evidence_share: their part of the expectation, in [0, 1]; the rest is the model's.

    Returns:
        `(B, K)`, long: the captions from best to worst; of equals, the earlier first; missing ones last.
    """
    share = log_prob.float().softmax(dim=1).nan_to_num(0.0)
    scores: list[list[float]] = []
    for image, (rows, shares, kept) in enumerate(
        zip(token_ids.tolist(), share.tolist(), lengths.tolist(), strict=True)
    ):
        captions = [
            tuple(token for token in row[:length] if token != eos_id) for row, length in zip(rows, kept, strict=True)
        ]
        weights: dict[tuple[int, ...], float] = {}
        for caption, weight in zip(captions, shares, strict=True):
            weights[caption] = weights.get(caption, 0.0) + weight * (1 - evidence_share)
        if evidence is not None:
            _add(weights, evidence, image, evidence_share)
        scores.append(_expected(captions, kept, weights))
    return torch.tensor(scores, device=token_ids.device).argsort(dim=1, descending=True, stable=True)


def _add(weights: dict[tuple[int, ...], float], evidence: Evidence, image: int, part: float) -> None:
    """Adds the captions of pictures similar to one image."""
    for row, length, weight in zip(
        evidence.token_ids[image].tolist(),
        evidence.lengths[image].tolist(),
        evidence.share[image].tolist(),
        strict=True,
    ):
        if length:
            caption = tuple(row[:length])
            weights[caption] = weights.get(caption, 0.0) + weight * part


def _expected(
    captions: list[tuple[int, ...]], lengths: list[int], weights: dict[tuple[int, ...], float]
) -> list[float]:
    """Expected agreement of each caption of an image; -1 where there is none."""
    voices = [(_grams(other), len(other), weight) for other, weight in weights.items() if weight > 0]
    scores: dict[tuple[int, ...], float] = {}
    for caption in captions:
        if caption not in scores:
            own = _grams(caption)
            scores[caption] = sum(
                weight * _agreement(own, theirs, len(caption) - size) for theirs, size, weight in voices
            )
    return [scores[caption] if length else -1.0 for caption, length in zip(captions, lengths, strict=True)]


def _grams(tokens: Sequence[int]) -> Grams:
    return [Counter(zip(*(tokens[start:] for start in range(order)), strict=False)) for order in range(1, _ORDERS + 1)]


def _agreement(one: Grams, other: Grams, difference: int) -> float:
    """Mean over the orders that one of the two has."""
    total, orders = 0.0, 0
    for mine, theirs in zip(one, other, strict=True):
        if not mine and not theirs:
            continue
        orders += 1
        # clipping takes from a caption what it only has by repeating itself
        shared = sum(min(count, theirs[gram]) * theirs[gram] for gram, count in mine.items())
        norm = math.sqrt(sum(c * c for c in mine.values()) * sum(c * c for c in theirs.values()))
        total += shared / norm if norm else 0.0
    return total / orders * math.exp(-(difference**2) / (2 * _SIGMA**2)) if orders else 0.0
