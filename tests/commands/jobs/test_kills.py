"""A job that is killed anywhere, again and again, ends with the same bytes; signals end it with the way on."""

import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time

import pyarrow.parquet as pq
import pytest

from commands.jobs import engine, parts
from tests.commands.jobs.made import job
from tests.commands.jobs.made import parts as contents

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system starts processes otherwise")
POINTS = ("before a part", "half of a file", "file without its name", "after a part", "first pictures")


def in_child(action):
    """Exit status of a copy of this process that does something, as `os.waitpid` gives it."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        code = 99
        try:
            code = action()
        finally:
            os._exit(code)
    return os.waitpid(child, 0)[1]


def dies():
    os.kill(os.getpid(), signal.SIGKILL)


def arrange(point):
    """Lets this process be killed at a point."""
    write_part, close = parts.write_part, pq.ParquetWriter.close

    def before(*args):
        dies()

    def after(*args):
        write_part(*args)
        dies()

    def half(self):
        self.file_handle.flush() if self.file_handle else None
        dies()

    def unnamed(self):
        close(self)
        dies()

    if point == "before a part":
        engine.write_part = before
    elif point == "after a part":
        engine.write_part = after
    elif point == "first pictures":
        engine.JobProgress.advance = before
    else:
        pq.ParquetWriter.close = half if point == "half of a file" else unnamed


def test_a_job_killed_at_every_point_ends_with_the_same_bytes(runs, pictures, tmp_path):
    def call(shard, point, out):
        def action():
            if point:
                arrange(point)
            return job("tag", runs, pictures, out, f"--shard={shard}", f"--sidecars={out}-texts")

        return in_child(action)

    for number in (1, 2):
        assert call(f"{number}/2", None, tmp_path / "alone") == 0
    killed = tmp_path / "killed"
    for round_, point in enumerate((*POINTS, "after a part")):
        assert call(f"{1 + round_ % 2}/2", point, killed) == signal.SIGKILL
    assert len(contents(killed)) < len(contents(tmp_path / "alone"))
    for number in (2, 1):
        assert call(f"{number}/2", None, killed) == 0
    assert contents(killed) == contents(tmp_path / "alone")
    one, other = (
        {path.relative_to(base): path.read_bytes() for path in base.rglob("*.txt")}
        for base in (tmp_path / "alone-texts", tmp_path / "killed-texts")
    )
    assert one == other
    assert len(one) == 23


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_signal_ends_a_job_with_the_way_on(runs, pictures, tmp_path, capfd, name):
    number = getattr(signal, name)

    def action():
        write_part = parts.write_part

        def then_signal(folder, own, part, table):
            write_part(folder, own, part, table)
            # terminals and clusters send it to all processes, in any order; torch looks at who sends it
            workers = " ".join(str(worker.pid) for worker in multiprocessing.active_children())
            assert workers
            subprocess.run(["sh", "-c", f"kill -{number} {workers}"], check=True)
            time.sleep(0.5)
            os.kill(os.getpid(), number)
            time.sleep(5)

        engine.write_part = then_signal
        return job("caption", runs, pictures, tmp_path / "job", "--workers=1")

    status = in_child(action)
    error = capfd.readouterr().err
    assert os.WIFEXITED(status)
    assert os.WEXITSTATUS(status) == 128 + number
    assert re.fullmatch(
        rf"interrupted by {name}: \d+ of 23 images are in .*; go on with python cli\.py caption .*\n", error
    )
    assert error.startswith(f"interrupted by {name}: 4 of 23 images")
    assert sorted(contents(tmp_path / "job")) == ["job.json", "part-000000.parquet"]
