"""A killed run, resumed, ends with the same bits as one that was left alone."""

import csv
import json
import os
import signal
import subprocess
import sys

import pytest
import torch

import cli
from tests.conftest import ROOT
from tests.tiny import make_config, make_folder

# 20 training images in batches of 3: 7 batches an epoch, 21 in all


def run_and_kill(config, run, killed_after, *options):
    """Starts a run in a process of its own that kills itself."""
    command = [sys.executable, "cli.py", "fit", "--config", str(config), "--run_dir", str(run), "--wandb=off", *options]
    environment = {**os.environ, "KILL_AFTER": str(killed_after)}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert done.returncode == -signal.SIGKILL, done.stderr


def read_rows(run):
    """The logged figures, all but those of the clock."""
    with (run / "metrics.csv").open(newline="") as file:
        return [
            {key: row[key] for key in sorted(row) if not key.startswith("throughput")} for row in csv.DictReader(file)
        ]


def last(run):
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)


@pytest.mark.parametrize(
    ("workers", "accumulate", "killed_after"),
    [(0, 1, 10), (2, 2, 13)],  # in the second, the kill falls into an accumulation window
)
def test_killed_run_ends_with_the_same_bits(tmp_path, monkeypatch, workers, accumulate, killed_after):
    monkeypatch.chdir(ROOT)
    root = make_folder(tmp_path / "data")
    config = make_config(tmp_path / "tiny.yaml", root, workers, accumulate)
    options = ["--checkpoint_steps=2"]
    alone, killed = tmp_path / "runs" / "alone", tmp_path / "runs" / "killed"
    run_and_kill(config, killed, killed_after, *options)
    begun = last(killed)["global_step"]
    assert 0 < begun < last_step(killed_after, accumulate) + 1
    assert cli.main(["resume", str(killed)]) == 0
    assert cli.main(["fit", "--config", str(config), "--run_dir", str(alone), "--wandb=off", *options]) == 0
    compare(last(alone), last(killed))
    assert read_rows(killed) == read_rows(alone)


@pytest.mark.slow
def test_killed_run_on_shards_ends_with_the_same_bits(tmp_path, monkeypatch):
    """The shuffle buffer holds 8 of the 20 images, and the kill falls into a window in the second epoch."""
    monkeypatch.chdir(ROOT)
    root, shards = make_folder(tmp_path / "data"), tmp_path / "shards"
    words = ["--splits", "train", "val", "--images_per_shard=3", "--out", str(shards)]
    assert cli.main(["data", "shard", "folder_captions", "--root", str(root), *words]) == 0
    config = make_config(tmp_path / "tiny.yaml", shards, 2, 1)
    settings = json.loads(config.read_text())
    settings["data"]["class_path"] = "datamodules.shards.ShardedCaptions"
    settings["data"]["init_args"]["shuffle_buffer"] = 8
    config.write_text(json.dumps(settings))
    options = ["--checkpoint_steps=2"]
    alone, killed = tmp_path / "runs" / "alone", tmp_path / "runs" / "killed"
    run_and_kill(config, killed, 10, *options)
    assert cli.main(["resume", str(killed)]) == 0
    assert cli.main(["fit", "--config", str(config), "--run_dir", str(alone), "--wandb=off", *options]) == 0
    compare(last(alone), last(killed))
    assert read_rows(killed) == read_rows(alone)


def last_step(batches, accumulate):
    """Optimiser steps after a number of batches; the last window of an epoch may be short."""
    epochs, rest = divmod(batches, 7)
    return epochs * -(-7 // accumulate) + rest // accumulate


def compare(one, other):
    assert one["global_step"] == other["global_step"]
    assert one["state_dict"].keys() == other["state_dict"].keys()
    for name, tensor in one["state_dict"].items():
        assert torch.equal(tensor, other["state_dict"][name]), name
    for mine, theirs in zip(
        one["optimizer_states"][0]["state"].values(), other["optimizer_states"][0]["state"].values(), strict=True
    ):
        assert all(torch.equal(mine[key], theirs[key]) for key in mine)
