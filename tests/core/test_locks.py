"""A folder belongs to one living process."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

import core.locks
from core.errors import UserError
from core.locks import LOCK, FolderLock, is_abandoned, make_new_folder, read_owner
from tests.conftest import ROOT

HOLD = """
import sys
from pathlib import Path
import core.locks
from core.locks import LOCK, FolderLock
lock = FolderLock(Path(sys.argv[1]))
print("mine", flush=True)
sys.stdin.read()
"""

pytestmark = pytest.mark.skipif(os.name != "posix", reason="record locks are POSIX")


def holder(folder):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "mine\n"
    return process


def test_a_living_owner_is_named_and_a_dead_one_is_replaced(tmp_path):
    run = tmp_path / "run"
    with holder(run) as process:
        with pytest.raises(UserError, match=rf"in use by process {process.pid} on .* choose another --run_dir"):
            FolderLock(run)
        process.kill()
        process.wait()
        lock = FolderLock(run)
    assert read_owner(run)["pid"] == os.getpid()
    lock.release()


def test_only_what_a_dead_process_has_left_is_abandoned(tmp_path):
    run = tmp_path / "run"
    assert not is_abandoned(run)
    with holder(run) as process:
        assert not is_abandoned(run)
        process.kill()
        process.wait()
        assert is_abandoned(run)


def test_a_process_that_died_before_it_noted_itself_is_abandoned(tmp_path):
    (tmp_path / LOCK).touch()
    assert is_abandoned(tmp_path)
    FolderLock(tmp_path).release()
    assert not is_abandoned(tmp_path)


def test_a_lock_whose_file_was_removed_by_its_owner_is_taken_anew(tmp_path, monkeypatch):
    """The owner ends between the moments at which another process opens the file and locks it."""
    lock, locked = FolderLock(tmp_path), core.locks._locked
    calls = []

    def ending(file):
        calls.append(file)
        if len(calls) == 1:
            lock.release()
        return locked(file)

    monkeypatch.setattr(core.locks, "_locked", ending)
    second = FolderLock(tmp_path)
    assert len(calls) == 2
    monkeypatch.undo()
    code = subprocess.run(
        [sys.executable, "-c", HOLD, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, input=""
    )
    assert "in use by process" in code.stderr
    second.release()


def test_nothing_is_left_of_a_lock(tmp_path):
    run = tmp_path / "a" / "b"
    FolderLock(run).release()
    assert not (tmp_path / "a").exists()
    run.mkdir(parents=True)
    (run / "config.yaml").write_text("x")
    FolderLock(run).release()
    assert [file.name for file in run.iterdir()] == ["config.yaml"]


@pytest.mark.parametrize("name", ["file", "file/below"])
def test_a_folder_that_cannot_be_written(tmp_path, name):
    (tmp_path / "file").write_text("x")
    for take in (FolderLock, *([make_new_folder] if "/" in name else [])):
        with pytest.raises(UserError, match=rf"run folder '.*{name}' cannot be written \('.*file' is a file\)"):
            take(tmp_path / name)
    assert (tmp_path / "file").read_text() == "x"


def test_everybody_gets_a_folder_of_their_own(tmp_path):
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda _: make_new_folder(tmp_path / "runs" / "now")[0], range(64)))
    assert len(set(found)) == 64
    assert all(folder.is_dir() for folder in found)
