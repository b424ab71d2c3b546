"""Figures, drawn without a display."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from matplotlib import colormaps
from matplotlib.artist import Artist
from matplotlib.figure import Figure

from reporting.drawing import TextFigure
from reporting.pictures import ImageArray

_SMALL = 128
"""Rows of pixels below which an image is drawn with square pixels."""


def interpolation_of(image: ImageArray) -> Literal["nearest", "antialiased"]:
    """How matplotlib should scale an image: small ones keep their pixels."""
    return "nearest" if image.shape[0] < _SMALL else "antialiased"


def code_sheet(images: ImageArray, sentences: ImageArray, groups: Sequence[str]) -> Figure:
    """Draws the codes of images as crosses, coloured by class where it is known, and those of sentences as grey dots.

    Args:
        images: `(n, 2)`.
        sentences: `(m, 2)`.
        groups: class of each image, or empty texts.
    """
    figure = TextFigure(figsize=(8.5, 6.5), layout="constrained")
    axis = figure.subplots()
    dots = axis.scatter(sentences[:, 0], sentences[:, 1], s=14, color="0.75", label="sentences", linewidths=0)
    handles: list[Artist] = [dots]
    tab20 = colormaps["tab20"]
    for place, name in enumerate(sorted(set(groups))):
        own = images[np.array([group == name for group in groups])]
        colour, marker = tab20((place % 20 + 0.5) / 20), "x+1"[place // 20 % 3]
        handles.append(axis.scatter(own[:, 0], own[:, 1], s=34, color=colour, marker=marker, label=name or "images"))
    axis.set(xlabel="first component", ylabel="second component", title="images (crosses) and sentences (dots)")
    # handles are given, since matplotlib's own choice leaves out names with _
    axis.legend(handles=handles, fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    return figure
