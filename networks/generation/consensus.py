"""Minimum Bayes risk (MBR) reranking: choosing the caption of a search that agrees most with the others.

The most probable caption may be an outlier when several similar ones share the probability (Kumar and Byrne 2004). The
agreement of two captions is that of CIDEr-D (Vedantam et al. 2015) on token ids without document frequencies: the
cosine of clipped n-gram counts for n = 1 .. 4, times a Gaussian of the difference in length.

Captions of similar training images can be taken into account (see `networks.generation.retrieval`). The agreement with
them is corpus BLEU-4 (Papineni et al. 2002) of the caption against the captions of all retrieved images.

Letters: B images, K captions of each, L tokens of the longest one.
"""

import functools
import math
import operator
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from metrics.ngrams import bleu_from_sums, bleu_statistics, ngram_counts
from networks.generation.retrieval import RetrievedCaptions

_ORDERS = 4
_SIGMA = 6.0

Grams = list[Counter[tuple[int, ...]]]


def agreement(one: Sequence[int], other: Sequence[int]) -> float:
    """Agreement of two captions, in [0, 1]; 1 if they are equal and not empty.

    >>> round(agreement([5, 6, 7], [5, 6, 8]), 3), agreement([5, 6], [5, 6])
    (0.389, 1.0)
    """
    return _agreement(_grams(one), _grams(other), len(one) - len(other))


def consensus_order(
    token_ids: Tensor,
    log_prob: Tensor,
    lengths: Tensor,
    eos_id: int,
    retrieved: RetrievedCaptions | None = None,
    retrieval_weight: float = 0.0,
) -> Tensor:
    """Ranks captions by their expected agreement with a caption of the model.

    The model's distribution is taken to be that of the K captions alone.

    Args:
        token_ids: `(B, K, L)`, long.
        log_prob: natural log-probability of each caption, `(B, K)`; minus infinity where there is none.
        lengths: tokens of each, EOS included, `(B, K)`; 0 where there is none.
        eos_id: ignored in the comparison.
        retrieved: captions of similar training images, or None.
        retrieval_weight: weight of the agreement with them, in [0, 1]; one minus it is the weight of the expected
            agreement.

    Returns:
        `(B, K)`, long: indices of the captions from best to worst; ties in their order; missing ones last.
    """
    found = _captions_of(token_ids, log_prob, lengths, eos_id)
    scores: list[list[float]] = []
    for image, (captions, kept, weights) in enumerate(found):
        own = _expected(captions, kept, weights)
        if retrieved is not None:
            others = _retrieval_agreement(captions, retrieved, image)
            own = [
                (1 - retrieval_weight) * mine + retrieval_weight * theirs
                for mine, theirs in zip(own, others, strict=True)
            ]
        scores.append([score if length else -1.0 for score, length in zip(own, kept, strict=True)])
    return torch.tensor(scores, device=token_ids.device).argsort(dim=1, descending=True, stable=True)


def expected_agreement(token_ids: Tensor, log_prob: Tensor, lengths: Tensor, eos_id: int) -> list[float]:
    """Expected agreement of the first caption of each image with a caption of the model.

    Arguments as for `consensus_order`. It is in [0, 1], 1 when all captions are the same.

    Returns:
        One number for each image; 0 where there is no caption.
    """
    found = _captions_of(token_ids, log_prob, lengths, eos_id)
    return [max(0.0, _expected(captions[:1], kept[:1], weights)[0]) for captions, kept, weights in found]


def _captions_of(
    token_ids: Tensor, log_prob: Tensor, lengths: Tensor, eos_id: int
) -> Iterator[tuple[list[tuple[int, ...]], list[int], dict[tuple[int, ...], float]]]:
    """For each image its captions without EOS, their lengths with it, and the share of each different caption."""
    share = log_prob.float().softmax(dim=1).nan_to_num(0.0)
    for rows, shares, kept in zip(token_ids.tolist(), share.tolist(), lengths.tolist(), strict=True):
        captions = [
            tuple(token for token in row[:length] if token != eos_id) for row, length in zip(rows, kept, strict=True)
        ]
        weights: dict[tuple[int, ...], float] = {}
        for caption, weight in zip(captions, shares, strict=True):
            weights[caption] = weights.get(caption, 0.0) + weight
        yield captions, kept, weights


def _retrieval_agreement(captions: list[tuple[int, ...]], retrieved: RetrievedCaptions, image: int) -> list[float]:
    """BLEU-4 of each caption against the captions retrieved for an image, weighted by their share."""
    known: list[tuple[float, list[int], list[Counter[tuple[str, ...]]]]] = []
    for table, lengths, share in zip(
        retrieved.token_ids[image].tolist(),
        retrieved.lengths[image].tolist(),
        retrieved.share[image].tolist(),
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
            # the highest order that the caption has, so that a caption of three words can agree
            scores[caption] = float(bleu_from_sums(np.asarray(sums))[min(_ORDERS, max(1, len(words))) - 1])
    return [scores.get(caption, 0.0) for caption in captions]


def _expected(
    captions: list[tuple[int, ...]], lengths: list[int], weights: dict[tuple[int, ...], float]
) -> list[float]:
    """Expected agreement of each caption of an image; -1 where there is none."""
    candidates = [(_grams(other), len(other), weight) for other, weight in weights.items() if weight > 0]
    scores: dict[tuple[int, ...], float] = {}
    for caption in captions:
        if caption not in scores:
            own = _grams(caption)
            scores[caption] = sum(
                weight * _agreement(own, theirs, len(caption) - size) for theirs, size, weight in candidates
            )
    return [scores[caption] if length else -1.0 for caption, length in zip(captions, lengths, strict=True)]


def _grams(tokens: Sequence[int]) -> Grams:
    return [Counter(zip(*(tokens[start:] for start in range(order)), strict=False)) for order in range(1, _ORDERS + 1)]


def _agreement(one: Grams, other: Grams, difference: int) -> float:
    """Mean over the n-gram orders that at least one of the two has."""
    total, orders = 0.0, 0
    for mine, theirs in zip(one, other, strict=True):
        if not mine and not theirs:
            continue
        orders += 1
        # clipping: repeating an n-gram does not increase the agreement
        shared = sum(min(count, theirs[gram]) * theirs[gram] for gram, count in mine.items())
        norm = math.sqrt(sum(c * c for c in mine.values()) * sum(c * c for c in theirs.values()))
        total += shared / norm if norm else 0.0
    return total / orders * math.exp(-(difference**2) / (2 * _SIGMA**2)) if orders else 0.0
