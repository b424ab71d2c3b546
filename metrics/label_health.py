"""Signs that a classifier has collapsed: the same few labels for every image, whatever it shows."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

_FEWEST = 20
"""Fewer images than this say nothing about collapse."""
_SAME = 0.95
"""Share of images with one and the same most probable label from which on it is named."""
_SPREAD = 1e-4
"""Standard deviation over images below which a label's probability does not depend on the image."""


def signs_of_label_collapse(probabilities: ArrayLike, names: Sequence[str]) -> list[str]:
    """Names what predictions have in common with those of classifiers that have collapsed.

    Args:
        probabilities: `(n, C)`.
        names: names of the labels.

    Returns:
        A line per sign; empty for healthy predictions and for fewer than 20 images.

    >>> signs_of_label_collapse([[0.2, 0.7]] * 30, ["sea", "ship"])
    ["'ship' is the most probable label of 30 of 30 images", 'no probability depends on the image']
    """
    values = np.asarray(probabilities, dtype=np.float64)
    if len(values) < _FEWEST or values.shape[1] < 2:
        return []
    counts = np.bincount(values.argmax(axis=1), minlength=values.shape[1])
    lines = []
    if counts.max() >= _SAME * len(values):
        lines.append(
            f"'{names[int(counts.argmax())]}' is the most probable label of {counts.max()} of {len(values)} images"
        )
    if (values.std(axis=0) < _SPREAD).all():
        lines.append("no probability depends on the image")
    return lines
