"""How far a run is: the bar in a terminal, or a JSON object a line for machines."""

import time
from collections import deque
from datetime import timedelta
from typing import Any

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar

from callbacks.evaluation import step_of
from core.terminal import TaskLine
from core.text import say_record
from lightning_modules.base import BaseModule
from metrics.names import metric

_WINDOW = 50
"""Batches over which the rate is a mean."""


class TrainingClock:
    """Rate of a training run and the time that is left; validations count in the time, not in the rate."""

    def __init__(self) -> None:
        self._began, self._done = time.monotonic(), 0
        self._ends: deque[float] = deque([self._began], _WINDOW + 1)
        self.validated = False
        """Whether there was a validation: figures of a sanity check do not count."""

    def tick(self) -> None:
        """A batch has ended."""
        self._done += 1
        self._ends.append(time.monotonic())

    def pause(self) -> None:
        """A validation has ended."""
        self.validated = True
        self._ends.clear()
        self._ends.append(time.monotonic())

    @property
    def rate(self) -> float | None:
        """Batches per second; None: not known yet."""
        seconds = self._ends[-1] - self._ends[0]
        return (len(self._ends) - 1) / seconds if len(self._ends) > 1 and seconds > 0 else None

    def remaining(self, trainer: Trainer) -> float | None:
        """Seconds until the end of the run at the speed so far; None: the end is not known."""
        left = _batches_left(trainer)
        if left is None or not self._done:
            return None
        return left * (time.monotonic() - self._began) / self._done


def _batches_left(trainer: Trainer) -> float | None:
    done = trainer.fit_loop.total_batch_idx + 1
    ends = []
    if trainer.max_steps > 0:
        ends.append(float(trainer.max_steps * trainer.accumulate_grad_batches))
    if trainer.max_epochs is not None and trainer.max_epochs > 0:
        ends.append(float(trainer.max_epochs * trainer.num_training_batches))
    left = min(ends, default=float("inf")) - done
    return None if left == float("inf") else max(0.0, left)


def main_metric(trainer: Trainer, module: LightningModule) -> tuple[str, float] | None:
    """Name and last value of the metric that chooses the best checkpoint; None before the first validation."""
    monitor = module.monitor if isinstance(module, BaseModule) else ""
    value = trainer.callback_metrics.get(monitor)
    return None if value is None else (monitor.removeprefix("val/"), float(value))


class ProgressBar(RichProgressBar):
    """A line with rate, time left, loss and main metric, which fits into narrow terminals.

    It is removed before a report is printed.
    """

    def __init__(self) -> None:
        super().__init__()
        self._clock = TrainingClock()
        self._figures: dict[str, Any] = {}

    def configure_columns(self, trainer: Trainer) -> list[TaskLine]:
        """One column, which knows the width."""

        def parts(task: Any) -> list[tuple[str, int]]:
            total = "?" if task.total in (None, float("inf")) else f"{task.total:.0f}"
            shown = [(str(task.description), 2), (f"{task.completed:.0f}/{total}", 3)]
            if trainer.state.fn != "fit" or task.id != self.train_progress_bar_id:
                return shown
            left, rate = self._figures.get("left"), self._clock.rate
            shown.append((f"{timedelta(seconds=round(left))} left" if left is not None else "", 0))
            shown.append((f"{rate:.2f}/s" if rate else "", 0))
            return shown + [(f"{name} {value:.3f}", 0) for name, value in self._figures.get("metrics", {}).items()]

        return [TaskLine(parts)]

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """Notes the figures for the line; Lightning's own column of figures stays empty."""
        logged = super().get_metrics(trainer, pl_module)
        figures = {key.removeprefix("train/"): value for key, value in logged.items() if key != "v_num"}
        if self._clock.validated and (main := main_metric(trainer, pl_module)) is not None:
            figures[metric(main[0]).title] = main[1]
        shown = {key: value for key, value in figures.items() if isinstance(value, (int, float))}
        # drawing happens in another thread, which must not ask the trainer
        self._figures = {"metrics": shown, "left": self._clock.remaining(trainer)}
        return {}

    def _get_train_description(self, current_epoch: int) -> str:
        """Epochs as people count them."""
        last = self.trainer.max_epochs
        return f"Epoch {current_epoch + 1}" + (f"/{last}" if last is not None and last > 0 else "")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the clock."""
        super().on_train_start(trainer, pl_module)
        self._clock = TrainingClock()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Counts the batch."""
        self._clock.tick()
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Releases the terminal: an active bar would be drawn again below the report."""
        super().on_test_end(trainer, pl_module)
        self._stop_progress()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The same for a validation by itself."""
        super().on_validation_end(trainer, pl_module)
        if not trainer.sanity_checking:
            self._clock.pause()
        if trainer.state.fn == "validate":
            self._stop_progress()


class JsonLines(Callback):
    """Prints one JSON object a line: of the training steps that are logged, and of every evaluation.

    Keys: ``event`` (train, val, validate or test), ``step``, ``epoch``, ``loss``, ``metrics`` (figures by their name),
    and of training ``rate`` (batches per second) and ``remaining`` (seconds); null where something is not known.
    """

    def __init__(self) -> None:
        self._clock = TrainingClock()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the clock."""
        self._clock = TrainingClock()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Prints the figures of a step that is logged."""
        self._clock.tick()
        if trainer.is_global_zero and trainer.global_step % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]  # set at run time
            values = {key: float(value) for key, value in trainer.callback_metrics.items() if key.startswith("train/")}
            main = main_metric(trainer, pl_module) if self._clock.validated else None
            loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
            say_record(
                {
                    "event": "train",
                    "step": trainer.global_step,
                    "epoch": trainer.current_epoch,
                    "loss": None if loss is None else float(loss),
                    "metrics": {**values, **(dict([main]) if main is not None else {})},
                    "rate": self._clock.rate,
                    "remaining": self._clock.remaining(trainer),
                }
            )

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Prints the figures of a validation."""
        if not trainer.sanity_checking:
            self._clock.pause()
            self._evaluated(trainer, pl_module, "val" if trainer.state.fn == "fit" else "validate", "val/")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Prints the figures of a test."""
        self._evaluated(trainer, pl_module, "test", "test/")

    def _evaluated(self, trainer: Trainer, module: LightningModule, event: str, prefix: str) -> None:
        if not trainer.is_global_zero:
            return
        found = trainer.callback_metrics.items()
        values = {key.removeprefix(prefix): float(value) for key, value in found if key.startswith(prefix)}
        step, loss = step_of(trainer, module), values.pop("loss", None)
        say_record({"event": event, "step": step, "epoch": trainer.current_epoch, "loss": loss, "metrics": values})
