"""The line of a run fits into narrow terminals and loses nothing that matters; machines get JSON."""

import json
import re
import sys

import pytest
from rich.progress import Task

import cli
from callbacks.progress import ProgressBar, TrainingClock
from core import terminal
from core.text import divert, say, say_record
from tests.conftest import ROOT

FIGURES = {"loss": 12.345, "CIDEr-D": 0.512, "left": 45296}
EVERY = ["--trainer.check_val_every_n_epoch=1"]
FAST = ["--wandb=off", "--data.init_args.num_train=24", "--data.init_args.num_val=12", "--data.init_args.num_test=12"]


class Trainer:
    """What the bar asks of a trainer."""

    class state:  # noqa: N801 - Lightning's name
        fn = "fit"


@pytest.fixture
def line(monkeypatch):
    """Draws the line of a training task for a width."""
    bar = ProgressBar()
    bar.train_progress_bar_id = 0
    bar._figures = {"metrics": {"loss": 12.345, "CIDEr-D": 0.512}, "left": 45296}
    monkeypatch.setattr(TrainingClock, "rate", 12.34)
    (column,) = bar.configure_columns(Trainer())
    task = Task(0, "Epoch 12/100", 12345, 3000, _get_time=lambda: 0.0)

    def draw(width):
        monkeypatch.setenv("COLUMNS", str(width))
        monkeypatch.setattr(terminal, "get_console", lambda: terminal.Console(width=width))
        return column.render(task).plain

    return draw


@pytest.mark.parametrize("width", [200, 120, 80, 72, 60, 50])
def test_nothing_is_cut(line, width):
    text = line(width)
    assert len(text) < width
    assert all(part in text for part in ("12:34:56 left", "12.34/s", "loss 12.345", "CIDEr-D 0.512"))


def test_what_matters_least_goes_first(line):
    assert "━" in line(100)
    assert "━" not in line(72)
    assert all(part in line(80) for part in ("Epoch 12/100", "3000/12345"))
    assert "3000/12345" not in line(68)
    assert "Epoch 12/100" in line(68)


def test_numbers_that_are_none_are_null_and_a_record_is_one_line(capsys):
    say_record({"loss": float("nan"), "metrics": {"a": float("inf"), "b": "x\ny"}})
    text = capsys.readouterr().out
    assert text.count("\n") == 1
    assert json.loads(text) == {"loss": None, "metrics": {"a": None, "b": "x\ny"}}


@pytest.mark.parametrize("records", [True, False])
def test_standard_output_is_free_for_records(capsys, records):
    before = sys.stdout
    with divert(records=records):
        say("a remark")
        say("a warning", err=True)
        if records:
            say_record({"step": 1})
    assert sys.stdout is before
    shown = capsys.readouterr()
    assert shown.out == ('{"step": 1}\n' if records else "")
    assert shown.err == ("a remark\na warning\n" if records else "a warning\n")


@pytest.fixture(scope="module")
def lines(tmp_path_factory):
    """What a training run and a test print with --json_lines."""
    folder = tmp_path_factory.mktemp("json")
    config = ROOT / "experiments" / "offline" / "dual_transfer.yaml"
    shown = []
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        patch.setenv("CAPTION_CACHE", str(folder / "cache"))
        for words in (
            ["fit", f"--config={config}", f"--run_dir={folder / 'run'}", "--trainer.max_epochs=2", *EVERY, *FAST],
            ["test", f"--ckpt_path={folder / 'run'}"],
        ):
            capture = pytest.MonkeyPatch()
            out = (folder / "out").open("w+")
            capture.setattr(sys, "stdout", out)
            more = ["--trainer.log_every_n_steps=1"] if words[0] == "fit" else []
            assert cli.main([*words, *more, "--json_lines=true"]) == 0
            capture.undo()
            out.seek(0)
            shown.append(out.read().splitlines())
    return shown


def test_every_line_of_standard_output_is_a_json_object(lines):
    fit, test = ([json.loads(line) for line in part] for part in lines)
    assert [row["event"] for row in fit if row["event"] != "train"] == ["val", "val", "end"]
    assert [row["event"] for row in test] == ["test", "end"]
    steps = [row for row in fit if row["event"] == "train"]
    assert [row["step"] for row in steps] == list(range(1, len(steps) + 1))
    for row in steps:
        assert row.keys() == {"event", "step", "epoch", "loss", "metrics", "rate", "remaining"}
        assert row["loss"] > 0
        assert row["remaining"] >= 0
    assert steps[-1]["remaining"] == 0
    assert "cider_d" in steps[-1]["metrics"]
    assert {"cider_d", "bleu4"} <= next(row for row in fit if row["event"] == "val")["metrics"].keys()
    assert fit[-1]["run"].endswith("run")


def test_quiet_says_where_the_run_is_and_no_more(capfd, monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    config = ROOT / "experiments" / "offline" / "dual_transfer.yaml"
    words = ["fit", f"--config={config}", f"--run_dir={tmp_path / 'run'}", "--trainer.max_steps=1", "--quiet=true"]
    assert cli.main([*words, *FAST]) == 0
    shown = capfd.readouterr()
    assert shown.out == f"run folder: {tmp_path / 'run'}\n"
    assert not re.search(r"[\x1b\r]", shown.err)
