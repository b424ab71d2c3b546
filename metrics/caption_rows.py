"""The statistics of captions, from which all caption metrics follow, for many captions at once.

Letters: B captions, M images and C references of the tables, R pairs of a caption and a reference of its image, one
caption after another, S = len(STATISTICS).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from metrics.ngrams import ORDERS, lcs_length
from metrics.reference_tables import WORD_BITS, NGramTable, Positions, ReferenceTables
from metrics.token_arrays import (
    Ints,
    NGramIds,
    Tokens,
    WordIds,
    find,
    number_ngrams,
    only_single_blanks,
    runs,
    spans,
    words_and_pieces,
)

Rows = NDArray[np.float64]

STATISTICS = (
    "reflen",
    *(f"guess{n}" for n in range(1, ORDERS + 1)),
    *(f"correct{n}" for n in range(1, ORDERS + 1)),
    "rouge_l",
    "cider_d",
)
"""Columns of a row: closest reference length; n-grams of the candidate, and those of them found (clipped), per order;
ROUGE-L in [0, 1] and CIDEr-D in [0, 10] of this image."""
_BETA = 1.2
_SIGMA = 6.0


@dataclass(frozen=True, slots=True)
class _Pairs:
    """Captions and the references that each is compared with.

    Attributes:
        images: ``(B,)`` image of each caption.
        first: ``(B,)`` first pair of each caption.
        counts: ``(B,)`` pairs of each caption.
        caption: ``(R,)`` caption of each pair.
        reference: ``(R,)`` reference of each pair.
    """

    images: Ints
    first: Ints
    counts: Ints
    caption: Ints
    reference: Ints

    @classmethod
    def of(cls, images: Ints, first_reference: Ints) -> "_Pairs":
        counts = first_reference[images + 1] - first_reference[images]
        caption, reference = spans(first_reference[images], counts)
        return cls(images, np.cumsum(counts) - counts, counts, caption, reference)

    def lookup(self, table: NGramTable | Positions, owner: Ints, ids: Ints, size: int) -> tuple[Ints, Ints, Ints, Ints]:
        """Finds n-grams or words of captions among those of their images' references.

        Args:
            table: where they are looked up.
            owner: ``(N,)`` captions.
            ids: ``(N,)`` what is looked up.
            size: number of n-grams or words of the table; higher ids are not in it.

        Returns:
            The F indices in [0, N) that are in a reference, their places in ``table.pairs``; and for the E elements of
            ``table.references`` there, the index in [0, N) and the element.
        """
        places, there = find(table.pairs, self.images[owner] * size + ids)
        there &= ids < size
        found = np.flatnonzero(there)
        places = places[found]
        which, element = spans(table.starts[places], table.counts[places])
        return found, places, found[which], element

    def number(self, caption: Ints, reference: Ints, first_reference: Ints) -> Ints:
        """Which pair a caption and a reference of its image are."""
        return self.first[caption] + reference - first_reference[self.images[caption]]


def statistics(tables: ReferenceTables, images: Ints, texts: Sequence[str]) -> Rows:
    """Scores captions against the references of their images.

    Args:
        tables: the references.
        images: ``(B,)`` image of each caption, in [0, M); B is at least 1.
        texts: B captions, tokens joined by blanks; may be empty.

    Returns:
        ``(B, S)``, float64.
    """
    rows = np.empty((len(texts), len(STATISTICS)))
    pairs = _Pairs.of(images, tables.first)
    words = WordIds(tables.words)
    shared = tables.pieces is tables.words and only_single_blanks(texts)
    tokens, pieces = words_and_pieces(texts, words, words if shared else WordIds(tables.pieces))
    rows[:, 0] = _closest_length(tokens.lengths, tables.lengths, pairs)
    similarity = np.zeros(len(pairs.caption))
    known = [table.keys for table in tables.ngrams]
    for order, ngrams in enumerate(number_ngrams(tokens, ORDERS, known)):
        rows[:, 1 + order] = np.maximum(tokens.lengths - order, 0)
        rows[:, 1 + ORDERS + order], cosine = _matches(tables.ngrams[order], ngrams, pairs, tables.first)
        similarity += cosine
    # the length of CIDEr-D is the number of bigrams
    delta = np.maximum(tokens.lengths - 1, 0)[pairs.caption] - np.maximum(tables.lengths - 1, 0)[pairs.reference]
    similarity *= np.exp(-(delta**2) / (2 * _SIGMA**2)) / ORDERS
    rows[:, -1] = 10 * np.add.reduceat(similarity, pairs.first) / pairs.counts
    rows[:, -2] = _rouge_l(tables, pieces, pairs)
    return rows


def _closest_length(lengths: Ints, reference_lengths: Ints, pairs: _Pairs) -> Ints:
    """Of each caption's references the length that is closest, of two equally close ones the shorter."""
    theirs = reference_lengths[pairs.reference]
    distance = np.abs(theirs - lengths[pairs.caption])
    size = int(theirs.max()) + 1
    return np.minimum.reduceat(distance * size + theirs, pairs.first) % size


def _matches(table: NGramTable, ngrams: NGramIds, pairs: _Pairs, first_reference: Ints) -> tuple[Ints | Rows, Rows]:
    """BLEU's correct n-grams of each caption ``(B,)``, and CIDEr-D's clipped cosine of each pair ``(R,)``."""
    captions, known = len(pairs.images), len(table.keys)
    keys = np.sort(ngrams.owner * ngrams.size + ngrams.ids)
    starts, counts = runs(keys)
    owner, ids = np.divmod(keys[starts], max(ngrams.size, 1))
    weights = counts * table.idf[np.minimum(ids, known)]
    norms = np.sqrt(np.bincount(owner, weights**2, minlength=captions))
    found, places, which, element = pairs.lookup(table, owner, ids, known)
    correct = np.bincount(owner[found], np.minimum(counts[found], table.limits[places]), minlength=captions)
    reference, theirs = table.references[element], table.weights[element]
    pair = pairs.number(owner[which], reference, first_reference)
    cosine = np.bincount(pair, np.minimum(weights[which], theirs) * theirs, minlength=len(pairs.caption))
    scale = norms[pairs.caption] * table.norms[pairs.reference]
    return correct, np.divide(cosine, scale, out=np.zeros_like(scale), where=scale > 0)


def _rouge_l(tables: ReferenceTables, tokens: Tokens, pairs: _Pairs) -> Rows:
    """F-measure ``(B,)`` of the best precision and the best recall over the references.

    As in coco-caption the two maxima may come from different references.
    """
    common = _common_lengths(tables, tokens, pairs)
    precision = np.maximum.reduceat(common, pairs.first) / tokens.lengths
    recall = np.maximum.reduceat(common / tables.piece_lengths[pairs.reference], pairs.first)
    divisor = recall + _BETA**2 * precision
    return np.divide(
        (1 + _BETA**2) * precision * recall, divisor, out=np.zeros_like(precision), where=divisor > 0
    )


def _common_lengths(tables: ReferenceTables, tokens: Tokens, pairs: _Pairs) -> Ints:
    """Longest common subsequence of each pair ``(R,)``, by Hyyro's (2004) bit-parallel algorithm (see `lcs_length`)."""
    # step by step through the captions: a token that a reference does not have changes nothing there
    order = np.argsort(tokens.place, kind="stable")
    owner, ids = tokens.owner[order], tokens.ids[order]
    _, _, which, element = pairs.lookup(tables.positions, owner, ids, len(tables.pieces))
    pair = pairs.number(owner[which], tables.positions.references[element], tables.first)
    masks = tables.positions.masks[element]
    lengths = tables.piece_lengths[pairs.reference]
    spare = np.maximum(WORD_BITS - lengths, 0).astype(np.uint64)
    full = np.right_shift(np.uint64(2**WORD_BITS - 1), spare)
    free = full.copy()
    ends = np.cumsum(np.bincount(tokens.place[order][which])).tolist()
    for start, end in zip([0, *ends], ends, strict=False):
        here = pair[start:end]
        before = free[here]
        hit = before & masks[start:end]
        free[here] = (before + hit) | (before - hit)
    common = lengths - np.bitwise_count(free & full)
    for index in np.flatnonzero(lengths > WORD_BITS) if tables.long else ():
        reference = tables.long[int(pairs.reference[index])]
        common[index] = lcs_length(reference, tokens.caption(pairs.caption[index]))
    return common
