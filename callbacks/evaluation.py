"""What callbacks of evaluations have in common: the same three steps in validation and in test."""

from typing import Any, Literal

from lightning import Callback, LightningModule, Trainer

from core.batch import Batch
from datamodules.base import CaptionDataModule

Stage = Literal["val", "test"]


class EvaluationCallback(Callback):
    """Calls `start`, `take` for every batch, and `finish`, both in validation and in test."""

    def start(self) -> None:
        """Forgets the last evaluation."""

    def take(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Batch, *, place: int, batches: float
    ) -> None:
        """Takes a batch.

        Args:
            trainer: runs the evaluation.
            module: that was evaluated.
            outputs: what its step returned.
            batch: that it was given.
            place: number of the batch, from 0.
            batches: number of batches of the evaluation.
        """

    def finish(self, trainer: Trainer, module: LightningModule, stage: Stage) -> None:
        """Uses what was taken."""

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts anew."""
        self.start()

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts anew."""
        self.start()

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Takes the batch."""
        self.take(trainer, pl_module, outputs, batch, place=batch_idx, batches=sum(trainer.num_val_batches))

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Takes the batch."""
        self.take(trainer, pl_module, outputs, batch, place=batch_idx, batches=sum(trainer.num_test_batches))

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Uses what was taken."""
        self.finish(trainer, pl_module, "val")

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Uses what was taken."""
        self.finish(trainer, pl_module, "test")


def data_of(trainer: Trainer) -> CaptionDataModule:
    """The data module of a run."""
    datamodule = trainer.datamodule  # type: ignore[attr-defined]  # Trainer sets it at run time
    assert isinstance(datamodule, CaptionDataModule)
    return datamodule


def writes_files(trainer: Trainer) -> bool:
    """Whether this process writes results: the first one, in a real run and not in its sanity check."""
    fast = bool(trainer.fast_dev_run)  # type: ignore[attr-defined]  # set by Lightning's debug connector
    return trainer.is_global_zero and not trainer.sanity_checking and not fast
