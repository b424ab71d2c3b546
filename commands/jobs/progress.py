"""How far a job is: a line in a terminal, now and then one in a log."""

import contextlib
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from core.terminal import task_line, terminal
from core.text import say

_EVERY = 30.0
"""Seconds between two lines where there is no terminal."""


class JobProgress:
    """Counts the pictures of a call and shows how many there are.

    Args:
        what: the job does.
        total: pictures of the job, or of its shard.
        there: those that were written before.
    """

    def __init__(self, what: str, *, total: int, there: int) -> None:
        self.what, self.total, self.there = what, total, there
        self.done = self.written = 0
        self._began = self._said = time.monotonic()
        self._draw: Any = None

    @contextlib.contextmanager
    def shown(self) -> Iterator[None]:
        """Draws the line inside, when standard error is a terminal."""
        if not terminal(err=True).is_terminal:
            yield
            return
        with task_line(lambda task: [(self.what, 2), *((text, 0) for text in self.parts())]) as line:
            task = line.add_task(self.what, total=self.total)
            self._draw = lambda: line.update(task, completed=self.there + self.done, refresh=True)
            try:
                yield
            finally:
                self._draw = None

    def advance(self, pictures: int) -> None:
        """So many more are captioned or labelled; they need not be written yet."""
        self.done += pictures
        if self._draw is not None:
            self._draw()
        elif time.monotonic() - self._said > _EVERY:
            self._said = time.monotonic()
            say(f"{self.what}: {', '.join(self.parts())}", err=True)

    def parts(self) -> list[str]:
        """How many are done, the rate, and the time that is left."""
        seconds = time.monotonic() - self._began
        rate = self.done / seconds if seconds > 0 else 0.0
        shown = [f"{self.there + self.done:,} of {self.total:,} images"]
        if rate > 0:
            left = (self.total - self.there - self.done) / rate
            shown += [f"{rate:.1f}/s", f"{timedelta(seconds=round(left))} left"]
        return shown

    def written_text(self) -> str:
        """How many are complete."""
        return f"{self.there + self.written:,} of {self.total:,} images"
