"""Where a run is written."""

import os
import signal
import subprocess

import pytest

from commands.trainer import runs
from commands.trainer.runs import locate
from core.errors import Interrupted


def test_rank_left_behind_does_not_change_the_folder(monkeypatch, tmp_path):
    """Lightning leaves LOCAL_RANK in a process after a strategy that could have started others."""
    first, second = tmp_path / "first", tmp_path / "second"
    locate("fit", str(first), None, [])
    for rank in ("0", "1"):
        monkeypatch.setenv("LOCAL_RANK", rank)
        assert locate("fit", str(second), None, [])[0] == second


def test_started_process_takes_the_folder_of_its_starter(monkeypatch, tmp_path):
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("CAPTION_RUN_DIR", f"{os.getppid()}:{tmp_path / 'run'}")
    assert locate("fit", None, None, ["experiments/x.yaml"])[0] == tmp_path / "run"


def test_what_a_killed_process_left_half_written_goes(tmp_path):
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    left = [run / "metrics.csv.tmp123", run / "checkpoints" / "last.ckpt.tmp9"]
    kept = [run / "notes.tmp", run / "checkpoints" / "last.ckpt"]
    for path in (*left, *kept):
        path.touch()
    locate("fit", str(run), str(run / "checkpoints" / "last.ckpt"), [])
    assert [path.exists() for path in (*left, *kept)] == [False, False, True, True]


@pytest.mark.parametrize("name", ["RANK", "SLURM_PROCID", "NODE_RANK"])
def test_only_the_first_of_several_processes_makes_folders(monkeypatch, tmp_path, name):
    (run := tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (run / "best.ckpt").touch()
    for rank in ("1", "0"):
        monkeypatch.setenv(name, rank)
        assert locate("validate", None, str(run.parent), [])[0] == run.parent / "eval" / "validate"
        assert (run.parent / "eval" / "validate").exists() == (rank == "0")


def test_only_the_first_of_several_processes_queues_the_job_again(monkeypatch):
    calls = []
    done = subprocess.CompletedProcess([], 0)
    monkeypatch.setattr(runs.subprocess, "run", lambda words, **_: calls.append(words) or done)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    for rank in ("1", "0"):
        monkeypatch.setenv("SLURM_PROCID", rank)
        stop = runs.interrupted(Interrupted(signal.SIGUSR1, message="saved at step 3"))
        assert ("queued again" in str(stop)) == (rank == "0")
    assert calls == [["scontrol", "requeue", "7"]]
