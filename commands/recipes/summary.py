"""The table at a recipe's end: figures of its stages, over all seeds, beside floors and ceilings."""

import fnmatch
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from commands.recipes.document import FLOOR, Recipe
from commands.recipes.engine import duration, read_state
from core.errors import UserError
from core.files import write_text

Row = dict[str, list[float]]
"""Metric to its values, one a seed."""
Tests = dict[str, dict[str, dict[str, float]]]
"""Pair to score to the figures of a `metrics.bootstrap.Comparison`."""
OWN = "this model"
PREFERRED = (
    "bleu1", "bleu2", "bleu3", "bleu4", "rouge_l", "cider_d", "truth",
    "top1", "top2", "top3", "recall3", "micro_f1", "macro_f1", "macro_ap", "lift_over_prior",
    "recall_at_1", "recall_at_5", "recall_at_10",
)  # fmt: skip
"""Columns when the recipe names none."""


def metrics_file(run: Path) -> Path | None:
    """The figures in a run folder: its own ``metrics.json``, else that of its last evaluation."""
    if (run / "metrics.json").is_file():
        return run / "metrics.json"
    found = sorted(run.glob("eval/*/metrics.json"), key=lambda path: path.stat().st_mtime)
    return found[-1] if found else None


def read_metrics(run: Path) -> dict[str, dict[str, float]]:
    """Rows of a run's ``metrics.json``: its own under "this model", then floors and ceilings; empty without the file.

    Raises:
        UserError: the file is broken.
    """
    path = metrics_file(run)
    if path is None:
        return {}
    try:
        content: Any = json.loads(path.read_text("utf-8"))
        if not all(isinstance(row, dict) for row in content.values()):  # figures alone, without bounds
            content = {OWN: content}
        return {
            name: {key: float(value) for key, value in row.items() if _is_number(value)}
            for name, row in content.items()
        }
    except (ValueError, AttributeError) as error:
        raise UserError(f"{path}: not a file of metrics ({error}): run the stage again with --force") from error


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def collect(recipes: Sequence[Recipe]) -> tuple[dict[str, Row], dict[str, Row]]:
    """Figures of the stages and of the bounds beside them, the same recipe with several seeds."""
    patterns = recipes[0].summary.rows or ("*",)
    rows: dict[str, Row] = {}
    bounds: dict[str, Row] = {}
    for recipe in recipes:
        seen: dict[str, Mapping[str, float]] = {}
        for stage in recipe.stages:
            if not any(fnmatch.fnmatch(stage.name, pattern) for pattern in patterns):
                continue
            metrics = read_metrics(stage.run)
            if OWN in metrics:
                _append(rows, stage.name, metrics.pop(OWN))
            for name, values in metrics.items():
                # the same on the same data; else it goes by the stage's name
                if seen.setdefault(name, values) != values:
                    seen[f"{name} ({stage.name})"] = values
        for name, row in seen.items():
            _append(bounds, name, row)
    return rows, bounds


def _append(rows: dict[str, Row], name: str, values: Mapping[str, float]) -> None:
    for metric, value in values.items():
        rows.setdefault(name, {}).setdefault(metric, []).append(value)


def summarize(recipes: Sequence[Recipe], base: Path) -> None:
    """Prints the table and the bootstrap; writes ``summary.json`` and ``summary.png`` into the recipe's folder."""
    rows, bounds = collect(recipes)
    if rows:
        try:
            metrics = columns(recipes[0].summary.metrics, rows)
        except UserError as error:  # part of the stages has run, and others have these metrics
            print(error)
            metrics = columns((), rows)
        print_scores(recipes, rows, bounds, metrics)
        marks = {f"{number} {name}": mark for number, recipe in enumerate(recipes) for name, mark in run_marks(recipe)}
        known = _known_bootstrap(base / "summary.json", marks)
        tests = print_bootstrap(recipes, known)
        content = {"stages": rows, "bounds": bounds, "seeds": len(recipes), "bootstrap": tests, "marks": marks}
        if known is None:
            draw(rows, bounds, metrics, base / "summary.png")
            write_text(base / "summary.json", json.dumps(content, indent=1) + "\n")
    print_times(recipes)


def print_scores(
    recipes: Sequence[Recipe], rows: Mapping[str, Row], bounds: Mapping[str, Row], metrics: Sequence[str]
) -> None:
    """Prints the table."""
    from rich.console import Console
    from rich.table import Table

    from commands.comparison.tables import FLAG, print_flags, print_table
    from metrics.baselines.flags import flagged

    flags = flagged(_means(rows), _means(bounds))
    table = Table()
    table.add_column("")
    for metric in metrics:
        table.add_column(metric, justify="right")
    for style, group in (("", rows), ("dim", bounds)):
        for name, row in group.items():
            label = f"{name} {FLAG}" if style == "" and name in flags else name
            table.add_row(label, *(cell(row.get(metric, [])) for metric in metrics), style=style)
        table.add_section()
    # a title of the table itself would be broken at the table's width
    spread = f", mean and standard deviation of {len(recipes)} seeds" if len(recipes) > 1 else ""
    Console().print(f"\n{recipes[0].path.stem}{spread}", style="bold", highlight=False, soft_wrap=True)
    print_table(table)
    print_flags(flags)


def _means(rows: Mapping[str, Row]) -> dict[str, dict[str, float]]:
    return {name: {key: statistics.fmean(values) for key, values in row.items()} for name, row in rows.items()}


def print_bootstrap(recipes: Sequence[Recipe], known: Tests | None) -> Tests:
    """Prints the paired bootstrap of every pair that the recipe names.

    Args:
        recipes: one a seed.
        known: what an earlier call found, when no stage has run since.

    Returns:
        "second - first" to score to figures.
    """
    if not recipes[0].summary.compare:
        return {}
    from rich.console import Console

    from commands.comparison.tables import print_pair
    from metrics.bootstrap import Comparison

    tests: Tests = {}
    over = "images" if len(recipes) == 1 else f"images; scores are means of {len(recipes)} seeds"
    for pair in recipes[0].summary.compare:
        name = f"{pair[1]} - {pair[0]}"
        found = bootstrap(recipes, pair) if known is None or name not in known else known[name]
        if isinstance(found, str):
            print(f"{pair[1]} against {pair[0]}: not tested: {found}")
        else:
            print_pair(Console(), pair, {key: Comparison(**values) for key, values in found.items()}, over)
            tests[name] = found
    return tests


def bootstrap(recipes: Sequence[Recipe], pair: tuple[str, str]) -> dict[str, dict[str, float]] | str:
    """Paired bootstrap of two stages over images, scores averaged over the seeds; else why there is none."""
    from commands.comparison.paired import compare_over_seeds
    from commands.comparison.results import read_results

    try:
        runs = []
        for recipe in recipes:
            folders = {stage.name: stage.run for stage in recipe.stages}
            floor = pair[0].removeprefix(FLOOR) if pair[0].startswith(FLOOR) else None
            found = read_results([str(folders[name]) for name in (pair[1:] if floor else pair)], None)
            other = found[-1]
            runs.append((replace(other, name=floor, floor=floor) if floor else found[0], other))
        return {name: asdict(found) for name, found in compare_over_seeds(runs).items()}
    except UserError as error:  # the figures above are right all the same
        return str(error)


def _known_bootstrap(path: Path, marks: Mapping[str, str]) -> Tests | None:
    """What an earlier call found on the same runs of the stages; None when one has run since."""
    try:
        content = json.loads(path.read_text("utf-8"))
        tests: Tests = content["bootstrap"]
        return tests if content["marks"] == marks else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def run_marks(recipe: Recipe) -> list[tuple[str, str]]:
    """Stages that are done, each with the mark of its run."""
    states = [(stage.name, read_state(stage.run)) for stage in recipe.stages]
    return [(name, state["mark"]) for name, state in states if state is not None and state["status"] == "done"]


def draw(rows: Mapping[str, Row], bounds: Mapping[str, Row], metrics: Sequence[str], path: Path) -> None:
    """Draws the table as bars, whiskers over the seeds, between floors and ceilings."""
    from commands.compare import drawn, lines
    from reporting.comparison_figures import bar_figure

    chosen = drawn(metrics)
    if chosen:
        bar_figure(rows, chosen, lines(_means(bounds), chosen)).savefig(path, dpi=130)


def print_times(recipes: Sequence[Recipe]) -> None:
    """Prints how long each stage took."""
    for recipe in recipes:
        states = {stage.name: read_state(stage.run) for stage in recipe.stages}
        times = {name: state["seconds"] for name, state in states.items() if state is not None and "seconds" in state}
        parts = ", ".join(f"{name} {duration(seconds)}" for name, seconds in times.items())
        print(f"time of the stages in {recipe.folder}: {duration(sum(times.values()))} in all ({parts})")


def columns(asked: Sequence[str], rows: Mapping[str, Row]) -> list[str]:
    """The metrics to show: those asked for, else the well-known ones, else all.

    Raises:
        UserError: no stage has a metric that was asked for.
    """
    present = list(dict.fromkeys(metric for row in rows.values() for metric in row))
    for metric in asked:
        if metric not in present:
            raise UserError(f"summary: metrics: no stage has '{metric}': there are {', '.join(sorted(present))}")
    return list(asked) or [metric for metric in PREFERRED if metric in present] or sorted(present)


def cell(values: Sequence[float]) -> str:
    """Mean, with the standard deviation when there are several.

    >>> cell([0.5]), cell([0.4, 0.6]), cell([])
    ('0.500', '0.500 ± 0.141', '')
    """
    if not values:
        return ""
    mean = statistics.fmean(values)
    return f"{mean:.3f} ± {statistics.stdev(values):.3f}" if len(values) > 1 else f"{mean:.3f}"
