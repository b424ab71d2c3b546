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
