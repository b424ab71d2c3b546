"""Metrics of runs as tables: reading ``metrics.json``, choosing columns and panels, means over seeds.

`compare` and the summary of a recipe share this.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.errors import UserError
from core.inputs import read_object
from core.renamed import renamed_metric, renamed_row
from core.text import say
from metrics.baselines.flags import flagged
from metrics.baselines.rows import UPPER
from metrics.names import column_keys, main_keys, metric

if TYPE_CHECKING:
    import pandas as pd

Scores = Mapping[str, float]
"""Metric to value."""
Row = dict[str, list[float]]
"""Metric to its values, one per seed."""
OWN = "this model"
"""Row of ``metrics.json`` that holds a run's own metrics."""
_PANELS = 4
"""Most panels of a figure."""
_FEW_LINES = 3
"""Up to this many baselines are all drawn."""


def metrics_file(run: Path) -> Path | None:
    """The metrics in a run folder: its own ``metrics.json``, else that of its last evaluation."""
    if (run / "metrics.json").is_file():
        return run / "metrics.json"
    found = sorted(run.glob("eval/*/metrics.json"), key=lambda path: path.stat().st_mtime)
    return found[-1] if found else None


def read_metrics(run: Path) -> dict[str, dict[str, float]]:
    """Rows of a run's ``metrics.json``: its own under `OWN`, then baselines and upper bounds; empty without the file.

    Metrics and rows have the names of this version, whatever version wrote the file.

    Raises:
        UserError: the file is broken.
    """
    path = metrics_file(run)
    if path is None:
        return {}
    content: Any = read_object(path, "run the stage again with --force")
    try:
        if not all(isinstance(row, dict) for row in content.values()):  # a single row
            content = {OWN: content}
        return {
            renamed_row(name): {renamed_metric(key): float(value) for key, value in row.items() if _is_number(value)}
            for name, row in content.items()
        }
    except (ValueError, AttributeError, OverflowError) as error:
        raise UserError(f"{path}: not a file of metrics ({error}): run the stage again with --force") from error


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def current_names(asked: Iterable[str], option: str) -> list[str]:
    """Metrics that a user asked for by the names of this version; an old name is reported on standard error.

    Args:
        asked: names as typed, with or without their prefix.
        option: where they were typed, for the note.
    """
    names = []
    for name in asked:
        names.append(renamed_metric(name))
        if names[-1] != name:
            say(f"note: {option}: metric '{name}' is now called '{names[-1]}'", err=True)
    return names


def choose_columns(asked: Sequence[str], rows: Iterable[Mapping[str, object]], option: str) -> list[str]:
    """The metrics to show: those asked for, else the known columns, else all.

    Args:
        asked: keys of metrics, or none.
        rows: metric to value, of every run.
        option: where they were asked for, for messages.

    Raises:
        UserError: no run has a metric that was asked for.
    """
    present = list(dict.fromkeys(key for row in rows for key in row))
    for key in asked:
        if key not in present:
            raise UserError(f"{option}: no run has '{key}': expected any of {', '.join(sorted(present))}")
    return list(asked) or column_keys(present) or sorted(present)


def choose_panels(metrics: Sequence[str]) -> list[str]:
    """The metrics that get a panel: all if they are few, else the most important ones."""
    without_loss = [key for key in metrics if key != "loss"]
    if len(metrics) <= _PANELS:
        return without_loss
    return (main_keys(metrics) or without_loss)[:_PANELS]


def choose_lines(baselines: Mapping[str, Scores], metrics: Sequence[str]) -> dict[str, Scores]:
    """Baselines worth a line: all if they are few, else the highest of each metric, and the upper bounds."""
    if len(baselines) <= _FEW_LINES:
        return dict(baselines)
    lower = [name for name in baselines if name not in UPPER]
    highest = [max(lower, key=lambda name: baselines[name].get(key, float("-inf"))) for key in metrics]
    return {name: baselines[name] for name in baselines if name in highest or name in UPPER}


def merge_baselines(groups: Mapping[str, Mapping[str, Scores]]) -> dict[str, Scores]:
    """Baselines of several runs; one that differs from that of an earlier run also has the name of its run.

    >>> merge_baselines({"a": {"prior": {"top1": 0.5}}, "b": {"prior": {"top1": 0.6}}})
    {'prior': {'top1': 0.5}, 'prior (b)': {'top1': 0.6}}
    """
    merged: dict[str, Scores] = {}
    for run, rows in groups.items():
        for name, row in rows.items():
            if merged.setdefault(name, row) != row:
                merged[f"{name} ({run})"] = row
    return merged


def tidy_frame(rows: Mapping[str, Mapping[str, Sequence[float]]]) -> "pd.DataFrame":
    """One line per run, metric and seed; columns ``run``, ``metric``, ``seed`` (from 0) and ``value``."""
    import pandas as pd

    lines = [
        (name, key, seed, value)
        for name, row in rows.items()
        for key, values in row.items()
        for seed, value in enumerate(values)
    ]
    return pd.DataFrame(lines, columns=["run", "metric", "seed", "value"])


def mean_rows(rows: Mapping[str, Mapping[str, Sequence[float]]]) -> dict[str, dict[str, float]]:
    """Means over the seeds, rows and metrics in their order."""
    if not rows:
        return {}
    means = tidy_frame(rows).groupby(["run", "metric"], sort=False, as_index=False)["value"].mean()
    found: dict[str, dict[str, float]] = {name: {} for name in rows}
    for name, key, value in zip(means["run"], means["metric"], means["value"], strict=True):
        found[name][key] = float(value)
    return found


def cell_frame(rows: Mapping[str, Mapping[str, Sequence[float]]], metrics: Sequence[str]) -> "pd.DataFrame":
    """Cells of a printed table: index run, a column per metric; the mean, with the standard deviation if there is one.

    >>> cell_frame({"a": {"bleu4": [0.4, 0.6]}, "b": {}}, ["bleu4"])["bleu4"].to_list()
    ['0.500 ± 0.141', '']
    """
    import pandas as pd

    found = tidy_frame(rows).groupby(["run", "metric"], as_index=False)["value"].agg(["mean", "std"])
    texts = {
        (run, key): metric(key).format(mean) + ("" if pd.isna(std) else f" ± {metric(key).format(std)}")
        for run, key, mean, std in found[["run", "metric", "mean", "std"]].itertuples(index=False)
    }
    cells = [[texts.get((name, key), "") for key in metrics] for name in rows]
    return pd.DataFrame(cells, index=pd.Index(list(rows), name="run"), columns=list(metrics))


def print_comparison(
    title: str,
    rows: Mapping[str, Mapping[str, Sequence[float]]],
    baselines: Mapping[str, Mapping[str, Sequence[float]]],
    metrics: Sequence[str],
) -> None:
    """Prints runs with their baselines below, and which runs do not beat one.

    Args:
        title: above the table.
        rows: run to metric to its values, one per seed.
        baselines: baseline or upper bound to the same.
        metrics: columns, by key.
    """
    from core.terminal import print_table, say_styled
    from reporting.tables import comparison_table, print_flags

    flags = flagged(mean_rows(rows), mean_rows(baselines))
    say_styled(title, "bold")
    print_table(comparison_table(cell_frame(rows, metrics), cell_frame(baselines, metrics), flags))
    print_flags(flags)
