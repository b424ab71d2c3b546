"""Tables of annotations as pandas frames of text, with the line of every row."""

import io
import re
from pathlib import Path
from typing import TYPE_CHECKING

from core.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

_NEWLINE = re.compile(r"\r\n|\r|\n")


def read_frame(text: str, path: Path, separator: str = ",") -> "pd.DataFrame":
    """Reads a table with a header.

    Args:
        text: content of the file.
        path: the file, for messages.
        separator: what stands between cells.

    Returns:
        The rows that are not blank, all cells as text; cells that a row lacks are empty. The index is the line on
        which a row ends.

    Raises:
        DataError: a row has more cells than the header, a quote is never closed, or two columns have one name.
    """
    import pandas as pd  # half a second, which only those wait for who read tables

    body = text.lstrip("\r\n")
    first = len(_NEWLINE.findall(text[: len(text) - len(body)]))
    try:
        frame = pd.read_csv(
            io.StringIO(body), sep=separator, header=None, dtype=object, keep_default_na=False, skip_blank_lines=False
        )
    except (ValueError, OverflowError, MemoryError) as error:  # the parser's own errors are ValueErrors
        reason = " ".join(str(error).split()).rpartition("C error: ")[2]
        raise DataError(
            f"{path}: not a valid table ({reason}); check the separators and double quotes there"
        ) from error
    # a quoted cell may have several lines; pandas counts rows
    extra = frame.map(lambda cell: len(_NEWLINE.findall(cell))).sum(axis=1)
    frame.index = pd.Index(range(1, len(frame) + 1)) + first + extra.cumsum().to_numpy()
    names = frame.iloc[0].str.strip().tolist()
    twice = next((name for name in names if name and names.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"{path}: two columns are called {twice!r}; remove one of them")
    rows = frame.iloc[1:].set_axis(names, axis=1)
    return rows[rows.map(lambda cell: bool(cell.strip())).any(axis=1)]
