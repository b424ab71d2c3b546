"""The caption metrics one caption at a time, with counters and loops: the oracle of `metrics.captions`.

Written before the arrays of `metrics.reference_tables`, to be read beside the papers; 10 times as slow.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

NGrams = Counter[tuple[str, ...]]
ORDERS = 4
BETA = 1.2
SIGMA = 6.0


def ngram_counts(tokens: Sequence[str]) -> list[NGrams]:
    """Counts of the n-grams of ``tokens``; element n - 1 has those of order n, for n = 1 .. 4.

    >>> ngram_counts("a dog and a dog".split())[1][("a", "dog")]
    2
    """
    return [Counter(zip(*(tokens[i:] for i in range(n)), strict=False)) for n in range(1, ORDERS + 1)]


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


def lcs_length(a: Sequence[str], b: Sequence[str]) -> int:
    """Length of the longest common subsequence, in tokens, by Hyyro's (2004) bit-parallel algorithm.

    >>> lcs_length("a man rides a horse".split(), "a man on a brown horse".split())
    4
    """
    places: dict[str, int] = {}
    for i, token in enumerate(a):
        places[token] = places.get(token, 0) | 1 << i
    full = (1 << len(a)) - 1
    free = full  # a zero bit for every token of the subsequence found
    for token in b:
        hit = free & places.get(token, 0)
        free = ((free + hit) | (free - hit)) & full
    return len(a) - free.bit_count()


def rouge_l(candidate: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """ROUGE-L of one candidate in [0, 1]: F-measure of the best precision and the best recall over the references.

    As in coco-caption the two maxima may come from different references.

    >>> round(rouge_l("a man rides a horse".split(), ["a man on a brown horse".split()]), 4)
    0.7155
    """
    common = [lcs_length(reference, candidate) for reference in references]
    precision = max(common) / len(candidate)
    recall = max(n / len(reference) for n, reference in zip(common, references, strict=True))
    if precision == 0 or recall == 0:
        return 0.0
    return (1 + BETA**2) * precision * recall / (recall + BETA**2 * precision)


def document_frequencies(references: Sequence[Sequence[list[NGrams]]]) -> NGrams:
    """In the references of how many images each n-gram (of all orders) occurs."""
    return Counter(
        gram for image in references for gram in {gram for caption in image for order in caption for gram in order}
    )


@dataclass(frozen=True, slots=True)
class Vector:
    """TF-IDF weights of one caption per order, their norms, and its number of bigrams (CIDEr-D's length)."""

    weights: list[dict[tuple[str, ...], float]]
    norms: list[float]
    length: int


def tf_idf(counts: list[NGrams], idf: Mapping[tuple[str, ...], float], unseen: float) -> Vector:
    weights = [{gram: n * idf.get(gram, unseen) for gram, n in order.items()} for order in counts]
    norms = [math.sqrt(sum(w * w for w in order.values())) for order in weights]
    return Vector(weights, norms, sum(counts[1].values()))


def similarity(candidate: Vector, reference: Vector) -> float:
    """Clipped cosine similarity, averaged over the orders, times the Gaussian length penalty."""
    total = 0.0
    for own, theirs, norm, their_norm in zip(
        candidate.weights, reference.weights, candidate.norms, reference.norms, strict=True
    ):
        dot = sum(min(w, theirs[gram]) * theirs[gram] for gram, w in own.items() if gram in theirs)
        if norm and their_norm:
            total += dot / (norm * their_norm)
    delta = candidate.length - reference.length
    return total / ORDERS * math.exp(-(delta**2) / (2 * SIGMA**2))


def plain_rows(
    predictions: Mapping[str, str], references: Mapping[str, Sequence[str]], tokenize: Callable[[str], str]
) -> np.ndarray:
    """The statistics of one caption for each of some images, `(N, S)`."""
    texts = {image_id: [tokenize(caption) for caption in captions] for image_id, captions in references.items()}
    counts = {image_id: [ngram_counts(text.split()) for text in own] for image_id, own in texts.items()}
    unseen = math.log(len(texts))
    idf = {gram: unseen - math.log(n) for gram, n in document_frequencies(list(counts.values())).items()}
    rows = []
    for image_id, caption in predictions.items():
        text, own = tokenize(caption), texts[image_id]
        words = text.split()
        grams = ngram_counts(words)
        limits = [Counter() for _ in range(ORDERS)]
        for reference in counts[image_id]:
            limits = [limit | order for limit, order in zip(limits, reference, strict=True)]
        bleu = bleu_statistics(words, grams, [len(reference.split()) for reference in own], limits)
        vector = tf_idf(grams, idf, unseen)
        others = [tf_idf(reference, idf, unseen) for reference in counts[image_id]]
        cider = 10 * sum(similarity(vector, other) for other in others) / len(others)
        # coco-caption splits at white space for BLEU and CIDEr-D, but for ROUGE-L at blanks; "" is [""]
        rouge = rouge_l(text.split(" "), [reference.split(" ") for reference in own])
        rows.append([*bleu, rouge, cider])
    return np.array(rows, dtype=np.float64)
