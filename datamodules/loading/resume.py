"""Where an interrupted run stopped: the only place that reads an internal of Lightning's training loop."""

from collections.abc import Iterator
from typing import Any

from lightning import Trainer
from lightning.pytorch.loops.fit_loop import RestartStage
from torch.utils.data import DataLoader


class LateLoader(DataLoader[Any]):
    """A loader that starts reading at its first batch.

    Lightning makes an iterator as soon as somebody asks how many batches there are, and workers would then fetch
    their first batches before the position of a resumed run has been restored.
    """

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]  # only its `next` is used
        yield from super().__iter__()


def batches_begun(trainer: Trainer) -> int:
    """Training batches begun since the run's first start, as restored from the checkpoint.

    Lightning restores the loop's progress before it asks for the training loader, but its public counters are set
    later; hence the internal.
    """
    return int(trainer.fit_loop.epoch_loop.batch_progress.total.ready)


def validation_follows(trainer: Trainer) -> bool:
    """Whether a validation comes right after the training batch that has just ended.

    A checkpoint written between the two would skip the validation after a resume. Lightning decides this in the loop
    itself, hence the internal.
    """
    loop = trainer.fit_loop
    return loop._data_fetcher is not None and bool(loop.epoch_loop._should_check_val_fx(loop._data_fetcher))


def epoch_ends(trainer: Trainer) -> bool:
    """Whether the training batch that has just ended is the last one of its epoch, or of the run.

    A run that resumes behind it takes no step any more in which its row of figures would be logged. Public attributes
    do not tell a run that ends within an epoch, hence the internal.
    """
    return bool(trainer.fit_loop.epoch_loop._is_training_done)


def begin_next_epoch(trainer: Trainer) -> None:
    """Lets a run with `max_steps` that resumes behind the end of an epoch begin the next one.

    Lightning enters the finished epoch once more when steps and not epochs are limited, and from then on logs every
    figure one step late. This is what it does itself when epochs are limited; hence the internals.
    """
    loop = trainer.fit_loop
    if loop.restarted_on_epoch_end:
        loop._restart_stage = RestartStage.RESUMED_ON_EPOCH_END
        loop.epoch_progress.increment_completed()
        loop._restarting = False  # the public attribute refuses this when steps are limited
        loop.epoch_loop.restarting = False


def pending_row(trainer: Trainer) -> tuple[int, dict[str, float]] | None:
    """The figures of the training step that has just ended and their step, if they are about to be logged.

    Lightning logs them after its callbacks, so a checkpoint written by one of these must carry them; hence the
    internals.
    """
    connector = trainer._logger_connector
    if not connector.should_update_logs:
        return None
    figures = {name: float(value) for name, value in connector.metrics["log"].items()}
    return trainer.fit_loop.epoch_loop._batches_that_stepped, {**figures, "epoch": float(trainer.current_epoch)}


def training_position(trainer: Trainer | None, batches_per_epoch: int) -> tuple[int, int]:
    """Finds the position of training, also after a resume.

    Args:
        trainer: the trainer that asks for a loader; None outside of training.
        batches_per_epoch: batches of the whole loader of this rank.

    Returns:
        The epoch and the number of its batches already seen; (0, 0) for a new run.
    """
    if trainer is None or batches_per_epoch == 0:
        return 0, 0
    limit = trainer.limit_train_batches
    # Lightning ends an epoch at the limit: a whole number counts batches, a fraction shares the loader
    steps = min(batches_per_epoch, limit) if isinstance(limit, int) else int(batches_per_epoch * limit)
    return divmod(batches_begun(trainer), max(1, steps))
