"""Caption metrics as coco-caption computes them: corpus BLEU-1..4, ROUGE-L and CIDEr-D, without torch.

Every caption is reduced to one row of numbers (`STATISTICS`). All corpus scores are functions of the *sum* of the rows,
so they can be added up over batches, gathered over machines and resampled (`metrics.bootstrap`) without scoring again.

Papers: BLEU, Papineni et al. 2002 (with the reference length closest to the candidate's); ROUGE-L, Lin 2004, with
beta = 1.2; CIDEr-D, Vedantam et al. 2015, with sigma = 6 and the factor 10. coco-caption prints CIDEr-D as "CIDEr".
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from core.errors import UserError
from metrics.caption_rows import STATISTICS, Rows, statistics
from metrics.ngrams import bleu_from_sums
from metrics.reference_tables import ReferenceTables
from metrics.tokenize import tokenize_caption

Tokenizer = Callable[[str], str]

_BLOCK = 4096
"""Captions that are scored at once."""


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

    def __init__(self, references: Mapping[str, Sequence[str]], *, tokenize: Tokenizer = tokenize_caption) -> None:
        if not references:
            raise UserError("no references: expected at least one image with one reference caption")
        for image_id, captions in references.items():
            if isinstance(captions, str) or not captions:
                raise UserError(f"image {image_id!r} has no list of references: expected one caption or more")
        self._tokenize = tokenize
        self._index = {image_id: place for place, image_id in enumerate(references)}
        texts = [tokenize(caption) for captions in references.values() for caption in captions]
        self._tables = ReferenceTables.of(texts, [len(captions) for captions in references.values()])

    @property
    def image_ids(self) -> list[str]:
        """Ids of all images, in the order given."""
        return list(self._index)

    def rows(self, image_ids: Sequence[str], captions: Sequence[str]) -> Rows:
        """The statistics of captions, ``(B, S)`` for B captions, S = len(STATISTICS).

        Args:
            image_ids: the image of each caption; may repeat.
            captions: B captions, raw text; may be empty.

        Raises:
            UserError: An image has no references here.
            ValueError: The two lists differ in length.
        """
        if len(image_ids) != len(captions):
            raise ValueError(f"{len(image_ids)} image ids for {len(captions)} captions: expected one each")
        unknown = next((image_id for image_id in image_ids if image_id not in self._index), None)
        if unknown is not None:
            raise UserError(f"image {unknown!r} is not among the {len(self._index)} images that have references")
        rows = np.empty((len(captions), len(STATISTICS)))
        for start in range(0, len(captions), _BLOCK):
            block = slice(start, start + _BLOCK)
            images = np.array([self._index[image_id] for image_id in image_ids[block]])
            rows[block] = statistics(self._tables, images, [self._tokenize(caption) for caption in captions[block]])
        return rows

    def score(self, predictions: Mapping[str, str]) -> "ImageScores":
        """The statistics of one caption for each of some images.

        Raises:
            UserError: No prediction, or one for an unknown image.
        """
        if not predictions:
            raise UserError("no predictions: expected a caption for at least one image")
        image_ids = list(predictions)
        return ImageScores(image_ids, self.rows(image_ids, list(predictions.values())))


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
    return References(references, tokenize=tokenize).score(predictions)


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
