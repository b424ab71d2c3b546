"""Tables in the terminal: metrics beside baselines, paired comparisons, labels."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from core.terminal import PlainTable, print_table, say_styled
from core.text import say
from metrics.baselines.flags import unbeaten
from metrics.names import metric, report_keys

if TYPE_CHECKING:
    import pandas as pd

    from metrics.bootstrap import Comparison
    from metrics.labels import LabelRow

FLAG = "▾"
"""Stands behind the name of a run that does not beat a baseline."""


def evaluation_table(title: str, rows: Mapping[str, Mapping[str, float]]) -> PlainTable:
    """The table after a test: the model first, its baselines below, those that it does not beat marked.

    Args:
        title: above the table.
        rows: name to metric to value; the first is the model.
    """
    shown = [metric(key) for key in report_keys(key for row in rows.values() for key in row)]
    table = PlainTable(title=title)
    table.add_column("", overflow="fold")
    for item in shown:
        table.add_column(item.title.replace(" ", "\n"), justify="right", no_wrap=True)
    _, above = unbeaten(next(iter(rows.values()), {}), rows)
    for name, row in rows.items():
        label = f"{name}  <- not beaten" if name in above else name
        table.add_row(label, *(item.format(row.get(item.key)) for item in shown))
    return table


def comparison_table(runs: "pd.DataFrame", baselines: "pd.DataFrame", flags: Mapping[str, str]) -> PlainTable:
    """Runs side by side, their baselines below.

    Args:
        runs: cells as text, a line per run and a column per metric.
        baselines: the same columns.
        flags: runs that do not beat a baseline.
    """
    table = PlainTable()
    table.add_column("", overflow="fold")
    for key in runs.columns:
        table.add_column(metric(key).title, justify="right")
    for name, cells in zip(runs.index, runs.to_numpy().tolist(), strict=True):
        table.add_row(f"{name} {FLAG}" if name in flags else name, *cells)
    if len(baselines):
        table.add_section()
    for name, cells in zip(baselines.index, baselines.to_numpy().tolist(), strict=True):
        table.add_row(name, *cells, style="dim")
    return table


def label_table(rows: "Sequence[LabelRow]") -> PlainTable:
    """Precision, recall, F1 and average precision of every label."""
    table = PlainTable(title="labels")
    table.add_column("", overflow="fold")
    for head in ("images", "predicted", "precision", "recall", "F1", "AP"):
        table.add_column(head, justify="right")
    for row in rows:
        values = (row["precision"], row["recall"], row["f1"], row["average_precision"])
        shown = ("" if value is None else f"{value:.3f}" for value in values)
        table.add_row(row["label"], str(row["support"]), str(row["predicted"]), *shown)
    return table


def print_pair(names: tuple[str, str], scores: "Mapping[str, Comparison]", over: str = "images") -> None:
    """Prints the paired bootstrap of two runs, a row per score.

    Args:
        names: names of the first and the second run.
        scores: second minus first.
        over: what was resampled, for the title.
    """
    title = f"first: {names[0]}, second: {names[1]}; paired bootstrap over {over}"
    say("")
    say_styled(title, "bold")  # a title of the table itself would be broken at the table's width
    table = PlainTable()
    for column in ("", "first", "second", "second - first", "95% interval", "p"):
        table.add_column(column, justify="right" if column else "left", no_wrap=True)
    for key, found in scores.items():
        interval = f"{found.low:+.3f} .. {found.high:+.3f}"
        values = (f"{found.a:.3f}", f"{found.b:.3f}", f"{found.difference:+.3f}", interval, f"{found.p:.3f}")
        table.add_row(metric(key).title, *values)
    print_table(table)


def print_flags(flags: Mapping[str, str]) -> None:
    """Prints which rows are below a baseline; in their table `FLAG` stands behind their names."""
    for name, reason in flags.items():
        say(f"{FLAG} {name} is BELOW A BASELINE: {reason}")
