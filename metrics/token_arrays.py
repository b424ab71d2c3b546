"""Captions as arrays of word ids: n-grams of many captions are numbered and counted without a Python loop over words.

Letters: C captions, T tokens of all of them one after another, N n-grams of one order in them, G different ones.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


class WordIds(dict[str, int]):
    """Ids of words; asked for a new word, it gives the next free id.

    Args:
        known: ids 0, 1, ... of words that are known already; it is not changed.
    """

    def __init__(self, *, known: Mapping[str, int] | None = None) -> None:
        super().__init__()
        self._known = known or {}
        self.size = len(self._known)
        """One more than the largest id."""

    def __missing__(self, word: str) -> int:
        found = self._known.get(word)
        if found is None:
            found, self.size = self.size, self.size + 1
        self[word] = found
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """The tokens of some captions, one caption after another.

    Attributes:
        ids: ``(T,)`` id of each token.
        lengths: ``(C,)`` tokens per caption.
        owner: ``(T,)`` caption of each token.
        place: ``(T,)`` place of each token in its caption, from 0.
        size: one more than the largest possible id.
    """

    ids: Ints
    lengths: Ints
    owner: Ints
    place: Ints
    size: int

    @classmethod
    def of(cls, texts: Iterable[str], words: WordIds, separator: str | None = None) -> "Tokens":
        """Splits captions, at white space or at a separator, and numbers the words; new ones get ids of ``words``."""
        counts: list[int] = []

        def split(text: str) -> list[str]:
            parts = text.split(separator)
            counts.append(len(parts))
            return parts

        # one caption's words at a time are in memory as strings
        ids = np.fromiter(map(words.__getitem__, chain.from_iterable(map(split, texts))), np.int64)
        lengths = np.array(counts, np.int64)
        owner = np.repeat(np.arange(len(lengths)), lengths)
        place = np.arange(len(ids)) - (np.cumsum(lengths) - lengths)[owner]
        return cls(ids=ids, lengths=lengths, owner=owner, place=place, size=words.size)

    def starts(self, order: int) -> Ints:
        """The tokens at which an n-gram of an order begins."""
        if len(self.ids) < order:
            return np.zeros(0, np.int64)
        return np.flatnonzero(self.owner[order - 1 :] == self.owner[: len(self.owner) - order + 1])

    def caption(self, index: int) -> list[int]:
        """The ids of one caption."""
        first, end = np.searchsorted(self.owner, [index, index + 1])
        found: list[int] = self.ids[first:end].tolist()
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class NGramIds:
    """The n-grams of one order, in the order of the text.

    Attributes:
        owner: ``(N,)`` caption of each.
        ids: ``(N,)`` id of each; equal n-grams have equal ids.
        keys: ``(G,)`` sorted. The key of an n-gram is the id of its first n - 1 words times `Tokens.size`, plus the id
            of its last word; of single words it is the word's id.
    """

    owner: Ints
    ids: Ints
    keys: Ints


def number_ngrams(tokens: Tokens, orders: int) -> Iterator[NGramIds]:
    """Numbers the n-grams of each order from 1 to ``orders``: the id of an n-gram is its place among the keys."""
    yield NGramIds(owner=tokens.owner, ids=tokens.ids, keys=np.arange(tokens.size))
    ids = tokens.ids
    for order in range(2, orders + 1):
        start = tokens.starts(order)
        keys, found = np.unique(ids[start] * tokens.size + tokens.ids[start + order - 1], return_inverse=True)
        ids = np.zeros_like(ids)
        ids[start] = found
        yield NGramIds(owner=tokens.owner[start], ids=found, keys=keys)


def recognize_ngrams(tokens: Tokens, known: Sequence[Ints]) -> Iterator[tuple[Ints, Ints]]:
    """Gives the n-grams of each order the ids that they have in other captions.

    Args:
        tokens: captions in which the words of the others have the first ids.
        known: `NGramIds.keys` of the others, for each order from 1; G n-grams of an order.

    Yields:
        For each order, caption and id of every n-gram ``(N,)``; ids from G on are n-grams that the others do not have.
    """
    yield tokens.owner, tokens.ids
    words, before, ids = len(known[0]), len(known[0]), tokens.ids
    for order, table in enumerate(known[1:], start=2):
        start = tokens.starts(order)
        keys, inverse = np.unique(ids[start] * tokens.size + tokens.ids[start + order - 1], return_inverse=True)
        prefix, word = np.divmod(keys, tokens.size)
        places, there = find(table, prefix * words + word)
        there &= (prefix < before) & (word < words)
        found = np.where(there, places, len(table) + np.arange(len(keys)))[inverse]
        ids = np.zeros_like(ids)
        ids[start] = found
        before = len(table)
        yield tokens.owner[start], found


def words_and_pieces(texts: Sequence[str], words: WordIds, pieces: WordIds) -> tuple[Tokens, Tokens]:
    """Splits captions at white space, and at blanks; the two are one object where ``words`` and ``pieces`` are.

    coco-caption splits at white space for BLEU and CIDEr-D, but for ROUGE-L at blanks: a fraction with a no-break space
    inside is two words and one piece, and an empty caption has no word, but one empty piece.
    """
    tokens = Tokens.of(texts, words)
    return tokens, tokens if words is pieces else Tokens.of(texts, pieces, " ")


def only_single_blanks(texts: Sequence[str]) -> bool:
    """Whether splitting at blanks gives the same as at white space, for certain.

    >>> only_single_blanks(["a dog", "two"]), only_single_blanks(["a  dog"]), only_single_blanks(["a", ""])
    (True, False, False)
    """
    joined = f" {' '.join(texts)} "
    return joined.isprintable() and "  " not in joined  # white space other than the blank is not printable


def find(values: Ints, queries: Ints) -> tuple[Ints, Bools]:
    """Where ``queries`` are in the sorted ``values``, and which of them are there at all.

    >>> [part.tolist() for part in find(np.array([2, 5]), np.array([5, 4, 6]))]
    [[1, 1, 2], [True, False, False]]
    """
    places = np.searchsorted(values, queries)
    there = places < len(values)
    there[there] = values[places[there]] == queries[there]
    return places, there


def runs(values: Ints) -> tuple[Ints, Ints]:
    """Starts and lengths of the runs of equal values.

    >>> [part.tolist() for part in runs(np.array([7, 7, 7, 8]))]
    [[0, 3], [3, 1]]
    """
    change = np.ones(len(values), dtype=bool)
    np.not_equal(values[1:], values[:-1], out=change[1:])
    starts = np.flatnonzero(change)
    return starts, np.diff(starts, append=len(values))


def spans(starts: Ints, counts: Ints) -> tuple[Ints, Ints]:
    """The elements of ranges of ``counts`` numbers from ``starts``, each with the index of its range.

    >>> [part.tolist() for part in spans(np.array([3, 7]), np.array([2, 1]))]
    [[0, 0, 1], [3, 4, 7]]
    """
    owner = np.repeat(np.arange(len(counts)), counts)
    return owner, np.arange(len(owner)) + (starts - (np.cumsum(counts) - counts))[owner]
