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
from metrics.token_arrays import (
    Ints,
    NGramIds,
    Tokens,
    WordIds,
    number_ngrams,
    only_single_blanks,
    runs,
    words_and_pieces,
)

WORD_BITS = 64
"""References of more tokens do not fit into the bit masks of `Positions`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lookup:
    """Which references of an image have an item (an n-gram, or a word).

    Attributes:
        keys: ``(P,)`` sorted: see the tables.
        starts: ``(P + 1,)`` first element of each pair in `references`, and E.
        references: ``(E,)`` the references, pair by pair.
    """

    keys: Ints
    starts: Ints
    references: NDArray[np.int32]


@dataclass(frozen=True, slots=True, kw_only=True)
class NGramTable:
    """The n-grams of the orders 1 to 4, those of one order after those of the one before.

    Attributes:
        known: for each order, the n-grams' keys (see `metrics.token_arrays.NGramIds`); an n-gram's place is its id.
        offsets: ``(5,)`` G of all lower orders, and of all.
        lookup: key: M times G of all lower orders, plus image times G of this order, plus id.
        limits: ``(P,)`` how often at most the n-gram is in one reference of the image.
        weights: ``(E,)`` TF-IDF weight of the n-gram in the reference.
        idf: weights of all orders: natural logarithm of M less that of the number of images that have the n-gram in a
            reference; and last, of an n-gram that none has.
        norms: ``(C, 4)`` Euclidean norm of each reference's weights, per order.
        images: M.
    """

    known: list[Ints]
    offsets: Ints
    lookup: Lookup
    limits: NDArray[np.int32]
    weights: NDArray[np.float64]
    idf: NDArray[np.float64]
    norms: NDArray[np.float64]
    images: int

    def lookup_keys(self, images: Ints, order: Ints, ids: Ints) -> Ints:
        """Keys of `lookup`, of images and their n-grams: order less 1, and id as place in `idf`."""
        offset = self.offsets[order]
        return offset * (self.images - 1) + images * (self.offsets[order + 1] - offset) + ids


@dataclass(frozen=True, slots=True)
class Positions:
    """Where in the references each word is, for longest common subsequences.

    Attributes:
        lookup: key: image times number of words, plus word.
        masks: ``(E,)`` bit i is set where token i of the reference is the word, i < 64.
    """

    lookup: Lookup
    masks: NDArray[np.uint64]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceTables:
    """Everything that is kept of the references.

    Attributes:
        words: ids of the words, at which BLEU and CIDEr-D look.
        pieces: ids of the pieces between blanks, at which ROUGE-L looks; the object `words` where they are the same.
        first: ``(M + 1,)`` first reference of each image, and C.
        lengths: ``(C,)`` words per reference.
        piece_lengths: ``(C,)`` pieces per reference.
        ngrams: n-grams of words.
        positions: places of the pieces.
        long: pieces of the references with more than 64 of them.
    """

    words: WordIds
    pieces: WordIds
    first: Ints
    lengths: Ints
    piece_lengths: Ints
    ngrams: NGramTable
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
            ngrams=_ngram_table(tokens, layout),
            positions=_positions(pieces, layout),
            long={i: pieces.caption(i) for i in np.flatnonzero(pieces.lengths > WORD_BITS).tolist()},
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
        pair, place = np.divmod(keys, self.widest)
        return pair, self.first[pair // size] + place


@dataclass(frozen=True, slots=True, kw_only=True)
class _Order:
    """The n-grams of one order: parts of an `NGramTable`, and how many references each of the pairs has."""

    pairs: Ints
    counts: Ints
    references: NDArray[np.int32]
    limits: NDArray[np.int32]
    weights: NDArray[np.float64]
    idf: NDArray[np.float64]
    norms: NDArray[np.float64]

    @classmethod
    def of(cls, ngrams: NGramIds, layout: _Layout) -> "_Order":
        size = max(len(ngrams.keys), 1)
        keys = np.sort(layout.sort_keys(ngrams.owner, ngrams.ids, size))
        entry, frequency = runs(keys)
        elements, references = layout.split(keys[entry], size)
        starts, counts = runs(elements)
        pairs = elements[starts]
        documents = np.bincount(pairs % size, minlength=len(ngrams.keys))[: len(ngrams.keys)]
        idf = math.log(len(layout.first) - 1) - np.log(documents)
        weights = frequency * idf[elements % size]
        norms = np.sqrt(np.bincount(references, weights**2, minlength=len(layout.image)))
        limits = np.maximum.reduceat(frequency, starts) if len(starts) else frequency
        return cls(
            pairs=pairs,
            counts=counts,
            references=references.astype(np.int32),
            limits=limits.astype(np.int32),
            weights=weights,
            idf=idf,
            norms=norms,
        )


def _ngram_table(tokens: Tokens, layout: _Layout) -> NGramTable:
    images = len(layout.first) - 1
    known, parts = [], []
    for ngrams in number_ngrams(tokens, ORDERS):
        known.append(ngrams.keys)
        parts.append(_Order.of(ngrams, layout))
    offsets = np.cumsum([0, *map(len, known)])
    pairs = [images * offset + part.pairs for offset, part in zip(offsets, parts, strict=False)]
    return NGramTable(
        known=known,
        offsets=offsets,
        lookup=Lookup(
            keys=np.concatenate(pairs),
            starts=np.cumsum(np.concatenate([[0], *(part.counts for part in parts)])),
            references=np.concatenate([part.references for part in parts]),
        ),
        limits=np.concatenate([part.limits for part in parts]),
        weights=np.concatenate([part.weights for part in parts]),
        idf=np.concatenate([*(part.idf for part in parts), [math.log(images)]]),
        norms=np.stack([part.norms for part in parts], axis=1),
        images=images,
    )


def _positions(tokens: Tokens, layout: _Layout) -> Positions:
    fits = np.flatnonzero(tokens.lengths[tokens.owner] <= WORD_BITS)
    keys = layout.sort_keys(tokens.owner[fits], tokens.ids[fits], tokens.size) * WORD_BITS + tokens.place[fits]
    keys.sort()
    keys, place = np.divmod(keys, WORD_BITS)
    bits = np.left_shift(np.uint64(1), place.astype(np.uint64))
    entry, _ = runs(keys)
    elements, references = layout.split(keys[entry], tokens.size)
    starts, _ = runs(elements)
    masks = np.bitwise_or.reduceat(bits, entry) if len(entry) else bits
    lookup = Lookup(
        keys=elements[starts], starts=np.append(starts, len(elements)), references=references.astype(np.int32)
    )
    return Positions(lookup, masks)
