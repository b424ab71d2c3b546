"""Stages and trials are runs of their own in W&B, whatever process starts them."""

import json
import os
from pathlib import Path
from unittest.mock import MagicMock

import pytest
import yaml

import cli
from commands.recipes import process
from reporting.dashboards import WandbRun

PARENT = {
    **dict.fromkeys(("WANDB_RUN_ID", "WANDB_NAME", "WANDB_SWEEP_ID", "WANDB_SWEEP_PARAM_PATH"), "of-the-parent"),
    **dict.fromkeys(("WANDB_NOTES", "WANDB_RUN_DIR", "WANDB_RUN_STORAGE_ID", "CAPTION_RUN_DIR"), "of-the-parent"),
    "WANDB_RESUME": "must",
    "WANDB_SERVICE": "3-1-unix-of-the-parent",
}
"""What a run that is open, or an agent of a sweep, has in its environment."""
KEPT = {"WANDB_PROJECT": "mine", "WANDB_ENTITY": "me", "WANDB_MODE": "offline", "WANDB_DATA_DIR": "given"}
"""What is meant for all runs."""
PROGRAM = """
import json, os, sys
from pathlib import Path
words = " ".join(sys.argv).replace("=", " ").split()
run = Path(words[words.index("--run_dir") + 1])
(run / "checkpoints").mkdir(parents=True, exist_ok=True)
(run / "checkpoints" / "last.ckpt").write_text("")
(run / "config.yaml").write_text("{}")
(run / "metrics.csv").write_text("step,val/score\\n0,1.0\\n")
(run / "environment.json").write_text(json.dumps(dict(os.environ)))
"""


@pytest.fixture
def program(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("program.py").write_text(PROGRAM)
    Path("a.yaml").write_text("model: {}\n")
    monkeypatch.setattr(process, "_PROGRAM", tmp_path / "program.py")
    for name, value in {**PARENT, **KEPT}.items():
        monkeypatch.setenv(name, value)


def check(path, **more):
    found = json.loads(path.read_text())
    assert not PARENT.keys() & found.keys()
    assert {name: found[name] for name in (*KEPT, *more)} == {**KEPT, **more}


def test_a_stage_takes_over_no_run_of_its_parent(program):
    Path("r.yaml").write_text("stages: {one: {command: fit --config a.yaml}, two: {command: fit --config a.yaml}}")
    assert cli.main(["recipe", "r.yaml", "--run_dir", "runs"]) == 0
    for name in ("one", "two"):
        check(Path(f"runs/{name}/environment.json"), WANDB_RUN_GROUP="r", WANDB_JOB_TYPE=name)


def test_a_trial_takes_over_no_run_of_its_parent(program):
    content = {
        "program": "cli.py",
        "command": ["${program}", "fit", "--config", "a.yaml", "${args}"],
        "method": "random",
        "metric": {"name": "val/score", "goal": "maximize"},
        "parameters": {"x": {"min": 0, "max": 9}},
    }
    Path("s.yaml").write_text(yaml.safe_dump(content))
    assert cli.main(["sweep", "s.yaml", "--out", "out", "--trials=2"]) == 0
    for number in range(2):
        check(Path(f"out/trials/{number:04d}/environment.json"))


@pytest.mark.parametrize("given", [None, "given"])
def test_a_run_leaves_its_own_folder_and_mode_to_no_other_one(tmp_path, monkeypatch, given):
    """In the same process, or in one that it starts."""
    monkeypatch.setattr("lightning.pytorch.loggers.WandbLogger.experiment", property(_begun))
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.delenv("WANDB_DATA_DIR", raising=False)
    if given:
        monkeypatch.setenv("WANDB_DATA_DIR", given)
    for name in ("one", "two"):
        run = WandbRun(settings={}, save_dir=tmp_path / name, offline=name == "one")
        assert run._wandb_init["mode"] == ("offline" if name == "one" else "online")
        run.experiment  # noqa: B018  # begins it
        assert os.environ["WANDB_MODE"] == "online"
        assert os.environ["WANDB_DATA_DIR"] == (given or str(tmp_path / name / "wandb" / "data"))


def _begun(logger):
    os.environ["WANDB_MODE"] = "dryrun"  # as Lightning does
    return MagicMock()
