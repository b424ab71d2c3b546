"""Gathers what the report of a run shows, from the files in its folder and the data that it was evaluated on."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from commands.comparison.metrics_table import choose_panels
from commands.comparison.paired import gather
from commands.comparison.results import (
    Result,
    Split,
    best_validation,
    curves,
    evaluation_folder,
    flat,
    read_config,
    read_results,
)
from commands.run_report.captions import caption_cards, caption_sections
from commands.run_report.data_facts import data_section
from commands.run_report.labels import label_cards, label_sections
from commands.run_report.others import other_sections
from core.errors import UserError
from metrics.baselines.flags import baseline_warning, flagged
from metrics.names import column_keys, metric
from reporting.comparison_figures import curve_figure
from reporting.health_notes import read_notes
from reporting.loggers import read_facts
from reporting.page import Card, Evaluation, Report, Section

if TYPE_CHECKING:
    from commands.comparison.paired import Predictions
    from datamodules.base import CaptionDataModule

_PANELS = ("train/loss", "val/loss")
_RATES = ("lr-", "throughput/")
"""Beginnings of the names of what is logged of a run besides losses and metrics."""


@dataclass(frozen=True, slots=True)
class LiveData:
    """The data module of an evaluation.

    Attributes:
        folder: what the evaluation wrote.
        data: the data module.
    """

    folder: Path
    data: "CaptionDataModule"


def build_report(run: Path, *, images: int, trust: bool = False, live: "LiveData | None" = None) -> Report:
    """Gathers the report of a run.

    Args:
        run: run folder.
        images: maximum number of images shown.
        trust: the configuration may name anybody's classes.
        live: data module of an evaluation that has just ended, so that it is not built again.

    Raises:
        UserError: the folder holds no run, or a file in it is broken.
    """
    if not (run / "config.yaml").is_file():
        raise UserError(f"'{run}' is no run folder, it has no config.yaml: give the folder that fit printed last")
    results = evaluations_of(run, trust)
    logged = curves(run)
    warnings: list[str] = []
    sections = [_curves(logged)] if logged else []
    cards: list[Card] = []
    shown = 0
    predictions, reason = _predictions(results[0], live) if results else (None, "it was not evaluated yet")
    if predictions is None:
        sections.append(Section(title="Predictions", notes=[f"None are shown: {reason}."]))
    else:
        make_sections, make_cards = (
            (caption_sections, caption_cards) if predictions.captions else (label_sections, label_cards)
        )
        own, signs = make_sections(results[0], predictions)
        sections += own
        warnings += signs
        cards = make_cards(results[0], predictions, images)
        shown = len(predictions.references)
    sections += other_sections(run, results)
    if predictions is not None:
        sections.append(data_section(predictions.data))
    return Report(
        title=f"{run.parent.name}/{run.name}" if run.parent.name else run.name,
        notes=[headline(run, results)],
        warnings=[
            *_seen(run),
            *_lost(logged),
            *(item for item in (_flag(result) for result in results) if item),
            *warnings,
        ],
        facts=facts_of(run),
        evaluations=[evaluation_of(result) for result in results],
        sections=sections,
        cards=cards,
        images=shown,
        settings={name: _text(value) for name, value in flat(read_config(run)).items()},
    )


def evaluations_of(run: Path, trust: bool) -> list[Result]:
    """The last test and the last validation of a run, as far as they are there; the test first."""
    splits: list[Split] = ["test"] if evaluation_folder(run, "test") else []
    if evaluation_folder(run, "val") or best_validation(run):
        splits.append("val")
    found = []
    for split in splits:
        found += read_results([str(run)], split, trust)
    return found


def _predictions(result: Result, live: LiveData | None) -> "tuple[Predictions | None, str]":
    """Predictions with references, or the reason why there are none."""
    data = live.data if live is not None and live.folder.resolve() == result.folder.resolve() else None
    try:
        found = gather([result], data)
    except UserError as error:  # the data has moved: the rest of the report is still true
        return None, str(error)
    if found is None:
        return None, "this method writes none, or the data cannot be read"
    return found, ""


def headline(run: Path, results: Sequence[Result]) -> str:
    """Method and data of the run in one line."""
    config = read_config(run)
    names = [str((config.get(part) or {}).get("class_path", "?")).rpartition(".")[2] for part in ("model", "data")]
    splits = " and ".join(dict.fromkeys(result.split for result in results)) or "no split yet"
    return f"{names[0]} on {names[1]}; evaluated on: {splits}; report of {time.strftime('%Y-%m-%d %H:%M')}"


def facts_of(run: Path) -> dict[str, str]:
    """What was run, where and when."""
    facts = read_facts(run)
    rows = {
        "command": facts.get("command"),
        "commit": facts.get("commit"),
        "started": facts.get("started"),
        "last written": _last_written(run),
        "parameters": _parameters(facts.get("parameters")),
        "device": facts.get("device"),
        "threads": facts.get("threads"),
        "Python": facts.get("python"),
        "versions": ", ".join(f"{name} {number}" for name, number in (facts.get("versions") or {}).items()),
        "W&B run": facts.get("wandb_id"),
    }
    return {name: str(value) for name, value in rows.items() if value not in (None, "")}


def _last_written(run: Path) -> str | None:
    paths = [run / "metrics.csv", *run.glob("checkpoints/*.ckpt"), *run.glob("eval/*/metrics.json")]
    times = [path.stat().st_mtime for path in paths if path.is_file()]
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(max(times))) if times else None


def _parameters(counts: Mapping[str, int] | None) -> str | None:
    if not counts:
        return None
    return f"{counts['total']:,}, of which {counts['trainable']:,} are trainable"


def evaluation_of(result: Result) -> Evaluation:
    """The metrics of an evaluation as a table shows them."""
    shown = column_keys(result.metrics)
    return Evaluation(
        title=f"Metrics on {result.split}",
        metrics=[metric(key) for key in shown],
        scores=result.metrics,
        baselines=result.baselines,
        flag=flagged({"": result.metrics}, result.baselines).get("", ""),
        others={key: value for key, value in sorted(result.metrics.items()) if key not in shown},
    )


def _flag(result: Result) -> str:
    warning = baseline_warning("this run", result.metrics, result.baselines)
    return f"{result.split} split: {warning}" if warning else ""


def _curves(logged: Mapping[str, Sequence[tuple[float, float]]]) -> Section:
    """Curves of the losses, the main metrics, the rates and the throughput."""
    losses = [name for name in _PANELS if name in logged]
    validated = [name.removeprefix("val/") for name in logged if name.startswith("val/")]
    main = [f"val/{name}" for name in choose_panels(column_keys(validated))]
    rates = [name for name in logged if name.startswith(_RATES)]
    panels = list(dict.fromkeys([*losses, *main, *rates])) or list(logged)[:6]
    best = _best_step(logged)
    return Section(title="Curves", notes=[best] if best else [], figures={"Curves": curve_figure({"": logged}, panels)})


def _best_step(logged: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    from metrics.names import deciding_key

    key = deciding_key(name.removeprefix("val/") for name in logged if name.startswith("val/"))
    if key is None:
        return ""
    best = metric(key).best(value for _, value in logged[f"val/{key}"])
    step = next((step for step, value in logged[f"val/{key}"] if value == best), math.nan)
    return f"Best validation: {metric(key).title} {best:.3f} after step {step:.0f}."


def _seen(run: Path) -> list[str]:
    """Signs of collapse that were seen while the run was training."""
    return [f"Seen in training at step {note['step']}, {note['kind']}: {note['sign']}." for note in read_notes(run)]


def _lost(logged: Mapping[str, Sequence[tuple[float, float]]]) -> list[str]:
    """What the losses say of the training's health."""
    losses = [value for _, value in logged.get("train/loss", ())]
    lines = []
    if any(not math.isfinite(value) for value in losses):
        lines.append("The training loss was not finite: see docs/troubleshooting.md.")
    finite = [value for value in losses if math.isfinite(value)]
    if len(finite) > 20 and finite[-1] > 3 * min(finite) and finite[-1] > 1.5 * finite[0]:
        lines.append(
            f"The training loss ended at {finite[-1]:.3g}, above where it began ({finite[0]:.3g}): it diverged."
        )
    return lines


def _text(value: object) -> str:
    return "null" if value is None else str(value)
