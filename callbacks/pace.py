"""How often something that costs time is done in training: as often as a share of the time allows."""

import contextlib
import time
from collections.abc import Iterator

from lightning import Trainer

SHARE = 0.005
"""Of the time of a training run that each callback which draws may take."""


class Pace:
    """Allows work at the first and the last validation of a training run, and in between while it costs little.

    Args:
        share: of the time since the first validation was asked for that the work may take.
    """

    def __init__(self, share: float) -> None:
        self.share = share
        self.spent = 0.0
        self._last = self._now = 0.0  # spent in the last evaluation that had work, and in this one
        self._began: float | None = None

    def allows(self, trainer: Trainer) -> bool:
        """Asked at the beginning of an evaluation: whether it may be worked on; every one outside of training may."""
        self._last, self._now = self._now or self._last, 0.0
        if trainer.state.fn != "fit" or self._began is None or _is_last(trainer):
            return True
        return self.spent + self._last <= self.share * (time.monotonic() - self._began)

    def begin(self) -> None:
        """Starts the clock, the first time."""
        if self._began is None:
            self._began = time.monotonic()

    @contextlib.contextmanager
    def spending(self) -> Iterator[None]:
        """Counts the time inside as work."""
        start = time.monotonic()
        try:
            yield
        finally:
            seconds = time.monotonic() - start
            self.spent += seconds
            self._now += seconds


def _is_last(trainer: Trainer) -> bool:
    """Whether training ends with the validation that is running, as far as that is known."""
    if 0 < trainer.max_steps <= trainer.global_step:
        return True
    epochs = trainer.max_epochs
    return epochs is not None and 0 < epochs <= trainer.current_epoch + 1 and trainer.is_last_batch
