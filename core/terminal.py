"""Tables, lines and bars in the terminal, by rich, which takes no text for its markup here."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

from rich import get_console, progress
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from core.text import visible

_WIDEST = 1000
"""Columns of the terminal that a table may take."""
_BAR, _SHORTEST = 40, 6
"""Columns of a bar."""
_MARGIN = 2
"""Columns that stay free: rich puts a blank behind every column."""
Item = TypeVar("Item")


def terminal(err: bool = False) -> Console:
    """Standard output or error without markup, emoji and guesses of what should be coloured."""
    return Console(stderr=err, markup=False, emoji=False, highlight=False)


def say_styled(line: str, style: str) -> None:
    """Prints a line in a style; it is never broken, so that it can be searched for and copied."""
    terminal().print(Text(visible(line), style), soft_wrap=True)


class PlainTable(Table):
    """A table whose title, headings and cells are text.

    Args:
        title: above the table, on the left.
        options: options of rich's table.
    """

    def __init__(self, *, title: str | None = None, **options: Any) -> None:
        shown = None if title is None else Text(visible(title), "table.title")
        super().__init__(title=shown, title_justify="left", **options)

    def add_column(self, header: Any = "", footer: Any = "", **options: Any) -> None:
        """Adds a column; a line break in its heading stays."""
        super().add_column(_shown(header), _shown(footer), **options)

    def add_row(self, *cells: Any, **options: Any) -> None:
        """Adds a row."""
        super().add_row(*(_shown(cell) for cell in cells), **options)


def print_table(table: PlainTable) -> None:
    """Prints a table in full width: truncated headings are of no use, least of all in a log file."""
    console = terminal()
    width = Measurement.get(console, console.options.update(max_width=_WIDEST), table).maximum
    if width > console.width:
        console.width = width
    console.print(table)


def task_bar(*, transient: bool = False, count: bool = False) -> progress.Progress:
    """A bar on standard error, behind the description of its task.

    Args:
        transient: goes when it is done.
        count: show how many are done rather than how much.
    """
    share: progress.ProgressColumn = progress.TaskProgressColumn("{task.percentage:>3.0f}%", markup=False)
    return progress.Progress(
        _Description(),
        progress.BarColumn(),
        progress.MofNCompleteColumn() if count else share,
        progress.TimeRemainingColumn(),
        console=terminal(err=True),
        transient=transient,
    )


def with_bar(items: Iterable[Item], what: str, total: int) -> Iterator[Item]:
    """The items, with a bar on standard error."""
    with task_bar(transient=True, count=True) as bar:
        yield from bar.track(items, total=total, description=what)


class TaskLine(progress.ProgressColumn):
    """A task as one line that fits into the terminal: a bar takes the room that is left, and in a narrow one parts go.

    Args:
        parts: parts of a task, texts and their importance: the least important ones go first, those of 0 never.
    """

    def __init__(self, parts: Callable[[progress.Task], Sequence[tuple[str, int]]]) -> None:
        super().__init__()
        self._parts = parts

    def render(self, task: progress.Task) -> Text:
        """Draws the line."""
        options = get_console().options
        parts = [part for part in self._parts(task) if part[0]]
        kept = fitting(parts, options.max_width - _MARGIN)
        room = min(_BAR, options.max_width - _MARGIN - len(" ".join(kept)) - 1)
        total = task.total or 0
        if len(kept) < len(parts) or room < _SHORTEST or not 0 < total < float("inf"):
            return Text(" ".join(kept))
        done = min(room, round(room * task.completed / total))
        full, empty = ("#", "-") if options.ascii_only else ("━", "━")
        text = Text(f"{kept[0]} ")
        text.append(full * done, "#6206e0").append(empty * (room - done), "grey35" if full == empty else "")
        return text.append("".join(f" {part}" for part in kept[1:]))


def task_line(parts: Callable[[progress.Task], Sequence[tuple[str, int]]]) -> progress.Progress:
    """A line on standard error that is drawn when it is told to, and goes when it is done; see `TaskLine`."""
    # without a thread of its own, so that processes can be forked meanwhile
    return progress.Progress(TaskLine(parts), console=terminal(err=True), transient=True, auto_refresh=False)


def fitting(parts: Sequence[tuple[str, int]], width: int) -> list[str]:
    """The texts that fit into a width with a blank between them.

    >>> fitting([("Epoch 1/3", 2), ("5/60", 3), ("loss 3.1", 0)], 20)
    ['Epoch 1/3', 'loss 3.1']
    """
    kept = [(visible(text), weight) for text, weight in parts]
    while len(" ".join(text for text, _ in kept)) > width and any(weight for _, weight in kept):
        kept.remove(max(kept, key=lambda part: part[1]))
    return [text for text, _ in kept]


class _Description(progress.ProgressColumn):
    """Description of a task as text."""

    def render(self, task: progress.Task) -> Text:
        """Draws it."""
        return Text(visible(task.description))


def _shown(cell: Any) -> Any:
    return Text(visible(cell, keep="\n")) if isinstance(cell, str) else cell
