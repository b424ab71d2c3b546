"""A run is one run in W&B, however often it is resumed and evaluated; group, kind and tags are kept."""

import json

import pytest

import cli
from commands.trainer.dashboards import dashboards_of, settings_of
from tests.conftest import ROOT
from tests.wandb_records import read_board

CONFIG = {
    "seed_everything": 7,
    "trainer": {"precision": "bf16-mixed", "max_epochs": 3},
    "model": {"class_path": "lightning_modules.DualTransfer", "init_args": {"lr": 0.1}},
    "data": {"class_path": "datamodules.scenes.SceneCaptions", "init_args": {"batch_size": 4}},
    "wandb": "offline",
    "wandb_project": "p",
    "wandb_group": None,
    "wandb_tags": ["mine"],
    "tensorboard": False,
    "run_dir": "x",
}


def test_settings_are_flat_and_say_nothing_of_the_dashboards():
    found = settings_of(CONFIG, "twin")
    assert found["trainer/max_epochs"] == 3
    assert found["model/lr"] == 0.1
    assert found["data/batch_size"] == found["batch_size"] == 4
    names = ("experiment", "method", "dataset", "seed", "precision")
    assert [found[name] for name in names] == ["twin", "DualTransfer", "SceneCaptions", 7, "bf16-mixed"]
    assert not [name for name in found if name.startswith(("wandb", "run_dir"))]


def test_recipes_name_group_and_kind_and_what_a_run_notes_stays(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_RUN_GROUP", "recipe")
    monkeypatch.setenv("WANDB_JOB_TYPE", "student")
    monkeypatch.setenv("WANDB_TAGS", "recipe,student")
    found = dashboards_of(CONFIG, tmp_path, ["twin.yaml"])
    assert (found.group, found.job_type) == ("recipe", "student")
    assert found.tags == ("mine", "recipe", "student", "DualTransfer", "SceneCaptions", "seed-7")
    noted = {"group": "twin", "job_type": "fit", "tags": ["seed-7"]}
    (tmp_path / "run.json").write_text(json.dumps({"dashboard": noted}))
    found = dashboards_of(CONFIG, tmp_path, ["twin.yaml"])
    assert (found.group, found.job_type, found.tags) == ("twin", "fit", ("seed-7",)), "also for a test in a recipe"


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.delenv("WANDB_MODE")
    config = ROOT / "experiments" / "offline" / "dual_transfer.yaml"
    small = [f"--data.init_args.num_{split}={count}" for split, count in (("train", 24), ("val", 6), ("test", 6))]
    words = [f"--config={config}", f"--run_dir={tmp_path / 'run'}", "--data.init_args.batch_size=8", *small]
    limits = ["--trainer.max_epochs=1", "--trainer.check_val_every_n_epoch=1", "--trainer.log_every_n_steps=1"]
    assert cli.main(["fit", *words, *limits, "--wandb=offline", "--wandb_artifacts=all"]) == 0
    return tmp_path / "run"


def test_resume_and_test_go_on_in_the_same_run(run):
    last = f"--ckpt_path={run / 'checkpoints' / 'last.ckpt'}"
    assert cli.main(["fit", f"--config={run / 'config.yaml'}", last, "--trainer.max_epochs=2"]) == 0
    assert cli.main(["test", "--ckpt_path", str(run)]) == 0
    assert cli.main(["validate", "--ckpt_path", str(run)]) == 0
    assert len(list(run.glob("wandb/offline-run-*"))) == 4
    board = read_board(run)  # which makes sure that all of them are of one run
    steps = [row["_step"] for row in board.history]
    assert steps == sorted(steps)
    curve = dict(board.curve("train/loss"))
    assert sorted(curve) == list(range(6)), "every step once"
    assert [step for step, _ in board.curve("val/cider_d")] == [2, 5], "evaluations add no points"
    assert {"best/cider_d", "test/cider_d", "validate/cider_d", "val/cider_d"} <= board.summary.keys()
    kinds = {kind for kind, _ in board.artifacts.values()}
    assert {"model", "predictions"} <= kinds
    assert board.artifacts["best"] == ("model", ["best.ckpt"])
    assert board.goals["val/cider_d"] == ("trainer/global_step", frozenset({"max", "last"}))
    assert board.goals["val/loss"] == ("trainer/global_step", frozenset({"min", "last"}))
    assert board.config["trainer/max_epochs"] == 2
