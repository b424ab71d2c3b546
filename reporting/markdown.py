"""Texts of users and data in Markdown: shown, never obeyed."""

import html
import re
from collections.abc import Iterable, Sequence

from core.text import visible

_MARKS = re.compile(r"([\\`*_{}\[\]()#+\-.!|~>:@$=])")


def plain(text: str) -> str:
    r"""A text that Markdown shows as it is, in one line.

    >>> print(plain("a *b* <i> [c](d)"))
    a \*b\* &lt;i&gt; \[c\]\(d\)
    """
    return _MARKS.sub(r"\\\1", html.escape(visible(text), quote=False).replace("&gt;", "&gt;"))


def code(text: str) -> str:
    """A text as a code span, fenced by more backticks than it has itself.

    >>> code("a `b`")
    '`` a `b` ``'
    """
    shown = visible(text)
    ticks = "`" * (max(map(len, re.findall("`+", shown)), default=0) + 1)
    space = " " if "`" in shown else ""
    return f"{ticks}{space}{shown}{space}{ticks}"


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a table, its first column to the left, numbers to the right."""
    lines = [columns, ["---", *["---:"] * (len(columns) - 1)]]
    cells = [[plain(cell) for cell in columns], lines[1], *[[plain(cell) for cell in row] for row in rows]]
    return [f"| {' | '.join(row)} |" for row in cells]
