"""Figures of a run's report."""

from collections.abc import Mapping, Sequence

from matplotlib.container import BarContainer
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from reporting.comparison_figures import COLOURS, tidy
from reporting.drawing import TextFigure


def length_figure(lengths: Mapping[str, Mapping[int, int]]) -> Figure:
    """Draws how many words captions have, as shares of all captions.

    Args:
        lengths: name to number of words to number of captions.
    """
    figure = TextFigure(figsize=(7.2, 2.8), layout="constrained")
    axis = figure.subplots()
    width = 0.8 / max(1, len(lengths))
    handles: list[BarContainer] = []
    for place, (name, counts) in enumerate(lengths.items()):
        total = max(1, sum(counts.values()))
        places = [length + (place - (len(lengths) - 1) / 2) * width for length in counts]
        shares = [count / total for count in counts.values()]
        handles.append(axis.bar(places, shares, width, label=name, color=COLOURS[place]))
    tidy(axis, "words per caption")
    axis.set_ylabel("share of captions", fontsize=8)
    axis.legend(handles=handles, fontsize=8, frameon=False)
    return figure


def threshold_figure(curve: Mapping[str, Sequence[float]], threshold: float) -> Figure:
    """Draws scores over the threshold from which on a label is predicted.

    Args:
        curve: "threshold" and scores, as `metrics.labels.threshold_curve` returns them.
        threshold: that of the run.
    """
    figure = TextFigure(figsize=(7.2, 3.0), layout="constrained")
    axis = figure.subplots()
    handles: list[Line2D] = []
    for place, (name, values) in enumerate((key, values) for key, values in curve.items() if key != "threshold"):
        label = name.replace("_", " ")
        handles += axis.plot(curve["threshold"], values, label=label, color=COLOURS[place], linewidth=1.6)
    handles.append(axis.axvline(threshold, color="0.25", linestyle="--", linewidth=1.2, label="this run"))
    tidy(axis, "scores over the threshold")
    axis.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="threshold")
    axis.legend(handles=handles, fontsize=8, frameon=False)
    return figure
