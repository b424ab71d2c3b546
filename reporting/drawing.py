"""Figures whose text is text: no dollar sign begins a formula, no control character reaches a font."""

from typing import Any

from matplotlib.axis import Axis
from matplotlib.backend_bases import RendererBase
from matplotlib.figure import Figure
from matplotlib.text import Text

from core.text import visible


class TextFigure(Figure):
    """A figure that draws every text as it stands, wherever it is drawn: in a file, in W&B, in TensorBoard."""

    def draw(self, renderer: RendererBase) -> None:
        """Draws; texts are looked at only now, since titles, legends and labels have been added until here."""
        for text in self.findobj(Text):
            assert isinstance(text, Text)
            text.set_parse_math(False)
            text.set_usetex(False)
            text.set_text(visible(text.get_text(), keep="\n"))
        super().draw(renderer)


def name_ticks(axis: Axis, places: Any, names: list[str]) -> None:
    """Writes names at places of an axis, where every drawing sets the texts anew."""
    axis.set_ticks(places, [visible(name, keep="\n") for name in names])
