"""Random choices that are the same on every platform and with every NumPy version."""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")


class Draws:
    """A stream of choices that is a function of its key alone.

    Only the raw 64-bit words of PCG64 are used: NumPy promises that these never change, which it does not for
    `Generator.integers` and the like, whose results might differ between two versions. Reducing a word modulo n is
    biased by less than n / 2^64.

    Args:
        key: non-negative integers, for example a seed, a split and an index. Different keys give independent streams.

    >>> [Draws(1, 2).below(10) for _ in range(3)] == [Draws(1, 2).below(10)] * 3
    True
    """

    _BLOCK = 64

    def __init__(self, *key: int) -> None:
        self._bits = np.random.PCG64(np.random.SeedSequence(list(key)))
        self._words: list[int] = []

    def word(self) -> int:
        """Returns the next 64 random bits as an integer."""
        if not self._words:
            self._words = self._bits.random_raw(self._BLOCK).tolist()
        return self._words.pop()

    def below(self, n: int) -> int:
        """Returns an integer in [0, n)."""
        return self.word() % n

    def between(self, low: int, high: int) -> int:
        """Returns an integer in [low, high], both ends included."""
        return low + self.word() % (high - low + 1)

    def unit(self) -> float:
        """Returns a float in [0, 1) with 53 random bits."""
        return (self.word() >> 11) * 2.0**-53

    def choose(self, items: Sequence[T]) -> T:
        """Returns one of the items, all equally likely."""
        return items[self.word() % len(items)]

    def sample(self, items: Sequence[T], count: int) -> list[T]:
        """Returns `count` different items in random order."""
        pool = list(items)
        return [pool.pop(self.word() % len(pool)) for _ in range(count)]

    def octets(self, count: int) -> np.ndarray:
        """Returns `count` random bytes, `(count,)` uint8, in the same order on little- and big-endian machines."""
        words: np.ndarray = self._bits.random_raw((count + 7) // 8)
        return words.astype("<u8", copy=False).view(np.uint8)[:count]
