"""Baselines and upper bounds of a data set of real images."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from datamodules.readers.records import Split
from datamodules.stored_features.files import FeatureStore


class CaptionedData(Protocol):
    """What baselines are made of; every data module has it."""

    def references(self, split: Split) -> Mapping[str, Sequence[str]]:
        """All captions of every image by its id."""

    def classes(self, split: Split) -> Mapping[str, str]:
        """Class of every image by its id; empty when there are none."""

    def features(self, split: Split) -> FeatureStore | None:
        """Stored features of the images in the same order, if there are any."""


class CaptionBaselines:
    """The rows that `metrics.baselines.captions` can make of a data set, each split computed once.

    Rows that look at images use the mean features of the frozen encoder, and are absent without one.

    Args:
        data: the data module; the rows are made from its training split.
    """

    def __init__(self, data: CaptionedData) -> None:
        self.data = data
        self._captions: dict[Split, dict[str, dict[str, str]]] = {}
        self._scores: dict[Split, dict[str, dict[str, float]]] = {}

    def captions(self, split: Split) -> dict[str, dict[str, str]]:
        """Row to image to caption, see `metrics.baselines.captions.baseline_captions`."""
        from metrics.baselines.captions import baseline_captions  # scikit-learn is only needed here

        if split not in self._captions:
            data = self.data
            train_store, store = data.features("train"), data.features(split)
            self._captions[split] = baseline_captions(
                data.references("train"),
                data.references(split),
                train_classes=data.classes("train"),
                classes=data.classes(split),
                train_features=None if train_store is None else train_store.means(),
                features=None if store is None else store.means(),
            )
        return self._captions[split]

    def scores(self, split: Split) -> dict[str, dict[str, float]]:
        """Row to scores, see `metrics.baselines.captions.caption_baselines`."""
        from metrics.baselines.captions import caption_baselines

        if split not in self._scores:
            self._scores[split] = caption_baselines(self.captions(split), self.data.references(split))
        return self._scores[split]
