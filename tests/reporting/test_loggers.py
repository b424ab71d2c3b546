"""metrics.csv keeps what a resumed run had written, without rows twice; W&B never asks."""

import csv
import json

import pytest
import wandb

from core.errors import UserError
from reporting.background import Background
from reporting.loggers import CSVFile, Dashboards, make_loggers, own_wandb_run, wandb_account_configured


def rows(path):
    with path.open(newline="") as file:
        return [{key: value for key, value in row.items() if value != ""} for row in csv.DictReader(file)]


def test_rows_and_late_columns(tmp_path):
    logger = CSVFile(tmp_path, flush_every=2)
    for step in range(5):
        logger.log_metrics({"train/loss": step / 2}, step)
    logger.log_metrics({"val/loss": 7.0}, 4)
    logger.finalize("success")
    written = rows(tmp_path / "metrics.csv")
    assert [row["step"] for row in written] == ["0", "1", "2", "3", "4", "4"]
    assert written[1]["train/loss"] == "0.5"
    assert written[-1] == {"step": "4", "val/loss": "7.0"}


def test_resumed_run_continues_the_file(tmp_path):
    killed = CSVFile(tmp_path, flush_every=1)
    for step in range(6):
        killed.log_metrics({"a": step}, step)
    resumed = CSVFile(tmp_path, flush_every=1)
    resumed.resume_at(4)
    for step in range(4, 7):
        resumed.log_metrics({"a": 10 * step, "b": 1.0}, step)
    written = rows(tmp_path / "metrics.csv")
    assert [row["step"] for row in written] == ["0", "1", "2", "3", "4", "5", "6"]
    assert [float(row["a"]) for row in written] == [0, 1, 2, 3, 40, 50, 60]


def test_a_resumed_run_settles_its_rows_at_once(tmp_path):
    killed = CSVFile(tmp_path)
    for step in range(3):
        killed.log_metrics({"a": step}, step)
    CSVFile(tmp_path).resume_at(2, (1, {"a": 1.0, "epoch": 0.0}))
    assert [row["step"] for row in rows(tmp_path / "metrics.csv")] == ["0", "1", "1"], (
        "a row with other figures is another"
    )
    CSVFile(tmp_path).resume_at(2, (1, {"a": 1.0}))
    assert [row["step"] for row in rows(tmp_path / "metrics.csv")] == ["0", "1", "1"]


def test_columns_that_could_not_be_written_are_not_taken_for_written(tmp_path, monkeypatch):
    logger = CSVFile(tmp_path)
    logger.log_metrics({"a": 1.0}, 0)
    with monkeypatch.context() as patch:
        patch.setattr("reporting.loggers.replacing", raising)
        with pytest.raises(UserError, match="cannot be written"):
            logger.log_metrics({"b": 2.0}, 1)
    logger.finalize("failed")
    assert rows(tmp_path / "metrics.csv") == [{"step": "0", "a": "1.0"}, {"step": "1", "b": "2.0"}]


def raising(*_, **__):
    raise PermissionError(13, "Permission denied")


def test_a_signal_inside_a_write_leaves_no_row_or_a_whole_one(tmp_path, monkeypatch):
    logger = CSVFile(tmp_path)
    for step in range(2):
        logger.log_metrics({"a": step + 0.25}, step)
    before = (tmp_path / "metrics.csv").read_bytes()

    class Stopping:
        def __init__(self, file, *_, **__):
            self.file = file

        def writerows(self, _):
            self.file.write("2,2.")
            self.file.flush()
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("csv.DictWriter", Stopping)
        with pytest.raises(KeyboardInterrupt):
            logger.log_metrics({"a": 2.25}, 2)
    assert (tmp_path / "metrics.csv").read_bytes() == before


def test_half_a_row_does_not_count(tmp_path):
    killed = CSVFile(tmp_path)
    for step in range(2):
        killed.log_metrics({"a": step + 0.25}, step)
    file = tmp_path / "metrics.csv"
    file.write_bytes(file.read_bytes()[:-3])  # "1,1.2"
    resumed = CSVFile(tmp_path)
    resumed.resume_at(2, (1, {"a": 1.25}))
    resumed.log_metrics({"a": 2.25}, 2)
    assert [row["a"] for row in rows(file)] == ["0.25", "1.25", "2.25"]


def test_a_row_that_only_the_checkpoint_has_makes_the_file(tmp_path):
    CSVFile(tmp_path).resume_at(1, (0, {"a": 1.0}))
    assert rows(tmp_path / "metrics.csv") == [{"step": "0", "a": "1.0"}]
    begins_again = CSVFile(tmp_path)
    begins_again.resume_at(0)
    begins_again.log_metrics({"a": 2.0}, 0)
    assert rows(tmp_path / "metrics.csv") == [{"step": "0", "a": "2.0"}]


@pytest.fixture
def no_account(monkeypatch, tmp_path):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))


@pytest.mark.usefixtures("no_account")
def test_account_is_found_in_environment_and_netrc(monkeypatch, tmp_path):
    assert not wandb_account_configured()
    (tmp_path / "netrc").write_text("machine api.wandb.ai login user password " + "0" * 40 + "\n")
    assert wandb_account_configured()
    (tmp_path / "netrc").unlink()
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    assert wandb_account_configured()


@pytest.mark.usefixtures("no_account")
def test_wandb_is_offline_without_account_and_keeps_its_run_id(tmp_path):
    run = tmp_path / "runs" / "x" / "1"
    first = make_loggers(run)
    assert all(isinstance(logger, Background) for logger in first[1:])
    assert not run.exists()
    run.mkdir(parents=True)
    (run / "run.json").write_text(json.dumps({"wandb_id": first[1].version}))
    again = make_loggers(run)
    assert first[1].inner._offline
    assert first[1].version == again[1].version
    others = make_loggers(run, Dashboards(wandb="off", tensorboard=True))
    assert [type(getattr(logger, "inner", logger)).__name__ for logger in others] == ["CSVFile", "TensorBoardLogger"]


@pytest.mark.usefixtures("no_account")
def test_two_runs_of_one_process_have_a_wandb_run_each(tmp_path):
    ids = []
    for name in ("1", "2"):
        with own_wandb_run():
            logger = make_loggers(tmp_path / name)[1].inner
            ids.append(logger.experiment.id)
        assert wandb.run is None
        assert list((tmp_path / name / "wandb").glob(f"offline-run-*-{ids[-1]}"))
    assert ids[0] != ids[1]


@pytest.mark.usefixtures("no_account")
def test_the_callers_own_wandb_run_stays_open(tmp_path):
    own = wandb.init(mode="disabled", dir=tmp_path)
    try:
        with own_wandb_run():
            assert make_loggers(tmp_path / "1")[1].inner.experiment is own
        assert wandb.run is own
    finally:
        own.finish()
