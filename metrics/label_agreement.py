"""Whether captions say the label that they were asked for, as a classifier of words judges that guides nobody.

Letters: C labels.
"""

import itertools
import math
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor
from torchmetrics import Metric

from core.errors import UserError
from metrics.tokenize import tokenize_caption

_SMOOTHING = 0.1
_NOT_SCORED = -1.0
_TELLING = 10
"""Words of a label that `telling_word` chooses from."""
_FEWEST = 3
"""Captions of a label in which such a word occurs at least."""


class WordClassifier:
    """Multinomial naive Bayes over the words and pairs of words of a caption, each counted once, all labels as likely.

    Args:
        captions: captions of training.
        labels: label of each caption, in [0, C); those with -1 are left out.
        num_labels: C.

    Raises:
        UserError: no caption has a label.

    >>> classifier = WordClassifier(["a sad dog", "a happy dog"], [0, 1], num_labels=2)
    >>> classifier.label("the sad cat"), classifier.label("happy")
    (0, 1)
    """

    def __init__(self, captions: Sequence[str], labels: Sequence[int], *, num_labels: int) -> None:
        self.counts: list[Counter[str]] = [Counter() for _ in range(num_labels)]
        for caption, label in zip(captions, labels, strict=True):
            if label >= 0:
                self.counts[label].update(_features(caption))
        known = {feature for counts in self.counts for feature in counts}
        if not known:
            raise UserError("no training caption has a label: a classifier of labels needs some")
        self._totals = [counts.total() + _SMOOTHING * len(known) for counts in self.counts]
        self._known = known

    def scores(self, caption: str) -> list[float]:
        """Log-likelihood of a caption under each label, C numbers; words never seen are skipped."""
        features = [feature for feature in _features(caption) if feature in self._known]
        return [
            sum(math.log((counts[feature] + _SMOOTHING) / total) for feature in features)
            for counts, total in zip(self.counts, self._totals, strict=True)
        ]

    def label(self, caption: str) -> int:
        """The most likely label; the first of several."""
        scores = self.scores(caption)
        return scores.index(max(scores))

    def telling_word(self, label: int, key: str) -> str:
        """One of the words that tell a label best, drawn by a key; empty where a label has none."""
        own = self.counts[label]
        often = [word for word, count in own.items() if " " not in word and count >= _FEWEST]

        def odds(word: str) -> float:
            elsewhere = sum(counts[word] for counts in self.counts) - own[word]
            return (own[word] + _SMOOTHING) / (elsewhere + _SMOOTHING)

        best = sorted(often, key=lambda word: (-odds(word), word))[:_TELLING]
        return best[zlib.crc32(key.encode()) % len(best)] if best else ""


def _features(caption: str) -> set[str]:
    words = tokenize_caption(caption).split()
    return {*words, *(" ".join(pair) for pair in itertools.pairwise(words))}


class ImageMean(Metric):
    """Mean over images of a number for each; an image that two processes have seen counts once.

    Args:
        image_ids: all images that there may be.
    """

    is_differentiable = False
    full_state_update = False
    rows: Tensor

    def __init__(self, image_ids: Iterable[str]) -> None:
        super().__init__()
        self._row = {image_id: row for row, image_id in enumerate(image_ids)}
        self.add_state("rows", torch.full((len(self._row), 2), _NOT_SCORED, dtype=torch.float64), dist_reduce_fx="max")

    def put(self, image_id: str, value: float, weight: float = 1.0) -> None:
        """Notes the number of an image and its weight; both at least 0."""
        self.rows[self._row[image_id]] = torch.tensor([value, weight], dtype=torch.float64, device=self.rows.device)

    def compute(self) -> Tensor:
        """Sum of the numbers over that of the weights, a float32 scalar; NaN where there is none."""
        known = self.rows[self.rows[:, 1] >= 0]
        return (known[:, 0].sum() / known[:, 1].sum()).float()

    def _apply(self, fn: Callable[..., Tensor], exclude_state: Sequence[str] = "") -> torch.nn.Module:
        # Apple's MPS has no float64; there the rows stay in main memory
        if fn(torch.zeros(1)).device.type == "mps":
            exclude_state = [*exclude_state, "rows"]
        return super()._apply(fn, exclude_state)


class LabelAgreement(ImageMean):
    """Share of captions whose label, as a classifier sees it, is the one asked for.

    Args:
        classifier: the judge.
        image_ids: all images that there may be.
    """

    higher_is_better = True

    def __init__(self, classifier: WordClassifier, image_ids: Iterable[str]) -> None:
        super().__init__(image_ids)
        self._classifier = classifier

    def update(self, image_ids: Sequence[str], captions: Sequence[str], labels: Sequence[int]) -> None:
        """Takes one caption of each image, and the label asked for; -1 for none, which is left out."""
        for image_id, caption, label in zip(image_ids, captions, labels, strict=True):
            if label >= 0:
                self.put(image_id, float(self._classifier.label(caption) == label))
