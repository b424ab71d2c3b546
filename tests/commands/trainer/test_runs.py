"""Where a run is written."""

import os

from commands.trainer.runs import locate


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
