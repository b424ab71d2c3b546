import signal
import subprocess
import sys

import pytest

from tests.conftest import ROOT

PROGRAM = """
import atexit, threading, time, sys
from core.processes import end_with

class Late:
    def __del__(self):
        print("taken apart")

late = Late()

def thread():
    time.sleep(0.2)
    print("thread")

def work():
    import logging, tempfile
    handler = logging.handlers.MemoryHandler(100, target=logging.StreamHandler(sys.stdout))
    logging.getLogger().addHandler(handler)
    logging.getLogger().warning("logged")
    atexit.register(print, "at exit")
    threading.Thread(target=thread).start()
    print("unflushed", end="")
    WHAT

import logging.handlers
end_with(work)
"""


@pytest.mark.parametrize(
    ("what", "code"),
    [
        ("return 0", 0),
        ("return 7", 7),
        ("sys.exit()", 0),
        ("sys.exit(5)", 5),
        ("sys.exit('told')", 1),
        ("raise ValueError('wrong')", 1),
        ("raise KeyboardInterrupt", 128 + signal.SIGINT),
    ],
)
def test_a_process_ends_with_its_code_and_all_that_was_asked_for(what, code):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.replace("WHAT", what)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == code
    assert done.stdout.split() == ["unflushedthread", "at", "exit", "logged"], "all but taking objects apart"
    assert ("wrong" in done.stderr) == ("wrong" in what)
    assert ("told" in done.stderr) == ("told" in what)


def test_a_reader_that_has_gone_does_not_change_the_code():
    program = PROGRAM.replace("WHAT", "sys.stdout.close(); return 3")
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 3
