"""Which models do not beat their baselines, captioners and classifiers alike."""

from collections.abc import Mapping

from metrics.baselines.rows import LOWER, PRIOR
from metrics.names import first_key

Rows = Mapping[str, Mapping[str, float]]


def baselines_above(scores: Mapping[str, float], baselines: Rows, metric: str) -> list[str]:
    """Baselines that a model does not beat by a metric, the highest first; equal is not better, nor is NaN.

    >>> baselines_above({"cider_d": 0.5}, {"constant caption": {"cider_d": 0.4}, "5 nearest images": {"cider_d": 2.8}},
    ...     "cider_d")
    ['5 nearest images']
    """
    if metric not in scores:
        return []
    known = [name for name in LOWER if metric in baselines.get(name, {})]
    above = [name for name in known if not baselines[name][metric] < scores[metric]]
    return sorted(above, key=lambda name: -baselines[name][metric])


def unbeaten(scores: Mapping[str, float], baselines: Rows) -> tuple[str, list[str]]:
    """The decisive metric of a model, and the baselines that it does not beat, the highest first.

    >>> unbeaten({"cider_d": 0.5}, {"5 nearest images": {"cider_d": 2.8}})
    ('cider_d', ['5 nearest images'])
    """
    metric = first_key(scores) or ""
    return metric, baselines_above(scores, baselines, metric)


def flagged(rows: Rows, baselines: Rows) -> dict[str, str]:
    """Models below a baseline, each with what it does not beat.

    >>> flagged({"a": {"cider_d": 0.5}, "b": {"cider_d": 3.0}}, {"5 nearest images": {"cider_d": 2.8}})
    {'a': 'cider_d 0.500 does not beat 5 nearest images (2.800)'}
    """
    found = {}
    for name, scores in rows.items():
        metric, above = unbeaten(scores, baselines)
        if above:
            found[name] = f"{metric} {scores[metric]:.3f} does not beat {_listed(above, baselines, metric)}"
    return found


def baseline_warning(name: str, scores: Mapping[str, float], baselines: Rows) -> str | None:
    """One line that says which baselines a model does not beat; None when it beats them all, or has no such metric.

    The top-1 accuracy of a classifier is also held against the prior, which published models were below.

    >>> baseline_warning("this model", {"cider_d": 0.5}, {"5 nearest images": {"cider_d": 2.8}})
    'BELOW A BASELINE: cider_d 0.500 of this model does not beat 5 nearest images (2.800)'
    >>> baseline_warning("it", {"macro_ap": 0.1, "top1": 0.1}, {"label prior": {"macro_ap": 0.14, "top1": 0.67}})
    'BELOW A BASELINE: macro_ap 0.100 of it does not beat label prior (0.140); top1 0.100 does not beat 0.670'
    """
    parts = []
    metric, above = unbeaten(scores, baselines)
    if above:
        parts.append(f"{metric} {scores[metric]:.3f} of {name} does not beat {_listed(above, baselines, metric)}")
    prior = baselines.get(PRIOR, {}).get("top1")
    if prior is not None and "top1" in scores and scores["top1"] < prior:
        whose = "" if parts else f" of {name}"
        parts.append(f"top1 {scores['top1']:.3f}{whose} does not beat {'' if parts else f'{PRIOR} '}{prior:.3f}")
    return f"BELOW A BASELINE: {'; '.join(parts)}" if parts else None


def _listed(names: list[str], baselines: Rows, metric: str) -> str:
    return ", ".join(f"{name} ({baselines[name][metric]:.3f})" for name in names)
