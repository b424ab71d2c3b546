"""What a run tells the person before the screen: where it goes on, its figures between floor and ceiling, samples."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from lightning import Callback, LightningModule, Trainer
from rich.console import Console
from rich.table import Table

from callbacks.label_tables import label_sheet, printed_label_table, verdicts_of, write_tables
from callbacks.predictions import PredictionWriter, known
from core.files import write_json
from datamodules.base import CaptionDataModule
from datamodules.loading.resume import batches_begun
from datamodules.readers.records import Example, Split
from lightning_modules.captioning import CaptioningModule
from lightning_modules.classification import ClassificationModule
from metrics.baselines.captions import floor_file, floor_warning
from metrics.baselines.flags import unbeaten
from metrics.baselines.labels import label_warning
from metrics.labels import per_label
from reporting.loggers import CSVFile

_LABELS = ("top1", "top2", "top3", "recall3", "micro_f1", "macro_f1", "macro_ap")
_SHOWN = ("bleu1", "bleu2", "bleu3", "bleu4", "rouge_l", "cider_d", "truth", *_LABELS)
"""Figures of the table, in this order; a run has those of captions or those of labels."""
T = TypeVar("T")
_log = logging.getLogger(__name__)


class RunReport(Callback):
    """Prints a table after testing and validating, with the rows a score must be read against, and some captions.

    Also writes ``metrics.json`` beside it, and for captioners ``floors/ROW.json``, the captions of the floors. After
    the test of a classifier it prints a table of the labels and writes what `callbacks.label_tables` makes:
    ``labels.csv``, ``per_label.csv`` and ``labels.png``.

    The rows are those of the data module's `baselines(split)`, or of the module's where it has such a method.

    Args:
        captions: captions printed beside a reference after a test.
        pictures: pictures drawn with their labels after a test.
    """

    def __init__(self, captions: int = 10, pictures: int = 12) -> None:
        self.captions, self.pictures = captions, pictures
        self._trained = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Says how large the model is and where a resumed run goes on."""
        self._trained = True
        if trainer.is_global_zero:
            parameters = list(pl_module.parameters())
            total, learning = (
                sum(p.numel() for p in chosen) for chosen in (parameters, [p for p in parameters if p.requires_grad])
            )
            share = "all of them learn" if learning == total else f"{learning / 1e6:,.1f} million learn"
            print(f"{type(pl_module).__name__}: {total / 1e6:,.1f} million parameters, {share}")  # noqa: T201  # meant for the user
        if trainer.ckpt_path is None:
            return
        for logger in trainer.loggers:
            if isinstance(logger, CSVFile):
                logger.resume_at(trainer.global_step)
        if trainer.is_global_zero:
            epoch, batches = divmod(batches_begun(trainer), max(1, int(trainer.num_training_batches)))
            print(f"resumed at step {trainer.global_step}: epoch {epoch}, {batches} batches into it")  # noqa: T201  # meant for the user

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Says so when there was nothing left to train."""
        if stage == "fit" and not self._trained and trainer.ckpt_path and trainer.is_global_zero:
            print("nothing is left to train: this run is complete; a higher --trainer.max_epochs goes on")  # noqa: T201  # meant for the user

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Prints figures, and captions or labels, of the test."""
        self._report(trainer, pl_module, "test")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Prints figures of a validation that was asked for by itself."""
        if trainer.state.fn == "validate":
            self._report(trainer, pl_module, "val")

    def _report(self, trainer: Trainer, module: LightningModule, stage: Split) -> None:
        if not trainer.is_global_zero or trainer.sanity_checking:
            return
        prefix = f"{stage}/"
        scores = {key.removeprefix(prefix): float(value) for key, value in trainer.callback_metrics.items()}
        datamodule = trainer.datamodule  # type: ignore[attr-defined]  # Trainer sets it at run time
        split: Split = datamodule.evaluation_split(stage)
        bounds = getattr(module, "baselines", datamodule.baselines)
        rows: dict[str, Mapping[str, float]] = {"this model": scores, **bounds(split)}
        if not trainer.fast_dev_run:  # type: ignore[attr-defined]  # set by Lightning's debug connector
            write_json(Path(trainer.default_root_dir) / "metrics.json", rows)
            if isinstance(module, CaptioningModule):
                write_floors(Path(trainer.default_root_dir) / "floors", datamodule, split)
        console = Console()
        console.print()
        console.print(score_table(f"{split} split, {len(datamodule.examples(split))} pictures", rows))
        if warning := floor_warning("this model", scores, rows) or label_warning("this model", scores, rows):
            console.print(warning, style="bold red", highlight=False, soft_wrap=True)
            _log.warning("%s: %s split: %s", trainer.default_root_dir, split, warning)
        others = {key: value for key, value in scores.items() if key not in _SHOWN}
        if others:
            console.print("  ".join(f"{key} {value:.4f}" for key, value in sorted(others.items())), highlight=False)
        writer = next((item for item in trainer.callbacks if isinstance(item, PredictionWriter)), None)  # type: ignore[attr-defined]  # Trainer sets it at run time
        if stage == "test" and writer is not None and isinstance(datamodule, CaptionDataModule):
            self._print_captions(console, known(datamodule.examples(split), writer.captions))
            if isinstance(module, ClassificationModule):
                self._show_labels(console, trainer, module, writer)

    def _print_captions(self, console: Console, captioned: Sequence[tuple[Example, str]]) -> None:
        for example, caption in _spread(captioned, self.captions):
            console.print()
            text = f"{example.image_id}: {caption or '(empty)'}"
            console.print(text, highlight=False, markup=False, soft_wrap=True)
            reference = next(iter(example.captions), "(no reference)")
            console.print(f"  reference: {reference}", style="dim", highlight=False, markup=False, soft_wrap=True)

    def _show_labels(
        self, console: Console, trainer: Trainer, module: ClassificationModule, writer: PredictionWriter
    ) -> None:
        datamodule = trainer.datamodule  # type: ignore[attr-defined]  # Trainer sets it at run time
        labelled = known(datamodule.examples(datamodule.evaluation_split("test")), writer.probabilities)
        if not labelled:
            return
        names, threshold = module.inference["label_names"], module.threshold.item()
        scores, targets = [row for _, row in labelled], [e.labels for e, _ in labelled]
        rows = per_label(scores, targets, names, threshold)
        console.print(printed_label_table(rows))
        if trainer.fast_dev_run:  # type: ignore[attr-defined]  # set by Lightning's debug connector
            return
        verdicts = verdicts_of({e.image_id: e.labels for e, _ in labelled}, writer.probabilities, names, threshold)
        folder = Path(trainer.default_root_dir)
        write_tables(folder, verdicts, rows)
        shown = _spread(
            [(e, v) for (e, _), v in zip(labelled, verdicts, strict=True) if e.image is not None], self.pictures
        )
        if shown:
            transform = datamodule.transform
            drawn = [transform.denormalize(transform(datamodule.open_image(e))).permute(1, 2, 0) for e, _ in shown]
            figure = label_sheet([picture.numpy() for picture in drawn], [item for _, item in shown])
            figure.savefig(folder / "labels.png", dpi=110)


def write_floors(folder: Path, data: CaptionDataModule, split: Split) -> None:
    """Writes what the floors say of every picture, a file of COCO results for each: for tests against them."""
    ids = {str(example.image_id): example.image_id for example in data.examples(split)}
    for name, captions in data.baseline_captions(split).items():
        rows = [{"image_id": ids[image], "caption": caption} for image, caption in captions.items()]
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / f"{floor_file(name)}.json", rows)


def _spread(items: Sequence[T], count: int) -> list[T]:
    """At most so many, evenly spread: files are often sorted by class."""
    step = max(1, len(items) // count) if count else 1
    return list(items[::step][:count])


def score_table(title: str, rows: Mapping[str, Mapping[str, float]]) -> Table:
    """Lays out metrics, one row a model or bound, one column a metric that some row has.

    Floors that the first row does not beat are marked.
    """
    shown = [key for key in _SHOWN if any(key in row for row in rows.values())]
    table = Table(title=title, title_justify="left")
    table.add_column("")
    for key in shown:
        table.add_column(key.replace("_", "\n") if key in _LABELS else key, justify="right", no_wrap=True)
    first = next(iter(rows.values()), {})
    _, above = unbeaten(first, rows)
    for name, row in rows.items():
        label = f"{name}  <- not beaten" if name in above else name
        table.add_row(label, *(f"{row[key]:.3f}" if key in row else "" for key in shown))
    return table
