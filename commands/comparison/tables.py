"""Comparisons as tables of the terminal."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

if TYPE_CHECKING:
    from metrics.bootstrap import Comparison

FLAG = "▾"
"""Stands behind the name of a run that does not beat a floor."""


def print_pair(
    console: Console, names: tuple[str, str], scores: "Mapping[str, Comparison]", over: str = "images"
) -> None:
    """Prints the paired bootstrap of two runs, a row a score.

    Args:
        console: where.
        names: of the first and the second.
        scores: second minus first.
        over: what was drawn, for the title.
    """
    title = f"\nfirst: {names[0]}, second: {names[1]}; paired bootstrap over {over}"
    console.print(title, style="bold", highlight=False, markup=False, soft_wrap=True)
    table = Table()
    for column in ("", "first", "second", "second - first", "95% interval", "p"):
        table.add_column(column, justify="right" if column else "left", no_wrap=True)
    for name, found in scores.items():
        interval = f"{found.low:+.3f} .. {found.high:+.3f}"
        values = (f"{found.a:.3f}", f"{found.b:.3f}", f"{found.difference:+.3f}", interval, f"{found.p:.3f}")
        table.add_row(name, *values)
    print_table(table)


def print_table(table: Table) -> None:
    """Prints a table in full width: cut headings are of no use, also where nothing but a log is written."""
    console = Console()
    width = Measurement.get(console, console.options.update(max_width=1000), table).maximum
    Console(width=max(console.width, width)).print(table)


def print_flags(flags: Mapping[str, str]) -> None:
    """Prints which rows are below a floor; in their table `FLAG` stands behind their names."""
    for name, reason in flags.items():
        print(f"{FLAG} {name} is BELOW ITS FLOOR: {reason}")
