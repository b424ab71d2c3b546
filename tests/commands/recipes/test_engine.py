"""Stages of a recipe: what is up to date is skipped, what changed runs again, what broke resumes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from lightning import Callback

import cli
from commands import stage_state
from commands.recipes import engine
from tests.commands.recipes.fakes import ALL, RECIPE, error_of, recipe, rewrite
from tests.conftest import ROOT
from tests.tiny import make_config, make_folder


def test_runs_once_in_order_and_then_nothing(stages, capsys):
    assert recipe(stages) == ALL
    assert stages.words[0] == [
        "fit",
        "--config",
        "teacher.yaml",
        "--model.lr=0.1",
        "--wandb=off",
        "--run_dir",
        "runs/seed-1/teacher",
    ]
    assert stages.words[3][3] == "--model.init_from=runs/seed-1/teacher"
    capsys.readouterr()
    assert recipe(stages) == []
    out = capsys.readouterr().out
    assert out.count("skipped: nothing that it depends on changed since") == len(ALL)
    assert "constant caption" in out


@pytest.mark.parametrize(
    ("change", "again", "reason"),
    [
        (rewrite("other.yaml", "model: {name: new}\n"), ["other"], "other.yaml changed"),
        (rewrite("student.yaml", "model: {name: new}\n"), ["student", "test"], "student.yaml changed"),
        (rewrite("data/student.csv", "new"), ["student", "test"], "data/student.csv changed"),
        (rewrite("extra.csv", "c,d\n"), ["labels", "student", "test"], "extra.csv changed"),
        (rewrite("teacher.yaml", "{}"), ["teacher", "labels", "student", "test"], "'teacher' ran again"),
        (rewrite("r.yaml", RECIPE.replace("0.1", "0.2")), ["teacher", "labels", "student", "test"], "lr=0.1' became"),
        (rewrite("runs/seed-1/student/checkpoints/last.ckpt", "x"), ["test"], "last.ckpt changed"),
        (lambda: Path("runs/seed-1/test/metrics.json").unlink(), ["test"], "its output 'metrics.json' is gone"),
        (rewrite("teacher.yaml", "model: {name: teacher}\ndata: {root: data/teacher.csv}  # new\n"), [], "skipped"),
        (rewrite("r.yaml", RECIPE.replace("--wandb=off", "--wandb online")), [], "skipped"),
        (lambda: os.utime("extra.csv"), [], "skipped"),
    ],
)
def test_a_changed_input_runs_exactly_what_depends_on_it(stages, capsys, change, again, reason):
    recipe(stages)
    change()
    capsys.readouterr()
    assert recipe(stages, "--dry-run") == []
    planned = [line.split()[1] for line in capsys.readouterr().out.splitlines() if "would run" in line.split(":")[0]]
    assert planned == again
    assert recipe(stages) == again
    assert reason in capsys.readouterr().out
    assert recipe(stages) == []


def test_input_edited_while_the_stage_runs_counts_as_changed(stages, monkeypatch):
    def edits(words, log, **options):
        Path("other.yaml").write_text("model: {name: while it ran}\n")
        return stages(words, log, **options)

    monkeypatch.setattr(engine, "StageProcess", edits)
    recipe(stages, "--stages", "other")
    monkeypatch.setattr(engine, "StageProcess", stages)
    assert recipe(stages, "--stages", "other") == ["other"]


def test_nothing_is_overwritten(stages):
    recipe(stages)
    first = Path("runs/seed-1/other/checkpoints/last.ckpt").read_text()
    for number in (1, 2):
        assert recipe(stages, "--force", "other") == ["other"]
        assert (Path("runs/seed-1") / f"other.old-{number}" / "stage.json").is_file()
    assert Path("runs/seed-1/other.old-1/checkpoints/last.ckpt").read_text() == first


def test_failed_stage_stops_the_recipe_and_goes_on_after_mending(stages, capsys):
    stages.codes["labels"] = 3
    message = error_of(capsys)
    assert "stage 'labels' failed (exit code 3): its output is in" in message  # why has been shown already
    assert "resume with: python cli.py recipe r.yaml --run-dir runs" in message
    assert stages.ran == ["teacher", "other", "labels"]
    stages.codes.clear()
    assert recipe(stages) == ["labels", "student", "test"]


def test_of_stages_at_a_time_the_reason_is_told(stages, capsys):
    stages.codes["labels"] = 3
    assert "stage 'labels' failed (exit code 3: it is broken)" in error_of(capsys, "--jobs", "2")


@pytest.mark.parametrize("status", ["running", "failed", "interrupted"])
def test_broken_fit_goes_on_from_its_checkpoint(stages, status):
    recipe(stages)
    state = stage_state.read_state(Path("runs/seed-1/student"))
    stage_state.write_state(Path("runs/seed-1/student"), {**state, "status": status})
    assert recipe(stages) == ["student", "test"]  # its checkpoint is another one now
    assert stages.words[0] == ["resume", "runs/seed-1/student"]
    stage_state.write_state(Path("runs/seed-1/student"), {**state, "status": status})
    Path("student.yaml").write_text("model: {name: mended}\n")
    assert recipe(stages) == ["student", "test"]
    assert stages.words[0][0] == "fit"  # from its beginning: it would be another experiment
    assert Path("runs/seed-1/student.old-1").is_dir()


@pytest.mark.parametrize("key", ["resumes", "goes_on"])  # the name of the version before is read
@pytest.mark.parametrize(("resumes", "kept"), [("true", False), ("false", True)])
def test_other_commands_resume_when_the_recipe_says_so(stages, key, resumes, kept):
    text = RECIPE.replace("inputs: [extra.csv]", f"{key}: {resumes}")
    Path("r.yaml").write_text(text)
    recipe(stages)
    state = stage_state.read_state(Path("runs/seed-1/labels"))
    stage_state.write_state(Path("runs/seed-1/labels"), {**state, "status": "running"})
    recipe(stages, "--stages", "labels")
    assert stages.ran == ["labels"]
    assert Path("runs/seed-1/labels.old-1").exists() == kept


def test_stage_that_does_not_write_its_output_fails(stages, capsys):
    Path("r.yaml").write_text(RECIPE.replace("inputs: [extra.csv]", "outputs: [rows.parquet]"))
    assert "did not write 'rows.parquet'" in error_of(capsys)


def test_recipe_folder_may_be_moved(stages):
    recipe(stages)
    Path("runs").rename("moved")
    stages.ran.clear()
    assert cli.main(["recipe", "r.yaml", "--run-dir", "moved"]) == 0
    assert stages.ran == []


@pytest.mark.usefixtures("quick")
def test_stages_run_at_the_same_time_once_their_needs_are_done(stages, monkeypatch, capsys):
    monkeypatch.setattr(engine, "cores", lambda: 8)
    stages.looks = {"other": 50, "teacher": 3}
    assert recipe(stages, "--jobs", "2") == ALL
    assert stages.together == [
        {"teacher"},
        {"teacher", "other"},
        {"labels", "other"},
        {"student", "other"},
        {"test", "other"},
    ]
    assert stages.threads == [4] * 5
    assert {stage_state.read_state(Path("runs/seed-1") / name)["status"] for name in ALL} == {"done"}
    assert recipe(stages, "--jobs", "2") == []
    assert "error: --jobs 0: expected 1 or more" in error_of(capsys, "--jobs", "0")


@pytest.mark.usefixtures("quick")
def test_failure_lets_the_others_that_run_end_and_starts_no_more(stages, capsys):
    stages.codes, stages.looks = {"teacher": 1, "other": 2}, {"other": 20}
    assert cli.main(["recipe", "r.yaml", "--run_dir", "runs", "--jobs", "3"]) == 1
    said, message = capsys.readouterr()
    assert "stage 'teacher' failed" in said, "one hears of it while the others still run"
    assert said.index("stage 'teacher' failed") < said.index("waiting for 'other'")
    assert "stage 'teacher' failed" in message
    assert "also: stage 'other' failed" in message
    assert message.strip().endswith("python cli.py recipe r.yaml --run-dir runs --jobs 3")
    assert stages.ran == ["teacher", "other"]
    assert stage_state.read_state(Path("runs/seed-1/other"))["status"] == "failed"
    stages.codes, stages.looks = {"teacher": 1}, {"other": 20}
    error_of(capsys, "--jobs", "3")
    assert stage_state.read_state(Path("runs/seed-1/other"))["status"] == "done"
    stages.codes = {}
    assert recipe(stages, "--jobs", "3") == ["teacher", "labels", "student", "test"]


class KillRecipe(Callback):
    """Kills the process of the recipe, as a power cut would, in the middle of a stage."""

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        """After as many batches as KILL_RECIPE_AFTER says; the stage itself must not live on."""
        limit = os.environ.get("KILL_RECIPE_AFTER")
        if limit and trainer.fit_loop.epoch_loop.total_batch_idx + 1 >= int(limit):
            os.kill(os.getppid(), signal.SIGKILL)
            time.sleep(30)
            Path(os.environ["KILL_RECIPE_ALIVE"]).touch()


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux: elsewhere a stage outlives a killed recipe")
def test_killed_recipe_ends_with_the_same_bits(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    config = make_config(tmp_path / "tiny.yaml", make_folder(tmp_path / "data"))
    config.write_text(
        config.read_text().replace("tests.tiny.KillAfter", "tests.commands.recipes.test_engine.KillRecipe")
    )
    alone, runs = tmp_path / "alone", tmp_path / "runs"
    assert cli.main(["fit", "--config", str(config), "--run_dir", str(alone), "--wandb=off"]) == 0
    words = ["fit", "--config", str(config), "--wandb=off", "--checkpoint_steps=2"]
    (tmp_path / "r.yaml").write_text(json.dumps({"stages": {"model": {"command": words}}}))
    command = ["recipe", str(tmp_path / "r.yaml"), "--run_dir", str(runs), "--trust"]  # the callback is a test's
    environment = {**os.environ, "KILL_RECIPE_AFTER": "10", "KILL_RECIPE_ALIVE": str(tmp_path / "alive")}
    killed = subprocess.run([sys.executable, "cli.py", *command], env=environment, capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert stage_state.read_state(runs / "model")["status"] == "running"
    assert cli.main(command) == 0
    assert not (tmp_path / "alive").exists()
    log = (runs / "model" / "stage.log").read_text()
    assert "python cli.py resume" in log
    assert "resumed at step 8" in log
    one, other = (torch.load(run / "checkpoints" / "last.ckpt", weights_only=True) for run in (alone, runs / "model"))
    assert one["global_step"] == other["global_step"]
    assert all(torch.equal(tensor, other["state_dict"][name]) for name, tensor in one["state_dict"].items())
    assert (alone / "predictions.json").read_bytes() == (runs / "model" / "predictions.json").read_bytes()
