"""What callbacks of evaluations have in common: the same three steps in validation and in test."""

import contextlib
from typing import Any, Literal

from lightning import Callback, LightningModule, Trainer

from callbacks.pace import Pace
from core.batch import Batch
from datamodules.base import CaptionDataModule
from lightning_modules.base import BaseModule

Stage = Literal["val", "test"]


class EvaluationCallback(Callback):
    """Calls `start`, `take` for every batch, and `finish`, both in validation and in test.

    Class attributes:
        pace: how often it works in training; None: in every evaluation.
    """

    pace: Pace | None = None
    _works = True

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

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the clock of the pace."""
        if self.pace is not None:
            self.pace.begin()

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts anew."""
        self._works = self.pace is None or (not trainer.sanity_checking and self.pace.allows(trainer))
        self.start()

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts anew."""
        self._works = True
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
        if self._works:
            with self._spending():
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
        if self._works:
            with self._spending():
                self.finish(trainer, pl_module, "val")

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Uses what was taken."""
        self.finish(trainer, pl_module, "test")

    def _spending(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext() if self.pace is None else self.pace.spending()


def data_of(trainer: Trainer) -> CaptionDataModule:
    """The data module of a run."""
    datamodule = trainer.datamodule  # type: ignore[attr-defined]  # Trainer sets it at run time
    assert isinstance(datamodule, CaptionDataModule)
    return datamodule


def step_of(trainer: Trainer, module: LightningModule) -> int:
    """Optimiser steps behind the weights that are evaluated; in `test` and `validate` those of the checkpoint."""
    if trainer.state.fn == "fit" or not isinstance(module, BaseModule):
        return trainer.global_step
    return module.trained_steps


def writes_files(trainer: Trainer) -> bool:
    """Whether this process writes results: the first one, in a real run and not in its sanity check."""
    fast = bool(trainer.fast_dev_run)  # type: ignore[attr-defined]  # set by Lightning's debug connector
    return trainer.is_global_zero and not trainer.sanity_checking and not fast
