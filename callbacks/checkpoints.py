"""Checkpoints that survive a crash or a full disk, written where a run can be resumed exactly."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason

from callbacks.loss_watch import BadWeightsError, LossWatch, check_finite_weights
from callbacks.sharded import save_parts, writes_parts
from callbacks.stop_signals import StopSignals
from core.checkpoints import is_checkpoint, load_values, way_on
from core.errors import Interrupted, UserError
from core.files import replacing
from datamodules.loading.resume import begin_next_epoch, epoch_ends, pending_row, validation_follows
from metrics.names import metric
from reporting.loggers import CSVFile

_LOSS_EVERY = 50
"""Optimiser steps between checks of the loss, each of which waits for the GPU."""


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the old file, flushes to the disk and then replaces it.

    Lightning's own writer goes through the temporary folder; when that is another file system, a full disk or a kill
    during the copy destroys the previous checkpoint.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Writes a checkpoint whole or not at all.

        Raises:
            UserError: the file cannot be written; the previous one is intact.
        """
        del storage_options
        target = Path(path)
        kept = _kept(target)
        try:
            # the weights are checked while they are written, which costs next to nothing; the file has no name yet
            with replacing(target, durable=True) as file, ThreadPoolExecutor(1) as pool:
                checked = pool.submit(check_finite_weights, checkpoint.get("state_dict", {}), kept)
                torch.save(checkpoint, file)
                checked.result()
        except (OSError, RuntimeError) as error:  # torch turns a full disk into a RuntimeError
            if (stop := _interruption(error)) is not None:
                raise stop from None
            raise _unwritten(target, error) from error

    def load_checkpoint(
        self, path: str | Path, map_location: Any | None = None, weights_only: bool | None = True
    ) -> dict[str, Any]:
        """Reads a checkpoint.

        Raises:
            UserError: it is missing or damaged.
        """
        del weights_only
        return load_values(path, map_location or "cpu")


class LastCheckpoint(Checkpoint):
    """Keeps ``last.ckpt``: at the end of every epoch and from time to time within.

    Within an accumulation window nothing is written, since gradients gathered so far are in no checkpoint; nor right
    before a validation, which would be skipped after a resume, or the end of an epoch, which saves by itself. A loss or
    weight that is not a finite number stops the run before it gets into a file. The row of metrics.csv that belongs to
    the step travels in the file.

    Args:
        path: file to write.
        every_n_steps: optimiser steps between checkpoints; None = only by time and epoch.
        minutes: minutes between checkpoints.
        signals: that ask for a checkpoint and the end of the run.

    Raises:
        UserError: `every_n_steps` or `minutes` is not positive.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        every_n_steps: int | None = None,
        minutes: float = 10.0,
        signals: StopSignals | None = None,
    ) -> None:
        super().__init__()
        if every_n_steps is not None and every_n_steps < 1:
            raise UserError(f"checkpoint_steps is {every_n_steps}: expected 1 or more, or null for none by steps")
        if not minutes > 0:
            raise UserError(f"checkpoint_minutes is {minutes}: expected more than 0")
        self.path, self.every_n_steps, self.minutes = Path(path), every_n_steps, minutes
        self.signals = signals or StopSignals()
        self.losses = LossWatch()
        self.row: tuple[int, dict[str, float]] | None = None
        """The row of metrics.csv that a resumed run may lack."""
        self._seen_step = -1
        self._saved_at = time.monotonic()
        self._deferred = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the clock; tells the file of figures where the run stands, and the trainer whether it had stopped."""
        del pl_module
        begin_next_epoch(trainer)
        self._seen_step, self._saved_at = trainer.global_step, time.monotonic()
        for logger in trainer.loggers:
            if isinstance(logger, CSVFile):
                logger.resume_at(trainer.global_step, self.row)
        if any(one.stopping_reason != EarlyStoppingReason.NOT_STOPPED for one in trainer.early_stopping_callbacks):
            trainer.should_stop = True  # Lightning restores the reason only, and would go on for another epoch

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Saves when it is due and the optimiser has just stepped."""
        del pl_module, batch_idx
        self.losses.add(trainer.global_step, outputs, batch)
        if trainer.global_step == self._seen_step:
            return
        self._seen_step = trainer.global_step
        due = self.every_n_steps is not None and self._seen_step % self.every_n_steps == 0
        late = time.monotonic() - self._saved_at > 60 * self.minutes
        stop = self.signals.received is not None
        # saving is collective, and clocks and signals differ between ranks
        wanted = due or self._deferred or trainer.strategy.reduce_boolean_decision(late or stop, all=False)
        self._deferred = wanted and (validation_follows(trainer) or epoch_ends(trainer))
        if wanted and not self._deferred:
            self.row = pending_row(trainer)
            self._save(trainer)
            self._stop(trainer)
        elif self._seen_step % _LOSS_EVERY == 0:
            self.losses.check(self._kept())

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Saves at the end of every epoch."""
        del pl_module
        self._deferred, self.row = False, None
        self._save(trainer)
        self._stop(trainer)

    def state_dict(self) -> dict[str, Any]:
        """The row of metrics.csv that belongs to the step."""
        return {} if self.row is None else {"row": {"step": self.row[0], **self.row[1]}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes the row back."""
        row = dict(state_dict.get("row", {}))
        self.row = (int(row.pop("step")), row) if "step" in row else None

    def _kept(self) -> str:
        return _kept(self.path)

    def _save(self, trainer: Trainer) -> None:
        self.losses.check(self._kept())
        if not trainer.fast_dev_run:  # type: ignore[attr-defined]  # set by Lightning's debug connector
            try:
                save(trainer, self.path)
            except BadWeightsError as error:  # the loss of that step was a number: its update went wrong, or one before
                raise error.after(self.losses.last) from None
            self._saved_at = time.monotonic()

    def _stop(self, trainer: Trainer) -> None:
        """Ends a run that a signal asked to stop, on all ranks at once and by the same signal."""
        own = torch.tensor(self.signals.received or 0, device=trainer.strategy.root_device)
        if received := int(trainer.strategy.reduce(own, reduce_op="max")):
            raise Interrupted(received, message=f"saved at step {trainer.global_step}")


class BestCheckpoint(ModelCheckpoint):
    """Lightning's, which remembers the best figure also when the run folder has been moved."""

    def _save_checkpoint(self, trainer: Trainer, filepath: str) -> None:
        """Writes a checkpoint in parts whole or not at all, too; Lightning has no other place to say how."""
        if not writes_parts(trainer):
            super()._save_checkpoint(trainer, filepath)
            return
        save(trainer, Path(filepath), weights_only=bool(self.save_weights_only))
        self._last_global_step_saved, self._last_checkpoint_saved = trainer.global_step, filepath

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores the best figure so far if its file exists."""
        here = Path(str(self.dirpath))
        if is_checkpoint(here / "best.ckpt") and state_dict["best_model_score"] is not None:
            # Else the next validation, however bad, would replace best.ckpt. Without a score that file is of a
            # validation after this checkpoint, which is made once more.
            path = str(here / "best.ckpt")
            best = dict.fromkeys([path], state_dict["best_model_score"])
            paths = dict.fromkeys(("best_model_path", "kth_best_model_path"), path)
            super().load_state_dict({**state_dict, **paths, "dirpath": self.dirpath, "best_k_models": best})


def best_checkpoint(folder: Path, monitor: str) -> BestCheckpoint:
    """Keeps ``best.ckpt``, replaced in place whenever the monitored metric improves: `metrics.names` says which way."""
    return BestCheckpoint(
        dirpath=folder,
        filename="best",
        monitor=monitor,
        mode=metric(monitor.removeprefix("val/")).direction,
        save_top_k=1,
        auto_insert_metric_name=False,
        enable_version_counter=False,  # the same name every time; the writer replaces it in one step
    )


def save(trainer: Trainer, path: Path, *, weights_only: bool = False) -> None:
    """Writes a checkpoint whole or not at all, in one file or in parts; called by all processes.

    Args:
        trainer: of the run.
        path: name of the checkpoint.
        weights_only: without what is needed to train on.

    Raises:
        UserError: it cannot be written, or a weight is not a finite number; the previous one is intact.
    """
    if not writes_parts(trainer):
        trainer.save_checkpoint(path, weights_only)
        return
    from torch.distributed.checkpoint.api import CheckpointException  # it is slow to import

    try:
        save_parts(trainer, path, _kept(path), weights_only=weights_only)
    except OSError as error:
        raise _unwritten(path, error) from error
    except CheckpointException as error:  # of one or several processes
        cause = next((failure for failure, _ in error.failures.values()), error)
        raise _unwritten(path, cause) from error


def _kept(path: Path) -> str:
    """What is left to go on from when a checkpoint is not written."""
    return f"{path} is left as it was" if is_checkpoint(path) else "nothing was saved"


def _unwritten(path: Path, error: BaseException) -> UserError:
    """What to say of a checkpoint that cannot be written."""
    intact = f"the previous '{path.name}' is intact" if is_checkpoint(path) else "nothing was overwritten"
    return UserError(
        f"checkpoint '{path}' cannot be written ({_reason(error)}): {intact}; free some space, then "
        f"{way_on(path.parent.parent)}"
    )


def _interruption(error: BaseException) -> BaseException | None:
    """The signal that ended a write at once, which torch turns into an error of its own; None: it was none."""
    cause: BaseException | None = error
    while cause is not None and isinstance(cause, Exception):
        cause = cause.__cause__ or cause.__context__
    return cause


def _reason(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return "the disk is full or refuses to write" if "inline_container" in str(error) else str(error).splitlines()[0]
