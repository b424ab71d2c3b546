"""Figures of a data set: sizes of images, lengths of captions, labels and words."""

from collections.abc import Mapping

from matplotlib.figure import Figure

from reporting.comparison_figures import COLOURS, tidy
from reporting.drawing import TextFigure, name_ticks

_ROW = 0.19
"""Inches of a bar that lies."""
_LETTERS = 70
"""Letters of labels that fit below a figure side by side."""


def histogram_figure(title: str, counts: Mapping[str, int], notes: str) -> Figure:
    """Draws counts of numbers as standing bars.

    Args:
        title: what is counted.
        counts: bin to count.
        notes: below the figure.
    """
    figure = TextFigure(figsize=(7.2, 3.2), layout="constrained")
    axis = figure.subplots()
    axis.bar(range(len(counts)), list(counts.values()), 0.9, color=COLOURS[0])
    name_ticks(axis.xaxis, range(len(counts)), list(counts))
    tidy(axis, title)
    if sum(map(len, counts)) > _LETTERS:
        axis.tick_params(axis="x", rotation=30)
    axis.set_xlabel(notes, fontsize=8, color="0.35")
    return figure


def frequency_figure(title: str, counts: Mapping[str, int], notes: str) -> Figure:
    """Draws counts of names as lying bars, the first on top.

    Args:
        title: what is counted.
        counts: name to count.
        notes: below the figure.
    """
    figure = TextFigure(figsize=(7.2, 1.1 + _ROW * len(counts)), layout="constrained")
    axis = figure.subplots()
    axis.barh(range(len(counts)), list(counts.values()), 0.8, color=COLOURS[0])
    for place, count in enumerate(counts.values()):
        axis.annotate(f" {count:,}", (count, place), va="center", fontsize=7)
    name_ticks(axis.yaxis, range(len(counts)), list(counts))
    tidy(axis, title)
    axis.grid(visible=False, axis="y")
    axis.grid(axis="x", color="0.9", linewidth=0.8)
    axis.margins(x=0.1)
    axis.set_ylim(len(counts) - 0.4, -0.6)
    axis.set_xlabel(notes, fontsize=8, color="0.35")
    return figure
