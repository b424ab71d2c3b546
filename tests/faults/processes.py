"""``cli.py`` in forks of this process, which has imported everything once."""

import contextlib
import importlib
import os
import pkgutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import callbacks
import commands
import datamodules
from tests.faults.forks import Forking, run_and_exit
from tests.faults.injection import Fault, Injection

PATIENCE = 120.0
"""Seconds after which a process hangs."""


def warm() -> None:
    """Imports everything that a fork would import by itself."""
    for package in (callbacks, commands, datamodules):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            importlib.import_module(module.name)


@dataclass(frozen=True)
class Ended:
    """How a process ended.

    Attributes:
        code: exit code; negative: killed by that signal.
        out: what it printed.
        error: what it printed on stderr.
        hung: it had to be killed.
        places: that it reached, if no fault was asked for.
        happened: whether its fault did.
    """

    code: int
    out: str
    error: str
    hung: bool
    places: list[str]
    happened: bool

    @property
    def wrong(self) -> list[str]:
        """What no process may do, whatever happens to it."""
        found = ["hangs"] if self.hung else []
        if "Traceback (most recent call last)" in self.error + self.out:
            found.append(f"traceback: {self.last}")
        if self.code > 0 and not self.error.strip():
            found.append(f"code {self.code} without a word")
        return found

    @property
    def last(self) -> str:
        """The last line on stderr."""
        return (self.error.strip().splitlines() or [""])[-1][:300]


class Child:
    """A command line in a process of its own.

    Args:
        words: of the command line.
        folder: of its outputs; its files are watched.
        journal: prefix of the files of its outputs.
        fault: that happens to it.
        environment: added to this process's.
    """

    def __init__(
        self,
        words: Sequence[str],
        folder: Path,
        journal: Path,
        fault: Fault | None = None,
        environment: dict[str, str] | None = None,
    ) -> None:
        self._files = [journal.with_name(f"{journal.name}.{end}") for end in ("out", "err", "places")]
        for file in self._files:
            file.unlink(missing_ok=True)
        self.pid = os.fork()
        if self.pid == 0:
            os.environ.update(environment or {})
            self._begin(words, folder, fault)
        self.hung = False
        self.code: int | None = None

    def _begin(self, words, folder, fault):
        os.setsid()
        out, error, places = self._files
        for number, target in ((0, Path(os.devnull)), (1, out), (2, error)):
            descriptor = os.open(target, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
            os.dup2(descriptor, number)
        # a test runner's own streams do not write there
        sys.stdout, sys.stderr = (open(number, "w", closefd=False) for number in (1, 2))  # noqa: SIM115
        injection = Injection(folder, places, fault)
        injection.install()
        Forking.injection = injection
        subprocess.Popen = Forking
        run_and_exit(words)

    def poll(self) -> bool:
        """Whether it has ended."""
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
        return self.code is not None

    def reached(self) -> list[str]:
        """Places that it has reached so far."""
        file = self._files[2]
        return file.read_text().splitlines() if file.is_file() else []

    def end(self) -> Ended:
        """Waits for its end, and for that of all that it started."""
        until = time.monotonic() + PATIENCE
        while not (self.poll() and not _group_lives(self.pid)):
            if time.monotonic() > until:
                self.hung = True
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self.pid, signal.SIGKILL)
            time.sleep(0.005)
        out, error = (file.read_text(errors="replace") for file in self._files[:2])
        places = self.reached()
        happened = any(place.startswith("fault ") for place in places)
        assert self.code is not None
        return Ended(self.code, out, error, self.hung, places, happened)


def _group_lives(pid: int) -> bool:
    """Whether a process group has a member that is no zombie."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, 0)
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                state, _, group = stat.read_text().rpartition(")")[2].split()[:3]
                if int(group) == pid and state != "Z":
                    return True
    return False
