"""Choosing some of many, evenly spread: files are often sorted by class, so the first ones would be alike."""

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


def spread_places(count: int, limit: int | None) -> list[int]:
    """Places of at most `limit` of `count` items, evenly spread, the first always among them.

    Args:
        count: number of items.
        limit: most places; None: all.

    >>> spread_places(10, 4), spread_places(3, 4), spread_places(3, None)
    ([0, 2, 5, 7], [0, 1, 2], [0, 1, 2])
    """
    chosen = count if limit is None else min(limit, count)
    return [place * count // chosen for place in range(chosen)]


def spread(items: Sequence[T], limit: int | None) -> list[T]:
    """At most `limit` items, evenly spread, in their order.

    >>> spread("abcdef", 3)
    ['a', 'c', 'e']
    """
    return [items[place] for place in spread_places(len(items), limit)]
