"""Signals that ask a run to stop: it saves at the next step, says how to resume, and ends with 128 + the signal."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

from lightning import Callback, LightningModule, Trainer

from core.errors import Interrupted

SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1")
"""Ctrl-C, an end asked for by the system, a closed terminal, and the warning that clusters send before the time is up.

Not every system has all of them."""


class StopSignals(Callback):
    """Remembers the first signal until training can save, and stops at once at the second, or where nothing is saved.

    Attributes:
        received: number of the signal that was received; None: none was.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._saves = False
        self._owner = os.getpid()

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """Handles the signals inside; the handlers before come back at the end."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in _numbers()}
        self._install()
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _install(self) -> None:
        if threading.current_thread() is threading.main_thread():
            for number in _numbers():
                signal.signal(number, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        del frame
        if os.getpid() != self._owner:  # a loader process: it ends with the run, or when it is told to
            if number == signal.SIGTERM:
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)
            return
        again = self.received is not None
        self.received = number
        if again or not self._saves:
            raise Interrupted(number)

    # Lightning registers handlers of its own when a run begins; these hooks come after that

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """From here on a step can save."""
        self._saves = not trainer.fast_dev_run  # type: ignore[attr-defined]  # set by Lightning's debug connector
        self._install()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A validation has no place to save: a signal inside stops at once, one from before waits for its end."""
        self._saves = self.received is not None
        self._install()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Training continues."""
        self._saves = trainer.state.fn == "fit" and not trainer.sanity_checking

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Handles signals in a test."""
        self._install()

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Handles signals in a prediction."""
        self._install()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """All is saved: a signal ends what is left at once."""
        self._saves = False

    def state_dict(self) -> dict[str, Any]:
        """Nothing of this belongs to a checkpoint."""
        return {}


def _numbers() -> list[signal.Signals]:
    return [getattr(signal, name) for name in SIGNALS if hasattr(signal, name)]
