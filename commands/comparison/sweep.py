"""One metric over a setting in which runs differ, such as transferability over the depth of the cut."""

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from commands.comparison.results import Result, differing_settings
from core.errors import UserError
from metrics.names import deciding_key, metric
from reporting.comparison_figures import sweep_figure

_FEWEST = 3
"""Values that a setting must have to be chosen automatically."""


def sweeps(results: Sequence[Result], metrics: Sequence[str], over: str | None) -> dict[str, Figure]:
    """Draws the sweep, if there is one; title to figure.

    Args:
        results: the runs.
        metrics: the one that decides between runs is drawn, else the first.
        over: setting on the axis, its full name or the end of it; None: the number with most different values.

    Raises:
        UserError: the runs do not differ in that setting, or it is not a number.
    """
    differing = differing_settings(results)
    setting = _named(over, differing) if over is not None else _found(differing)
    key = deciding_key(metrics) or next(iter(metrics), None)
    if setting is None or key is None:
        return {}
    others = {name: values for name, values in differing.items() if name != setting}
    groups: dict[str, dict[float, list[float]]] = {}
    for place, result in enumerate(results):
        value = differing[setting][place]
        if _is_number(value) and key in result.metrics:
            group = ", ".join(f"{name.rpartition('.')[2]} {values[place]}" for name, values in others.items())
            groups.setdefault(group, {}).setdefault(float(value), []).append(result.metrics[key])
    if over is None:  # methods that differ in many things are no sweep
        groups = {name: points for name, points in groups.items() if len(points) >= _FEWEST}
    short = setting.rpartition(".")[2]
    return {f"Sweep over {short}": sweep_figure(groups, short, metric(key).title)} if groups else {}


def _named(name: str, differing: dict[str, list[Any]]) -> str:
    found = [key for key in differing if key == name or key.endswith(f".{name}")]
    if len(found) != 1 or not any(_is_number(value) for value in differing[found[0]]):
        numbers = [key for key, values in differing.items() if any(map(_is_number, values))]
        raise UserError(f"--over {name}: expected a number in which the runs differ: {', '.join(numbers) or 'none'}")
    return found[0]


def _found(differing: dict[str, list[Any]]) -> str | None:
    """The setting with most values among those that are numbers; None below three values."""
    counts = {name: len(set(values)) for name, values in differing.items() if all(map(_is_number, values))}
    best = max(counts, key=counts.__getitem__, default=None)
    return best if best is not None and counts[best] >= _FEWEST else None


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
