"""What dashboards show of a run beside its curves: settings, best figures, baselines, tables of labels, artifacts."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from lightning import Callback, LightningModule, Trainer

from callbacks.checkpoints import BestCheckpoint
from callbacks.evaluation import Stage, data_of, step_of, writes_files
from callbacks.pace import SHARE, Pace
from callbacks.predictions import PredictionWriter, known, rewritten
from core.spread import spread
from datamodules.audit.fingerprint import data_fingerprint
from lightning_modules.base import BaseModule
from lightning_modules.classification import ClassificationModule
from metrics.labels import confusions, per_label, threshold_curve
from metrics.tokenize import tokenize_caption
from reporting.dashboards import (
    Cell,
    has_dashboard,
    log_figure,
    log_file,
    log_rows,
    log_scores,
    log_settings,
    log_summary,
    log_values,
)
from reporting.loggers import add_facts

Artifacts = Literal["none", "predictions", "checkpoints", "all"]
_CURVES = 40
"""Labels that have curves of their own, the most frequent ones."""
_ROWS = 50
"""Rows of a table of captions."""


class Dashboard(Callback):
    """Describes a run in W&B and TensorBoard.

    The settings get a fingerprint of the data, the summary the figures of the best validation and the baselines of the
    validation split. Classifiers get a table and curves of their labels, the scores over the threshold, and what is
    taken for what; a text autoencoder gets captions beside their reconstructions. `fit` and `test` may upload files.

    Args:
        artifacts: files that W&B gets: the predictions, the best checkpoint, or both.
    """

    def __init__(self, *, artifacts: Artifacts = "none") -> None:
        self.artifacts, self.pace = artifacts, Pace(SHARE)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Adds the fingerprint of the data and what is known of the run only now."""
        self.pace.begin()
        if not writes_files(trainer):
            return
        data = data_of(trainer)
        values = {"data_fingerprint": data_fingerprint(data), "batch_size": data.batch_size}
        counts = {f"images/{split}": len(data.examples(split)) for split in ("train", "val")}
        log_settings(trainer.loggers, {**values, **counts, "precision": str(trainer.precision)})
        add_facts(Path(trainer.default_root_dir), data_fingerprint=values["data_fingerprint"])

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Shows the labels of this validation, and its figures if they are the best ones."""
        if trainer.sanity_checking or not writes_files(trainer):
            return
        if trainer.state.fn == "fit":
            _note_best(trainer, pl_module)
        if self.pace.allows(trainer):
            with self.pace.spending():
                self._show(trainer, pl_module, "val")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Shows the labels of the test; sends its predictions."""
        if not writes_files(trainer):
            return
        self._show(trainer, pl_module, "test")
        self._send_predictions(trainer, "test")

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Notes the baselines of the validation split; sends files."""
        if not writes_files(trainer) or not has_dashboard(trainer.loggers):
            return
        if isinstance(pl_module, BaseModule) and any(key.startswith("val/") for key in trainer.callback_metrics):
            rows: dict[str, Mapping[str, float]] = {"": {}, **pl_module.baselines("val")}
            log_scores(trainer.loggers, "val", rows, trainer.global_step)
        self._send_predictions(trainer, "val")
        best = Path(trainer.default_root_dir) / "checkpoints" / "best.ckpt"
        if self.artifacts in ("checkpoints", "all") and best.is_file():
            log_file(trainer.loggers, "best", "model", best)

    def _send_predictions(self, trainer: Trainer, stage: Stage) -> None:
        path = Path(trainer.default_root_dir) / "predictions.json"
        if self.artifacts in ("predictions", "all") and path.is_file():
            log_file(trainer.loggers, f"predictions-{stage}", "predictions", path)

    def _show(self, trainer: Trainer, module: LightningModule, stage: Stage) -> None:
        writer = next((item for item in trainer.callbacks if isinstance(item, PredictionWriter)), None)  # type: ignore[attr-defined]  # Trainer sets it at run time
        if writer is None or not has_dashboard(trainer.loggers):
            return
        data, step = data_of(trainer), step_of(trainer, module)
        examples = data.examples(data.evaluation_split(stage))
        if rows := rewritten(examples, writer.captions):
            columns = ["image_id", "original", "reconstruction", "exact"]
            cells: list[list[Cell]] = [
                [str(row["image_id"]), row["original"], row["reconstruction"], _same(row)]
                for row in spread(rows, _ROWS)
            ]
            log_rows(trainer.loggers, f"{stage}/reconstructions", columns, cells, step)
        labelled = known(examples, writer.probabilities)
        if labelled and isinstance(module, ClassificationModule):
            targets = [example.labels for example, _ in labelled]
            _show_labels(trainer, module, stage, [row for _, row in labelled], targets)


def _same(row: Mapping[str, str]) -> bool:
    return tokenize_caption(row["original"]) == tokenize_caption(row["reconstruction"])


def _note_best(trainer: Trainer, module: LightningModule) -> None:
    """Puts the figures of a validation that is better than all before into the summary."""
    keeper = next((item for item in trainer.callbacks if isinstance(item, BestCheckpoint)), None)  # type: ignore[attr-defined]  # Trainer sets it at run time
    value = None if keeper is None else trainer.callback_metrics.get(str(keeper.monitor))
    if keeper is None or value is None:
        return
    before = keeper.best_model_score  # checkpoints are written after this
    if before is None or (value > before if keeper.mode == "max" else value < before):
        figures = {
            f"best/{key.removeprefix('val/')}": float(number)
            for key, number in trainer.callback_metrics.items()
            if key.startswith("val/")
        }
        step = trainer.global_step
        log_summary(trainer.loggers, {**figures, "best/step": step, "best/epoch": trainer.current_epoch}, step)


def _show_labels(
    trainer: Trainer,
    module: ClassificationModule,
    stage: Stage,
    probabilities: Sequence[Sequence[float]],
    targets: Sequence[Sequence[float]],
) -> None:
    """Sends table, curves, scores over the threshold and confusions of the labels."""
    from reporting.report_figures import confusion_figure, threshold_figure  # with the library that draws

    names, threshold = module.inference["label_names"], module.threshold.item()
    loggers, step = trainer.loggers, step_of(trainer, module)
    rows = per_label(probabilities, targets, names, threshold)
    columns = ["label", "support", "predicted", "precision", "recall", "f1", "average_precision"]
    cells: list[list[Cell]] = [[row[column] for column in columns] for row in rows]  # type: ignore[literal-required]  # names of its keys
    log_rows(loggers, f"{stage}/labels", columns, cells, step)
    if trainer.state.fn == "fit":
        frequent = sorted(rows, key=lambda row: -row["support"])[:_CURVES]
        values = {f"label_f1/{row['label']}": row["f1"] for row in frequent}
        precisions = {f"label_ap/{row['label']}": row["average_precision"] for row in frequent}
        values |= {key: value for key, value in precisions.items() if value is not None}
        log_values(loggers, values, step)
    log_figure(
        loggers, f"{stage}/threshold_curve", threshold_figure(threshold_curve(probabilities, targets), threshold), step
    )
    pairs = confusions(probabilities, targets, names, threshold)
    columns = ["true, missed", "predicted, wrong", "images"]
    log_rows(loggers, f"{stage}/confusions", columns, pairs, step)
    log_figure(loggers, f"{stage}/confusion", confusion_figure(pairs), step)
