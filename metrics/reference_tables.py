"""The references of a data set as sorted arrays: what BLEU, CIDEr-D and ROUGE-L look up for a caption.

Letters: M images, C references of all of them one image after another, G n-grams of one order in them, P pairs of an
image and an n-gram of its references, E pairs of a reference and an n-gram.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from metrics.ngrams import ORDERS
from metrics.token_arrays import Ints, NGramIds, Tokens, WordIds, number_ngrams, only_single_blanks, runs, words_and_pieces

WORD_BITS = 64
"""References of more tokens do not fit into the bit masks of `Positions`."""


@dataclass(frozen=True, slots=True)
class NGramTable:
    """The n-grams of one order.

    Attributes:
        keys: ``(G,)`` sorted, see `metrics.token_arrays.NGramIds`; the place of an n-gram is its id.
        idf: ``(G + 1,)`` natural logarithm of M less that of the number of images that have the n-gram in a reference;
            last the value of n-grams that none has.
        pairs: ``(P,)`` sorted: image times G, plus n-gram.
        starts: ``(P,)`` first element of each pair in `references`.
        counts: ``(P,)`` references of the image that have the n-gram.
        limits: ``(P,)`` how often at most the n-gram is in one of them.
        references: ``(E,)`` a reference that has the n-gram of the pair.
        weights: ``(E,)`` its TF-IDF weight there.
        norms: ``(C,)`` Euclidean norm of each reference's weights.
    """

    keys: Ints
    idf: NDArray[np.float64]
    pairs: Ints
    starts: Ints
    counts: Ints
    limits: Ints
    references: NDArray[np.int32]
    weights: NDArray[np.float64]
    norms: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Positions:
    """Where in the references each word is, for longest common subsequences.

    Attributes:
        pairs: ``(P,)`` sorted: image times number of words, plus word.
        starts: ``(P,)`` first element of each pair in `references`.
        counts: ``(P,)`` references of the image that have the word.
        references: ``(E,)`` a reference that has the word of the pair.
        masks: ``(E,)`` bit i is set where its token i is the word, i < 64.
    """

    pairs: Ints
    starts: Ints
    counts: Ints
    references: NDArray[np.int32]
    masks: NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class ReferenceTables:
    """Everything that is kept of the references.

    Attributes:
        words: ids of the words, at which BLEU and CIDEr-D look.
        pieces: ids of the pieces between blanks, at which ROUGE-L looks; the object `words` where they are the same.
        first: ``(M + 1,)`` first reference of each image, and C.
        lengths: ``(C,)`` words per reference.
        piece_lengths: ``(C,)`` pieces per reference.
        ngrams: tables of the orders 1 to 4.
        positions: places of the pieces.
        long: pieces of the references with more than 64 of them.
    """

    words: WordIds
    pieces: WordIds
    first: Ints
    lengths: Ints
    piece_lengths: Ints
    ngrams: list[NGramTable]
    positions: Positions
    long: dict[int, list[int]]

    @classmethod
    def of(cls, texts: Sequence[str], images: Sequence[int]) -> "ReferenceTables":
        """Builds the tables.

        Args:
            texts: C references, tokens joined by blanks.
            images: how many of them each image has, at least one; M numbers.
        """
        first = np.cumsum([0, *images])
        layout = _Layout(first, np.repeat(np.arange(len(images)), np.diff(first)))
        words = WordIds()
        piece_ids = words if only_single_blanks(texts) else WordIds()
        tokens, pieces = words_and_pieces(texts, words, piece_ids)
        return cls(
            words=words,
            pieces=piece_ids,
            first=first,
            lengths=tokens.lengths,
            piece_lengths=pieces.lengths,
            ngrams=[_ngram_table(ngrams, layout) for ngrams in number_ngrams(tokens, ORDERS)],
            positions=_positions(pieces, layout),
            long={int(i): pieces.caption(i) for i in np.flatnonzero(pieces.lengths > WORD_BITS)},
        )


@dataclass(frozen=True, slots=True)
class _Layout:
    """Which references an image has: first ``(M + 1,)`` and image ``(C,)``."""

    first: Ints
    image: Ints

    @property
    def widest(self) -> int:
        """Most references of an image."""
        return int(np.diff(self.first).max())

    def sort_keys(self, owner: Ints, ids: Ints, size: int) -> Ints:
        """Numbers that sort by image, then id, then reference."""
        image = self.image[owner]
        return (image * size + ids) * self.widest + (owner - self.first[image])

    def split(self, keys: Ints, size: int) -> tuple[Ints, Ints]:
        """Of `sort_keys`: image times size plus id, and the reference."""
        pair, slot = np.divmod(keys, self.widest)
        return pair, self.first[pair // size] + slot


def _ngram_table(ngrams: NGramIds, layout: _Layout) -> NGramTable:
    size = ngrams.size
    keys = np.sort(layout.sort_keys(ngrams.owner, ngrams.ids, size))
    entry, frequency = runs(keys)
    pair, reference = layout.split(keys[entry], size)
    starts, counts = runs(pair)
    pairs = pair[starts]
    images = len(layout.first) - 1
    documents = np.bincount(pairs % size, minlength=size) if size else np.zeros(0, np.int64)
    idf = np.append(math.log(images) - np.log(documents), math.log(images))
    weights = frequency * idf[pair % size] if size else np.zeros(0)
    norms = np.sqrt(np.bincount(reference, weights**2, minlength=len(layout.image)))
    limits = np.maximum.reduceat(frequency, starts) if size else np.zeros(0, np.int64)
    return NGramTable(ngrams.keys, idf, pairs, starts, counts, limits, reference.astype(np.int32), weights, norms)


def _positions(tokens: Tokens, layout: _Layout) -> Positions:
    fits = np.flatnonzero(tokens.lengths[tokens.owner] <= WORD_BITS)
    keys = layout.sort_keys(tokens.owner[fits], tokens.ids[fits], tokens.size) * WORD_BITS + tokens.place[fits]
    keys.sort()
    keys, place = np.divmod(keys, WORD_BITS)
    bits = np.left_shift(np.uint64(1), place.astype(np.uint64))
    entry, _ = runs(keys)
    pair, reference = layout.split(keys[entry], tokens.size)
    starts, counts = runs(pair)
    masks = np.bitwise_or.reduceat(bits, entry) if len(entry) else bits
    return Positions(pair[starts], starts, counts, reference.astype(np.int32), masks)
