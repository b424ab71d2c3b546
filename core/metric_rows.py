"""Reading ``metrics.csv`` of a run: a table of numbers, whose last line a killed process may have left unfinished."""

import csv
import io
from pathlib import Path

from core.errors import UserError
from core.inputs import read_text, shown

MOST = 1 << 28
"""Bytes of such a file; a row a step makes some million steps."""
_WAY_OUT = "correct the file, or move it away: a resumed run then begins a new one"


def read_metric_rows(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """The columns and rows, cells as they are written; empty cells are empty texts.

    A last line without a line feed is what a killed process left of a row, and is not returned.

    Raises:
        UserError: it is no such table; the message has the line.
    """
    try:
        text = read_text(path, MOST, "the metrics of a run", UserError)
    except UserError as error:
        raise UserError(f"{error}; {_WAY_OUT}") from error
    reader = csv.reader(io.StringIO(text[: text.rfind("\n") + 1], newline=""), strict=True)
    try:
        header = next(reader, [])
        if len(set(header)) < len(header) or (header and "step" not in header):
            raise UserError(
                f"{path}, line 1: expected different names, one of them step, found {shown(header)}; {_WAY_OUT}"
            )
        rows = [_row(cells, header, f"{path}, line {reader.line_num}") for cells in reader if cells]
    except csv.Error as error:
        raise UserError(f"{path}, line {reader.line_num}: not a row of metrics ({error}); {_WAY_OUT}") from error
    return header, rows


def _row(cells: list[str], header: list[str], where: str) -> dict[str, str]:
    if len(cells) != len(header):
        raise UserError(f"{where}: {len(cells)} cells, expected {len(header)} as in the header; {_WAY_OUT}")
    row = dict(zip(header, cells, strict=True))
    for name, cell in row.items():
        try:
            if cell and (int if name == "step" else float)(cell) < 0 and name == "step":
                raise ValueError
        except ValueError as error:
            raise UserError(f"{where}: {name} is {shown(cell)}, expected a number; {_WAY_OUT}") from error
    return row
