"""A search finds the best setting, stops bad trials, and a killed one resumes with nothing lost."""

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import ClassVar

import optuna
import pytest
import yaml
from optuna.trial import TrialState

import cli
from commands.recipes.process import locked
from commands.sweeps import runner
from commands.sweeps.document import read_sweep
from commands.sweeps.study import importances, open_study, suggest
from tests.tiny import make_config, make_folder

ROOT = Path(__file__).parents[3]


class FakeProcess:
    """A trial that logs a value a call: the nearer x is to 3, the better."""

    fails = ()
    started: ClassVar[list] = []

    def __init__(self, words, log, *, lock, shown, threads):
        del lock, shown, threads
        self.words, self.log = words, log
        options = dict(word[2:].split("=", 1) for word in words if word.startswith("--") and "=" in word)
        self.run = Path(options.get("run_dir") or words[1])
        self.x = float(options["x"]) if "x" in options else 0.0
        self.values, self.code = [], None
        FakeProcess.started.append(list(words))

    def poll(self):
        if self.code is not None:
            return self.code
        self.run.mkdir(parents=True, exist_ok=True)
        if self.x in FakeProcess.fails:
            self.log.write_text("error: it does not work\n")
            self.code = 1
            return self.code
        self.values.append(-abs(self.x - 3) + len(self.values) / 100)
        rows = [f"{step},{value}" for step, value in enumerate(self.values)]
        (self.run / "metrics.csv").write_text("\n".join(["step,val/score", *rows]) + "\n")
        os.utime(self.run / "metrics.csv", (len(self.values), len(self.values)))
        self.code = 0 if len(self.values) == 4 else None
        return self.code

    def interrupt(self):
        self.code = 130

    def kill(self):
        pass


@pytest.fixture
def fake(monkeypatch):
    monkeypatch.setattr(runner, "StageProcess", FakeProcess)
    monkeypatch.setattr(runner, "_POLL", 0)
    monkeypatch.setattr(FakeProcess, "fails", ())
    monkeypatch.setattr(FakeProcess, "started", [])
    return FakeProcess


def write(tmp_path, **changes):
    content = {
        "program": "cli.py",
        "command": ["${program}", "fit", "--config", "a.yaml", "${args}"],
        "method": "bayes",
        "metric": {"name": "val/score", "goal": "maximize"},
        "parameters": {"x": {"min": 0, "max": 9}},
        **changes,
    }
    path = tmp_path / "s.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def rows_of(out):
    with (out / "sweep.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_best_setting_is_found_and_bad_trials_are_stopped(tmp_path, fake, capsys):
    path = write(tmp_path, early_terminate={"type": "hyperband", "min_iter": 1, "eta": 3})
    out = tmp_path / "out"
    assert cli.main(["sweep", str(path), "--out", str(out), "--trials=10", "--jobs=2"]) == 0
    rows = rows_of(out)
    assert len(rows) == 10
    assert rows[0]["x"] == "3"
    assert float(rows[0]["val/score"]) == pytest.approx(0.03)  # the best of its validations
    assert {row["state"] for row in rows} == {"finished", "stopped early"}
    page = (out / "sweep.html").read_text()
    assert "--x=3" in page
    assert "http" not in page.split("</style>")[1].replace("data:image", "")
    assert "best of 10 trials" in capsys.readouterr().out


def test_the_same_call_runs_what_is_missing(tmp_path, fake):
    path, out = write(tmp_path), tmp_path / "out"
    assert cli.main(["sweep", str(path), "--out", str(out), "--trials=3"]) == 0
    before = {row["trial"]: row for row in rows_of(out)}
    assert cli.main(["sweep", str(path), "--out", str(out), "--trials=3"]) == 0
    assert len(fake.started) == 3
    assert cli.main(["sweep", str(path), "--out", str(out), "--trials=5"]) == 0
    assert len(fake.started) == 5
    after = {row["trial"]: row for row in rows_of(out)}
    assert {trial: after[trial] for trial in before} == before


def test_a_trial_that_was_cut_off_is_resumed(tmp_path, fake):
    path, out = write(tmp_path), tmp_path / "out"
    out.mkdir()
    sweep = read_sweep(path)
    study = open_study(sweep, out, 0)
    trial = study.ask()
    settings = suggest(sweep, trial)
    trial.report(0.5, 1)
    run = out / "trials" / "0000"
    run.mkdir(parents=True)
    (run / "config.yaml").write_text("{}")
    assert cli.main(["sweep", str(path), "--out", str(out), "--trials=2"]) == 0
    assert fake.started[0] == ["resume", str(run)]
    assert len(fake.started) == 2
    rows = {row["trial"]: row for row in rows_of(out)}
    assert rows["0"]["x"] == str(settings["x"])
    assert {row["state"] for row in rows.values()} == {"finished"}


def test_a_grid_runs_each_combination_once(tmp_path, fake):
    path = write(tmp_path, method="grid", parameters={"x": {"values": [1, 2, 3]}, "y": {"values": ["a", "b"]}})
    assert cli.main(["sweep", str(path), "--out", str(tmp_path / "out"), "--trials=50", "--jobs=3"]) == 0
    found = sorted((row["x"], row["y"]) for row in rows_of(tmp_path / "out"))
    assert found == [(x, y) for x in "123" for y in "ab"]


def test_trials_that_fail_are_rows_and_the_search_goes_on(tmp_path, fake, monkeypatch, capsys):
    monkeypatch.setattr(fake, "fails", (1.0,))
    path = write(tmp_path, method="grid", parameters={"x": {"values": [1, 2, 3]}})
    assert cli.main(["sweep", str(path), "--out", str(tmp_path / "out")]) == 0
    assert {row["x"]: row["state"] for row in rows_of(tmp_path / "out")} == {
        "1": "failed",
        "2": "finished",
        "3": "finished",
    }
    assert "failed, error: it does not work" in capsys.readouterr().err
    assert "it does not work" in (tmp_path / "out" / "sweep.html").read_text()


def test_a_search_whose_first_trials_all_fail_ends(tmp_path, fake, monkeypatch, capsys):
    monkeypatch.setattr(fake, "fails", tuple(float(x) for x in range(10)))
    assert cli.main(["sweep", str(write(tmp_path)), "--out", str(tmp_path / "out")]) == 1
    assert len(fake.started) == 3
    assert "all 3 trials failed; the last one said: error: it does not work" in capsys.readouterr().err


def test_a_metric_that_is_not_logged_ends_the_search(tmp_path, fake, capsys):
    path = write(tmp_path, metric={"name": "val/cider", "goal": "maximize"})
    assert cli.main(["sweep", str(path), "--out", str(tmp_path / "out")]) == 1
    assert "trial 0 logged no metric 'val/cider': expected one of val/score" in capsys.readouterr().err


def test_another_sweep_may_not_use_the_folder(tmp_path, fake, capsys):
    out = tmp_path / "out"
    assert cli.main(["sweep", str(write(tmp_path)), "--out", str(out), "--trials=1"]) == 0
    other = write(tmp_path, parameters={"x": {"min": 0, "max": 5}})
    assert cli.main(["sweep", str(other), "--out", str(out), "--trials=1"]) == 1
    assert "is the study of another sweep than the file describes now" in capsys.readouterr().err
    (out / "study.db").write_bytes(b"no database" * 100)
    assert cli.main(["sweep", str(other), "--out", str(out), "--trials=1"]) == 1
    assert "cannot be read as a study" in capsys.readouterr().err


def test_two_calls_do_not_share_a_folder(tmp_path, fake, monkeypatch, capsys):
    monkeypatch.setattr("commands.recipes.process._WAIT", 0.1)
    with locked(tmp_path / "out"):
        assert cli.main(["sweep", str(write(tmp_path)), "--out", str(tmp_path / "out")]) == 1
    assert "this sweep is already running" in capsys.readouterr().err


def test_importance_is_that_of_the_setting_that_matters(tmp_path):
    study = optuna.create_study()
    for number in range(30):
        trial = study.ask()
        x, _ = trial.suggest_float("x", 0, 1), trial.suggest_float("y", 0, 1)
        study.tell(trial, x if number else 0.0)
    found = importances(study)
    assert found["x"] > 0.8
    assert sum(found.values()) == pytest.approx(1)
    assert importances(optuna.create_study()) == {}


@pytest.mark.slow
def test_a_killed_search_resumes_its_runs(tmp_path):
    """Real trials: killed in the first one, the same call ends with all of them finished."""
    config = make_config(tmp_path / "config.yaml", make_folder(tmp_path / "data"), epochs=2)
    content = {
        "program": "cli.py",
        "command": ["${program}", "fit", "--config", str(config), "--wandb=off", "${args}"],
        "method": "grid",
        "metric": {"name": "val/loss", "goal": "minimize"},
        "parameters": {"model.init_args.lr": {"values": [0.001, 0.01]}},
    }
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(content))
    out = tmp_path / "out"
    command = [sys.executable, str(ROOT / "cli.py"), "sweep", str(tmp_path / "s.yaml"), "--out", str(out)]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL) as process:
        until = time.monotonic() + 120
        while not (out / "trials" / "0000" / "checkpoints" / "last.ckpt").exists() and time.monotonic() < until:
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    assert subprocess.run(command, cwd=tmp_path, check=False, capture_output=True).returncode == 0
    rows = rows_of(out)
    assert {row["state"] for row in rows} == {"finished"}
    assert sorted(row["lr"] for row in rows) == ["0.001", "0.01"]
    study = open_study(read_sweep(tmp_path / "s.yaml"), out, 0)
    assert {one.state for one in study.trials} == {TrialState.COMPLETE}
