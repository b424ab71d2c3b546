"""``compare RUN RUN ...``: runs side by side: table, curves, bars, paired bootstrap, what each said of every picture.

A RUN is a run folder, an evaluation (RUN/eval/test) or a stage of a recipe. Everything goes into one folder:
``compare.html``, one page that needs nothing else, the figures as PNG and all figures as ``compare.json``.
"""

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from commands.arguments import Parser, dashed
from core.errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from commands.comparison.paired import Pair, RetrievedCaptions
    from commands.comparison.results import Result

_DRAWN = (
    "cider_d", "bleu4", "rouge_l", "truth", "macro_ap", "micro_f1", "macro_f1", "recall3", "top1",
    "recall_at_1", "recall_at_5",
)  # fmt: skip
"""Metrics that are drawn unless they are named, as far as the runs have them."""
_PANELS = 4
"""So many of them at most."""


def build_parser() -> Parser:
    """Options of the command; dashes and underscores mean the same."""
    parser = Parser("cli.py compare", __doc__.split("\n\n")[1] if __doc__ else None)
    add = parser.add_argument
    add("runs", nargs="+", metavar="RUN", help="run folders, evaluations (RUN/eval/test), stages of a recipe")
    add("--out", type=Path, help="folder to write; by default runs/compare/TIME")
    add("--split", choices=("test", "val"), help="what was evaluated; by default test if all runs have it")
    add("--metrics", type=words, default=(), metavar="A,B", help="columns of the table")
    add(
        "--curves",
        type=words,
        default=(),
        metavar="A,B",
        help="panels of the curves; by default losses and val metrics",
    )
    add("--over", metavar="NAME", help="setting on the axis of the sweep curve, such as cut_depth; by default found")
    add("--baseline", metavar="RUN", help="the run that the others are tested against; by default the first")
    add("--samples", type=int, default=1000, help="resamples of the paired bootstrap; 0: none")
    add("--pictures", type=int, default=40, help="pictures on the page; 0: none")
    add("--different-data", action="store_true", help="show runs of different data in one table; nothing is tested")
    add("--json", action="store_true", help="print one JSON object instead of tables")
    return parser


def words(text: str) -> tuple[str, ...]:
    """A list with commas.

    >>> words("a,b")
    ('a', 'b')
    """
    return tuple(part for part in text.split(",") if part)


def main(args: Sequence[str]) -> int:
    """Compares runs.

    Raises:
        UserError: a folder holds no run, or the runs cannot be compared.
    """
    options = build_parser().parse_args([dashed(arg) for arg in args])
    if options.samples < 0 or options.pictures < 0:
        raise UserError(f"--samples {options.samples}, --pictures {options.pictures}: expected 0 or more")
    from commands.comparison.results import data_differences, read_results
    from commands.recipes.summary import columns

    results = read_results(options.runs, options.split)
    metrics = columns(options.metrics, {r.name: {k: [v] for k, v in r.metrics.items()} for r in results})
    notes = [f"{results[0].split} split; {time.strftime('%Y-%m-%d %H:%M')}"]
    different = data_differences(results)
    if different and not options.different_data:
        raise UserError(
            f"the runs are of different data ({'; '.join(different)}): their figures say nothing about each other; "
            "--different-data shows them all the same"
        )
    evidence: RetrievedCaptions | None = None
    pairs: list[Pair] = []
    if different:
        notes.append(f"of different data, not comparable: {'; '.join(different)}")
    else:
        evidence, pairs = bootstrap_runs(results, options.baseline, options.samples)
        if evidence is None:
            notes.append("no predictions, or no data to read references from: nothing was tested")
    out = new_folder(options.out)
    content = as_json(results, pairs)
    (out / "compare.json").write_text(json.dumps(content, indent=1) + "\n", "utf-8")
    figures = draw(results, metrics, options.curves, options.over)
    for title, figure in figures.items():
        figure.savefig(out / f"{title.split()[0].lower()}.png", dpi=130)
    write_page(out / "compare.html", results, metrics, notes, pairs, figures, evidence, options.pictures)
    if options.json:
        print(json.dumps(content))
    else:
        print_tables(results, metrics, notes, pairs)
        print(f"all of it: {out}/compare.html")
    return 0


def bootstrap_runs(
    results: "Sequence[Result]", baseline: str | None, samples: int
) -> "tuple[RetrievedCaptions | None, list[Pair]]":
    """Reads predictions and bootstraps every run against the baseline.

    Raises:
        UserError: the runs predicted for different images, or there is no such baseline.
    """
    from commands.comparison.paired import compare_pairs, gather, pairs_of

    asked = pairs_of([result.name for result in results], baseline)
    evidence = gather(results)
    if evidence is None or not samples or not asked:
        return evidence, []
    limits = {result.name: result.metrics.get("threshold", 0.5) for result in results}
    return evidence, compare_pairs(evidence, asked, samples, limits)


def new_folder(asked: Path | None) -> Path:
    """The folder to write into.

    Raises:
        UserError: it holds a comparison already.
    """
    folder = asked or Path("runs") / "compare" / time.strftime("%Y-%m-%d_%H-%M-%S")
    if (folder / "compare.html").exists():
        raise UserError(f"--out {folder} holds a comparison already, which is never overwritten: choose another")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def as_json(results: "Sequence[Result]", pairs: "Sequence[Pair]") -> dict[str, Any]:
    """All figures as plain values."""
    from dataclasses import asdict

    return {
        "split": results[0].split,
        "runs": {result.name: {"folder": str(result.folder), "metrics": result.metrics} for result in results},
        "bounds": shared_bounds(results),
        "bootstrap": [
            {"a": pair.a, "b": pair.b, "scores": {name: asdict(found) for name, found in pair.scores.items()}}
            for pair in pairs
        ],
    }


def shared_bounds(results: "Sequence[Result]") -> dict[str, dict[str, float]]:
    """Floors and ceilings of the runs; the same once, others with the name of their run."""
    bounds: dict[str, dict[str, float]] = {}
    for result in results:
        for name, row in result.bounds.items():
            if bounds.setdefault(name, row) != row:
                bounds[f"{name} ({result.name})"] = row
    return bounds


def draw(
    results: "Sequence[Result]", metrics: Sequence[str], asked: Sequence[str], over: str | None
) -> "dict[str, Figure]":
    """Curves, bars and, where a setting differs, the sweep; title to figure.

    Raises:
        UserError: no run logged a curve that was asked for, or there is no such setting.
    """
    from commands.comparison.results import curves
    from commands.comparison.sweep import sweeps
    from reporting.comparison_figures import bar_figure, curve_figure

    logged = {result.name: curves(result.run) for result in results}
    present = list(dict.fromkeys(key for run in logged.values() for key in run))
    for name in asked:
        if name not in present:
            raise UserError(f"--curves {name}: no run logged it; there are {', '.join(sorted(present))}")
    losses = [key for key in ("train/loss", "val/loss") if key in present]
    chosen = drawn(metrics)
    panels = list(asked) or losses + [f"val/{key}" for key in chosen if f"val/{key}" in present]
    figures = {}
    if panels:
        figures["Curves"] = curve_figure(logged, panels)
    scores = {result.name: {key: [value] for key, value in result.metrics.items()} for result in results}
    if chosen:
        figures["Bars"] = bar_figure(scores, chosen, lines(shared_bounds(results), chosen))
    return figures | sweeps(results, chosen, over)


def drawn(metrics: Sequence[str]) -> list[str]:
    """The metrics that get a panel: all of a few, else the main ones."""
    if len(metrics) <= _PANELS:
        return [metric for metric in metrics if metric != "loss"]
    main = [metric for metric in _DRAWN if metric in metrics]
    return (main or [metric for metric in metrics if metric != "loss"])[:_PANELS]


def lines(bounds: Mapping[str, Mapping[str, float]], metrics: Sequence[str]) -> dict[str, Mapping[str, float]]:
    """The bounds worth a line: all if they are few, else the highest floor of each metric and the ceilings."""
    if len(bounds) <= 3:
        return dict(bounds)
    from metrics.baselines.captions import CEILINGS

    floors = [name for name in bounds if name not in CEILINGS]
    highest = [max(floors, key=lambda name: bounds[name].get(metric, float("-inf"))) for metric in metrics]
    return {name: bounds[name] for name in bounds if name in highest or name in CEILINGS}


def write_page(
    path: Path,
    results: "Sequence[Result]",
    metrics: Sequence[str],
    notes: Sequence[str],
    pairs: "Sequence[Pair]",
    figures: "Mapping[str, Figure]",
    evidence: "RetrievedCaptions | None",
    pictures: int,
) -> None:
    """Writes the HTML page."""
    from commands.comparison.page import Page, render
    from commands.comparison.paired import image_scores

    page = Page(
        title=f"Comparison of {len(results)} runs" if len(results) > 1 else results[0].name,
        notes=notes,
        metrics=metrics,
        scores={result.name: result.metrics for result in results},
        bounds=shared_bounds(results),
        pairs=pairs,
        figures=figures,
        evidence=evidence if pictures else None,
        pictures=pictures,
        per_image=image_scores(evidence) if evidence is not None else {},
    )
    path.write_text(render(page), "utf-8")


def print_tables(
    results: "Sequence[Result]", metrics: Sequence[str], notes: Sequence[str], pairs: "Sequence[Pair]"
) -> None:
    """Prints the figures and the bootstrap."""
    from rich.console import Console
    from rich.table import Table

    from commands.comparison.tables import FLAG, print_flags, print_pair, print_table
    from metrics.baselines.flags import flagged

    console, bounds = Console(), shared_bounds(results)
    flags = flagged({result.name: result.metrics for result in results}, bounds)
    table = Table()
    table.add_column("")
    for metric in metrics:
        table.add_column(metric, justify="right")
    for result in results:
        label = f"{result.name} {FLAG}" if result.name in flags else result.name
        table.add_row(label, *(number(result.metrics.get(metric)) for metric in metrics))
    if bounds:
        table.add_section()
    for name, row in bounds.items():
        table.add_row(name, *(number(row.get(metric)) for metric in metrics), style="dim")
    console.print("; ".join(notes), style="bold", highlight=False, markup=False, soft_wrap=True)
    print_table(table)
    print_flags(flags)
    for pair in pairs:
        print_pair(console, (pair.a, pair.b), pair.scores)


def number(value: float | None) -> str:
    """A figure in a table; nothing when there is none."""
    return "" if value is None else f"{value:.3f}"
