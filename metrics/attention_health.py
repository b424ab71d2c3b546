"""Signs that attention tells nothing: it is uniform, or it stays where it is whatever the word and the image.

Letters: W words, R regions.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

_FEWEST = 20
"""Fewer words than this say nothing."""
_UNIFORM = 0.995
"""Mean entropy, relative to that of uniform attention, from which on attention counts as uniform."""
_STUCK = 0.02
"""Mean total variation from the mean map below which attention counts as the same everywhere."""


def signs_of_idle_attention(maps: Sequence[ArrayLike]) -> list[str]:
    """Names what attention has in common with attention that has collapsed.

    Args:
        maps: for every image the attention at each word, `(W, R)`; rows sum to one, R is the same for all.

    Returns:
        A line per sign; empty for healthy attention, for fewer than 20 words and for a single region.

    >>> signs_of_idle_attention([[[0.25] * 4] * 30])
    ['attention is uniform: its entropy is 1.000 of the highest possible']
    """
    rows = [np.asarray(one, dtype=np.float64) for one in maps if len(np.asarray(one))]
    words = np.concatenate([one.reshape(len(one), -1) for one in rows]) if rows else np.zeros((0, 0))
    if len(words) < _FEWEST or words.shape[1] < 2:
        return []
    logs = np.log(np.where(words > 0, words, 1.0))
    entropy = float((-(words * logs).sum(axis=1)).mean() / np.log(words.shape[1]))
    if entropy >= _UNIFORM:
        return [f"attention is uniform: its entropy is {entropy:.3f} of the highest possible"]
    distance = float(0.5 * np.abs(words - words.mean(axis=0)).sum(axis=1).mean())
    if distance < _STUCK:
        place = int(words.mean(axis=0).argmax())
        return [f"attention is stuck: it is the same at {len(words)} words of {len(rows)} images, highest at {place}"]
    return []
