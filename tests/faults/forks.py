"""``cli.py`` in a fork: what the interpreter does with it, and how such a process starts others of its kind."""

import atexit
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Sequence

import cli
from commands.trainer import runs
from tests.conftest import ROOT
from tests.faults.injection import Injection

_Popen = subprocess.Popen


def run_and_exit(words: Sequence[str]) -> None:
    """What the interpreter does with ``cli.py WORDS``, up to its end."""
    code = 1
    try:
        os.chdir(ROOT)
        sys.argv, sys.modules["__main__"].__spec__ = ["cli.py", *words], None
        code = cli.main()
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(BaseException):
            threading._shutdown()
        with contextlib.suppress(BaseException):
            atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(BaseException):
                stream.flush()
        os._exit(code)


class Forking(_Popen):
    """`subprocess.Popen` that forks for ``cli.py``: ranks of a run and stages of a recipe."""

    injection: Injection
    forked = False

    def __init__(self, args, **options):
        if isinstance(args, str) or list(args[:1]) != [sys.executable] or "cli.py" not in str(args[1]):
            super().__init__(args, **options)
            return
        sys.stdout.flush()
        self.args, self.returncode, self.forked, self._child_created = args, None, True, False
        self.stdin = self.stdout = self.stderr = None
        self.pid = os.fork()
        if self.pid == 0:
            self._begin(list(args[2:]), options)

    def _begin(self, words, options):
        for number in signal.valid_signals():
            with contextlib.suppress(OSError, ValueError):
                signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if options.get("start_new_session"):
            os.setsid()
        if options.get("preexec_fn"):
            options["preexec_fn"]()
        for number, name in ((1, "stdout"), (2, "stderr")):
            if isinstance(options.get(name), int) and options[name] >= 0:
                os.dup2(options[name], number)
        os.environ.clear()
        os.environ.update(options.get("env") or {})
        runs._owned.clear()
        self.injection.rank = int(os.environ.get("LOCAL_RANK", "0"))
        self.injection.counts.clear()
        run_and_exit(words)

    def poll(self):
        if not self.forked:
            return super().poll()
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def wait(self, timeout=None):
        if not self.forked:
            return super().wait(timeout)
        until = None if timeout is None else time.monotonic() + timeout
        while self.poll() is None:
            if until is not None and time.monotonic() > until:
                raise subprocess.TimeoutExpired(self.args, timeout)
            time.sleep(0.01)
        return self.returncode

    def send_signal(self, number):
        if not self.forked:
            super().send_signal(number)
        elif self.poll() is None:
            os.kill(self.pid, number)
