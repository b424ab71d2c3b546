"""Is one captioner better than another? Paired bootstrap over images (Koehn 2004)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from core.errors import UserError
from metrics.caption_rows import Rows
from metrics.captions import SCORES, ImageScores, scores_of_sums


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One score of two systems on the same images.

    Attributes:
        a: Score of the first system.
        b: Score of the second system.
        difference: ``b - a``.
        low: Lower end of the interval of the difference.
        high: Upper end of it.
        p: Two-sided bootstrap p value: twice the share of resamples in which the difference is not on its usual side
            of 0, counting one more; at least ``2 / (samples + 1)``, at most 1.
    """

    a: float
    b: float
    difference: float
    low: float
    high: float
    p: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two named runs compared score by score, `b` minus `a`."""

    a: str
    b: str
    scores: Mapping[str, Comparison]


def paired_bootstrap(
    a: ImageScores, b: ImageScores, samples: int = 1000, seed: int = 0, confidence: float = 0.95
) -> dict[str, Comparison]:
    """Compare two systems' captions of the same images.

    Images are drawn with replacement, the same for both systems, and every corpus score is computed anew from the
    summed statistics of the draw: corpus BLEU is not the mean of the images' BLEU.

    Args:
        a: Scores of the first system, from `metrics.captions.score_images` or `CaptionMetrics.image_scores`.
        b: Scores of the second; the same images in any order, scored against the same references.
        samples: Number of resamples.
        seed: Seed of the draws.
        confidence: Mass of the percentile interval, in (0, 1).

    Returns:
        A comparison per score, keyed by `metrics.captions.SCORES`.

    Raises:
        UserError: The two systems did not caption the same images, or an argument is out of range.
    """
    if samples < 1 or not 0 < confidence < 1:
        raise UserError(
            f"bootstrap: samples={samples}, confidence={confidence}: expected at least 1, and within (0, 1)"
        )
    rows_b = _aligned(a, b)
    count = len(a.rows)
    both = np.concatenate([a.rows, rows_b], axis=1)
    one = np.array(float(count))
    true_a, true_b = scores_of_sums(a.rows.sum(axis=0), one), scores_of_sums(rows_b.sum(axis=0), one)
    differences = np.concatenate([_differences(both, weights) for weights in _draws(count, samples, seed)])
    low, high = np.quantile(differences, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
    return comparisons(SCORES, (true_a, true_b), (low, high), differences)


def comparisons(
    names: Sequence[str], scores: tuple[Rows, Rows], interval: tuple[Rows, Rows], differences: Rows
) -> dict[str, Comparison]:
    """Puts what a bootstrap found into words, score by score.

    Args:
        names: the scores.
        scores: those of the first and of the second system, (K,) each.
        interval: lower and upper end of the interval of the difference, (K,) each.
        differences: the difference in each resample, (S, K).
    """
    tail = np.minimum((differences <= 0).sum(axis=0), (differences >= 0).sum(axis=0))
    p = np.minimum(1.0, 2 * (tail + 1) / (len(differences) + 1))
    columns = np.stack([*scores, scores[1] - scores[0], *interval, p], axis=1)
    return {
        name: Comparison(a=a, b=b, difference=difference, low=low, high=high, p=p)
        for name, (a, b, difference, low, high, p) in zip(names, columns.tolist(), strict=True)
    }


def _aligned(a: ImageScores, b: ImageScores) -> Rows:
    """The rows of ``b`` in the order of ``a``'s images."""
    index = {image_id: i for i, image_id in enumerate(b.image_ids)}
    different = set(a.image_ids) ^ set(index)
    if different or not a.image_ids:
        shown = ", ".join(sorted(different)[:3])
        raise UserError(
            f"bootstrap: {len(different)} images have a caption by one system only ({shown}): score the same"
        )
    return b.rows[[index[image_id] for image_id in a.image_ids]]


def _draws(count: int, samples: int, seed: int) -> list[Rows]:
    """How often each image is drawn, ``(samples, N)`` in pieces of at most 4 million numbers."""
    generator = np.random.default_rng(seed)
    piece = max(1, 4_000_000 // count)
    sizes = [min(piece, samples - start) for start in range(0, samples, piece)]
    even = np.full(count, 1 / count)
    return [generator.multinomial(count, even, size=size).astype(np.float64) for size in sizes]


def _differences(both: Rows, weights: Rows) -> Rows:
    """Score of b less score of a, ``(samples, 6)``, in each draw."""
    sums_a, sums_b = np.split(weights @ both, 2, axis=1)
    count = weights.sum(axis=1)
    return scores_of_sums(sums_b, count) - scores_of_sums(sums_a, count)
