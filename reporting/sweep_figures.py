"""Figures of a search over settings."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from metrics.names import metric
from reporting.comparison_figures import COLOURS, tidy
from reporting.drawing import TextFigure, name_ticks

_DONE, _STOPPED = COLOURS[0], COLOURS[4]


def history_figure(values: Mapping[int, float], stopped: Collection[int], key: str, maximize: bool) -> Figure:
    """Value of each trial, and the best so far.

    Args:
        values: number of a trial to its value.
        stopped: trials that did not finish.
        key: the metric's name in the log.
        maximize: large values are good.
    """
    figure = TextFigure(figsize=(7.2, 3.0), layout="constrained")
    axis = figure.subplots()
    _points(axis, {number: number for number in values}, values, stopped)
    numbers = sorted(number for number in values if number not in stopped)
    so_far = [(max if maximize else min)(values[one] for one in numbers[: end + 1]) for end in range(len(numbers))]
    if numbers:
        axis.step(numbers, so_far, where="post", color=COLOURS[1], label="best so far")
    tidy(axis, key)
    axis.set_xlabel("trial")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(handles=[*axis.lines], loc="outside right upper", frameon=False, fontsize=9)
    return figure


def importance_figure(weights: Mapping[str, float]) -> Figure:
    """A bar for each setting, the largest on top.

    Args:
        weights: setting to its share, from 0 to 1.
    """
    figure = TextFigure(figsize=(7.2, 0.9 + 0.35 * len(weights)), layout="constrained")
    axis = figure.subplots()
    names = sorted(weights, key=weights.__getitem__)
    axis.barh(range(len(names)), [weights[name] for name in names], color=_DONE, height=0.6)
    name_ticks(axis.yaxis, range(len(names)), names)
    axis.set_xlim(0, 1)
    tidy(axis, "share of the variance that each setting explains (fANOVA)")
    return figure


def slice_figure(
    settings: Mapping[str, Mapping[int, Any]],
    values: Mapping[int, float],
    stopped: Collection[int],
    key: str,
    logs: Collection[str],
) -> Figure:
    """The metric over every setting, a panel each.

    Args:
        settings: setting to trial to its value.
        values: number of a trial to its value of the metric.
        stopped: trials that did not finish.
        key: the metric's name in the log.
        logs: settings with a logarithmic axis.
    """
    columns = min(3, max(1, len(settings)))
    rows = -(-len(settings) // columns) or 1
    figure = TextFigure(figsize=(3.4 * columns, 2.8 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis, (name, chosen) in zip(panels, settings.items(), strict=False):
        if any(isinstance(value, str | bool) or value is None for value in chosen.values()):
            names = sorted({str(value) for value in chosen.values()})
            name_ticks(axis.xaxis, range(len(names)), names)
            places: Mapping[int, float] = {number: names.index(str(value)) for number, value in chosen.items()}
        else:
            places = chosen
            if name in logs:
                _log_axis(axis, list(chosen.values()))
        _points(axis, places, values, stopped)
        axis.set_xlabel(name)
        axis.set_ylabel(metric(key).title)
        axis.spines[["top", "right"]].set_visible(False)
    for axis in panels[len(settings) :]:
        axis.set_visible(False)
    return figure


def _log_axis(axis: Axes, values: Sequence[float]) -> None:
    """A logarithmic axis with plain numbers: figures take no mathematical notation."""
    axis.set_xscale("log")
    wide = max(values) > 10 * min(values)  # else a number for every step of the automatic choice, one over the other
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)) if wide else MaxNLocator(3))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, place: f"{value:g}"))
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.tick_params(axis="x", labelsize=8)


def _points(axis: Axes, places: Mapping[int, float], values: Mapping[int, float], stopped: Collection[int]) -> None:
    """Filled points for trials that finished, open ones for those that were stopped."""
    for label, filled in (("finished", True), ("stopped early", False)):
        numbers = [number for number in values if number in places and (number not in stopped) is filled]
        if numbers:
            axis.plot(
                [places[number] for number in numbers],
                [values[number] for number in numbers],
                "o",
                markersize=5,
                color=_DONE if filled else _STOPPED,
                markerfacecolor=_DONE if filled else "none",
                label=label,
            )
