"""Requests that arrive together are computed together, by one thread."""

import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from core.errors import UserError

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class BusyError(UserError):
    """More requests wait than may."""


@dataclass(slots=True, kw_only=True)
class _Job(Generic[Item, Answer]):
    """A request: what to compute, its key, and where the answer goes."""

    key: Hashable
    item: Item
    answer: Future[Answer] = field(default_factory=Future)
    arrived: float = field(default_factory=time.monotonic)


class Batcher(Generic[Item, Answer]):
    """Collects requests of other threads into batches and computes them in a thread of its own.

    One thread uses the model at a time, so that memory is bounded by one batch. Requests with different keys never
    share a batch; the oldest request is served first.

    Args:
        compute: takes the key and the items of a batch; returns one answer for each.
        max_batch: items of a batch.
        max_wait: seconds that a request waits for others of its key.
        max_waiting: requests that may wait; further ones are refused.
        observe: called with the size of every batch.
    """

    def __init__(
        self,
        compute: Callable[[Hashable, Sequence[Item]], Sequence[Answer]],
        *,
        max_batch: int = 16,
        max_wait: float = 0.01,
        max_waiting: int = 256,
        observe: Callable[[int], None] = lambda size: None,
    ) -> None:
        self._compute, self._observe = compute, observe
        self.max_batch, self.max_wait, self.max_waiting = max_batch, max_wait, max_waiting
        self._jobs: deque[_Job[Item, Answer]] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="model", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Requests that wait for a batch."""
        return len(self._jobs)

    @property
    def alive(self) -> bool:
        """Whether requests are answered."""
        return self._thread.is_alive()

    def submit(self, key: Hashable, item: Item) -> Answer:
        """Waits for the answer to one request.

        Args:
            key: requests with the same one may share a batch.
            item: what to compute.

        Raises:
            BusyError: `max_waiting` requests wait already, or the program ends.
        """
        job: _Job[Item, Answer] = _Job(key=key, item=item)
        with self._changed:
            if self._closed:
                raise BusyError("the server is stopping")
            if len(self._jobs) >= self.max_waiting:
                raise BusyError(f"{len(self._jobs)} requests are waiting already: try again later")
            self._jobs.append(job)
            self._changed.notify_all()
        return job.answer.result()

    def close(self) -> None:
        """Refuses further requests, answers those that wait and ends the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()

    def _work(self) -> None:
        while batch := self._next_batch():
            self._observe(len(batch))
            try:
                answers = self._compute(batch[0].key, [job.item for job in batch])
                for job, answer in zip(batch, answers, strict=True):
                    job.answer.set_result(answer)
            except BaseException as error:  # belongs to those who asked; the thread lives on
                for job in batch:
                    if not job.answer.done():
                        job.answer.set_exception(error)

    def _next_batch(self) -> list[_Job[Item, Answer]]:
        """The oldest request and those of its key that come in time; empty when nothing will come any more."""
        with self._changed:
            self._changed.wait_for(lambda: self._jobs or self._closed)
            if not self._jobs:
                return []
            first = self._jobs[0]
            left = first.arrived + self.max_wait - time.monotonic()
            self._changed.wait_for(lambda: self._closed or self._count(first.key) >= self.max_batch, max(0.0, left))
            batch = [job for job in self._jobs if job.key == first.key][: self.max_batch]
            taken = set(map(id, batch))
            self._jobs = deque(job for job in self._jobs if id(job) not in taken)
            return batch

    def _count(self, key: Hashable) -> int:
        return sum(job.key == key for job in self._jobs)
