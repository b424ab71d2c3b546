"""Choosing, among the captions that a search has found, the one that agrees most with the others.

Minimum Bayes risk decoding (Kumar and Byrne 2004): the most probable caption may be an odd one, when several similar
ones share the probability. The agreement of two captions is CIDEr-D's (Vedantam et al. 2015) on token ids and without
word weights: cosine of the clipped n-gram counts for n = 1 .. 4, times a Gaussian of the difference in length.

What others said of similar pictures can have a voice, too (see `networks.generation.retrieval`). A picture's captions
are then
taken together, as in an evaluation: the agreement with them is BLEU-4 (Papineni et al. 2002) of the caption, were it
said of all these pictures.

Letters: B images, K captions of each, L tokens of the longest one.
"""

import functools
import math
import operator
from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from metrics.captions import bleu_from_sums, bleu_statistics, ngram_counts
from networks.generation.retrieval import RetrievedCaptions

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
    evidence: RetrievedCaptions | None = None,
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
        evidence_share: weight of the likeness to them, in [0, 1]; the rest is the expected agreement's.

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
            weights[caption] = weights.get(caption, 0.0) + weight
        own = _expected(captions, kept, weights)
        if evidence is not None:
            said = _likeness(captions, evidence, image)
            own = [
                (1 - evidence_share) * mine + evidence_share * theirs for mine, theirs in zip(own, said, strict=True)
            ]
        scores.append([score if length else -1.0 for score, length in zip(own, kept, strict=True)])
    return torch.tensor(scores, device=token_ids.device).argsort(dim=1, descending=True, stable=True)


def _likeness(captions: list[tuple[int, ...]], evidence: RetrievedCaptions, image: int) -> list[float]:
    """BLEU-4 of each caption against the captions of pictures similar to one image, which count by their share."""
    known: list[tuple[float, list[int], list[Counter[tuple[str, ...]]]]] = []
    for table, lengths, share in zip(
        evidence.token_ids[image].tolist(),
        evidence.lengths[image].tolist(),
        evidence.share[image].tolist(),
        strict=True,
    ):
        counts = [ngram_counts([str(token) for token in row[:n]]) for row, n in zip(table, lengths, strict=True) if n]
        if counts:
            limits = [functools.reduce(operator.or_, orders) for orders in zip(*counts, strict=True)]
            known.append((share, [n for n in lengths if n], limits))
    scores: dict[tuple[int, ...], float] = {}
    for caption in captions:
        if known and caption not in scores:
            words = [str(token) for token in caption]
            own = ngram_counts(words)
            sums = sum(share * np.array(bleu_statistics(words, own, sizes, limits)) for share, sizes, limits in known)
            # the highest order that the caption has, so that one of three words can be like others
            scores[caption] = float(bleu_from_sums(np.asarray(sums))[min(_ORDERS, max(1, len(words))) - 1])
    return [scores.get(caption, 0.0) for caption in captions]


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
