"""A linear model on words and character n-grams, for captions alone and little data.

Letters: M captions, F features (buckets), C labels.
"""

import math
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.batch import Batch
from core.errors import DataError
from networks.classifiers.base import LabelOutput
from networks.emotion.base import Block, EmotionNetwork
from networks.layers.sequences import on_device

_WORD = re.compile(r"\w\w+")
_ORDERS = (3, 4, 5)
"""Lengths of the character n-grams."""


def text_features(text: str, buckets: int) -> tuple[list[int], list[float]]:
    """Counts the features of a text: words and word pairs, then character n-grams of words.

    Both groups have buckets of their own. The bucket of a feature is a hash of its text, so there is no vocabulary, and
    unknown words still have known n-grams. Counts n become 1 + ln n.

    Args:
        text: a caption.
        buckets: number of buckets of each group.

    Returns:
        Buckets in [0, 2 x buckets), ascending, and the values of each.

    >>> places, values = text_features("A dog and a dog", 1000)
    >>> len(places) == len(values), round(max(values), 2), min(values)
    (True, 1.69, 1.0)
    """
    words = _WORD.findall(text.lower())
    pairs = [f"{first} {second}" for first, second in pairwise(words)]
    counts = Counter(zlib.crc32(feature.encode()) % buckets for feature in [*words, *pairs])
    grams = Counter(buckets + zlib.crc32(gram.encode()) % buckets for word in words for gram in _ngrams(f" {word} "))
    features = sorted((counts + grams).items())
    return [place for place, _ in features], [1.0 + math.log(count) for _, count in features]


def _ngrams(word: str) -> Iterable[str]:
    """All character n-grams of a word between blanks; a shorter word as a whole."""
    for length in _ORDERS:
        if len(word) <= length:
            yield word
            return
        for start in range(len(word) - length + 1):
            yield word[start : start + length]


class DocumentFrequencies(nn.Module):
    """Inverse document frequencies ln((1 + documents) / (1 + documents with it)) + 1 of the training captions.

    Args:
        num_features: F.
    """

    weights: Tensor

    def __init__(self, *, num_features: int) -> None:
        super().__init__()
        self.register_buffer("weights", torch.ones(num_features))

    def fit(self, documents: Iterable[Sequence[int]]) -> None:
        """Computes the weights from documents, each given by its distinct features."""
        found, total = torch.zeros(len(self.weights)), 0
        for document in documents:
            found[torch.tensor(document, dtype=torch.long)] += 1
            total += 1
        self.weights.copy_(torch.log((1 + total) / (1 + found)) + 1)

    def forward(self, places: Tensor) -> Tensor:
        """Weight of each feature, of the shape of `places`."""
        return self.weights[places]


class TextClassifier(EmotionNetwork):
    """TF-IDF of words, word pairs and character n-grams -> linear layer.

    Each of the two groups of features is scaled to length 1. The network reads the captions as written
    (``Batch.references``) and needs no tokenizer, no image and no pretrained weights.

    Blocks: (1) document frequencies. The rest is the head.

    Args:
        num_labels: C.
        buckets: features of each of the two groups.
    """

    def __init__(self, *, num_labels: int, buckets: int = 1 << 16) -> None:
        super().__init__()
        self.num_labels, self.buckets = num_labels, buckets
        self.frequencies = DocumentFrequencies(num_features=2 * buckets)
        self.head = nn.Linear(2 * buckets, num_labels)
        # a linear model needs no random start, and features that never occur keep weight zero
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self._known: dict[str, tuple[Tensor, Tensor]] = {}

    def fit_frequencies(self, captions: Iterable[str]) -> None:
        """Computes the document frequencies from the training captions."""
        self.frequencies.fit(text_features(caption, self.buckets)[0] for caption in captions)
        self._known.clear()

    def _features(self, text: str) -> tuple[Tensor, Tensor]:
        """Buckets and counts of one text, on the CPU; cached, since every epoch reads the same texts."""
        if text not in self._known:
            if len(self._known) >= 20_000:
                self._known.clear()
            places, values = text_features(text, self.buckets)
            self._known[text] = torch.tensor(places, dtype=torch.long), torch.tensor(values)
        return self._known[text]

    def forward(self, batch: Batch) -> LabelOutput:
        """Scores every caption: M rows.

        Raises:
            DataError: an image has no caption.
        """
        device = self.head.weight.device
        for image_id, captions in zip(batch["image_id"], batch["references"], strict=True):
            if not captions:
                raise DataError(f"image '{image_id}' has no caption, but this network reads captions only: add one")
        texts = [self._features(text) for captions in batch["references"] for text in captions]
        counts = torch.tensor([len(index) for index, _ in texts])
        places = torch.cat([index for index, _ in texts]).to(device, non_blocking=True)
        counted = torch.cat([value for _, value in texts]).to(device, non_blocking=True)
        starts = (counts.cumsum(0) - counts).to(device, non_blocking=True)
        rows = torch.arange(len(texts)).repeat_interleave(counts).to(device, non_blocking=True)
        values = self._scaled(places, counted, rows, len(texts))
        # lookups, not a product: a caption has a few hundred of the features
        table = self.head.weight.T
        scores = F.embedding_bag(places, table, starts, mode="sum", per_sample_weights=values.to(table.dtype))
        index = on_device([row for row, captions in enumerate(batch["references"]) for _ in captions], device)
        return LabelOutput(scores + self.head.bias, index)

    def _scaled(self, places: Tensor, counts: Tensor, rows: Tensor, texts: int) -> Tensor:
        """Counts of features weighted by document frequencies, each of a text's two groups of length 1."""
        values: Tensor = counts * self.frequencies(places)
        group = 2 * rows + (places >= self.buckets)
        squares = values.new_zeros(2 * texts).index_add(0, group, values.square())
        return values / squares.sqrt()[group]

    def blocks(self) -> list[Block]:
        """The document frequencies."""
        return [("document frequencies", [self.frequencies])]
