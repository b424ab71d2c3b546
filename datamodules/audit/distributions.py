"""How the sizes, caption lengths, labels and words of a data set are distributed."""

import math
import statistics
import textwrap
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from core.cache import default_cache_dir
from datamodules.base import CaptionDataModule
from datamodules.loading.tokenization import build_tokenizer, split_words
from datamodules.readers.records import Example

_BINS = 12
"""Most bins of a histogram."""
_SHOWN_WORDS = 30
_LONGEST = 24
"""Letters of a name that are shown."""
_UNCUT = 1 << 20
"""More tokens than any caption has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Distribution:
    """How often something occurs.

    Attributes:
        name: short, as the name of a file.
        title: what is counted, with its unit.
        counts: value (or its first and last one, with a dash) or name to how often it occurs, in order.
        total: what the counts are shares of.
        notes: what else is known, one sentence without a full stop.
    """

    name: str
    title: str
    counts: Mapping[str, int]
    total: int
    notes: str

    @property
    def is_histogram(self) -> bool:
        """Whether the values are numbers in their order, not names by frequency."""
        return self.name not in ("labels", "caption_labels", "words")


def distributions(
    data: CaptionDataModule, examples: Sequence[Example], sizes: Sequence[tuple[int, int]]
) -> list[Distribution]:
    """All distributions that a data set has: images have sizes, captions lengths, labels and words, examples labels.

    Args:
        data: says labels and tokenizer.
        examples: examples of all splits, each once.
        sizes: width and height of the images that can be decoded, pixels.
    """
    found = []
    if sizes:
        found += [
            histogram(name, f"{name} of images, pixels", [size[axis] for size in sizes])
            for axis, name in enumerate(("width", "height"))
        ]
    captions = [text for example in examples for text in example.captions]
    words = [split_words(text) for text in captions]
    if captions:
        found.append(_lengths(data, captions, words))
    if data.label_names and any(example.labels for example in examples):
        found.append(_labels(data.label_names, examples))
    if data.condition_names and captions:
        found.append(_caption_labels(data.condition_names, examples))
    if captions:
        found.append(_words(words))
    return found


def histogram(name: str, title: str, values: Sequence[int], notes: str = "") -> Distribution:
    """Counts integers in at most `_BINS` bins of equal width: 1, 2 or 5 times a power of ten.

    >>> histogram("width", "width", [3, 4, 4, 29]).counts
    {'0-4': 3, '5-9': 0, '10-14': 0, '15-19': 0, '20-24': 0, '25-29': 1}
    >>> histogram("width", "width", [256, 256]).counts
    {'256': 2}
    """
    low, high = min(values), max(values)
    width = next(
        step * 10**power
        for power in range(12)
        for step in (1, 2, 5)
        if high // (step * 10**power) - low // (step * 10**power) < _BINS
    )
    counts = Counter(value // width for value in values)
    bins = range(low // width, high // width + 1)
    labels = {place: str(place) if width == 1 else f"{place * width}-{place * width + width - 1}" for place in bins}
    summary = f"mean {statistics.fmean(values):.1f}, median {statistics.median(values):g}, {low} to {high}"
    return Distribution(
        name=name,
        title=title,
        counts={labels[place]: counts[place] for place in bins},
        total=len(values),
        notes=f"{summary}; {notes}" if notes else summary,
    )


def _lengths(data: CaptionDataModule, captions: Sequence[str], words: Sequence[Sequence[str]]) -> Distribution:
    """Caption lengths in what the tokenizer makes of them."""
    if data.tokenizer_name == "word":
        lengths, title = [len(own) for own in words], "words per caption"
        cut = sum(length + 2 > data.max_tokens for length in lengths)
    else:
        tokenizer = build_tokenizer(
            data.tokenizer_name, lambda: list(captions), 1, _UNCUT, default_cache_dir() / "vocabularies"
        )
        lengths = [len(tokenizer.encode(text)) for text in captions]
        title = f"tokens per caption ({Path(data.tokenizer_name).name}, with first and last token)"
        cut = sum(length > data.max_tokens for length in lengths)
    limit = f"{cut:,} ({share(cut, len(captions))}) longer than max_tokens={data.max_tokens}"
    return histogram("caption_lengths", title, lengths, limit)


def _labels(names: Sequence[str], examples: Sequence[Example]) -> Distribution:
    """Images with each label, the most frequent first."""
    labelled = [example for example in examples if example.labels]
    counts = Counter({name: sum(example.labels[place] > 0 for example in labelled) for place, name in enumerate(names)})
    per_image = sum(counts.values()) / len(labelled)
    notes = f"{per_image:.2f} labels an image, {sum(not any(e.labels) for e in labelled):,} images without one"
    most = dict(counts.most_common())
    return Distribution(name="labels", title="images with each label", counts=most, total=len(labelled), notes=notes)


def _caption_labels(names: Sequence[str], examples: Sequence[Example]) -> Distribution:
    """Captions with each label of captions, the most frequent first."""
    counts = Counter(label for example in examples for label in (example.conditions or [-1] * len(example.captions)))
    title, notes = "captions with each label", f"{counts[-1]:,} captions without one"
    most = {names[label]: count for label, count in counts.most_common() if label >= 0}
    return Distribution(name="caption_labels", title=title, counts=most, total=counts.total(), notes=notes)


def _words(captions: Iterable[Sequence[str]]) -> Distribution:
    """The most frequent words."""
    counts = Counter(word for words in captions for word in words)
    total, top = sum(counts.values()), dict(sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:_SHOWN_WORDS])
    once = sum(count == 1 for count in counts.values())
    half = _words_for_half(sorted(counts.values(), reverse=True), total)
    notes = f"{len(counts):,} words, {once:,} of them once; {half:,} make half of the text"
    title = f"the {len(top)} most frequent words"
    return Distribution(name="words", title=title, counts=top, total=total, notes=notes)


def _words_for_half(counts: Sequence[int], total: int) -> int:
    """How many of the most frequent words make half of all."""
    seen = 0
    for number, count in enumerate(counts, start=1):
        seen += count
        if 2 * seen >= total:
            return number
    return 0


def share(count: int, total: int) -> str:
    """A percentage.

    >>> share(1, 3), share(0, 0), share(1, 10**6)
    ('33.3 %', '0.0 %', '<0.1 %')
    """
    percent = 100 * count / total if total else 0.0
    return "<0.1 %" if 0 < percent < 0.05 else f"{percent:.1f} %"


def as_text(found: Distribution, width: int = 79) -> list[str]:
    """Lines of at most `width` characters: the title, a bar for each count, the notes.

    Args:
        found: what is shown.
        width: columns of the terminal.
    """
    most = max([*found.counts.values(), 1])
    numbers = [f"{count:,}" for count in found.counts.values()]
    shares = [share(count, found.total) for count in found.counts.values()]
    names = [name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…" for name in found.counts]
    columns = [max(map(len, texts), default=0) for texts in (names, numbers, shares)]
    room = max(1, width - sum(columns) - 2 - 2 * 3)
    lines = [found.title]
    for name, number, part, count in zip(names, numbers, shares, found.counts.values(), strict=True):
        bar = "█" * math.ceil(room * count / most)
        own = name.rjust(columns[0]) if found.is_histogram else name.ljust(columns[0])
        lines.append(f"  {own}  {number.rjust(columns[1])}  {part.rjust(columns[2])}  {bar}".rstrip())
    return [*lines, *textwrap.wrap(found.notes, width, initial_indent="  ", subsequent_indent="  ")]
