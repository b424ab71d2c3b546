"""N-grams of one caption, BLEU's counts, and the longest common subsequence of two captions, in plain Python.

Papers: BLEU, Papineni et al. 2002 (with the reference length closest to the candidate's); ROUGE-L, Lin 2004, with
beta = 1.2. Many captions at once are scored by `metrics.captions`.
"""

from collections import Counter
from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

NGrams = Counter[tuple[str, ...]]

ORDERS = 4
"""Longest n-gram, in tokens, of BLEU and CIDEr-D."""


def ngram_counts(tokens: Sequence[str]) -> list[NGrams]:
    """Counts of the n-grams of ``tokens``; element n - 1 has those of order n, for n = 1 .. 4.

    >>> ngram_counts("a dog and a dog".split())[1][("a", "dog")]
    2
    """
    return [Counter(zip(*(tokens[i:] for i in range(n)), strict=False)) for n in range(1, ORDERS + 1)]


def different_ngrams(tokens: Sequence[str]) -> list[set[tuple[str, ...]]]:
    """The n-grams of ``tokens`` without their counts, orders 1 to 4 as far as there are any.

    >>> sorted(different_ngrams("a dog and a dog".split())[3])
    [('a', 'dog', 'and', 'a'), ('dog', 'and', 'a', 'dog')]
    """
    return [set(zip(*(tokens[i:] for i in range(n)), strict=False)) for n in range(1, min(ORDERS, len(tokens)) + 1)]


def bleu_statistics(
    candidate: Sequence[str], counts: list[NGrams], reference_lengths: Sequence[int], limits: list[NGrams]
) -> list[float]:
    """BLEU's part of a row: closest reference length, guessed n-grams per order, correct n-grams per order.

    Args:
        candidate: Tokens of the candidate.
        counts: Its n-grams, from `ngram_counts`.
        reference_lengths: Length of every reference, in tokens; of two equally close ones the shorter counts.
        limits: Per order, the highest count of every n-gram in one reference.
    """
    length = len(candidate)
    closest = min((abs(n - length), n) for n in reference_lengths)[1]
    guess = [max(0, length - n) for n in range(ORDERS)]
    correct = [sum(min(c, limit.get(g, 0)) for g, c in own.items()) for own, limit in zip(counts, limits, strict=True)]
    return [float(closest), *map(float, guess), *map(float, correct)]


def bleu_from_sums(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """BLEU-1..4 from summed rows ``(..., S)``, S = len(STATISTICS); returns ``(..., 4)`` in [0, 1].

    Not smoothed, but for coco-caption's 1e-15 in the numerator and 1e-9 in the denominator, which keep a corpus without
    any correct n-gram defined; given one row, the result is that image's own BLEU.
    """
    reflen, guess, correct = sums[..., 0], sums[..., 1:5], sums[..., 5:9]
    product = np.cumprod((correct + 1e-15) / (guess + 1e-9), axis=-1)
    ratio = (guess[..., 0] + 1e-15) / (reflen + 1e-9)
    with np.errstate(over="ignore", divide="ignore"):  # an empty candidate: 1 / ratio is huge and the penalty 0
        penalty = np.where(ratio < 1, np.exp(1 - 1 / ratio), 1.0)
    result: NDArray[np.float64] = product ** (1 / np.arange(1, ORDERS + 1)) * penalty[..., None]
    return result


def lcs_length(a: Sequence[Hashable], b: Sequence[Hashable]) -> int:
    """Length of the longest common subsequence, in tokens, by Hyyro's (2004) bit-parallel algorithm.

    >>> lcs_length("a man rides a horse".split(), "a man on a brown horse".split())
    4
    """
    places: dict[Hashable, int] = {}
    for i, token in enumerate(a):
        places[token] = places.get(token, 0) | 1 << i
    full = (1 << len(a)) - 1
    free = full  # a zero bit for every token of the subsequence found
    for token in b:
        hit = free & places.get(token, 0)
        free = ((free + hit) | (free - hit)) & full
    return len(a) - free.bit_count()
