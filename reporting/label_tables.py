"""Predictions of a classifier, image by image and label by label: CSV files.

Letters: n images, C labels.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from core.csv_files import csv_text
from core.files import write_text
from metrics.labels import LabelRow


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Labels of one image.

    Attributes:
        image_id: identifier of the image.
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
    """Compares the predictions for an image with its true labels.

    >>> verdict("a.jpg", [1, 0, 1], [0.6, 0.7, 0.2], ["sea", "ship", "dock"], 0.5).wrong
    ('ship',)
    """
    order = sorted(range(len(names)), key=lambda place: -probabilities[place])
    return Verdict(
        image_id=image_id,
        truth=tuple(name for name, label in zip(names, labels, strict=True) if label >= 0.5),
        predicted=tuple(names[place] for place in order if probabilities[place] >= threshold),
    )


def image_table(verdicts: Iterable[Verdict]) -> str:
    """CSV with a row per image: its id, and its true, predicted, missed and wrong labels, separated by semicolons."""
    columns = ("truth", "predicted", "missed", "wrong")
    rows = [
        [item.image_id, *("; ".join(part) for part in (item.truth, item.predicted, item.missed, item.wrong))]
        for item in verdicts
    ]
    return csv_text(["image_id", *columns], rows)


def label_table(rows: Sequence[LabelRow]) -> str:
    """CSV with a row per label, see `metrics.labels.LabelRow`; an unknown average precision is empty."""
    columns = list(LabelRow.__annotations__)
    return csv_text(columns, ([_rounded(row.get(name)) for name in columns] for row in rows))


def _rounded(value: object) -> object:
    return round(value, 6) if isinstance(value, float) else value


def write_tables(folder: Path, verdicts: Iterable[Verdict], rows: Sequence[LabelRow]) -> None:
    """Writes ``labels.csv``, a row per image, and ``per_label.csv``, a row per label, each whole or not at all."""
    for name, text in {"labels.csv": image_table(verdicts), "per_label.csv": label_table(rows)}.items():
        write_text(folder / name, text)


def verdicts_of(
    labels: Mapping[str | int, Sequence[float]],
    probabilities: Mapping[str, Sequence[float]],
    names: Sequence[str],
    threshold: float,
) -> list[Verdict]:
    """Verdicts of all images that have probabilities.

    Args:
        labels: labels of every image, by its id.
        probabilities: by the id as text.
        names: names of the labels.
        threshold: a label is predicted from this probability on.
    """
    return [
        verdict(image_id, row, probabilities[str(image_id)], names, threshold)
        for image_id, row in labels.items()
        if str(image_id) in probabilities
    ]
