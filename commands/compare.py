"""``compare RUN RUN ...``: compares runs by their metrics, curves, paired bootstrap and predictions.

A RUN is a run folder, an evaluation (RUN/eval/test) or a stage of a recipe. Everything is written into one folder:
``compare.html``, one page that needs no other file, the figures as PNG, all numbers as ``compare.json`` and the metrics
as ``compare.csv``.
"""

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from commands.arguments import Parser, comma_list, dashed
from core.csv_files import csv_text
from core.errors import UserError
from core.files import write_text
from core.text import say, say_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from commands.comparison.paired import Predictions
    from commands.comparison.results import Result
    from metrics.bootstrap import Pair


def build_parser() -> Parser:
    """Options of the command; dashes and underscores mean the same."""
    parser = Parser("cli.py compare", description=__doc__.split("\n\n")[1] if __doc__ else None)
    add = parser.add_argument
    add("runs", nargs="+", metavar="RUN", help="run folders, evaluations (RUN/eval/test), stages of a recipe")
    add("--out", type=Path, help="folder to write; default: runs/compare/TIME")
    add("--split", choices=("test", "val"), help="evaluated split; default: test if all runs have it, else val")
    add("--metrics", type=comma_list, default=(), metavar="A,B", help="metrics shown as columns of the table")
    add(
        "--curves",
        type=comma_list,
        default=(),
        metavar="A,B",
        help="metrics drawn as curves; default: losses and the main metrics",
    )
    add(
        "--over",
        metavar="NAME",
        help="setting on the axis of the sweep, such as cut_depth; default: the main difference",
    )
    add("--baseline", metavar="RUN", help="run that the others are tested against; default: the first")
    add("--samples", type=int, default=1000, help="resamples of the paired bootstrap; 0: no test")
    add("--images", "--pictures", type=int, default=40, help="number of images on the page; 0: none")
    add("--different-data", action="store_true", help="show runs of different data in one table, without tests")
    add(
        "--trust",
        action="store_true",
        help="accept classes from outside this project in the configurations of runs; their code is run",
    )
    add("--json", action="store_true", help="print one JSON object instead of tables")
    return parser


def main(args: Sequence[str]) -> int:
    """Compares runs.

    Raises:
        UserError: a folder holds no run, or the runs cannot be compared.
    """
    options = build_parser().parse_args([dashed(arg) for arg in args])
    if options.samples < 0 or options.images < 0:
        raise UserError(f"--samples {options.samples}, --images {options.images}: expected 0 or more")
    from commands.comparison.metrics_table import choose_columns, current_names, tidy_frame
    from commands.comparison.results import read_results

    results = read_results(options.runs, options.split, options.trust)
    metrics = choose_columns(
        current_names(options.metrics, "--metrics"), [result.metrics for result in results], "--metrics"
    )
    notes = [f"{results[0].split} split; {time.strftime('%Y-%m-%d %H:%M')}"]
    predictions, pairs = test_runs(results, options, notes)
    out = new_folder(options.out)
    content = as_json(results, pairs)
    write_text(out / "compare.json", json.dumps(content, indent=1) + "\n")
    table = tidy_frame(single_seed(results)).drop(columns="seed")
    write_text(out / "compare.csv", csv_text(list(table.columns), table.itertuples(index=False)))
    figures = draw(results, metrics, current_names(options.curves, "--curves"), options.over)
    for title, figure in figures.items():
        figure.savefig(out / f"{title.split()[0].lower()}.png", dpi=130)
    from commands.comparison.cards import build_page
    from reporting.page import render

    shown = predictions if options.images else None
    page = build_page(results, metrics, notes, pairs=pairs, figures=figures, predictions=shown, images=options.images)
    write_text(out / "compare.html", render(page))
    if options.json:
        say_json(content)
    else:
        print_tables(results, metrics, notes, pairs)
        say(f"written: {out}/compare.html")
    return 0


def test_runs(
    results: "Sequence[Result]", options: argparse.Namespace, notes: list[str]
) -> "tuple[Predictions | None, list[Pair]]":
    """Bootstraps every run against the baseline run, where all were evaluated on the same data.

    Args:
        results: the runs.
        options: options of the command.
        notes: a line is added when nothing could be tested.

    Returns:
        Predictions, None when they cannot be read, and the paired bootstrap.

    Raises:
        UserError: the runs are of different data or predicted for different images, or there is no such baseline.
    """
    from commands.comparison.paired import compare_pairs, gather, pairs_of
    from commands.comparison.results import data_differences

    if different := data_differences(results):
        listed = "; ".join(different)
        if not options.different_data:
            raise UserError(
                f"the runs were evaluated on different data ({listed}), so their metrics cannot be compared; "
                "--different-data shows them without tests"
            )
        notes.append(f"different data, not comparable: {listed}")
        return None, []
    asked = pairs_of([result.name for result in results], options.baseline)
    predictions = gather(results)
    if predictions is None:
        notes.append("no predictions, or no data to read references from: nothing was tested")
    if predictions is None or not options.samples or not asked:
        return predictions, []
    limits = {result.name: result.metrics.get("threshold", 0.5) for result in results}
    return predictions, compare_pairs(predictions, asked, options.samples, limits)


def new_folder(asked: Path | None) -> Path:
    """The folder to write into.

    Raises:
        UserError: it holds a comparison already.
    """
    folder = asked or Path("runs") / "compare" / time.strftime("%Y-%m-%d_%H-%M-%S")
    if (folder / "compare.html").exists():
        raise UserError(f"--out {folder} holds a comparison already, which is never overwritten: choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def as_json(results: "Sequence[Result]", pairs: "Sequence[Pair]") -> dict[str, Any]:
    """All numbers as plain values."""
    from dataclasses import asdict

    from commands.comparison.results import all_baselines

    return {
        "split": results[0].split,
        "runs": {result.name: {"folder": str(result.folder), "metrics": result.metrics} for result in results},
        "baselines": all_baselines(results),
        "bootstrap": [
            {"a": pair.a, "b": pair.b, "scores": {name: asdict(found) for name, found in pair.scores.items()}}
            for pair in pairs
        ],
    }


def single_seed(results: "Sequence[Result]") -> dict[str, dict[str, list[float]]]:
    """Metrics of the runs as rows with one value each."""
    return {result.name: {key: [value] for key, value in result.metrics.items()} for result in results}


def draw(
    results: "Sequence[Result]", metrics: Sequence[str], asked: Sequence[str], over: str | None
) -> "dict[str, Figure]":
    """Curves, bars and, where a setting differs, the sweep; title to figure.

    Raises:
        UserError: no run logged a curve that was asked for, or there is no such setting.
    """
    from commands.comparison.metrics_table import choose_lines, choose_panels
    from commands.comparison.results import all_baselines, curves
    from commands.comparison.sweep import sweeps
    from reporting.comparison_figures import bar_figure, curve_figure

    logged = {result.name: curves(result.run) for result in results}
    present = list(dict.fromkeys(key for run in logged.values() for key in run))
    for name in asked:
        if name not in present:
            raise UserError(f"--curves {name}: no run logged it; expected any of {', '.join(sorted(present))}")
    losses = [key for key in ("train/loss", "val/loss") if key in present]
    chosen = choose_panels(metrics)
    panels = list(asked) or losses + [f"val/{key}" for key in chosen if f"val/{key}" in present]
    figures = {}
    if panels:
        figures["Curves"] = curve_figure(logged, panels)
    if chosen:
        lines: Mapping[str, Mapping[str, float]] = choose_lines(all_baselines(results), chosen)
        figures["Bars"] = bar_figure(single_seed(results), chosen, lines)
    return figures | sweeps(results, chosen, over)


def print_tables(
    results: "Sequence[Result]", metrics: Sequence[str], notes: Sequence[str], pairs: "Sequence[Pair]"
) -> None:
    """Prints the metrics and the bootstrap."""
    from commands.comparison.metrics_table import print_comparison
    from commands.comparison.results import all_baselines
    from reporting.tables import print_pair

    baselines = {name: {key: [value] for key, value in row.items()} for name, row in all_baselines(results).items()}
    print_comparison("; ".join(notes), single_seed(results), baselines, metrics)
    for pair in pairs:
        print_pair((pair.a, pair.b), pair.scores)
