"""Figures that compare runs: curves over steps, bars beside baselines, one metric over a setting."""

import math
import statistics
from collections.abc import Mapping, Sequence

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from metrics.names import metric
from reporting.drawing import TextFigure, name_ticks

LineStyle = str | tuple[float, tuple[float, ...]]
Points = Sequence[tuple[float, float]]
COLOURS = (
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f3c8d", "#666666", "#a6761d", "#b22222",
)  # fmt: skip
_DASHES: tuple[LineStyle, ...] = ("--", ":", "-.", (0, (6, 1)))
_HALO = withStroke(linewidth=2, foreground="white")
_SMOOTHED = 60
"""Curves with more points than this are drawn faint, and a running mean above them."""


def curve_figure(curves: Mapping[str, Mapping[str, Points]], metrics: Sequence[str]) -> Figure:
    """Draws a panel for each metric with a line for each run.

    Args:
        curves: run to metric to (step, value).
        metrics: the panels, by the names in the log.
    """
    figure, panels = _panels(len(metrics), width=4.6, height=3.3)
    handles: dict[str, Artist] = {}
    for axis, key in zip(panels, metrics, strict=False):
        for place, (name, logged) in enumerate(curves.items()):
            points = [point for point in logged.get(key, ()) if math.isfinite(point[1])]
            if not points:
                continue
            colour = _colour(place)
            steps, values = [step for step, _ in points], [value for _, value in points]
            if len(points) > _SMOOTHED:
                axis.plot(steps, values, color=colour, alpha=0.2, linewidth=0.8)
                values = running_mean(values, len(values) // 30)
            marker = "o" if len(points) < 12 else None
            drawn = axis.plot(steps, values, color=colour, label=name, marker=marker, markersize=3.5, linewidth=1.6)
            handles.setdefault(name, drawn[0])
        tidy(axis, key)
        axis.set_xlabel("step")
        axis.xaxis.set_major_locator(MaxNLocator("auto", integer=True, min_n_ticks=1))
    _legend(figure, handles, len(curves))
    return figure


def bar_figure(
    scores: Mapping[str, Mapping[str, Sequence[float]]],
    metrics: Sequence[str],
    lines: Mapping[str, Mapping[str, float]],
) -> Figure:
    """Draws a panel for each metric with a bar for each run, whiskers over several seeds, and lines for baselines.

    Args:
        scores: run to metric to its values, one per seed.
        metrics: the panels, by key.
        lines: baseline or upper bound to metric to value.
    """
    names, columns = list(scores), max(1, len(metrics))
    figure = TextFigure(figsize=(1.6 + 2.9 * columns, 1.1 + 0.3 * len(names) + 0.1 * len(lines)), layout="constrained")
    axes = figure.subplots(1, columns, sharey=True, squeeze=False)
    handles: dict[str, Artist] = {}
    for axis, key in zip(axes.flat, metrics, strict=False):
        for place, name in enumerate(names):
            values = list(scores[name].get(key, ()))
            if values:
                mean = statistics.fmean(values)
                spread = statistics.stdev(values) if len(values) > 1 else None
                colour = _colour(place) if len(names) <= len(COLOURS) else "#8ab8d8"
                axis.barh(place, mean, 0.74, xerr=spread, capsize=2.5, color=colour, ecolor="0.15")
                axis.annotate(f" {mean:.3f}", (0, place), va="center", fontsize=8, path_effects=[_HALO])
        for number, (name, row) in enumerate(lines.items()):
            if key in row:
                line = axis.axvline(row[key], color="0.25", linewidth=1.2, linestyle=_DASHES[number % 4], label=name)
                handles.setdefault(name, line)
        tidy(axis, metric(key).title)
        axis.grid(visible=False, axis="y")
        axis.grid(axis="x", color="0.9", linewidth=0.8)
    name_ticks(axes.flat[0].yaxis, range(len(names)), names)
    axes.flat[0].set_ylim(len(names) - 0.4, -0.6)  # the first run on top
    _legend(figure, handles, len(lines))
    return figure


def sweep_figure(groups: Mapping[str, Mapping[float, Sequence[float]]], setting: str, title: str) -> Figure:
    """Draws a metric over a setting, a line for each group of runs, a band of one standard deviation over seeds.

    Args:
        groups: group to value of the setting to the metric's values, one per seed.
        setting: label of the horizontal axis.
        title: title of the metric, label of the vertical axis.
    """
    figure = TextFigure(figsize=(5.6, 3.8), layout="constrained")
    axis = figure.subplots()
    handles: list[Artist] = []
    for place, (name, points) in enumerate(groups.items()):
        steps = sorted(points)
        means = [statistics.fmean(points[step]) for step in steps]
        spreads = [statistics.stdev(points[step]) if len(points[step]) > 1 else 0.0 for step in steps]
        handles += axis.plot(steps, means, color=_colour(place), marker="o", markersize=5, linewidth=1.6, label=name)
        if any(spreads):
            low, high = (
                [mean + sign * spread for mean, spread in zip(means, spreads, strict=True)] for sign in (-1, 1)
            )
            axis.fill_between(steps, low, high, color=_colour(place), alpha=0.15, linewidth=0)
    values = sorted({step for points in groups.values() for step in points})
    if len(values) <= 14:
        name_ticks(axis.xaxis, values, [f"{value:g}" for value in values])
    tidy(axis, "")
    axis.set(xlabel=setting, ylabel=title)
    if len(groups) > 1:
        axis.legend(handles=handles, fontsize=8, frameon=False)
    return figure


def running_mean(values: Sequence[float], reach: int) -> list[float]:
    """Mean of each value and up to `reach` values before it.

    >>> running_mean([1.0, 3.0, 5.0], 1)
    [1.0, 2.0, 4.0]
    """
    return [statistics.fmean(values[max(0, place - reach) : place + 1]) for place in range(len(values))]


def _panels(count: int, width: float, height: float) -> tuple[Figure, list[Axes]]:
    columns = min(count, max(1, int(15 / width)))
    rows = math.ceil(count / columns)
    figure = TextFigure(figsize=(width * columns, height * rows + 0.4), layout=ConstrainedLayoutEngine(h_pad=0.1))
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axis in axes[count:]:
        axis.axis("off")
    return figure, axes[:count]


def tidy(axis: Axes, title: str) -> None:
    """Gives a panel its title and the look of all figures."""
    axis.set_title(title, fontsize=10)
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(labelsize=8)
    axis.grid(axis="y", color="0.9", linewidth=0.8)
    axis.set_axisbelow(True)


def _legend(figure: Figure, handles: Mapping[str, Artist], count: int) -> None:
    """One legend for all panels, below them; left to choose, matplotlib would leave out names that begin with _."""
    if any(handles):  # one curve without a name needs none
        columns = min(count, 4) or 1
        figure.legend(
            handles.values(), handles.keys(), loc="outside lower center", ncols=columns, fontsize=8, frameon=False
        )


def _colour(place: int) -> str:
    return COLOURS[place % len(COLOURS)]
