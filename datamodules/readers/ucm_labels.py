"""The multi-labels of UC Merced's images (Chaudhuri et al. 2018), as text or CSV."""

from pathlib import Path

from core.errors import DataError
from core.inputs import read_text
from datamodules.readers.frames import read_frame

LABEL_FILES = ("multilabels.txt", "LandUse_Multilabeled.txt", "multilabels.csv", "LandUse_Multilabeled.csv")
"""Usual names of the table."""
_EXPECTED = "expected a header with the names of the labels, separated by tabs or commas"


def read_label_table(path: Path) -> tuple[tuple[str, ...], dict[str, tuple[float, ...]]]:
    """Reads a table with a row for every image: its name, then 0 or 1 for every label; separated as its header is.

    Returns:
        Names of the labels, and the labels by image name.

    Raises:
        DataError: it is no such table.
    """
    lines = read_text(path).splitlines()
    if not lines:
        raise DataError(f"{path}: the file is empty; {_EXPECTED}")
    separator = max("\t,;", key=lines[0].count)
    # some copies end every line with a separator
    frame = read_frame("\n".join(line.rstrip(f"{separator} ") for line in lines) + "\n", path, separator)
    names = tuple(frame.columns[1:])
    if not names:
        raise DataError(f"{path}: no label in the header; {_EXPECTED}")
    images, cells = frame.iloc[:, 0].str.strip(), frame.iloc[:, 1:].apply(lambda column: column.str.strip())
    wrong = ~cells.isin(["0", "1"]).all(axis=1)
    if wrong.any():
        line = wrong.idxmax()
        wanted = f"expected {len(names)} times 0 or 1, as in the header"
        raise DataError(f"{path}, line {line} ({images[line]}): {wanted}")
    return names, {image: tuple(map(float, row)) for image, row in zip(images, cells.to_numpy(), strict=True)}
