"""Baselines and upper bounds of a labelled data set."""

import numpy as np

from datamodules.base import CaptionDataModule
from datamodules.readers.records import Split


def label_baselines_of(data: CaptionDataModule, split: Split, reads_text: bool) -> dict[str, dict[str, float]]:
    """Scores of the rows that `metrics.baselines.labels.label_baselines` can make of a data set.

    Rows that look at images use the mean features of the frozen encoder, and are absent without one.

    Args:
        data: the data module.
        split: what is scored; the rows are made from train.
        reads_text: whether captions may be read; they are no baseline of a model that sees images alone.
    """
    from metrics.baselines.labels import label_baselines  # scikit-learn is only needed here

    examples = {name: data.examples(name) for name in ("train", split)}
    targets = [np.array([e.labels for e in examples[name]], dtype=np.float64) for name in ("train", split)]
    texts = [[" ".join(e.captions) for e in examples[name]] for name in ("train", split)]
    stores = [data.features(name) for name in ("train", split)]
    means = [None if store is None else store.means() for store in stores]
    classes: list[list[str]] = []
    found = [data.classes(name) for name in ("train", split)]
    if all(found):
        classes = [[found[i].get(str(e.image_id), "") for e in examples[n]] for i, n in enumerate(("train", split))]
    words = reads_text and any(texts[0])
    return label_baselines(
        targets[0],
        targets[1],
        train_texts=texts[0] if words else None,
        texts=texts[1] if words else None,
        train_features=means[0],
        features=means[1],
        train_classes=classes[0] if classes else None,
        classes=classes[1] if classes else None,
    )
