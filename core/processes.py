"""Processes that do not outlive the one that started them."""

import ctypes
import os
import signal
import sys
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1


def ending_with(parent: int) -> Callable[[], None]:
    """What a new process does first on Linux: asks to be killed when its parent dies, even by SIGKILL.

    Args:
        parent: its process id; to be called in the parent, since a new process should not load libraries.
    """
    libc = ctypes.CDLL(None)

    def ask() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died in between
            os._exit(1)

    return ask


def end_with_parent(parent: int) -> None:
    """Lets this process be killed when its parent dies; on other systems than Linux nothing happens."""
    if sys.platform == "linux":
        ending_with(parent)()
