"""Folders that belong to one process at a time."""

import contextlib
import errno
import os
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from core.errors import UserError
from core.files import write_json
from core.inputs import open_regular, read_object

LOCK, OWNER = ".lock", ".owner"
_WAIT = 10.0
"""Seconds that a lock may outlive its dead owner, on file systems of other machines."""


class FolderLock:
    """Ownership of a folder by this process until `release` or its end, however it ends.

    A record lock (POSIX `lockf`) on a file in the folder: unlike `flock`, loader processes do not inherit it, so a
    killed run leaves nothing locked; NFS version 4 and Lustre (mounted with `flock`) pass it on to other machines.
    Where a file system has no locks, or on Windows, ownership is only noted, not enforced.

    Args:
        folder: made if it does not exist.
        made: topmost folder that was made for this process, see `make_new_folder`.

    Raises:
        UserError: another process has it, which the message names, or it cannot be written.
    """

    def __init__(self, folder: Path, *, made: Path | None = None) -> None:
        self.folder = folder
        self._made = made or _missing(folder)
        self._file: IO[str] | None = self._take()
        with contextlib.suppress(OSError):
            write_json(folder / OWNER, _this_process())

    def _take(self) -> IO[str]:
        """Opens and locks the file; raises `UserError` when somebody else has it."""
        until = time.monotonic() + _WAIT
        while True:
            file = _opened(self.folder)
            if file is not None and _locked(file) and _is_named(file, self.folder / LOCK):
                return file
            if file is not None:
                file.close()
            owner = read_owner(self.folder)
            if _lives(owner) or time.monotonic() > until:
                raise UserError(
                    f"folder '{self.folder}' is in use by {_described(owner)}: wait for its end, or choose another "
                    "--run_dir"
                )
            time.sleep(0.1)

    def release(self) -> None:
        """Gives the folder up; folders that were made for the lock and are still empty go."""
        if self._file is None:
            return
        for name in (OWNER, LOCK):
            with contextlib.suppress(OSError):
                (self.folder / name).unlink()
        self._file.close()
        self._file = None
        for empty in (self.folder, *self.folder.parents) if self._made else ():
            with contextlib.suppress(OSError):
                empty.rmdir()
            if empty == self._made:
                break


def make_new_folder(folder: Path) -> tuple[Path, Path]:
    """Makes a folder that nobody has: the given one, or the same with -2, -3 ... when it exists.

    Of several processes that ask at the same time each gets its own.

    Returns:
        The folder, and the topmost one that was made for it.

    Raises:
        UserError: it cannot be made.
    """
    candidate, number = folder, 1
    above = _missing(folder.parent)
    while True:
        with _writable(candidate):
            candidate.parent.mkdir(parents=True, exist_ok=True)
            try:
                candidate.mkdir()
            except FileExistsError:
                number += 1
                candidate = folder.with_name(f"{folder.name}-{number}")
            else:
                return candidate, above or candidate


def _missing(folder: Path) -> Path | None:
    """The topmost folder of a path that does not exist."""
    gone = [part for part in (folder, *folder.parents) if not part.exists()]
    return gone[-1] if gone else None


def read_owner(folder: Path) -> dict[str, Any]:
    """What the owner of a folder has noted of itself; empty when nothing is known."""
    try:
        return read_object(folder / OWNER, "")
    except UserError:
        return {}


def is_abandoned(folder: Path) -> bool:
    """Whether a process of this machine that is no more has left its mark in a folder, as far as its files tell.

    One that had the lock and has not noted itself may live: who takes the lock will know.
    """
    owner = read_owner(folder)
    return not _lives(owner) if owner else (folder / LOCK).exists()


def _opened(folder: Path) -> IO[str] | None:
    """The open lock file of a folder, both made when they do not exist; None: an owner that ends has removed them."""
    with _writable(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / LOCK).exists():
            open_regular(folder / LOCK, "the lock of a run folder", UserError).close()
        try:
            return (folder / LOCK).open("a")
        except FileNotFoundError:
            return None


@contextlib.contextmanager
def _writable(folder: Path) -> Iterator[None]:
    """Says what to do when a folder cannot be made or written; a full disk has a message of its own."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        file = next((part for part in (folder, *folder.parents) if part.is_file()), None)
        what = str(error.strerror).lower() if file is None else f"'{file}' is a file"
        raise UserError(f"run folder '{folder}' cannot be written ({what}): choose another --run_dir") from error


def _is_named(file: IO[str], path: Path) -> bool:
    """Whether an open file still has its name: an owner that ends removes it, and the next one makes another."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except OSError:
        return False


def _this_process() -> dict[str, Any]:
    return {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "since": time.strftime("%Y-%m-%d %H:%M:%S"),
        "command": " ".join(sys.argv),
    }


def _described(owner: dict[str, Any]) -> str:
    if not owner:
        return "another process"
    return f"process {owner.get('pid')} on {owner.get('host')} since {owner.get('since')}"


def _lives(owner: dict[str, Any]) -> bool:
    """Whether the owner is known to live; on another machine it is taken to."""
    pid = owner.get("pid")
    if owner.get("host") != socket.gethostname() or not isinstance(pid, int):
        return bool(owner)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _locked(file: IO[str]) -> bool:
    """Takes the lock on an open file if it is free; true as well where there are no locks."""
    if os.name != "posix":
        return True
    import fcntl

    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:  # the file system has no locks
        return True
    return True
