"""Floors and ceilings of a data set of real pictures."""

from collections.abc import Callable, Mapping

from datamodules.base import CaptionDataModule, Split

Classes = Callable[[Split], Mapping[str, str]]


class Bounds:
    """The rows that `metrics.baselines.captions` can make of a data set, each split computed once.

    Rows that look at pictures use the mean features of the frozen encoder, and are absent without one.

    Args:
        data: the data module; the rows are made from its training split.
        classes: class of every image of a split by image id, where the data has classes.
    """

    def __init__(self, data: CaptionDataModule, classes: Classes | None = None) -> None:
        self.data, self.classes = data, classes
        self._captions: dict[Split, dict[str, dict[str, str]]] = {}
        self._scores: dict[Split, dict[str, dict[str, float]]] = {}

    def captions(self, split: Split) -> dict[str, dict[str, str]]:
        """Row to image to caption, see `metrics.baselines.captions.floor_captions`."""
        from metrics.baselines.captions import floor_captions  # scikit-learn is only needed here

        if split not in self._captions:
            data = self.data
            train_store, store = data.features("train"), data.features(split)
            self._captions[split] = floor_captions(
                data.references("train"),
                data.references(split),
                train_classes=self.classes("train") if self.classes else None,
                classes=self.classes(split) if self.classes else None,
                train_features=None if train_store is None else train_store.means(),
                features=None if store is None else store.means(),
            )
        return self._captions[split]

    def scores(self, split: Split) -> dict[str, dict[str, float]]:
        """Row to scores, see `metrics.baselines.captions.caption_bounds`."""
        from metrics.baselines.captions import caption_bounds

        if split not in self._scores:
            self._scores[split] = caption_bounds(self.captions(split), self.data.references(split))
        return self._scores[split]
