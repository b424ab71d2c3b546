"""Two processes train together and score exactly as one."""

import json
import os
import subprocess
import sys

import pytest
import torch

from tests.conftest import ROOT
from tests.tiny import make_config, make_folder


def start(*args):
    """Runs the command line in a process of its own, which starts the others of its kind."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "cli.py", *args], cwd=ROOT, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
def test_two_processes_score_as_one(tmp_path):
    root = make_folder(tmp_path / "data", count=25)
    config = make_config(tmp_path / "tiny.yaml", root, epochs=2)
    run = tmp_path / "runs" / "tiny" / "one"
    both = ("--trainer.devices=2", "--trainer.strategy=ddp")
    start("fit", "--config", str(config), "--run_dir", str(run), "--wandb=off", *both)
    assert {path.name for path in (run / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    options = ("--ckpt_path", str(run), "--data.init_args.evaluate_on=train")  # an odd number of pictures
    start("validate", *options)
    start("validate", *options, *both)
    one, two = run / "eval" / "validate", run / "eval" / "validate-2"
    predictions = [json.loads((folder / "predictions.json").read_text()) for folder in (one, two)]
    assert len(predictions[0]) % 2 == 1
    assert predictions[0] == predictions[1]
    scores = [json.loads((folder / "metrics.json").read_text())["this model"] for folder in (one, two)]
    assert scores[0].pop("loss") == pytest.approx(scores[1].pop("loss"), rel=1e-5)
    assert scores[0] == scores[1]
    assert torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 8
