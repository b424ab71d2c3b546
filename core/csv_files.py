"""CSV files that people open in spreadsheets: text in them never becomes a formula.

A cell or heading that a spreadsheet would calculate gets an apostrophe in front, as OWASP advises; numbers stay
numbers. `unprotected` takes exactly these apostrophes off again.
"""

import csv
import io
import re
from collections.abc import Iterable, Sequence
from typing import Any

_FORMULA = re.compile(r"'*[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
"""How a formula begins, also in wide letters; with apostrophes in front, so that they can be taken off again."""
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)


def protected(cell: Any) -> Any:
    """A cell that no spreadsheet takes for a formula; what is not text is left as it is.

    >>> protected("=1+1"), protected("-0.5"), protected(-0.5), protected("'=x"), protected("'tis")
    ("'=1+1", '-0.5', -0.5, "''=x", "'tis")
    """
    if not isinstance(cell, str) or not _FORMULA.match(cell) or _NUMBER.fullmatch(cell):
        return cell
    return f"'{cell}"


def unprotected(cell: str) -> str:
    """The text before `protected`.

    >>> unprotected("'=1+1"), unprotected("-0.5"), unprotected("''=x"), unprotected("'tis")
    ('=1+1', '-0.5', "'=x", "'tis")
    """
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def csv_text(columns: Sequence[str], rows: Iterable[Iterable[Any]], float_format: str | None = None) -> str:
    """A table as CSV.

    Args:
        columns: headings.
        rows: cells, any text among them; None and NaN are empty.
        float_format: format of numbers, such as "%.6f"; None: as many digits as read back the same.
    """
    return "".join(_line(cells, float_format) for cells in (columns, *rows))


def _line(cells: Iterable[Any], float_format: str | None) -> str:
    file = io.StringIO(newline="")
    # before Python 3.13 only what is in the line's end is quoted, a single carriage return among it
    csv.writer(file, lineterminator="\r\n").writerow([_shown(cell, float_format) for cell in cells])
    return file.getvalue().removesuffix("\r\n") + "\n"


def _shown(cell: Any, float_format: str | None) -> Any:
    if cell is None or cell != cell:
        return ""
    if isinstance(cell, float):
        return float_format % cell if float_format else repr(float(cell))
    return protected(cell)
