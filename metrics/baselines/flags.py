"""Which of several runs do not beat their floors, captioners and classifiers alike."""

from collections.abc import Mapping

from metrics.baselines.captions import floors_above
from metrics.baselines.labels import label_floors_above

Rows = Mapping[str, Mapping[str, float]]


def unbeaten(scores: Mapping[str, float], bounds: Rows) -> tuple[str, list[str]]:
    """The metric that a run is held against its floors by, and the floors that it does not beat, the highest first.

    >>> unbeaten({"cider_d": 0.5}, {"5 nearest images": {"cider_d": 2.8}})
    ('cider_d', ['5 nearest images'])
    """
    for metric, above in (("cider_d", floors_above), ("macro_ap", label_floors_above)):
        if metric in scores:
            return metric, above(scores, {name: row for name, row in bounds.items() if metric in row}, metric)
    return "", []


def flagged(rows: Rows, bounds: Rows) -> dict[str, str]:
    """Runs below a floor, each with what it does not beat.

    >>> flagged({"a": {"cider_d": 0.5}, "b": {"cider_d": 3.0}}, {"5 nearest images": {"cider_d": 2.8}})
    {'a': 'cider_d 0.500 does not beat 5 nearest images (2.800)'}
    """
    found = {}
    for name, scores in rows.items():
        metric, above = unbeaten(scores, bounds)
        if above:
            floors = ", ".join(f"{floor} ({bounds[floor][metric]:.3f})" for floor in above)
            found[name] = f"{metric} {scores[metric]:.3f} does not beat {floors}"
    return found
