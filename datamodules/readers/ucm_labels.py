"""The multi-labels of UC Merced's pictures (Chaudhuri et al. 2018), as text or CSV."""

import csv
from pathlib import Path

from core.errors import DataError
from datamodules.readers.records import read_text

LABEL_FILES = ("multilabels.txt", "LandUse_Multilabeled.txt", "multilabels.csv", "LandUse_Multilabeled.csv")
"""Usual names of the table."""


def read_label_table(path: Path) -> tuple[tuple[str, ...], dict[str, tuple[float, ...]]]:
    """Reads a table with a row for every image: its name, then 0 or 1 for every label; separated as its header is.

    Returns:
        Names of the labels, and the labels by image name.

    Raises:
        DataError: it is no such table.
    """
    text = read_text(path)
    separator = max("\t,;", key=text.partition("\n")[0].count)
    lines = [row for row in csv.reader(text.splitlines(), delimiter=separator) if any(cell.strip() for cell in row)]
    # some copies end every line with a separator
    lines = [[cell.strip() for cell in row[: len(row) - (not row[-1].strip())]] for row in lines]
    names, labels = tuple(lines[0][1:]) if lines else (), {}
    if not names:
        raise DataError(f"{path}: expected a header with the names of the labels, separated by tabs or commas")
    for number, cells in enumerate(lines[1:], start=2):
        if len(cells) != len(names) + 1 or not set(cells[1:]) <= {"0", "1"}:
            raise DataError(f"{path}, row {number} ({cells[0]}): expected {len(names)} times 0 or 1, as in the header")
        labels[cells[0]] = tuple(map(float, cells[1:]))
    return names, labels
