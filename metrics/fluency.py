"""How fluent captions are: their perplexity under an n-gram language model that no captioner trains on."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from metrics.baselines.ngram_model import END, NGramModel
from metrics.label_agreement import ImageMean
from metrics.tokenize import tokenize_caption

_DISCOUNT = 0.75


class KneserNeyModel(NGramModel):
    """An n-gram language model with interpolated Kneser-Ney smoothing (Kneser and Ney 1995).

    Below the longest n-grams, what counts is after how many different words a word occurs, not how often; single words
    are interpolated with the uniform distribution over the vocabulary and one word that is not in it, so that every
    caption has a probability.

    Args:
        sentences: tokens of the captions.
        order: longest n-gram.

    >>> model = KneserNeyModel([["a", "red", "dog"], ["a", "dog"]], order=3)
    >>> words = [*model.vocabulary, "never seen"]
    >>> round(sum(model.probability(word, ("a",)) for word in words), 9)
    1.0
    """

    def __init__(self, sentences: Iterable[Sequence[str]], order: int) -> None:
        super().__init__(sentences, order)
        self.vocabulary = frozenset(self.followers[()])
        continued: dict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
        for history, counts in self.followers.items():
            if history:
                continued[history[1:]].update(counts.keys())
        for history, counts in continued.items():
            # what stands at the beginning follows no word: there the numbers themselves count, as in the longest
            if len(history) < order - 1 and not (history and history[0] == self.start):
                self.followers[history] = counts
                self.totals[history] = counts.total()

    def probability(self, word: str, history: tuple[str, ...]) -> float:
        """Probability of a word after a history, which may be longer than needed; above zero for every word."""
        if history := self._seen(history):
            return super().probability(word, history)
        counts, total = self.followers[()], self.totals[()]
        uniform = 1 / (len(self.vocabulary) + 1)
        return max(counts[word] - _DISCOUNT, 0) / total + _DISCOUNT * len(counts) / total * uniform

    def log_prob(self, caption: str) -> tuple[float, int]:
        """Natural-log probability of a caption, its end included, and the number of its words with the end."""
        words = [*tokenize_caption(caption).split(), END]
        history = (self.start, *words)
        parts = [math.log(self.probability(word, history[: place + 1])) for place, word in enumerate(words)]
        return sum(parts), len(words)


class Perplexity(ImageMean):
    """Perplexity of generated captions per word, ends included: e to the mean negative log-probability.

    Args:
        model: of the training captions.
        image_ids: all images that there may be.
    """

    higher_is_better = False

    def __init__(self, model: KneserNeyModel, image_ids: Iterable[str]) -> None:
        super().__init__(image_ids)
        self._model = model

    def update(self, image_ids: Sequence[str], captions: Sequence[str]) -> None:
        """Takes one caption of each image."""
        for image_id, caption in zip(image_ids, captions, strict=True):
            log_prob, words = self._model.log_prob(caption)
            self.put(image_id, -log_prob, words)

    def compute(self) -> Tensor:
        """The perplexity, a float32 scalar; NaN without captions."""
        return torch.exp(super().compute())
