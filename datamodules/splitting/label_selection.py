"""From probabilities to pseudo-labels, and an audit of them before anybody trains on them.

Letters: n images, C labels.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from core.errors import UserError

Values = NDArray[np.float64]
Chosen = NDArray[np.bool_]

OVERUSED = 0.9
"""Share of the images from which on a label says nothing any more, unless the target has it nearly as often."""
UNUSED = 0.1
"""Share of the labels that may be on no image at all; one always may."""
NARROW = 0.5
"""Least effective number of labels, as a share of the target's."""


def choose_labels(
    probabilities: ArrayLike,
    per_image: int | None = 4,
    threshold: float | None = None,
    per_label: int | None = None,
) -> Chosen:
    """Chooses labels; every rule that is given must hold.

    Args:
        probabilities: `(n, C)`.
        per_image: most labels of an image, its most probable ones; equal ones in the order of the labels.
        threshold: least probability.
        per_label: most images of a label: of those that have it by the other rules the most probable ones, as in
            billion-scale semi-supervised learning (Yalniz et al. 2019).

    Returns:
        Which label each image has, `(n, C)`; an image may have none.

    Raises:
        UserError: no rule is given, or a number is out of range.

    >>> choose_labels([[0.9, 0.2, 0.6], [0.3, 0.1, 0.7]], per_image=2, threshold=0.5).astype(int).tolist()
    [[1, 0, 1], [0, 0, 1]]
    """
    scores = np.asarray(probabilities, dtype=float)
    if per_image is None and threshold is None and per_label is None:
        raise UserError("per_image, threshold and per_label are all null: expected at least one of them")
    if min(per_image or 1, per_label or 1) < 1 or 0 in (per_image, per_label) or not 0 <= (threshold or 0) <= 1:
        raise UserError(
            f"per_image={per_image}, per_label={per_label}, threshold={threshold}: expected counts of at least 1 and a "
            "probability"
        )
    chosen = np.ones(scores.shape, dtype=bool)
    if per_image is not None:
        chosen &= _ranks(-scores, axis=1) < per_image
    if threshold is not None:
        chosen &= scores >= threshold
    if per_label is not None:
        chosen &= _ranks(np.where(chosen, -scores, np.inf), axis=0) < per_label
    return chosen


def _ranks(values: Values, axis: int) -> NDArray[np.intp]:
    """Place of every value among those of its row or column, the smallest 0; equal ones in their order."""
    return np.argsort(np.argsort(values, axis=axis, kind="stable"), axis=axis, kind="stable")


@dataclass(frozen=True, kw_only=True)
class Audit:
    """What pseudo-labels look like, beside those of the target.

    Attributes:
        images: n.
        without_label: images that have none.
        labels_per_image: mean number of labels.
        share: share of the images that have each label, by its name.
        target_share: the same of the target's training images; empty when no target is known.
        entropy: entropy of the distribution of all labels given out, bits.
        target_entropy: the target's; log2 C when no target is known.
        distance: total variation between the two distributions, 0 (equal) to 1; None without a target.
        overused: labels on nearly every image.
        unused: labels on none.
        different_sets: different sets of labels among the images.
        reasons: why they have collapsed, one line each; empty when they have not.
    """

    images: int
    without_label: int
    labels_per_image: float
    share: dict[str, float]
    target_share: dict[str, float]
    entropy: float
    target_entropy: float
    distance: float | None
    overused: tuple[str, ...]
    unused: tuple[str, ...]
    different_sets: int
    reasons: tuple[str, ...]

    @property
    def collapsed(self) -> bool:
        """Whether training on these labels teaches next to nothing about the images."""
        return bool(self.reasons)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "collapsed": self.collapsed}

    def warning(self) -> str | None:
        """One loud line; None when the labels are sound."""
        if not self.collapsed:
            return None
        way_out = "look at the teacher, lower per_image, set per_label or a threshold, or train on soft targets"
        return (
            f"THE PSEUDO-LABELS HAVE COLLAPSED: {'; '.join(self.reasons)}. A student learns next to nothing: {way_out}"
        )


def audit_labels(chosen: ArrayLike, names: Sequence[str], target: Sequence[float] | None = None) -> Audit:
    """Audits pseudo-labels.

    They have collapsed when a label is on 90% of the images or more and the target has it clearly less often; when a
    tenth of the labels, and at least two, are on no image though the target has them; or when the effective number of
    labels (2 to the entropy) is below half of the target's.

    Args:
        chosen: which label each image has, `(n, C)`.
        names: C names.
        target: share of the target's training images that have each label; None: not known.
    """
    labels = np.asarray(chosen, dtype=bool)
    share = labels.mean(axis=0) if len(labels) else np.zeros(len(names))
    own = _distribution(share)
    other = None if target is None else _distribution(np.asarray(target, dtype=float))
    entropy = _entropy(own)
    target_entropy = float(np.log2(len(names))) if other is None else _entropy(other)
    usual = np.zeros(len(names)) if target is None else np.asarray(target, dtype=float)
    overused = [i for i in range(len(names)) if share[i] >= OVERUSED and share[i] > 1.25 * usual[i]]
    # a label that the target has not either is none that is missing
    unused = [i for i in range(len(names)) if share[i] == 0 and (target is None or usual[i] > 0)]
    return Audit(
        images=len(labels),
        without_label=int((~labels.any(axis=1)).sum()),
        labels_per_image=float(share.sum()),
        share=dict(zip(names, share.tolist(), strict=True)),
        target_share={} if target is None else dict(zip(names, usual.tolist(), strict=True)),
        entropy=entropy,
        target_entropy=target_entropy,
        distance=None if other is None else float(np.abs(own - other).sum() / 2),
        overused=tuple(names[i] for i in overused),
        unused=tuple(names[i] for i in unused),
        different_sets=len(np.unique(labels, axis=0)),
        reasons=tuple(
            _reasons(names, share, usual if target is not None else None, overused, unused, entropy, target_entropy)
        ),
    )


def _reasons(
    names: Sequence[str],
    share: Values,
    usual: Values | None,
    overused: Sequence[int],
    unused: Sequence[int],
    entropy: float,
    target_entropy: float,
) -> list[str]:
    reasons = []
    if overused:
        of_target = [f" (target {usual[i]:.0%})" if usual is not None else "" for i in overused]
        on_all = (f"{names[i]} on {share[i]:.2%}{text}" for i, text in zip(overused, of_target, strict=True))
        reasons.append(f"{', '.join(on_all)} of the images")
    if len(unused) >= max(2, UNUSED * len(names)):
        reasons.append(f"{len(unused)} of {len(names)} labels on no image ({', '.join(names[i] for i in unused)})")
    if 2**entropy < NARROW * 2**target_entropy:
        reasons.append(f"as good as {2**entropy:.1f} labels are in use, {2**target_entropy:.1f} in the target")
    return reasons


def _distribution(share: Values) -> Values:
    total = share.sum()
    return share / total if total else np.full(len(share), 1 / max(1, len(share)))


def _entropy(distribution: Values) -> float:
    """In bits."""
    positive = distribution[distribution > 0]
    return float(-(positive * np.log2(positive)).sum())
