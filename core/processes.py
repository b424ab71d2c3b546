"""Processes that do not outlive the one that started them."""

import atexit
import contextlib
import ctypes
import logging
import os
import signal
import sys
from collections.abc import Callable
from typing import NoReturn

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


def end_with(work: Callable[[], int]) -> NoReturn:
    """Does the work of a process and ends it with the code that it returns, without taking its objects apart.

    Python would search a million objects for circles and empty every module, which takes from .5 to 1.5 seconds. Other
    threads are waited for, and what was registered for the exit (log files, worker processes, trackers) is done, as
    ever. To be called before modules are imported that register something.

    Args:
        work: the program; it writes its files whole, since what an open file buffers is lost.
    """
    code = [1]
    atexit.register(lambda: _end(code[0]))
    try:
        code[0] = work()
    except SystemExit as stop:
        code[0] = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        raise
    except KeyboardInterrupt:
        code[0] = 128 + signal.SIGINT
        raise
    sys.exit(code[0])


def _end(code: int) -> None:
    logging.shutdown()  # registered before this, and so not yet done
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # closed, or nobody reads it
            stream.flush()
    os._exit(code)
