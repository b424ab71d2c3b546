"""What a sweep found: the table in the terminal, ``sweep.csv`` and the page ``sweep.html``."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import optuna
from matplotlib.figure import Figure
from optuna.trial import FrozenTrial, TrialState

from commands.sweeps.document import Sweep
from commands.sweeps.study import importances, reason, value_of
from core.csv_files import csv_text
from core.files import write_text
from core.metric_rows import read_metric_rows
from core.terminal import PlainTable, print_table
from reporting.comparison_figures import curve_figure
from reporting.page import Report, Section, Table, render_report
from reporting.sweep_figures import history_figure, importance_figure, slice_figure

_SHOWN = 10
_CURVES = 8
_NAMES = {
    TrialState.COMPLETE: "finished",
    TrialState.PRUNED: "stopped early",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "cut off",
    TrialState.WAITING: "waiting",
}


def ranked(sweep: Sweep, study: optuna.Study) -> list[FrozenTrial]:
    """Trials, finished ones first, best first; then those without a result."""
    sign = -1 if sweep.maximize else 1

    def order(one: FrozenTrial) -> tuple[bool, float, int]:
        value = value_of(study, one)
        return one.state is not TrialState.COMPLETE, float("inf") if value is None else sign * value, one.number

    return sorted(study.get_trials(deepcopy=False), key=order)


def short_names(names: Sequence[str]) -> dict[str, str]:
    """The last words of option names, as many as it takes to tell them apart.

    >>> short_names(["model.init_args.lr", "a.seed", "b.seed"])
    {'model.init_args.lr': 'lr', 'a.seed': 'a.seed', 'b.seed': 'b.seed'}
    """
    found = {}
    for name in names:
        parts = name.split(".")
        ends = (".".join(parts[-length:]) for length in range(1, len(parts) + 1))
        found[name] = next((end for end in ends if sum(f".{other}".endswith(f".{end}") for other in names) == 1), name)
    return found


def table_of(sweep: Sweep, study: optuna.Study) -> Table:
    """All trials with their settings, best first."""
    short = short_names([one.name for one in sweep.parameters])
    rows: list[list[str | int | float | None]] = []
    for one in ranked(sweep, study):
        settings = [one.params.get(name) for name in short]
        seconds = one.duration.total_seconds() if one.duration else None
        rows.append(
            [
                one.number,
                value_of(study, one),
                *settings,
                _NAMES[one.state],
                None if seconds is None else round(seconds),
            ]
        )
    return Table(
        title=f"{len(rows)} trials", columns=["trial", sweep.metric, *short.values(), "state", "seconds"], rows=rows
    )


def say_table(sweep: Sweep, study: optuna.Study) -> None:
    """Prints the best trials."""
    table = table_of(sweep, study)
    shown = PlainTable(title=f"best of {table.title}")
    for name in table.columns[:-1]:
        shown.add_column(name, overflow="fold")
    for row in table.rows[:_SHOWN]:
        shown.add_row(*[_cell(cell) for cell in row[:-1]])
    print_table(shown)


def write_results(sweep: Sweep, study: optuna.Study, out: Path) -> None:
    """Writes the table and the page."""
    table = table_of(sweep, study)
    write_text(out / "sweep.csv", csv_text(list(table.columns), table.rows))
    write_text(out / "sweep.html", render_report(page_of(sweep, study, out)))


def page_of(sweep: Sweep, study: optuna.Study, out: Path) -> Report:
    """The page: best settings, all trials, what matters, how the search went."""
    order = ranked(sweep, study)
    done = [one for one in order if one.state is TrialState.COMPLETE]
    failed = [one for one in order if one.state is TrialState.FAIL]
    facts = {
        "searched": ", ".join(one.name for one in sweep.parameters),
        "metric": f"{sweep.metric}, {'highest' if sweep.maximize else 'lowest'} validation of each trial",
        "command": "python cli.py " + " ".join(sweep.command),
        "trials": ", ".join(
            f"{sum(one.state is state for one in order)} {name}"
            for state, name in _NAMES.items()
            if any(one.state is state for one in order)
        ),
    }
    if done:
        facts["best trial"] = f"{done[0].number}: {sweep.metric} {done[0].value:.4g}"
        facts["best settings"] = " ".join(sweep.words(done[0].params)[len(sweep.command) - 1 :])
        facts["run folder"] = f"trials/{done[0].number:04d}"
    notes = [time.strftime("%Y-%m-%d %H:%M")]
    if done:
        notes.append(
            "The best of many trials on validation data is optimistic: test it, and retrain it with other seeds."
        )
    return Report(
        title=f"Sweep {sweep.name}",
        notes=notes,
        warnings=[f"{len(failed)} trials failed, trial {failed[0].number}: {reason(failed[0])}"] if failed else [],
        facts=facts,
        evaluations=[],
        sections=_sections(sweep, study, out, order),
    )


def _sections(sweep: Sweep, study: optuna.Study, out: Path, order: Sequence[FrozenTrial]) -> list[Section]:
    table = table_of(sweep, study)
    shown = [[_cell(cell) if isinstance(cell, float) else cell for cell in row] for row in table.rows]
    sections = [Section(title="Trials", tables=[replace(table, rows=shown)])]
    values = {one.number: value for one in order if (value := value_of(study, one)) is not None}
    if not values:
        return sections
    stopped = {one.number for one in order if one.state is not TrialState.COMPLETE}
    short = short_names([one.name for one in sweep.parameters])
    figures: dict[str, Figure] = {
        "Value of each trial and best so far": history_figure(values, stopped, sweep.metric, sweep.maximize)
    }
    if weights := importances(study):
        shares = {short[name]: weight for name, weight in weights.items()}
        figures["Importance of each setting"] = importance_figure(shares)
    settings = {
        short[one.name]: {trial.number: trial.params[one.name] for trial in order if one.name in trial.params}
        for one in sweep.parameters
        if one.choices is None or len(one.choices) > 1
    }
    logs = {short[one.name] for one in sweep.parameters if one.log}
    figures["Value over each setting"] = slice_figure(settings, values, stopped, sweep.metric, logs)
    if curves := _curves(sweep, out, order):
        figures["Curves of the best trials"] = curve_figure(curves, [sweep.metric])
    return [Section(title="What matters", figures=figures), *sections]


def _curves(
    sweep: Sweep, out: Path, order: Sequence[FrozenTrial]
) -> Mapping[str, Mapping[str, Sequence[tuple[float, float]]]]:
    """The metric over the steps of the best trials."""
    curves = {}
    for one in order[:_CURVES]:
        path = out / "trials" / f"{one.number:04d}" / "metrics.csv"
        if not path.is_file():
            continue
        columns, rows = read_metric_rows(path)
        if sweep.metric in columns:
            points = [(float(row["step"]), float(row[sweep.metric])) for row in rows if row[sweep.metric]]
            curves[f"trial {one.number}"] = {sweep.metric: points}
    return curves


def _cell(cell: str | int | float | None) -> str:
    return "" if cell is None else f"{cell:.4g}" if isinstance(cell, float) else str(cell)
