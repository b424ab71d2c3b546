"""A logger that neither stops nor slows a run: whatever another logger does, it does in a thread of its own."""

import queue
import threading
import time
from argparse import Namespace
from collections.abc import Callable, Mapping
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from core.inputs import reason
from core.text import say

Work = Callable[[Any], object]
"""What is done with the logger, which is the argument."""
_WAITING = 2000
"""Calls that may wait: a logger that is slower than the run for longer loses what comes on top."""
_PATIENCE = 60.0
"""Seconds that the end of a run waits for what is left."""
_IMPATIENCE = 10.0
"""The same for a run that was stopped."""


class Background(Logger):
    """Passes everything on to another logger, in its order, in a thread of its own.

    A call that fails is reported, the first time; the next ones are tried all the same. When too many calls wait, the
    newest are dropped, which is reported as well. At the end of a run the calls that are left are waited for, but not
    for ever. Only the first process of a run logs.

    Args:
        inner: the logger.
        measures: pass on what Lightning logs: false where a run is only evaluated, whose figures are a summary.
        waiting: maximum number of calls that wait.
        patience: maximum number of seconds to wait at the end.
    """

    def __init__(
        self, inner: Logger, *, measures: bool = True, waiting: int = _WAITING, patience: float = _PATIENCE
    ) -> None:
        super().__init__()
        self.inner, self.measures, self.patience = inner, measures, patience
        self._waiting = waiting
        self._begin()

    def _begin(self) -> None:
        self._queue: queue.Queue[Work | None] = queue.Queue(self._waiting)
        self._thread: threading.Thread | None = None
        self._told: set[str] = set()
        self._given_up = False

    def __getstate__(self) -> dict[str, Any]:
        """Leaves the thread behind: other processes of a run do not log."""
        kept = ("inner", "measures", "patience", "_waiting")
        return {name: getattr(self, name) for name in kept}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Begins anew."""
        self.__dict__.update(state)
        self._begin()

    @rank_zero_only
    def submit(self, work: Work) -> None:
        """Does something with the logger, later; nothing of what it does reaches the caller."""
        if self._given_up:
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name=f"log-{self.title}", daemon=True)
            self._thread.start()
        try:
            self._queue.put_nowait(work)
        except queue.Full:
            self._tell("slow", f"{self.title} is too slow for this run: what it has no time for is left out of it")

    @property
    def title(self) -> str:
        """How messages name the logger."""
        return type(self.inner).__name__

    def _work(self) -> None:
        while (work := self._queue.get()) is not None:
            try:
                work(self.inner)
            except Exception as error:  # the run must not end with it, whatever it is
                self._tell("failing", f"{self.title} fails ({type(error).__name__}: {reason(error)})")

    def _tell(self, what: str, message: str) -> None:
        if what not in self._told:
            self._told.add(what)
            say(f"warning: {message}; the run goes on, metrics.csv has its figures", err=True)

    def wait(self, patience: float | None = None) -> None:
        """Waits for all that was submitted.

        Args:
            patience: maximum number of seconds; None: that of the logger.
        """
        thread, self._thread = self._thread, None
        if thread is None:
            return
        patience = self.patience if patience is None else min(patience, self.patience)
        until = time.monotonic() + patience
        try:
            self._queue.put(None, timeout=patience)
        except queue.Full:
            self._given_up = True
        else:
            thread.join(max(0.0, until - time.monotonic()))
            self._given_up = thread.is_alive()
        if self._given_up:
            self._tell("late", f"{self.title} has not finished within {patience:.0f} seconds and is left alone")

    # what Lightning asks for

    @property
    def name(self) -> str | None:
        """That of the logger."""
        return self.inner.name

    @property
    def version(self) -> int | str | None:
        """That of the logger."""
        return self.inner.version

    @property
    def save_dir(self) -> str | None:
        """That of the logger."""
        return self.inner.save_dir

    @property
    def experiment(self) -> "Later":
        """The logger's own object, whose methods are called later and return nothing."""
        self.submit(lambda inner: inner.experiment)  # W&B begins its run, while data and model are read
        return Later(self)

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Passes settings on."""
        if self.measures:
            self.submit(lambda inner: inner.log_hyperparams(params, *args, **kwargs))

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Passes figures on."""
        if self.measures:
            values = dict(metrics)
            self.submit(lambda inner: inner.log_metrics(values, step))

    def save(self) -> None:
        """Asks the logger to write what it holds."""
        self.submit(lambda inner: inner.save())

    def after_save_checkpoint(self, checkpoint_callback: Any) -> None:
        """Tells the logger of a checkpoint."""
        self.submit(lambda inner: inner.after_save_checkpoint(checkpoint_callback))

    def finalize(self, status: str) -> None:
        """Ends the logger and waits for it; not for long after an error or a signal."""
        self.submit(lambda inner: inner.finalize(status))
        self.wait(None if status == "success" else _IMPATIENCE)


class Later:
    """Stands for the object of a logger, as `trainer.logger.experiment` is used by callbacks of anybody.

    Args:
        owner: calls the methods.
    """

    def __init__(self, owner: Background) -> None:
        self._owner = owner

    def __getattr__(self, name: str) -> Callable[..., None]:
        """A method that is called later."""

        def call(*args: Any, **kwargs: Any) -> None:
            self._owner.submit(lambda inner: getattr(inner.experiment, name)(*args, **kwargs))

        return call
