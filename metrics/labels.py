"""Metrics of multi-label classification, as plain functions of probabilities and targets.

Targets are binarised at .5, so that soft ones can be scored as well. Nothing here divides by zero: what is undefined is
excluded from its mean, as noted below.

Letters: n images, C labels.
"""

from collections import Counter
from collections.abc import Sequence
from typing import TypedDict

import numpy as np
from numpy.typing import ArrayLike, NDArray

from core.errors import UserError

Rows = NDArray[np.float64]
Truth = NDArray[np.bool_]

TOP = (1, 2, 3)
_RECALL_AT = 3


class LabelRow(TypedDict):
    """One label of the table that `per_label` makes."""

    label: str
    support: int
    """Images that have it."""
    predicted: int
    """Images for which it was predicted."""
    precision: float
    """0 where nothing was predicted."""
    recall: float
    """0 where nothing has it."""
    f1: float
    """Harmonic mean of the two; 0 where the label neither is nor was predicted."""
    average_precision: float | None
    """None where no image has it."""


def label_scores(
    probabilities: ArrayLike, targets: ArrayLike, threshold: float = 0.5, prior: ArrayLike | None = None
) -> dict[str, float]:
    """All metrics of a split.

    Args:
        probabilities: `(n, C)`, higher is more likely.
        targets: `(n, C)` in [0, 1].
        threshold: a label is predicted from this probability on.
        prior: frequency of every label in training, `(C,)`; adds the differences to the prior.

    Returns:
        ``top1`` to ``top3``: share of images with a true label among the k most probable; of equals the first wins.
        ``recall3``: mean over images of (true labels among the 3 best / true labels), ``recall3_micro``: the same sums
        pooled. These leave out images without labels; NaN when no image has any. ``as_published/recall3``: hits / 3n,
        as the published code has it.
        ``micro_*``, ``macro_*``, ``example_*`` with ``precision``, ``recall``, ``f1`` at the threshold: pooled over all
        decisions, mean over the labels that an image has, mean over images. An image without labels for which none is
        predicted counts as 1.
        ``macro_ap``: average precision, mean over the labels that an image has; how many had none is
        ``labels_without_positives``.
        With a prior ``lift_over_prior`` (of ``macro_ap``) and ``top1_lift`` to ``top3_lift``: own figure minus that of
        the prior, which gives every image the same probabilities.

    Raises:
        UserError: shapes do not match, or a value is not a number.

    >>> scores = label_scores([[0.9, 0.2], [0.1, 0.8]], [[1, 0], [1, 1]], prior=[0.9, 0.1])
    >>> scores["top1"], scores["recall3"], round(scores["micro_f1"], 3), scores["top1_lift"]
    (1.0, 1.0, 0.8, 0.0)
    """
    scores, truth = checked(probabilities, targets)
    values = {**ranking_scores(scores, truth), **threshold_scores(scores >= threshold, truth)}
    precisions = average_precisions(scores, truth)
    values["macro_ap"] = _mean(precisions)
    values["labels_without_positives"] = float(np.isnan(precisions).sum())
    if prior is not None:
        flat = np.broadcast_to(np.asarray(prior, dtype=np.float64), scores.shape)
        of_prior = ranking_scores(flat, truth)
        values["lift_over_prior"] = values["macro_ap"] - _mean(average_precisions(flat, truth))
        values |= {f"top{k}_lift": values[f"top{k}"] - of_prior[f"top{k}"] for k in TOP}
    return values


def ranking_scores(probabilities: Rows, truth: Truth) -> dict[str, float]:
    """Metrics of the order of an image's labels, see `label_scores`."""
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, : max(*TOP, _RECALL_AT)]
    hits = np.take_along_axis(truth, order, axis=1)
    counts = truth.sum(axis=1)
    known = counts > 0
    values = {f"top{k}": _mean(hits[known, :k].any(axis=1)) for k in TOP}
    found = hits[:, :_RECALL_AT].sum(axis=1)
    values["recall3"] = _mean(found[known] / counts[known])
    values["recall3_micro"] = float(found.sum() / counts.sum()) if known.any() else float("nan")
    values["as_published/recall3"] = float(found.sum() / (_RECALL_AT * len(truth))) if len(truth) else float("nan")
    return values


def threshold_scores(predicted: Truth, truth: Truth) -> dict[str, float]:
    """Precision, recall and F1 of decisions: pooled, by label and by image, see `label_scores`."""
    hits = predicted & truth
    values: dict[str, float] = {}
    micro = _precision_recall_f1(hits.sum(), predicted.sum(), truth.sum())
    occurring = truth.any(axis=0)
    by_label = _precision_recall_f1(*(part.sum(axis=0)[occurring] for part in (hits, predicted, truth)))
    by_image = _precision_recall_f1(*(part.sum(axis=1) for part in (hits, predicted, truth)))
    right_about_nothing = ~predicted.any(axis=1) & ~truth.any(axis=1)
    for place, name in enumerate(("precision", "recall", "f1")):
        values[f"micro_{name}"] = float(micro[place])
        values[f"macro_{name}"] = _mean(by_label[place])
        values[f"example_{name}"] = _mean(np.where(right_about_nothing, 1.0, by_image[place]))
    return values


def average_precisions(probabilities: Rows, truth: Truth) -> Rows:
    """Average precision of every label: sum of precision times gain in recall; equal probabilities count together.

    Args:
        probabilities: `(n, C)`.
        truth: `(n, C)`.

    Returns:
        `(C,)`; NaN for labels that no image has.
    """
    result = np.full(truth.shape[1], np.nan)
    for label in np.flatnonzero(truth.any(axis=0)):
        hits, guessed = _cumulated(probabilities[:, label], truth[:, label])
        gains = np.diff(hits, prepend=0) / hits[-1]
        result[label] = (gains * hits / guessed).sum()
    return result


def choose_threshold(probabilities: ArrayLike, targets: ArrayLike) -> float:
    """The one threshold with the highest micro-F1, half way to the next lower probability; of equals the highest.

    0.5 when no image has a label.

    >>> choose_threshold([[0.9, 0.3], [0.7, 0.1]], [[1, 1], [1, 0]])
    0.2
    """
    scores, truth = checked(probabilities, targets)
    if not truth.any():
        return 0.5
    hits, guessed = _cumulated(scores.ravel(), truth.ravel())
    best = int(np.argmax(2 * hits / (guessed + hits[-1])))
    values = np.unique(scores)[::-1]
    below = values[best + 1] if best + 1 < len(values) else 0.0
    return float((values[best] + below) / 2)


def threshold_curve(probabilities: ArrayLike, targets: ArrayLike, points: int = 101) -> dict[str, list[float]]:
    """Scores over the threshold from which on a label is predicted.

    Args:
        probabilities: `(n, C)`.
        targets: `(n, C)` in [0, 1].
        points: number of thresholds, evenly spread over [0, 1].

    Returns:
        ``threshold``, ``micro_precision``, ``micro_recall``, ``micro_f1`` and ``macro_f1``, `points` values each; the
        macro-F1 is the mean over the labels that an image has.

    Raises:
        UserError: shapes do not match.
    """
    scores, truth = checked(probabilities, targets)
    thresholds = np.linspace(0.0, 1.0, points)
    # of every label the decisions from each threshold on: (points, C)
    predicted, hits = (
        np.stack([(chosen & (scores >= limit)).sum(axis=0) for limit in thresholds])
        for chosen in (np.ones_like(truth), truth)
    )
    support = truth.sum(axis=0)
    precision, recall, f1 = _precision_recall_f1(hits.sum(axis=1), predicted.sum(axis=1), support.sum())
    _, _, per_class = _precision_recall_f1(hits, predicted, support)
    macro = per_class[:, support > 0].mean(axis=1) if (support > 0).any() else np.zeros(points)
    columns = (thresholds, precision, recall, f1, macro)
    names = ("threshold", "micro_precision", "micro_recall", "micro_f1", "macro_f1")
    return {name: column.tolist() for name, column in zip(names, columns, strict=True)}


def per_label(
    probabilities: ArrayLike, targets: ArrayLike, names: Sequence[str], threshold: float = 0.5
) -> list[LabelRow]:
    """Table of the labels, in their order.

    Raises:
        UserError: shapes do not match, or there are more or fewer names than labels.
    """
    scores, truth = checked(probabilities, targets)
    if len(names) != truth.shape[1]:
        raise UserError(f"there are {len(names)} label names for {truth.shape[1]} labels: expected one each")
    predicted = scores >= threshold
    sums = [part.sum(axis=0) for part in (predicted & truth, predicted, truth)]
    precision, recall, f1 = _precision_recall_f1(*sums)
    precisions = average_precisions(scores, truth)
    return [
        {
            "label": name,
            "support": int(sums[2][place]),
            "predicted": int(sums[1][place]),
            "precision": float(precision[place]),
            "recall": float(recall[place]),
            "f1": float(f1[place]),
            "average_precision": None if np.isnan(precisions[place]) else float(precisions[place]),
        }
        for place, name in enumerate(names)
    ]


def confusions(
    probabilities: ArrayLike, targets: ArrayLike, names: Sequence[str], threshold: float, count: int = 20
) -> list[tuple[str, str, int]]:
    """Pairs of a true label that was missed and a wrong label of the same image, by the number of images.

    Args:
        probabilities: `(n, C)`.
        targets: `(n, C)` in [0, 1].
        names: names of the labels.
        threshold: a label is predicted from this probability on.
        count: maximum number of pairs.

    >>> confusions([[0.1, 0.9], [0.2, 0.8]], [[1, 0], [1, 0]], ["sea", "ship"], 0.5)
    [('sea', 'ship', 2)]
    """
    scores, truth = checked(probabilities, targets)
    predicted = scores >= threshold
    found: Counter[tuple[str, str]] = Counter()
    for missed, wrong in zip(truth & ~predicted, predicted & ~truth, strict=True):
        found.update((names[a], names[b]) for a in _places(missed) for b in _places(wrong))
    return [(*pair, number) for pair, number in found.most_common(count)]


def _places(chosen: NDArray[np.bool_]) -> list[int]:
    places: list[int] = np.flatnonzero(chosen).tolist()
    return places


def checked(probabilities: ArrayLike, targets: ArrayLike) -> tuple[Rows, Truth]:
    """Probabilities as float64 and targets binarised at .5, both `(n, C)`.

    Raises:
        UserError: they are no matrices of one shape, or a value is not a number.
    """
    scores, labels = np.asarray(probabilities, dtype=np.float64), np.asarray(targets, dtype=np.float64)
    if scores.ndim != 2 or scores.shape != labels.shape:
        raise UserError(
            f"label metrics: probabilities have shape {scores.shape}, targets {labels.shape}; expected (n, C) for both"
        )
    for name, values in (("probability", scores), ("target", labels)):
        if np.isnan(values).any():
            raise UserError(f"label metrics: a {name} of image {int(np.argwhere(np.isnan(values))[0, 0])} is no number")
    return scores, labels >= 0.5


def _cumulated(scores: Rows, truth: Truth) -> tuple[Rows, Rows]:
    """True and all decisions when one predicts down to each distinct score, from the highest on."""
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    ends = np.append(np.flatnonzero(np.diff(ordered)), len(ordered) - 1)
    return np.cumsum(truth[order])[ends].astype(np.float64), ends + 1.0


def _precision_recall_f1(
    hits: NDArray[np.int64], predicted: NDArray[np.int64], true: NDArray[np.int64]
) -> tuple[Rows, Rows, Rows]:
    """Precision, recall and F1 from counts; 0 where they are undefined."""
    precision = hits / np.maximum(predicted, 1)
    recall = hits / np.maximum(true, 1)
    return precision, recall, 2 * hits / np.maximum(predicted + true, 1)


def _mean(values: ArrayLike) -> float:
    """Mean of what is a number; NaN of nothing."""
    array = np.asarray(values, dtype=np.float64)
    array = array[~np.isnan(array)]
    return float(array.mean()) if array.size else float("nan")
