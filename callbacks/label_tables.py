"""What a classifier said, picture by picture and label by label: tables, and a sheet of pictures.

Letters: n images, C labels.
"""

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.table import Table

from core.files import write_text
from metrics.labels import LabelRow
from reporting.figures import Picture

_MARKS = {"hit": ("", "#1a7f37"), "wrong": ("+ ", "#cf222e"), "missed": ("- ", "#8c959f"), "more": ("", "0.2")}
"""Sign in front of a label and its colour."""
_ROOM = 10
"""Labels shown below a picture."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Labels of one picture.

    Attributes:
        image_id: identifier of the picture.
        truth: labels that it has, in their order.
        predicted: labels that were predicted, the most probable first.
    """

    image_id: str | int
    truth: tuple[str, ...]
    predicted: tuple[str, ...]

    @property
    def missed(self) -> tuple[str, ...]:
        """True labels that were not predicted."""
        return tuple(name for name in self.truth if name not in self.predicted)

    @property
    def wrong(self) -> tuple[str, ...]:
        """Predicted labels that are not true."""
        return tuple(name for name in self.predicted if name not in self.truth)


def verdict(
    image_id: str | int, labels: Sequence[float], probabilities: Sequence[float], names: Sequence[str], threshold: float
) -> Verdict:
    """Compares what was said of a picture with what is true.

    >>> verdict("a.jpg", [1, 0, 1], [0.6, 0.7, 0.2], ["sea", "ship", "dock"], 0.5).wrong
    ('ship',)
    """
    order = sorted(range(len(names)), key=lambda place: -probabilities[place])
    return Verdict(
        image_id,
        tuple(name for name, label in zip(names, labels, strict=True) if label >= 0.5),
        tuple(names[place] for place in order if probabilities[place] >= threshold),
    )


def picture_table(verdicts: Iterable[Verdict]) -> str:
    """CSV with a row for each picture: its id, and its true, predicted, missed and wrong labels (; between)."""
    rows = [
        [item.image_id, *("; ".join(part) for part in (item.truth, item.predicted, item.missed, item.wrong))]
        for item in verdicts
    ]
    return _csv(["image_id", "truth", "predicted", "missed", "wrong"], rows)


def label_table(rows: Sequence[LabelRow]) -> str:
    """CSV with a row for each label, see `metrics.labels.LabelRow`; an unknown average precision is empty."""
    names = list(LabelRow.__annotations__)
    return _csv(names, [[_rounded(row[name]) for name in names] for row in rows])  # type: ignore[literal-required]  # its own keys


def printed_label_table(rows: Sequence[LabelRow]) -> Table:
    """The same for the screen."""
    table = Table(title="labels", title_justify="left")
    table.add_column("")
    heads = ("images", "predicted", "precision", "recall", "F1", "AP")
    for head in heads:
        table.add_column(head, justify="right")
    for row in rows:
        figures = (row["precision"], row["recall"], row["f1"], row["average_precision"])
        shown = ("" if value is None else f"{value:.3f}" for value in figures)
        table.add_row(row["label"], str(row["support"]), str(row["predicted"]), *shown)
    return table


def write_tables(folder: Path, verdicts: Iterable[Verdict], rows: Sequence[LabelRow]) -> None:
    """Writes ``labels.csv``, a row a picture, and ``per_label.csv``, a row a label, each whole or not at all."""
    for name, text in {"labels.csv": picture_table(verdicts), "per_label.csv": label_table(rows)}.items():
        write_text(folder / name, text)


def label_sheet(pictures: Sequence[Picture], verdicts: Sequence[Verdict]) -> Figure:
    """Draws pictures in rows of four with their labels below: green found, red wrong, grey missed.

    Args:
        pictures: `(H, W, 3)` each, 0 to 1.
        verdicts: what was said of them.
    """
    columns = max(1, min(4, len(pictures)))
    rows = max(1, math.ceil(len(pictures) / columns))
    figure = Figure(figsize=(3.1 * columns, 4.4 * rows + 0.5), layout="constrained")
    figure.suptitle("green: found    + red: wrongly predicted    - grey: missed", fontsize=9)
    axes = figure.subplots(2 * rows, columns, squeeze=False, height_ratios=[3.0, 1.2] * rows)
    for axis in axes.flat:
        axis.axis("off")
    for place, (picture, item) in enumerate(zip(pictures, verdicts, strict=True)):
        row, column = divmod(place, columns)
        shown = axes[2 * row, column]
        shown.imshow(picture, interpolation="nearest" if picture.shape[0] < 128 else "antialiased")
        shown.set_title(str(item.image_id), fontsize=8, color="0.45")
        _write_labels(axes[2 * row + 1, column], item)
    return figure


def _write_labels(axis: Axes, item: Verdict) -> None:
    """Writes labels into the space below a picture, two in a row, as many as there is room for."""
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


def _csv(names: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    file = io.StringIO(newline="")
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(names)
    writer.writerows(rows)
    return file.getvalue()


def _rounded(value: object) -> object:
    return round(value, 6) if isinstance(value, float) else value


def verdicts_of(
    labels: Mapping[str | int, Sequence[float]],
    probabilities: Mapping[str, Sequence[float]],
    names: Sequence[str],
    threshold: float,
) -> list[Verdict]:
    """Verdicts of all images that have probabilities.

    Args:
        labels: of every image, by its id.
        probabilities: by the id as text.
        names: of the labels.
        threshold: a label is predicted from this probability on.
    """
    return [
        verdict(image_id, row, probabilities[str(image_id)], names, threshold)
        for image_id, row in labels.items()
        if str(image_id) in probabilities
    ]
