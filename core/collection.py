"""Python's search for unreachable circles of objects, paused where millions of objects are made that all stay."""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def paused_collection() -> Iterator[None]:
    """Inside, and in a function that it decorates, objects are only freed when nothing refers to them.

    Without, the search goes through all of them again and again: a quarter of the time that COCO's annotations take.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


_MANY = 200_000
"""Objects that imports leave, less than those of torch."""


@contextmanager
def lasting() -> Iterator[None]:
    """For imports: what comes into being inside is taken to stay, and no later search goes through it.

    A command makes a million objects before it begins, so the searches meanwhile and the one at its end took over a
    third of the time until it has printed an error. In a process that runs many commands only the first imports count:
    circles that are nobody's by then would stay, too.
    """
    with paused_collection():
        yield
    # triton's library complains at the exit about each of its objects that is left
    if gc.get_freeze_count() < _MANY and "triton" not in sys.modules:
        gc.freeze()
