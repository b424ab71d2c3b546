"""Is one classifier better than another? Paired bootstrap over images, as for captions in `metrics.bootstrap`."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from core.errors import UserError
from metrics.bootstrap import Comparison, comparisons
from metrics.labels import average_precisions, checked, ranking_scores, threshold_scores
from metrics.names import paired_keys

SCORES = tuple(paired_keys())
"""Scores that are compared, in the order of printing."""


def paired_label_bootstrap(
    a: ArrayLike | Sequence[ArrayLike],
    b: ArrayLike | Sequence[ArrayLike],
    targets: ArrayLike | Sequence[ArrayLike],
    *,
    thresholds: tuple[float | Sequence[float], float | Sequence[float]] = (0.5, 0.5),
    samples: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
) -> dict[str, Comparison]:
    """Compares two systems' probabilities for the same images.

    Images are drawn with replacement, the same for both, and every score is computed anew from the draw. Several runs
    of the systems, such as several seeds, are given as sequences: scores are then means over the runs. Runs on the same
    images share the draws; runs with targets of their own are drawn separately.

    Args:
        a: probabilities of the first system, `(n, C)`, or a sequence of them, one per run.
        b: those of the second, the same images in the same order.
        targets: `(n, C)` in [0, 1], binarised at .5; a sequence of them: each run has its own images.
        thresholds: thresholds of each system for F1, or of each of its runs.
        samples: number of resamples.
        seed: seed of the draws.
        confidence: mass of the percentile interval, in (0, 1).

    Returns:
        A comparison per score, keyed by `SCORES`.

    Raises:
        UserError: shapes do not match, or an argument is out of range.
    """
    if samples < 1 or not 0 < confidence < 1:
        raise UserError(
            f"bootstrap: samples={samples}, confidence={confidence}: expected at least 1, and within (0, 1)"
        )
    runs, truths = (_matrices(a), _matrices(b)), _matrices(targets)
    if len(runs[0]) != len(runs[1]) or len(truths) not in (1, len(runs[0])):
        counts = f"{len(runs[0])}, {len(runs[1])} and {len(truths)}"
        raise UserError(f"bootstrap: there are {counts} runs and targets: expected as many of both systems")
    alike = len(truths) == 1
    systems = [
        _System(
            [checked(run, truth) for run, truth in zip(side, truths * (len(side) if alike else 1), strict=True)], limit
        )
        for side, limit in zip(runs, thresholds, strict=True)
    ]
    own = [system.scores([slice(None)] * len(runs[0])) for system in systems]
    generator = np.random.default_rng(seed)
    differences = np.empty((samples, len(SCORES)))
    for number in range(samples):
        drawn = [generator.integers(0, len(truth), len(truth)) for truth in truths] * (len(runs[0]) if alike else 1)
        differences[number] = systems[1].scores(drawn) - systems[0].scores(drawn)
    low, high = np.nanquantile(differences, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
    return comparisons(SCORES, (own[0], own[1]), (low, high), differences)


class _System:
    """The runs of one system with their targets and thresholds."""

    def __init__(
        self, runs: Sequence[tuple[NDArray[np.float64], NDArray[np.bool_]]], thresholds: float | Sequence[float]
    ) -> None:
        self._runs = runs
        several = not isinstance(thresholds, (int, float))
        self._thresholds = list(thresholds) if several else [float(thresholds)] * len(runs)  # type: ignore[arg-type]

    def scores(self, rows: "Sequence[NDArray[np.int64] | slice]") -> NDArray[np.float64]:
        """`SCORES` on some rows of each run, mean over the runs."""
        found: NDArray[np.float64] = np.mean(
            [
                _scores(run[chosen], truth[chosen], limit)
                for (run, truth), chosen, limit in zip(self._runs, rows, self._thresholds, strict=True)
            ],
            axis=0,
        )
        return found


def _matrices(given: ArrayLike | Sequence[ArrayLike]) -> list[NDArray[np.float64]]:
    """One matrix, or several of perhaps different lengths."""
    parts = [np.asarray(part, dtype=np.float64) for part in given]  # type: ignore[union-attr]  # sequences, all of them
    return parts if parts and parts[0].ndim == 2 else [np.asarray(given, dtype=np.float64)]


def _scores(probabilities: NDArray[np.float64], truth: NDArray[np.bool_], threshold: float) -> NDArray[np.float64]:
    """`SCORES` in their order; NaN where undefined."""
    precisions = average_precisions(probabilities, truth)
    values = {**ranking_scores(probabilities, truth), **threshold_scores(probabilities >= threshold, truth)}
    values["macro_ap"] = float(np.nanmean(precisions)) if not np.isnan(precisions).all() else float("nan")
    return np.array([values[name] for name in SCORES])
