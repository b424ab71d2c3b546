"""What a set of captions is like, without looking at images: lengths, vocabulary, repetition, signs of collapse."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from metrics.tokenize import tokenize_caption

_FEWEST = 20
"""Fewer captions than this say nothing about collapse."""
_FREQUENT = 0.5
"""Share of images with one and the same caption from which on a captioner has collapsed."""
_DISTINCT = 0.05
"""Share of distinct captions, relative to that of the references, below which a captioner has collapsed."""
_REPEATED = 0.1
"""Share of captions that repeat a word or phrase at once from which on it is named."""
_PHRASE = 4
"""Most words of a repeated phrase that is looked for."""
_CUT = 0.1
"""Share of captions that break off from which on it is named."""
_OPEN = frozenset(
    (
        "a",
        "an",
        "the",
        "and",
        "or",
        "of",
        "in",
        "on",
        "at",
        "to",
        "with",
        "by",
        "for",
        "from",
        "into",
        "near",
        "is",
        "are",
    )
)
"""English words on which no caption ends, unless it breaks off."""
_LENGTHS = (0.6, 1.6)
"""Mean lengths outside of this range of the references' mean length are named."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptionStatistics:
    """Statistics of captions, after the tokenisation of the metrics.

    Attributes:
        captions: their number.
        distinct: number of different ones.
        most_frequent: the most frequent one, tokenised.
        most_frequent_share: its share of all captions, in [0, 1].
        lengths: number of words to number of captions.
        words: word to number of occurrences.
        broken_off: share of captions that end on a word such as "a" or "with", in [0, 1]; English only.
        repeated: share of captions in which a word, or a phrase of up to four, follows itself, in [0, 1].
        empty: number of captions without a word.
    """

    captions: int
    distinct: int
    most_frequent: str
    most_frequent_share: float
    lengths: Mapping[int, int]
    words: Mapping[str, int]
    broken_off: float
    repeated: float
    empty: int

    @property
    def mean_length(self) -> float:
        """Mean number of words; 0 without captions."""
        return sum(length * count for length, count in self.lengths.items()) / max(1, self.captions)


def caption_statistics(captions: Iterable[str]) -> CaptionStatistics:
    """Counts captions and their words.

    >>> found = caption_statistics(["A dog runs.", "a dog runs", "two cats"])
    >>> found.captions, found.distinct, found.most_frequent, round(found.mean_length, 2)
    (3, 2, 'a dog runs', 2.67)
    """
    texts = [tuple(tokenize_caption(caption).split()) for caption in captions]
    counts = Counter(texts)
    frequent, number = max(counts.items(), key=lambda item: item[1], default=((), 0))
    repeated = sum(map(_repeats, texts))
    return CaptionStatistics(
        captions=len(texts),
        distinct=len(counts),
        most_frequent=" ".join(frequent),
        most_frequent_share=number / max(1, len(texts)),
        lengths=dict(sorted(Counter(map(len, texts)).items())),
        words=dict(Counter(word for text in texts for word in text).most_common()),
        broken_off=sum(text[-1] in _OPEN for text in texts if text) / max(1, len(texts)),
        repeated=repeated / max(1, len(texts)),
        empty=sum(not text for text in texts),
    )


def _repeats(words: Sequence[str]) -> bool:
    """Whether a word or phrase follows itself.

    >>> _repeats("a dog on a on a".split()), _repeats("a dog and a cat".split())
    (True, False)
    """
    return any(
        words[start : start + size] == words[start + size : start + 2 * size]
        for size in range(1, _PHRASE + 1)
        for start in range(len(words) - 2 * size + 1)
    )


def signs_of_collapse(own: CaptionStatistics, references: CaptionStatistics | None = None) -> list[str]:
    """Names what generated captions have in common with those of captioners that have collapsed.

    Args:
        own: of the generated captions, one per image.
        references: of one reference per image; None: there are none.

    Returns:
        A line per sign; empty for healthy captions and for fewer than 20.

    >>> signs_of_collapse(caption_statistics(["a dog"] * 30))
    ['30 of 30 images have the same caption: "a dog"']
    """
    if own.captions < _FEWEST:
        return []
    lines = []
    if own.most_frequent_share >= _FREQUENT:
        same = round(own.most_frequent_share * own.captions)
        lines.append(f'{same} of {own.captions} images have the same caption: "{own.most_frequent}"')
    elif references is not None and own.distinct / own.captions < _DISTINCT * references.distinct / references.captions:
        lines.append(
            f"{own.distinct} distinct captions for {own.captions} images; the references have {references.distinct}"
        )
    if own.empty:
        lines.append(f"{own.empty} captions are empty")
    if own.repeated >= _REPEATED and (references is None or own.repeated > 3 * references.repeated):
        lines.append(f"{round(own.repeated * own.captions)} captions repeat a word or phrase at once, such as 'a a'")
    if own.broken_off >= _CUT and (references is None or own.broken_off > 3 * references.broken_off):
        lines.append(
            f"{round(own.broken_off * own.captions)} captions break off: they end on words such as 'a' or 'with'"
        )
    if references is not None and references.mean_length and own.mean_length:
        ratio = own.mean_length / references.mean_length
        if not _LENGTHS[0] <= ratio <= _LENGTHS[1]:
            lines.append(
                f"captions have {own.mean_length:.1f} words on average, references {references.mean_length:.1f}"
            )
    return lines


def word_difference(
    own: CaptionStatistics, references: CaptionStatistics, count: int = 12
) -> tuple[Sequence[tuple[str, int, int]], Sequence[tuple[str, int, int]]]:
    """The words that captions use most above, and most below, their frequency in the references.

    Args:
        own: of the generated captions.
        references: of the references.
        count: number of words in each list.

    Returns:
        (word, occurrences per 1,000 words in the captions, in the references), overused ones and unused ones.
    """
    totals = [max(1, sum(side.words.values())) for side in (own, references)]
    rates = {
        word: (
            round(1000 * own.words.get(word, 0) / totals[0]),
            round(1000 * references.words.get(word, 0) / totals[1]),
        )
        for word in {**own.words, **references.words}
    }
    ordered = sorted(rates, key=lambda word: (rates[word][1] - rates[word][0], word))
    over = [(word, *rates[word]) for word in ordered[:count] if rates[word][0] > rates[word][1]]
    under = [(word, *rates[word]) for word in ordered[::-1][:count] if rates[word][1] > rates[word][0]]
    return over, under
