"""Figures, drawn without a display."""

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from matplotlib.figure import Figure

Picture = np.ndarray[Any, np.dtype[np.float32]]


def caption_sheet(pictures: Sequence[Picture], captions: Sequence[str], references: Sequence[str]) -> Figure:
    """Draws pictures in rows of four, below each the generated caption, above it, in grey, a reference.

    Args:
        pictures: `(H, W, 3)` each, 0 to 1.
        captions: what the model wrote.
        references: what a person (or the grammar) wrote; empty strings are left out.
    """
    columns = min(4, len(pictures))
    rows = math.ceil(len(pictures) / columns)
    figure = Figure(figsize=(3.2 * columns, 4.1 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    for axis, picture, caption, reference in zip(axes.flat, pictures, captions, references, strict=False):
        axis.imshow(picture, interpolation="nearest" if picture.shape[0] < 128 else "antialiased")
        axis.set_title(wrap_text(reference, 44), fontsize=8, color="0.45")
        axis.set_xlabel(wrap_text(caption or "(empty)"), fontsize=9)
    return figure


def wrap_text(text: str, width: int = 38, lines: int = 3) -> str:
    """Breaks a text into at most `lines` lines, the last cut with an ellipsis if need be."""
    import textwrap

    return "\n".join(textwrap.wrap(text, width, max_lines=lines, placeholder=" …"))


def attention_sheet(
    picture: Picture, words: Sequence[str], maps: Sequence[Picture], title: str = "", entropies: Sequence[float] = ()
) -> Figure:
    """Draws a picture and, for each word of its caption, where the model looked when it wrote the word.

    Every map has its own scale: nothing is dark, its peak is bright, unless the peak is lower than three times the
    uniform weight, so that what is nearly uniform looks so. A cross marks the peak's cell.

    Args:
        picture: `(H, W, 3)`, 0 to 1.
        words: the caption.
        maps: `(h, w)` each, weights that sum to one; as many as words.
        title: written above.
        entropies: of each map against uniform, in [0, 1]; written beside the word.
    """
    columns = min(6, max(3, math.ceil(math.sqrt(1.5 * (len(words) + 1)))))
    rows = math.ceil((len(words) + 1) / columns)
    figure = Figure(figsize=(2.1 * columns, 2.35 * rows + 0.5), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    smooth: Literal["nearest", "antialiased"] = "nearest" if picture.shape[0] < 128 else "antialiased"
    axes.flat[0].imshow(picture, interpolation=smooth)
    height, width = picture.shape[:2]
    extent = (-0.5, width - 0.5, height - 0.5, -0.5)
    grey = np.repeat(picture.mean(axis=2, keepdims=True), 3, axis=2)
    for place, (axis, word, weights) in enumerate(zip(axes.flat[1:], words, maps, strict=False)):
        axis.imshow(grey, interpolation=smooth, extent=extent)
        top = max(float(weights.max()), 3 / weights.size)
        axis.imshow(weights, cmap="inferno", alpha=0.6, interpolation="bilinear", extent=extent, vmin=0, vmax=top)
        row, column = np.unravel_index(int(weights.argmax()), weights.shape)
        peak = ((column + 0.5) / weights.shape[1] * width - 0.5, (row + 0.5) / weights.shape[0] * height - 0.5)
        if weights.max() > weights.min():
            axis.plot(*peak, marker="+", color="cyan", markersize=9, markeredgewidth=1.5)
        axis.set_title(word if len(word) <= 18 else word[:17] + "…", fontsize=12)
        if entropies:
            number = f"{entropies[place]:.2f}"
            box = {"facecolor": "black", "alpha": 0.5, "linewidth": 0, "pad": 1.5}
            axis.text(0.03, 0.04, number, transform=axis.transAxes, fontsize=7, color="white", bbox=box)
    if title:
        figure.suptitle(wrap_text(title, 16 * columns, 3), fontsize=11)
    return figure
