"""Figures of a run's report."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.container import BarContainer
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from reporting.comparison_figures import COLOURS, tidy
from reporting.drawing import TextFigure, name_ticks


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
    axis.xaxis.set_major_locator(MaxNLocator("auto", integer=True, min_n_ticks=1))
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


def confusion_figure(pairs: Sequence[tuple[str, str, int]]) -> Figure:
    """Draws in how many images one label was missed and another one wrongly predicted.

    Args:
        pairs: (true and missed, predicted and wrong, images), see `metrics.labels.confusions`.
    """
    missed = list(dict.fromkeys(pair[0] for pair in pairs))
    wrong = list(dict.fromkeys(pair[1] for pair in pairs))
    counts = np.zeros((max(1, len(missed)), max(1, len(wrong))))
    for true, predicted, images in pairs:
        counts[missed.index(true), wrong.index(predicted)] = images
    figure = TextFigure(figsize=(2.5 + 0.35 * counts.shape[1], 1.8 + 0.3 * counts.shape[0]), layout="constrained")
    axis = figure.subplots()
    axis.imshow(counts, cmap="Blues", vmin=0, vmax=max(1.0, counts.max()), aspect="auto")
    for row, column in np.argwhere(counts > 0):
        dark = counts[row, column] > 0.6 * counts.max()
        text = f"{counts[row, column]:.0f}"
        axis.text(column, row, text, ha="center", va="center", fontsize=7, color="white" if dark else "0.2")
    name_ticks(axis.yaxis, range(len(missed)), missed)
    name_ticks(axis.xaxis, range(len(wrong)), wrong)
    axis.tick_params(labelsize=7)
    axis.tick_params(axis="x", rotation=60)
    axis.set(xlabel="predicted, wrong", ylabel="true, missed")
    axis.set_title("most frequent confusions (images)" if pairs else "no confusions", fontsize=9)
    return figure
