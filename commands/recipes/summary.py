"""The table at the end of a recipe: metrics of its stages over all seeds, with baselines and upper bounds."""

import fnmatch
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from commands.comparison.metrics_table import (
    OWN,
    Row,
    choose_columns,
    choose_lines,
    choose_panels,
    current_names,
    mean_rows,
    merge_baselines,
    print_comparison,
    read_metrics,
    tidy_frame,
)
from commands.recipes.document import BASELINE, Recipe
from commands.recipes.engine import duration
from commands.stage_state import read_state
from core.csv_files import csv_text
from core.errors import UserError
from core.files import write_text
from core.text import say

Tests = dict[str, dict[str, dict[str, float]]]
"""Pair to score to the fields of a `metrics.bootstrap.Comparison`."""


def collect(recipes: Sequence[Recipe]) -> tuple[dict[str, Row], dict[str, Row]]:
    """Collects the metrics of the stages and of their baselines over the seeds of a recipe."""
    patterns = recipes[0].summary.rows or ("*",)
    rows: dict[str, Row] = {}
    baselines: dict[str, Row] = {}
    for recipe in recipes:
        found: dict[str, dict[str, dict[str, float]]] = {}
        for stage in recipe.stages:
            if any(fnmatch.fnmatch(stage.name, pattern) for pattern in patterns):
                metrics = read_metrics(stage.run)
                if OWN in metrics:
                    _append(rows, stage.name, metrics.pop(OWN))
                found[stage.name] = metrics
        for name, row in merge_baselines(found).items():
            _append(baselines, name, row)
    return rows, baselines


def _append(rows: dict[str, Row], name: str, values: Mapping[str, float]) -> None:
    for key, value in values.items():
        rows.setdefault(name, {}).setdefault(key, []).append(value)


def summarize(recipes: Sequence[Recipe], base: Path) -> None:
    """Prints the table and the bootstrap; writes ``summary.json``, ``.csv`` and ``.png`` into the recipe's folder."""
    rows, baselines = collect(recipes)
    if rows:
        metrics = _columns(recipes[0], rows)
        spread = f", mean and standard deviation of {len(recipes)} seeds" if len(recipes) > 1 else ""
        say("")
        print_comparison(f"{recipes[0].path.stem}{spread}", rows, baselines, metrics)
        marks = {f"{number} {name}": mark for number, recipe in enumerate(recipes) for name, mark in run_marks(recipe)}
        known = _known_bootstrap(base / "summary.json", marks)
        tests = print_bootstrap(recipes, known)
        if known is None:
            draw(rows, baselines, metrics, base / "summary.png")
            table = tidy_frame(rows)
            write_text(base / "summary.csv", csv_text(list(table.columns), table.itertuples(index=False)))
            content = {
                "stages": rows,
                "baselines": baselines,
                "seeds": len(recipes),
                "bootstrap": tests,
                "marks": marks,
            }
            write_text(base / "summary.json", json.dumps(content, indent=1) + "\n")
    print_times(recipes)


def _columns(recipe: Recipe, rows: Mapping[str, Row]) -> list[str]:
    """The metrics to show; if some stages have not run yet, those available."""
    try:
        asked = current_names(recipe.summary.metrics, "summary: metrics")
        return choose_columns(asked, rows.values(), "summary: metrics")
    except UserError as error:
        say(str(error))
        return choose_columns((), rows.values(), "summary: metrics")


def print_bootstrap(recipes: Sequence[Recipe], known: Tests | None) -> Tests:
    """Prints the paired bootstrap of every pair that the recipe names.

    Args:
        recipes: one per seed.
        known: the results of an earlier call, if no stage has run since.

    Returns:
        "second - first" to score to numbers.
    """
    if not recipes[0].summary.compare:
        return {}
    from metrics.bootstrap import Comparison
    from reporting.tables import print_pair

    tests: Tests = {}
    over = "images" if len(recipes) == 1 else f"images; scores are means of {len(recipes)} seeds"
    for pair in recipes[0].summary.compare:
        name = f"{pair[1]} - {pair[0]}"
        found = bootstrap(recipes, pair) if known is None or name not in known else known[name]
        if isinstance(found, str):
            say(f"{pair[1]} against {pair[0]}: not tested: {found}")
        else:
            print_pair(pair, {key: Comparison(**values) for key, values in found.items()}, over)
            tests[name] = found
    return tests


def bootstrap(recipes: Sequence[Recipe], pair: tuple[str, str]) -> dict[str, dict[str, float]] | str:
    """Paired bootstrap of two stages over images, scores averaged over the seeds; or the reason why there is none."""
    from commands.comparison.paired import compare_over_seeds
    from commands.comparison.results import read_results

    try:
        runs = []
        for recipe in recipes:
            folders = {stage.name: stage.run for stage in recipe.stages}
            row = pair[0].removeprefix(BASELINE) if pair[0].startswith(BASELINE) else None
            found = read_results([str(folders[name]) for name in (pair[1:] if row else pair)], None)
            other = found[-1]
            runs.append((replace(other, name=row, baseline=row) if row else found[0], other))
        return {name: asdict(found) for name, found in compare_over_seeds(runs).items()}
    except UserError as error:  # the metrics above are right all the same
        return str(error)


def _known_bootstrap(path: Path, marks: Mapping[str, str]) -> Tests | None:
    """The results of an earlier call on the same runs of the stages; None if one has run since."""
    try:
        content = json.loads(path.read_text("utf-8"))
        tests: Tests = content["bootstrap"]
        return tests if content["marks"] == marks else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def run_marks(recipe: Recipe) -> list[tuple[str, str]]:
    """The finished stages, each with the mark of its run."""
    states = [(stage.name, read_state(stage.run)) for stage in recipe.stages]
    return [(name, state["mark"]) for name, state in states if state is not None and state["status"] == "done"]


def draw(rows: Mapping[str, Row], baselines: Mapping[str, Row], metrics: Sequence[str], path: Path) -> None:
    """Draws the table as bars with whiskers over the seeds and lines for the baselines."""
    from reporting.comparison_figures import bar_figure

    chosen = choose_panels(metrics)
    if chosen:
        bar_figure(rows, chosen, choose_lines(mean_rows(baselines), chosen)).savefig(path, dpi=130)


def print_times(recipes: Sequence[Recipe]) -> None:
    """Prints how long each stage took."""
    for recipe in recipes:
        states = {stage.name: read_state(stage.run) for stage in recipe.stages}
        times = {name: state["seconds"] for name, state in states.items() if state is not None and "seconds" in state}
        parts = ", ".join(f"{name} {duration(seconds)}" for name, seconds in times.items())
        say(f"time of the stages in {recipe.folder}: {duration(sum(times.values()))} in all ({parts})")
