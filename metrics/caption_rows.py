"""The statistics of captions, from which all caption metrics follow, for many captions at once.

Letters: B captions, M images and C references of the tables, R pairs of a caption and a reference of its image, one
caption after another, S = len(STATISTICS).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from metrics.ngrams import ORDERS, lcs_length
from metrics.reference_tables import WORD_BITS, Lookup, NGramTable, ReferenceTables
from metrics.token_arrays import (
    Ints,
    Tokens,
    WordIds,
    find,
    only_single_blanks,
    recognize_ngrams,
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
_GUESS = slice(1, 1 + ORDERS)
_CORRECT = slice(1 + ORDERS, 1 + 2 * ORDERS)
_BETA = 1.2
_SIGMA = 6.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pairs:
    """Captions and the references that each is compared with.

    Attributes:
        images: ``(B,)`` image of each caption.
        first: ``(B,)`` first pair of each caption.
        counts: ``(B,)`` pairs of each caption.
        shift: ``(B,)`` number of a pair of each caption less number of the reference.
        caption: ``(R,)`` caption of each pair.
        reference: ``(R,)`` reference of each pair.
    """

    images: Ints
    first: Ints
    counts: Ints
    shift: Ints
    caption: Ints
    reference: Ints

    @classmethod
    def of(cls, images: Ints, first_reference: Ints) -> "_Pairs":
        start = first_reference[images]
        counts = first_reference[images + 1] - start
        caption, reference = spans(start, counts)
        first = np.cumsum(counts) - counts
        return cls(images=images, first=first, counts=counts, shift=first - start, caption=caption, reference=reference)

    def find(self, lookup: Lookup, keys: Ints) -> tuple[Ints, Ints, Ints, Ints]:
        """Looks items of captions up among those of their images' references.

        Returns:
            Indices of the keys that are there, their places in ``lookup.keys``; and for every element of
            ``lookup.references`` there, index of the key and the element.
        """
        places, there = find(lookup.keys, keys)
        found = np.flatnonzero(there)
        places = places[found]
        first = lookup.starts[places]
        which, element = spans(first, lookup.starts[places + 1] - first)
        return found, places, found[which], element

    def number(self, caption: Ints, reference: NDArray[np.int32]) -> Ints:
        """Which pair a caption and a reference of its image are."""
        pair: Ints = self.shift[caption] + reference
        return pair


def statistics(tables: ReferenceTables, images: Ints, texts: Sequence[str]) -> Rows:
    """Scores captions against the references of their images.

    Args:
        tables: the references.
        images: ``(B,)`` image of each caption, in [0, M); B is at least 1.
        texts: B captions, tokens joined by blanks; may be empty.

    Returns:
        ``(B, S)``, float64.
    """
    words = WordIds(known=tables.words)
    shared = tables.pieces is tables.words and only_single_blanks(texts)
    tokens, pieces = words_and_pieces(texts, words, words if shared else WordIds(known=tables.pieces))
    pairs = _Pairs.of(images, tables.first)
    rows = np.empty((len(texts), len(STATISTICS)))
    rows[:, 0] = _closest_length(tokens.lengths, tables.lengths, pairs)
    rows[:, _GUESS] = np.maximum(tokens.lengths[:, None] - np.arange(ORDERS), 0)
    rows[:, _CORRECT], similarity = _ngram_matches(tables.ngrams, tokens, pairs)
    # the length of CIDEr-D is the number of bigrams
    delta = np.maximum(tokens.lengths - 1, 0)[pairs.caption] - np.maximum(tables.lengths - 1, 0)[pairs.reference]
    similarity *= np.exp(-(delta**2) / (2 * _SIGMA**2))
    rows[:, -1] = 10 * np.add.reduceat(similarity, pairs.first) / pairs.counts
    rows[:, -2] = _rouge_l(tables, pieces, pairs)
    return rows


def _closest_length(lengths: Ints, reference_lengths: Ints, pairs: _Pairs) -> Ints:
    """Of each caption's references the length that is closest, of two equally close ones the shorter."""
    theirs = reference_lengths[pairs.reference]
    distance = np.abs(theirs - lengths[pairs.caption])
    size = int(theirs.max()) + 1
    return np.minimum.reduceat(distance * size + theirs, pairs.first) % size


def _ngram_matches(table: NGramTable, tokens: Tokens, pairs: _Pairs) -> tuple[Rows, Rows]:
    """BLEU's correct n-grams ``(B, 4)``, and the clipped cosine of each pair ``(R,)``, the mean of the four orders."""
    rows, ids, counts = _count_ngrams(table, tokens)
    unknown = len(table.idf) - 1
    weights = counts * table.idf[np.minimum(ids, unknown)]
    norms = np.sqrt(np.bincount(rows, weights**2, minlength=ORDERS * len(pairs.images))).reshape(-1, ORDERS)
    known = np.flatnonzero(ids < unknown)
    rows, counts, weights = rows[known], counts[known], weights[known]
    caption, order = np.divmod(rows, ORDERS)
    keys = table.lookup_keys(pairs.images[caption], order, ids[known])
    found, places, which, element = pairs.find(table.lookup, keys)
    clipped = np.minimum(counts[found], table.limits[places])
    correct = np.bincount(rows[found], clipped, minlength=ORDERS * len(pairs.images)).reshape(-1, ORDERS)
    theirs = table.weights[element]
    pair = pairs.number(caption[which], table.lookup.references[element])
    products = np.minimum(weights[which], theirs) * theirs
    dots = np.bincount(ORDERS * pair + order[which], products, minlength=ORDERS * len(pairs.caption))
    scale = norms[pairs.caption] * table.norms[pairs.reference]
    cosines = np.divide(dots.reshape(-1, ORDERS), scale, out=np.zeros_like(scale), where=scale > 0)
    return correct.astype(np.float64), cosines.mean(axis=1)


def _count_ngrams(table: NGramTable, tokens: Tokens) -> tuple[Ints, Ints, Ints]:
    """The different n-grams of each caption: caption times 4 plus order less 1, id, and how often it is there.

    Ids are those of the table; higher ones are n-grams that it does not have.
    """
    total = int(table.offsets[-1])
    rows, ids = [], []
    for order, (owner, number) in enumerate(recognize_ngrams(tokens, table.known)):
        count, offset = len(table.known[order]), int(table.offsets[order])
        rows.append(ORDERS * owner + order)
        ids.append(number + np.where(number < count, offset, total - count))
    row, number = np.concatenate(rows), np.concatenate(ids)
    size = int(number.max(initial=0)) + 1
    keys = np.sort(row * size + number)
    starts, counts = runs(keys)
    row, number = np.divmod(keys[starts], size)
    return row, number, counts


def _rouge_l(tables: ReferenceTables, tokens: Tokens, pairs: _Pairs) -> Rows:
    """F-measure ``(B,)`` of the best precision and the best recall over the references.

    As in coco-caption the two maxima may come from different references.
    """
    common = _common_lengths(tables, tokens, pairs)
    precision = np.maximum.reduceat(common, pairs.first) / tokens.lengths
    recall = np.maximum.reduceat(common / tables.piece_lengths[pairs.reference], pairs.first)
    divisor = recall + _BETA**2 * precision
    return np.divide((1 + _BETA**2) * precision * recall, divisor, out=np.zeros_like(precision), where=divisor > 0)


def _common_lengths(tables: ReferenceTables, tokens: Tokens, pairs: _Pairs) -> Ints:
    """Longest common subsequence of each pair ``(R,)``, by Hyyro's (2004) bit-parallel algorithm (see `lcs_length`)."""
    # step by step through the captions: a piece that a reference does not have changes nothing there
    step = np.argsort(tokens.place, kind="stable")
    caption = tokens.owner[step]
    known = np.flatnonzero(tokens.ids[step] < len(tables.pieces))
    step, caption = step[known], caption[known]
    keys = pairs.images[caption] * len(tables.pieces) + tokens.ids[step]
    _, _, which, element = pairs.find(tables.positions.lookup, keys)
    pair = pairs.number(caption[which], tables.positions.lookup.references[element])
    masks = tables.positions.masks[element]
    lengths = tables.piece_lengths[pairs.reference]
    spare = np.maximum(WORD_BITS - lengths, 0).astype(np.uint64)
    full = np.right_shift(np.uint64(2**WORD_BITS - 1), spare)
    free = full.copy()
    ends = np.cumsum(np.bincount(tokens.place[step][which])).tolist()
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
