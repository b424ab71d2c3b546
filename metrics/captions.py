"""Caption metrics as coco-caption computes them: corpus BLEU-1..4, ROUGE-L and CIDEr-D, without torch.

Every caption is reduced to one row of numbers (`STATISTICS`). All corpus scores are functions of the *sum* of the rows,
so they can be added up over batches, gathered over machines and resampled (`metrics.bootstrap`) without scoring again.

Papers: BLEU, Papineni et al. 2002 (with the reference length closest to the candidate's); ROUGE-L, Lin 2004, with
beta = 1.2; CIDEr-D, Vedantam et al. 2015, with sigma = 6 and the factor 10. coco-caption prints CIDEr-D as "CIDEr".
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from core.errors import UserError
from metrics.tokenize import tokenize_caption

Rows = NDArray[np.float64]
Tokenizer = Callable[[str], str]
NGrams = Counter[tuple[str, ...]]

ORDERS = 4
"""Longest n-gram, in tokens, of BLEU and CIDEr-D."""
STATISTICS = (
    "reflen",
    *(f"guess{n}" for n in range(1, 5)),
    *(f"correct{n}" for n in range(1, 5)),
    "rouge_l",
    "cider_d",
)
"""Columns of a row: closest reference length; n-grams of the candidate, and those of them found (clipped), per order;
ROUGE-L in [0, 1] and CIDEr-D in [0, 10] of this image."""
_BETA = 1.2
_SIGMA = 6.0


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


def bleu_from_sums(sums: Rows) -> Rows:
    """BLEU-1..4 from summed rows ``(..., S)``, S = len(STATISTICS); returns ``(..., 4)`` in [0, 1].

    Not smoothed, but for coco-caption's 1e-15 in the numerator and 1e-9 in the denominator, which keep a corpus without
    any correct n-gram defined; given one row, the result is that image's own BLEU.
    """
    reflen, guess, correct = sums[..., 0], sums[..., 1:5], sums[..., 5:9]
    product = np.cumprod((correct + 1e-15) / (guess + 1e-9), axis=-1)
    ratio = (guess[..., 0] + 1e-15) / (reflen + 1e-9)
    with np.errstate(over="ignore", divide="ignore"):  # an empty candidate: 1 / ratio is huge and the penalty 0
        penalty = np.where(ratio < 1, np.exp(1 - 1 / ratio), 1.0)
    result: Rows = product ** (1 / np.arange(1, ORDERS + 1)) * penalty[..., None]
    return result


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
    return (1 + _BETA**2) * precision * recall / (recall + _BETA**2 * precision)


def document_frequencies(references: Sequence[Sequence[list[NGrams]]]) -> NGrams:
    """In the references of how many images each n-gram (of all orders) occurs."""
    return Counter(
        gram for image in references for gram in {gram for caption in image for order in caption for gram in order}
    )


@dataclass(frozen=True, slots=True)
class _Vector:
    """TF-IDF weights of one caption per order, their norms, and its number of bigrams (CIDEr-D's length)."""

    weights: list[dict[tuple[str, ...], float]]
    norms: list[float]
    length: int


def _vector(counts: list[NGrams], idf: Mapping[tuple[str, ...], float], unseen: float) -> _Vector:
    weights = [{gram: n * idf.get(gram, unseen) for gram, n in order.items()} for order in counts]
    norms = [math.sqrt(sum(w * w for w in order.values())) for order in weights]
    return _Vector(weights, norms, sum(counts[1].values()))


def _similarity(candidate: _Vector, reference: _Vector) -> float:
    """Clipped cosine similarity, averaged over the orders, times the Gaussian length penalty."""
    total = 0.0
    for own, theirs, norm, their_norm in zip(
        candidate.weights, reference.weights, candidate.norms, reference.norms, strict=True
    ):
        dot = sum(min(w, theirs[gram]) * theirs[gram] for gram, w in own.items() if gram in theirs)
        if norm and their_norm:
            total += dot / (norm * their_norm)
    delta = candidate.length - reference.length
    return total / ORDERS * math.exp(-(delta**2) / (2 * _SIGMA**2))


@dataclass(slots=True)
class _Image:
    """The prepared references of one image; vectors are made when the image is first scored."""

    words: list[list[str]]
    pieces: list[list[str]]
    counts: list[list[NGrams]]
    limits: list[NGrams] | None = None
    vectors: list[_Vector] | None = None


class References:
    """The references of a data set, prepared once for scoring any number of captions.

    CIDEr-D's document frequencies come from all the references given, so the score of a caption does not depend on
    which others are scored. With a single image every weight is log(1 / 1) = 0, and so is CIDEr-D.

    Args:
        references: Image id to its references, one or more each.
        tokenize: Text to tokens joined by blanks. The default gives COCO's tokens; use ``str.strip`` for text that is
            tokenised already.

    Raises:
        UserError: No image, or an image without references.
    """

    def __init__(self, references: Mapping[str, Sequence[str]], tokenize: Tokenizer = tokenize_caption) -> None:
        if not references:
            raise UserError("no references: expected at least one image with one reference caption")
        self._tokenize = tokenize
        self._images = {image_id: self._prepare(image_id, captions) for image_id, captions in references.items()}
        self._unseen = math.log(len(self._images))
        frequencies = document_frequencies([image.counts for image in self._images.values()])
        self._idf = {gram: self._unseen - math.log(n) for gram, n in frequencies.items()}

    def _prepare(self, image_id: str, captions: Sequence[str]) -> _Image:
        if isinstance(captions, str) or not captions:
            raise UserError(f"image {image_id!r} has no list of references: expected one caption or more")
        texts = [self._tokenize(caption) for caption in captions]
        words = [text.split() for text in texts]
        # coco-caption splits at white space for BLEU and CIDEr-D, but for ROUGE-L at blanks: "3\u00a01/2"; "" is [""]
        return _Image(words, [text.split(" ") for text in texts], [ngram_counts(w) for w in words])

    @property
    def image_ids(self) -> list[str]:
        """Ids of all images, in the order given."""
        return list(self._images)

    def row(self, image_id: str, caption: str) -> list[float]:
        """The statistics (see `STATISTICS`) of one caption of one image.

        Raises:
            UserError: The image has no references here.
        """
        image = self._images.get(image_id)
        if image is None:
            raise UserError(f"image {image_id!r} is not among the {len(self._images)} images that have references")
        if image.vectors is None or image.limits is None:
            image.vectors = [_vector(counts, self._idf, self._unseen) for counts in image.counts]
            image.limits = [_highest(orders) for orders in zip(*image.counts, strict=True)]
        text = self._tokenize(caption)
        words = text.split()
        counts = ngram_counts(words)
        own = _vector(counts, self._idf, self._unseen)
        cider = 10 * sum(_similarity(own, vector) for vector in image.vectors) / len(image.vectors)
        bleu = bleu_statistics(words, counts, [len(reference) for reference in image.words], image.limits)
        return [*bleu, rouge_l(text.split(" "), image.pieces), cider]

    def score(self, predictions: Mapping[str, str]) -> "ImageScores":
        """The statistics of one caption for each of some images.

        Raises:
            UserError: No prediction, or one for an unknown image.
        """
        if not predictions:
            raise UserError("no predictions: expected a caption for at least one image")
        rows = np.array([self.row(image_id, caption) for image_id, caption in predictions.items()], dtype=np.float64)
        return ImageScores(list(predictions), rows)


def _highest(counts: Sequence[NGrams]) -> NGrams:
    highest: NGrams = Counter()
    for reference in counts:
        highest |= reference
    return highest


@dataclass(frozen=True, slots=True)
class ImageScores:
    """What is known of every scored image.

    Attributes:
        image_ids: Ids of the N images.
        rows: ``(N, S)`` statistics, S = len(STATISTICS), float64.
    """

    image_ids: list[str]
    rows: Rows

    def corpus(self) -> dict[str, float]:
        """Scores of all images together, keyed by `SCORES`."""
        return corpus_scores(self.rows)

    def table(self) -> dict[str, Rows]:
        """Scores of each image by itself: `SCORES` to ``(N,)`` arrays. Their mean is not corpus BLEU."""
        values = scores_of_sums(self.rows, np.ones(len(self.rows)))
        return {name: values[:, i] for i, name in enumerate(SCORES)}


_OF_SUMS: tuple[tuple[tuple[str, ...], Callable[[Rows, Rows], Rows]], ...] = (
    (("bleu1", "bleu2", "bleu3", "bleu4"), lambda sums, count: bleu_from_sums(sums)),  # no mean
    (("rouge_l", "cider_d"), lambda sums, count: sums[..., 9:11] / count[..., None]),
)
"""Keys of scores, and how they follow from summed rows ``(..., S)`` and the number of images ``(...)``: a metric of
captions is one line here, and one in `metrics.names`."""

SCORES = tuple(key for keys, _ in _OF_SUMS for key in keys)
"""Keys of the scores, in the order of printing."""


def scores_of_sums(sums: Rows, count: Rows) -> Rows:
    """Summed rows ``(..., S)`` over ``count`` ``(...)`` images to scores ``(..., K)`` in the order of `SCORES`."""
    return np.concatenate([score(sums, count) for _, score in _OF_SUMS], axis=-1)


def corpus_scores(rows: Rows) -> dict[str, float]:
    """Corpus scores, keyed by `SCORES`, of rows ``(N, S)``; all are NaN where N is 0."""
    if len(rows) == 0:
        return dict.fromkeys(SCORES, math.nan)
    values = scores_of_sums(rows.sum(axis=0), np.array(float(len(rows))))
    return dict(zip(SCORES, values.tolist(), strict=True))


def score_images(
    predictions: Mapping[str, str],
    references: Mapping[str, Sequence[str]],
    tokenize: Tokenizer = tokenize_caption,
) -> ImageScores:
    """Score each image; see `score_captions`."""
    return References(references, tokenize).score(predictions)


def score_captions(
    predictions: Mapping[str, str],
    references: Mapping[str, Sequence[str]],
    tokenize: Tokenizer = tokenize_caption,
) -> dict[str, float]:
    """BLEU-1..4, ROUGE-L and CIDEr-D of one caption per image against all references of that image.

    Images without a prediction do not count, but their references do in CIDEr-D's document frequencies.

    Args:
        predictions: Image id to its caption, as raw text.
        references: Image id to its references, as raw text.
        tokenize: See `References`.

    Raises:
        UserError: A prediction for an image without references, or nothing to score.

    >>> refs = {"1": ["A dog runs on grass."], "2": ["Two cats sleep.", "A pair of cats asleep"]}
    >>> scores = score_captions({"1": "a dog runs", "2": "two cats sleep"}, refs)
    >>> {name: round(scores[name], 3) for name in ("bleu1", "bleu4", "rouge_l", "cider_d")}
    {'bleu1': 0.717, 'bleu4': 0.023, 'rouge_l': 0.859, 'cider_d': 4.401}
    """
    return score_images(predictions, references, tokenize).corpus()
