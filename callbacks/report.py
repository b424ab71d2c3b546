"""What a run prints: its size, where it resumes, its metrics beside baselines, and sample captions or labels."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from lightning import Callback, LightningModule, Trainer

from callbacks.evaluation import Stage, data_of, step_of, writes_files
from callbacks.predictions import PredictionWriter, known
from core.files import write_json
from core.spread import spread
from core.terminal import print_table, say_styled
from core.text import log_of, say
from datamodules.base import CaptionDataModule
from datamodules.loading.resume import batches_begun
from datamodules.readers.records import Example, Split
from lightning_modules.base import BaseModule
from lightning_modules.captioning import CaptioningModule
from lightning_modules.classification import ClassificationModule
from metrics.baselines.captions import baseline_file
from metrics.baselines.flags import baseline_warning
from metrics.labels import per_label
from metrics.names import report_keys
from reporting.attention import seen_image
from reporting.dashboards import log_figure, log_scores
from reporting.label_tables import verdicts_of, write_tables
from reporting.loggers import add_facts
from reporting.pictures import png_of, save_figure
from reporting.tables import evaluation_table, label_table

_OWN = "this model"
_log = log_of(__name__)


class RunReport(Callback):
    """Prints the metrics beside the baselines after testing and validating, and some captions.

    Also writes ``metrics.json`` with the same rows, and for captioners ``baselines/ROW.json``, the captions of the
    baselines. After the test of a classifier it prints a table of the labels and writes ``labels.csv``,
    ``per_label.csv`` and ``labels.png``.

    Args:
        captions: captions printed beside a reference after a test.
        images: drawn with their labels after a test.
    """

    def __init__(self, *, captions: int = 10, images: int = 12) -> None:
        self.captions, self.images = captions, images
        self._trained = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Prints how large the model is and where a resumed run continues."""
        self._trained = True
        if trainer.is_global_zero:
            parameters = list(pl_module.parameters())
            total, trainable = (
                sum(p.numel() for p in chosen) for chosen in (parameters, [p for p in parameters if p.requires_grad])
            )
            share = "all trainable" if trainable == total else f"{trainable / 1e6:,.1f} million trainable"
            say(f"{type(pl_module).__name__}: {total / 1e6:,.1f} million parameters, {share}")
            if writes_files(trainer):
                counts = {"total": total, "trainable": trainable}
                add_facts(Path(trainer.default_root_dir), parameters=counts)
        if trainer.ckpt_path is not None and trainer.is_global_zero:
            epoch, batches = divmod(batches_begun(trainer), max(1, int(trainer.num_training_batches)))
            say(f"resumed at step {trainer.global_step}: epoch {epoch}, {batches} batches into it")

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Prints that there was nothing left to train."""
        if stage == "fit" and not self._trained and trainer.ckpt_path and trainer.is_global_zero:
            say("nothing is left to train: this run is complete; a higher --trainer.max_epochs continues it")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Prints metrics, and captions or labels, of the test."""
        self._report(trainer, pl_module, "test")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Prints the metrics of a validation that was asked for by itself."""
        if trainer.state.fn == "validate":
            self._report(trainer, pl_module, "val")

    def _report(self, trainer: Trainer, module: LightningModule, stage: Stage) -> None:
        if not trainer.is_global_zero or trainer.sanity_checking:
            return
        prefix = f"{stage}/"
        scores = {key.removeprefix(prefix): float(value) for key, value in trainer.callback_metrics.items()}
        data = data_of(trainer)
        split = data.evaluation_split(stage)
        baselines = module.baselines(split) if isinstance(module, BaseModule) else data.baselines(split)
        rows: dict[str, Mapping[str, float]] = {_OWN: scores, **baselines}
        folder = Path(trainer.default_root_dir)
        if writes_files(trainer):
            write_json(folder / "metrics.json", rows)
            if isinstance(module, CaptioningModule):
                write_baselines(folder / "baselines", data, split)
        name = "validate" if stage == "val" else stage  # its own: curves of the training are under val
        log_scores(trainer.loggers, name, rows, step_of(trainer, module))
        self._print_metrics(f"{split} split, {len(data.examples(split))} images", rows)
        if warning := baseline_warning(_OWN, scores, baselines):
            say_styled(warning, "bold red")
            _log.warning("%s: %s split: %s", folder, split, warning)
        writer = next((item for item in trainer.callbacks if isinstance(item, PredictionWriter)), None)  # type: ignore[attr-defined]  # Trainer sets it at run time
        if stage == "test" and writer is not None:
            self._print_captions(known(data.examples(split), writer.captions))
            labelled = known(data.examples(split), writer.probabilities)
            if labelled and isinstance(module, ClassificationModule):
                self._show_labels(module, data, labelled, folder if writes_files(trainer) else None)

    def _print_metrics(self, title: str, rows: Mapping[str, Mapping[str, float]]) -> None:
        """Prints the table, and below it what has no column."""
        say("")
        print_table(evaluation_table(title, rows))
        shown = report_keys(rows[_OWN])
        others = sorted((key, value) for key, value in rows[_OWN].items() if key not in shown)
        if others:
            say("  ".join(f"{key} {value:.4f}" for key, value in others))

    def _print_captions(self, captioned: Sequence[tuple[Example, str]]) -> None:
        for example, caption in spread(captioned, self.captions):
            say("", f"{example.image_id}: {caption or '(empty)'}")
            reference = next(iter(example.captions), "(no reference)")
            say_styled(f"  reference: {reference}", "dim")

    def _show_labels(
        self,
        module: ClassificationModule,
        data: CaptionDataModule,
        labelled: Sequence[tuple[Example, list[float]]],
        folder: Path | None,
    ) -> None:
        """Prints the table of the labels; writes tables and figure into a folder, if there is one."""
        names, threshold = module.inference["label_names"], module.threshold.item()
        rows = per_label([row for _, row in labelled], [e.labels for e, _ in labelled], names, threshold)
        print_table(label_table(rows))
        if folder is None:
            return
        labels = {e.image_id: e.labels for e, _ in labelled}
        probabilities = {str(e.image_id): row for e, row in labelled}
        verdicts = verdicts_of(labels, probabilities, names, threshold)
        write_tables(folder, verdicts, rows)
        pairs = [(e, item) for (e, _), item in zip(labelled, verdicts, strict=True) if e.image is not None]
        shown = spread(pairs, self.images)
        if shown:
            from reporting.label_figures import label_sheet  # with the library that draws, for those who draw

            images = [seen_image(data.transform, data.open_image(e)) for e, _ in shown]
            drawn = png_of(label_sheet(images, [item for _, item in shown]))
            save_figure(drawn, folder, "labels")
            log_figure(module.trainer.loggers, "test/label_samples", drawn, module.trained_steps)


def write_baselines(folder: Path, data: CaptionDataModule, split: Split) -> None:
    """Writes the captions of every baseline as COCO results, one file each: for tests against them."""
    ids = {str(example.image_id): example.image_id for example in data.examples(split)}
    for name, captions in data.baseline_captions(split).items():
        rows = [{"image_id": ids[image], "caption": caption} for image, caption in captions.items()]
        write_json(folder / f"{baseline_file(name)}.json", rows)
