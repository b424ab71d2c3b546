"""Floors and ceilings of a data set of real pictures."""

from collections.abc import Callable, Mapping

from datamodules.base import CaptionDataModule, Split

Classes = Callable[[Split], Mapping[str, str]]


def bounds_of(data: CaptionDataModule, split: Split, classes: Classes | None = None) -> dict[str, dict[str, float]]:
    """Scores of the rows that `metrics.floors.caption_bounds` can make of a data set.

    Rows that look at pictures use the mean features of the frozen encoder, and are absent without one.

    Args:
        data: the data module.
        split: what is scored; the rows are made from train.
        classes: class of every image of a split by image id, where the data has classes.
    """
    from metrics.floors import caption_bounds  # scikit-learn is only needed here

    train_store, store = data.features("train"), data.features(split)
    return caption_bounds(
        data.references("train"),
        data.references(split),
        train_classes=classes("train") if classes else None,
        classes=classes(split) if classes else None,
        train_features=None if train_store is None else train_store.means(),
        features=None if store is None else store.means(),
    )
