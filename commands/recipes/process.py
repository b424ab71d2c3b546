"""Runs a stage in a process of its own; its output is shown and stored, and it never outlives the recipe."""

import contextlib
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from core.errors import UserError
from core.processes import ending_with

_PROGRAM = Path(__file__).resolve().parents[2] / "cli.py"
_OF_ONE_RUN = frozenset(
    (
        "CAPTION_RUN_DIR",
        *(f"WANDB_{name}" for name in ("RUN_ID", "RUN_DIR", "RUN_STORAGE_ID", "NAME", "NOTES", "RESUME")),
        *(f"WANDB_{name}" for name in ("SWEEP_ID", "SWEEP_PARAM_PATH", "SERVICE")),
    )
)
"""Environment variables that name a single run, or the process that writes it; stages are runs of their own."""
_PATIENCE = 60.0
"""Seconds that interrupted stages get to close their files."""
_WAIT = 10.0
"""Seconds within which the processes of a killed call must be gone."""
_CONTROL = re.compile(rb"(\n|\r|\x1b\[[0-9;?]*[A-Za-z])")
_UP = re.compile(rb"\x1b\[(\d*)A")
_CUT = re.compile(rb"\x1b(\[[0-9;?]*)?\Z")
_REACH = 8
"""Number of lines that a progress bar may still rewrite."""


class StageProcess:
    """``python cli.py WORDS`` as a process; its output goes to a log file and, if wanted, to this process's own output.

    It is started from the thread that makes this object, which must outlive it: it is killed when that thread ends.

    Args:
        words: arguments of the command line.
        log: file, appended to.
        lock: descriptor that the process holds open, see `locked`.
        shown: whether the output also goes to this process's own output.
        threads: number of compute threads unless OMP_NUM_THREADS is set; None: one per core.
        names: environment variables that are set unless they are, such as how W&B groups the stages.
    """

    def __init__(
        self,
        words: Sequence[str],
        log: Path,
        *,
        lock: int,
        shown: bool = True,
        threads: int | None = None,
        names: Mapping[str, str] | None = None,
    ) -> None:
        environment = {name: value for name, value in os.environ.items() if name not in _OF_ONE_RUN}
        environment["PYTHONUNBUFFERED"] = "1"
        if threads is not None:
            environment.setdefault("OMP_NUM_THREADS", str(threads))
        for name, value in (names or {}).items():
            environment.setdefault(name, value)
        source, target = _channel(shown)
        self._log = log.open("ab")
        self._log.write(f"--- {time.strftime('%Y-%m-%d %H:%M:%S')} python cli.py {shlex.join(words)}\n".encode())
        self._log.flush()
        self._process = subprocess.Popen(
            [sys.executable, str(_PROGRAM), *words],
            stdin=subprocess.DEVNULL,
            stdout=target,
            stderr=target,
            env=environment,
            pass_fds=(lock,) if os.name == "posix" else (),
            start_new_session=True,  # Ctrl-C reaches it once, from here
            preexec_fn=ending_with(os.getpid()) if sys.platform == "linux" else None,
        )
        os.close(target)
        self._relay = threading.Thread(target=_relay, args=(source, LogText(self._log), shown), daemon=True)
        self._relay.start()

    def poll(self) -> int | None:
        """Exit code; negative: killed by that signal; None: still running."""
        code = self._process.poll()
        if code is not None and not self._log.closed:
            self._relay.join(timeout=5)  # a grandchild may keep the channel open
            if not self._relay.is_alive():
                self._log.close()
        return code

    def interrupt(self) -> None:
        """Forwards Ctrl-C once; on Windows the console has sent it already."""
        if os.name == "posix":
            self._process.send_signal(signal.SIGINT)

    def kill(self) -> None:
        """Kills it and its children; does nothing if it has ended."""
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                if os.name == "posix":
                    os.killpg(self._process.pid, signal.SIGKILL)
                else:
                    self._process.kill()
            self._process.wait()
        self.poll()


def end_all(processes: Sequence[StageProcess]) -> None:
    """Interrupts processes and waits at most a minute for all of them; a second Ctrl-C kills them."""
    for process in processes:
        process.interrupt()
    until = time.monotonic() + _PATIENCE
    with contextlib.suppress(KeyboardInterrupt):
        while any(process.poll() is None for process in processes) and time.monotonic() < until:
            time.sleep(0.05)
    for process in processes:
        process.kill()


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _channel(shown: bool) -> tuple[int, int]:
    """Two descriptors, to read from and to write to: a terminal if the output is shown on one, so that bars appear."""
    if shown and os.name == "posix" and _has_descriptor() and sys.stdout.isatty():
        import fcntl
        import pty
        import termios

        source, target = pty.openpty()
        size = fcntl.ioctl(sys.stdout.fileno(), termios.TIOCGWINSZ, b"\0" * 8)
        fcntl.ioctl(target, termios.TIOCSWINSZ, size)
        return source, target
    return os.pipe()


class LogText:
    """Writes the final state of the output: no colours and no earlier states of progress bars.

    Args:
        file: log, opened for bytes.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._lines: list[bytes] = [b""]
        self._cut = b""  # the beginning of a control sequence, at the end of a chunk

    def feed(self, chunk: bytes) -> None:
        """Receives output; lines are written once no bar can rewrite them."""
        text = self._cut + chunk
        cut = _CUT.search(text)
        self._cut = b"" if cut is None else cut[0]
        for part in _CONTROL.split(text.removesuffix(self._cut)):
            if part == b"\n":
                self._lines.append(b"")
            elif part == b"\r":
                self._lines[-1] += b"\r"
            elif up := _UP.fullmatch(part):
                # the line that is left goes too: bars clear what they come back to
                for _ in range(min(int(up[1] or 1), len(self._lines) - 1)):
                    self._lines.pop()
                self._lines[-1] = b""
            elif part and not part.startswith(b"\x1b"):
                own = self._lines[-1]
                self._lines[-1] = (b"" if own.endswith(b"\r") else own) + part
        self._write(self._lines[:-_REACH])
        self._lines = self._lines[-_REACH:]

    def close(self) -> None:
        """Writes the remaining lines."""
        self._write(self._lines[:-1] if not self._lines[-1] else self._lines)
        self._lines = [b""]

    def _write(self, lines: Sequence[bytes]) -> None:
        for line in lines:
            self._file.write(line.removesuffix(b"\r") + b"\n")
        self._file.flush()


def _relay(source: int, log: LogText, shown: bool) -> None:
    """Copies bytes as they arrive."""
    out = sys.stdout.fileno() if _has_descriptor() else None
    while chunk := _read(source):
        log.feed(chunk)
        if not shown:
            continue
        if out is None:
            sys.stdout.write(chunk.decode("utf-8", "replace"))
        else:
            with contextlib.suppress(OSError):  # nobody reads any more; the log is complete
                _write(out, chunk)
    log.close()
    os.close(source)


def _read(source: int) -> bytes:
    try:
        return os.read(source, 65536)
    except OSError:  # how a terminal says that its other side is closed
        return b""


def _has_descriptor() -> bool:
    try:
        sys.stdout.flush()
        return sys.stdout.fileno() >= 0
    except (OSError, ValueError):
        return False


def _write(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


@contextlib.contextmanager
def locked(folder: Path, what: str = "recipe", option: str = "--run_dir") -> Iterator[int]:
    """Holds a folder's lock, which the processes of its stages share: it is held as long as any of them lives.

    Args:
        folder: folder of the recipe or sweep; made if necessary.
        what: works in it, for the message.
        option: that chooses another folder.

    Yields:
        A descriptor to pass to the stages.

    Raises:
        UserError: another call is working in this folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        if os.name == "posix":
            import fcntl

            until = time.monotonic() + _WAIT
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except OSError:
                    if time.monotonic() > until:
                        raise UserError(
                            f"this {what} is already running in '{folder}': wait, or choose another {option}"
                        ) from None
                    time.sleep(0.2)
        yield file.fileno()


@contextlib.contextmanager
def termination_as_interrupt() -> Iterator[None]:
    """Handles SIGTERM, which batch systems send, like Ctrl-C."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
