"""A run is one run in W&B, however often it is resumed and evaluated; group, kind and tags are kept."""

import json
import os
import subprocess
import sys

import pytest
import yaml

import cli
from commands.trainer.dashboards import dashboards_of, settings_of
from datamodules.scenes import SceneCaptions
from lightning_modules import DualTransfer
from metrics.tokenize import tokenize_caption
from tests.conftest import ROOT
from tests.metrics.plain_captions import plain_rows
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


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """A run that an agent of ``wandb sweep`` has begun, in a process of its own; tested with varied captions."""
    folder = tmp_path_factory.mktemp("swept")
    run, config = folder / "run", ROOT / "experiments" / "offline" / "dual_transfer.yaml"
    settings = yaml.safe_load(config.read_text())
    settings["data"]["init_args"] |= {"num_train": 8, "num_val": 6, "num_test": 7, "batch_size": 8}
    settings["trainer"] |= {"max_epochs": 1, "check_val_every_n_epoch": 1}
    (folder / "small.yaml").write_text(json.dumps(settings))
    words = ["fit", "--config", str(folder / "small.yaml"), "--run_dir", str(run), "--wandb=offline"]
    given = {name: value for name, value in os.environ.items() if name != "WANDB_MODE"}
    agent = {"WANDB_SWEEP_ID": "sweep1", "WANDB_RUN_ID": "agentsid", "CAPTION_CACHE": str(folder / "cache")}
    line = [sys.executable, "cli.py", *words]
    done = subprocess.run(line, cwd=ROOT, env=given | agent, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

    def varied(self, batch, memory, rows, stage):
        """Captions of other images, and of the image itself."""
        texts = [(batch["references"][row][0], batch["references"][row - 1][1]) for row in rows]
        ids = [batch["image_id"][row] for row in rows]
        return {"image_id": ids, "captions": [pair[place % 2] for place, pair in enumerate(texts)]}

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        patch.delenv("WANDB_MODE")
        patch.setenv("CAPTION_CACHE", str(folder / "cache"))
        patch.setattr(DualTransfer, "_generate", varied)
        assert cli.main(["test", "--ckpt_path", str(run), "--wandb=offline"]) == 0
    return run, SceneCaptions(**settings["data"]["init_args"])


def test_a_run_of_a_sweep_has_the_id_that_the_agent_gives(swept):
    run, _ = swept
    assert json.loads((run / "run.json").read_text())["wandb_id"] == "agentsid"
    assert len(list(run.glob("wandb/offline-run-*-agentsid"))) == len(list(run.glob("wandb/offline-run-*"))) == 2
    board = read_board(run)
    assert board.run["id"] == "agentsid"
    assert {"best/cider_d", "test/cider_d"} <= board.summary.keys()


def test_scores_of_the_caption_table_are_those_of_the_predictions(swept):
    """Computed from the file by the plain implementation, with the document frequencies of the split."""
    run, data = swept
    said = {row["image_id"]: row["caption"] for row in json.loads((run / "eval/test/predictions.json").read_text())}
    references = {str(example.image_id): example.captions for example in data.examples("test")}
    scores = dict(zip(said, plain_rows(said, references, tokenize_caption)[:, -1].tolist(), strict=True))
    table = read_board(run).tables["test/caption_table"]
    rows = [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
    assert {row["image_id"]: row["caption"] for row in rows} == said
    assert {row["image_id"]: row["CIDEr-D"] for row in rows} == pytest.approx(scores)
    assert len({round(score, 3) for score in scores.values()}) > 3, "else nothing was compared"


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
