"""Faults in a process: at a phase of training, or at an operation on the files of a run.

Both are *places*, counted as they are reached: ``batch end``, ``write last.ckpt.tmp``, ``rename last.ckpt``. A run that
is left alone lists its places; a fault names one of them and which time it is reached.
"""

import builtins
import errno
import functools
import io
import os
import re
import signal
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from lightning import Callback, Trainer

HOOKS = {
    "setup": "setup",
    "on_fit_start": "fit start",
    "on_train_start": "train start",
    "on_train_epoch_start": "epoch start",
    "on_train_batch_start": "batch start",
    "on_before_optimizer_step": "before step",
    "on_train_batch_end": "batch end",
    "on_validation_start": "validation start",
    "on_validation_batch_end": "validation batch end",
    "on_validation_epoch_end": "validation epoch end",
    "on_validation_end": "validation end",
    "on_train_epoch_end": "epoch end",
    "on_train_end": "train end",
    "on_test_start": "test start",
    "on_test_batch_end": "test batch end",
    "on_test_end": "test end",
    "on_predict_start": "predict start",
    "on_predict_batch_end": "predict batch end",
    "on_predict_end": "predict end",
    "teardown": "teardown",
}
"""Hooks of callbacks, and the phases that they are; each before and behind all other callbacks."""
CALLS = {
    "replace": "rename",
    "rename": "rename",
    "unlink": "unlink",
    "remove": "unlink",
    "mkdir": "mkdir",
    "rmdir": "rmdir",
    "truncate": "truncate",
    "fsync": "fsync",
}
"""Functions of `os` that change files, and the operations that they are."""
FILES = ("open", "write", *dict.fromkeys(CALLS.values()))
"""The first words of places that are operations on files."""
CREATING = ("open", "write", "rename", "mkdir", "fsync")
"""Those that a full disk refuses."""


@dataclass(frozen=True)
class Fault:
    """What happens, and when.

    Attributes:
        place: phase, or operation and file.
        number: which time it is reached, from 1.
        kind: signals, joined by "+", or an error number such as ENOSPC.
        lasting: every later write fails, too, as on a full disk.
        rank: of the process that it happens to.
    """

    place: str
    number: int
    kind: str
    lasting: bool = False
    rank: int = 0

    def __str__(self) -> str:
        process = f" of rank {self.rank}" if self.rank else ""
        return f"{self.kind}{' from then on' if self.lasting else ''} at {self.place} #{self.number}{process}"


class Injection:
    """Counts the places that this process reaches, and lets the fault happen.

    Args:
        root: folder whose files are watched.
        journal: file to note the places in, and the fault when it has happened; outside of `root`.
        fault: None: there is none.
    """

    def __init__(self, root: Path, journal: Path, fault: Fault | None) -> None:
        self.root, self.fault, self.rank = str(root) + os.sep, fault, 0
        self.counts: Counter[str] = Counter()
        self._failing = False
        # by descriptor, which the wrapped functions never see
        self._journal = os.open(journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def note(self, line: str) -> None:
        """Adds a line to the journal."""
        os.write(self._journal, f"{line}\n".encode())

    def due(self, place: str, path: str = "") -> bool:
        """Counts a place; whether the fault happens there."""
        self.counts[place] += 1
        if self.rank == 0:
            self.note(place)
        if self.fault is not None and self._failing and place.split()[0] in CREATING:
            raise OSError(getattr(errno, self.fault.kind), os.strerror(getattr(errno, self.fault.kind)), path)
        fault = self.fault
        return fault is not None and (fault.place, fault.number, fault.rank) == (place, self.counts[place], self.rank)

    def happen(self, path: str = "") -> None:
        """Sends the signals or raises the error."""
        assert self.fault is not None
        self.note(f"fault {self.fault}")
        if self.fault.kind.startswith("SIG"):
            for name in self.fault.kind.split("+"):
                os.kill(os.getpid(), getattr(signal, name))
        else:
            self._failing = self.fault.lasting
            number = getattr(errno, self.fault.kind)
            raise OSError(number, os.strerror(number), path)

    def hit(self, place: str, path: str = "") -> None:
        """A place is reached."""
        if self.due(place, path):
            self.happen(path)

    def watched(self, path: object) -> str | None:
        """Name of a file without the number of the process; None if it lies elsewhere."""
        if isinstance(path, int):
            path = Path(f"/proc/self/fd/{path}").readlink()
        if not isinstance(path, (str, os.PathLike)):
            return None
        full = os.path.abspath(os.fspath(path))  # noqa: PTH100  # must not call what is replaced
        return re.sub(r"\.tmp\d+", ".tmp", os.path.basename(full)) if full.startswith(self.root) else None  # noqa: PTH119

    def install(self) -> None:
        """Replaces the functions that change files, and adds callbacks to every trainer."""
        opened = io.open
        io.open = builtins.open = functools.partial(self._open, opened)
        for name, operation in CALLS.items():
            setattr(os, name, functools.wraps(getattr(os, name))(self._changing(getattr(os, name), operation)))
        for name in ("fit", "validate", "test", "predict"):
            setattr(Trainer, name, self._with_phases(getattr(Trainer, name)))

    def _open(self, opened, file, mode="r", *args, **options):
        name = self.watched(file) if set(mode) & set("wax+") else None
        if name is None:
            return opened(file, mode, *args, **options)
        self.hit(f"open {name}", str(file))
        raw = FailingFile(self, name, os.fspath(file), mode.replace("b", "").replace("t", ""))
        buffered = io.BufferedWriter(raw) if "+" not in mode else io.BufferedRandom(raw)
        if "b" in mode:
            return buffered
        text = io.TextIOWrapper(buffered, options.get("encoding"), options.get("errors"), options.get("newline"))
        text.mode = mode
        return text

    def _changing(self, function, operation):
        def call(path, *args, **options):
            name = self.watched(args[0] if operation == "rename" else path)
            if name is None:
                return function(path, *args, **options)
            self.hit(f"{operation} {name}", str(path))
            result = function(path, *args, **options)
            self.hit(f"behind {operation} {name}")
            return result

        return call

    def _with_phases(self, run):
        @functools.wraps(run)  # its signature is the command line's
        def call(trainer, *args, **options):
            trainer.callbacks.insert(0, phases(self, ""))
            trainer.callbacks.append(phases(self, ", behind all"))
            return run(trainer, *args, **options)

        return call


class FailingFile(io.FileIO):
    """A file of which one write fails or is the last: half of it is there then."""

    def __init__(self, injection, name, path, mode):
        super().__init__(path, mode)
        self._injection, self._name, self._path = injection, name, path

    def write(self, data):
        if self._injection.due(f"write {self._name}", self._path):
            super().write(memoryview(data).cast("B")[: len(memoryview(data).cast("B")) // 2])
            self._injection.happen(self._path)
            # a signal that is only noted: the rest is written
            rest = memoryview(data).cast("B")[len(memoryview(data).cast("B")) // 2 :]
            return len(memoryview(data).cast("B")) - len(rest) + super().write(rest)
        return super().write(data)


def phases(injection: Injection, where: str) -> Callback:
    """A callback that reports every phase."""

    def reporting(phase):
        def hook(self, trainer, *args, **options):
            if not trainer.sanity_checking:
                injection.hit(phase + where)

        return hook

    return type("Phases", (Callback,), {hook: reporting(phase) for hook, phase in HOOKS.items()})()
