"""A figure of images with their labels, true, predicted and missed."""

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reporting.drawing import TextFigure
from reporting.figures import interpolation_of
from reporting.label_tables import Verdict
from reporting.pictures import ImageArray

_MARKS = {"hit": ("", "#1a7f37"), "wrong": ("+ ", "#cf222e"), "missed": ("- ", "#8c959f"), "more": ("", "0.2")}
"""Sign in front of a label and its colour."""
_ROOM = 10
"""Labels shown below an image."""


def label_sheet(images: Sequence[ImageArray], verdicts: Sequence[Verdict]) -> Figure:
    """Draws images in rows of four with their labels below: green found, red wrong, grey missed.

    Args:
        images: `(H, W, 3)` each, 0 to 1.
        verdicts: their true and predicted labels.
    """
    columns = max(1, min(4, len(images)))
    rows = max(1, math.ceil(len(images) / columns))
    figure = TextFigure(figsize=(3.1 * columns, 4.4 * rows + 0.5), layout="constrained")
    figure.suptitle("green: found    + red: wrongly predicted    - grey: missed", fontsize=9)
    axes = figure.subplots(2 * rows, columns, squeeze=False, height_ratios=[3.0, 1.2] * rows)
    for axis in axes.flat:
        axis.axis("off")
    for place, (image, item) in enumerate(zip(images, verdicts, strict=True)):
        row, column = divmod(place, columns)
        shown = axes[2 * row, column]
        shown.imshow(image, interpolation=interpolation_of(image))
        shown.set_title(str(item.image_id), fontsize=8, color="0.45")
        _write_labels(axes[2 * row + 1, column], item)
    return figure


def _write_labels(axis: Axes, item: Verdict) -> None:
    """Writes labels into the space below an image, two in a row, as many as there is room for."""
    hits = [name for name in item.predicted if name in item.truth]
    marked = [("hit", n) for n in hits] + [("wrong", n) for n in item.wrong] + [("missed", n) for n in item.missed]
    if len(marked) > _ROOM:
        left_out = len(marked) - _ROOM + 1
        marked = [*marked[: _ROOM - 1], ("more", f"... and {left_out} more")]
    for place, (kind, name) in enumerate(marked):
        sign, colour = _MARKS[kind]
        row, column = divmod(place, 2)
        where = (0.5 * column, 1 - 2 * row / _ROOM)
        axis.text(*where, sign + name, transform=axis.transAxes, fontsize=9, color=colour, va="top")
