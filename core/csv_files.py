"""CSV files that people open in spreadsheets: text in them never becomes a formula.

A cell or heading that a spreadsheet would calculate gets an apostrophe in front, as OWASP advises; numbers stay
numbers. `unprotected` takes exactly these apostrophes off again.
"""

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

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


def csv_text(table: "pd.DataFrame", float_format: str | None = None) -> str:
    """A table as CSV, without its index.

    Args:
        table: cells of any text.
        float_format: of numbers, such as "%.6f".
    """
    text: str = (
        table.map(protected)
        .rename(columns=protected)
        .to_csv(index=False, lineterminator="\n", float_format=float_format)
    )
    return text
