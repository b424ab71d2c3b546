"""A signal makes a run save at the next step and end with 128 + its number; a damaged checkpoint is noticed."""

import os
import re
import shutil
import signal
from pathlib import Path

import pytest
import torch
from lightning import Callback

import cli
from callbacks.checkpoints import AtomicCheckpointIO, LastCheckpoint
from callbacks.loss_watch import LossWatch, check_finite_weights
from callbacks.stop_signals import SIGNALS
from core.errors import UserError
from lightning_modules import captioning
from tests.conftest import ROOT
from tests.test_resume import compare, last, read_rows
from tests.tiny import make_config, make_folder

# 18 training images in batches of 3: 6 batches an epoch, 18 in all


class SignalAt(Callback):
    """Sends SIGNAL_NAME to its own process at the end of batch SIGNAL_AT, or at the start of a validation."""

    def on_train_batch_end(self, trainer, *_):
        """In training."""
        if os.environ.get("SIGNAL_AT") == str(trainer.fit_loop.epoch_loop.total_batch_idx + 1):
            os.kill(os.getpid(), getattr(signal, os.environ["SIGNAL_NAME"]))

    def on_validation_batch_start(self, trainer, *_):
        """In a validation of an epoch."""
        if os.environ.get("SIGNAL_AT") == f"val{trainer.current_epoch}" and not trainer.sanity_checking:
            os.kill(os.getpid(), getattr(signal, os.environ["SIGNAL_NAME"]))


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("signals")
    path = make_config(folder / "tiny.yaml", make_folder(folder / "data"))
    path.write_text(path.read_text().replace("tests.tiny.KillAfter", "tests.test_signals.SignalAt"))
    return path


def run(config, folder, *options):
    return cli.main(["fit", "--config", str(config), "--run_dir", str(folder), "--wandb=off", *options])


@pytest.fixture(scope="module")
def alone(config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone") / "run"
    before = Path.cwd()
    os.chdir(ROOT)
    try:
        assert run(config, folder) == 0
    finally:
        os.chdir(before)
    return folder


@pytest.mark.parametrize(
    ("name", "where"), [*((name, "10") for name in SIGNALS), ("SIGTERM", "6"), ("SIGTERM", "val1")]
)
def test_interrupted_run_ends_with_the_same_bits(monkeypatch, capsys, config, alone, tmp_path, name, where):
    monkeypatch.chdir(ROOT)
    folder = tmp_path / "run"
    monkeypatch.setenv("SIGNAL_NAME", name)
    monkeypatch.setenv("SIGNAL_AT", where)
    before = signal.getsignal(getattr(signal, name))
    assert run(config, folder) == 128 + getattr(signal, name)
    assert signal.getsignal(getattr(signal, name)) == before
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith(f"interrupted by {name}")
    assert f"python cli.py resume {folder}" in line
    # at the step of the signal; in a validation, at the end of the epoch before
    assert last(folder)["global_step"] == {"10": 10, "6": 6, "val1": 6}[where]
    monkeypatch.delenv("SIGNAL_AT")
    assert cli.main(["resume", str(folder)]) == 0
    compare(last(alone), last(folder))
    assert read_rows(folder) == read_rows(alone)
    best = [torch.load(one / "checkpoints" / "best.ckpt", weights_only=True) for one in (alone, folder)]
    compare(*best)


def test_before_the_first_checkpoint_a_run_begins_again_in_its_folder(monkeypatch, capsys, config, alone, tmp_path):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("SIGNAL_NAME", "SIGTERM")
    monkeypatch.setenv("SIGNAL_AT", "val0")
    folder = tmp_path / "run"
    assert run(config, folder) == 143
    assert f"there is no checkpoint yet, begin again: python cli.py resume {folder}" in capsys.readouterr().err
    monkeypatch.delenv("SIGNAL_AT")
    assert run(config, folder) == 1
    assert f"python cli.py resume {folder}" in capsys.readouterr().err, "every way out leads to resume"
    assert cli.main(["resume", str(folder)]) == 0
    compare(last(alone), last(folder))
    assert read_rows(folder) == read_rows(alone), "the rows of the first attempt are gone"


def test_a_run_without_checkpoints_does_not_begin_again_over_itself(monkeypatch, capsys, config, tmp_path):
    monkeypatch.chdir(ROOT)
    folder = tmp_path / "run"
    assert run(config, folder, "--trainer.enable_checkpointing=false", "--trainer.max_epochs=1") == 0
    rows = (folder / "metrics.csv").read_bytes()
    assert cli.main(["resume", str(folder)]) == 1
    assert f"start a new one with python cli.py fit --config {folder}" in capsys.readouterr().err
    assert (folder / "metrics.csv").read_bytes() == rows


def test_a_requeued_job_resumes_in_its_folder(monkeypatch, capsys, config, alone, tmp_path):
    monkeypatch.chdir(ROOT)
    tools, folder, log = tmp_path / "bin", tmp_path / "run", tmp_path / "scontrol.log"
    tools.mkdir()
    (tools / "scontrol").write_text(f'#!/bin/sh\necho "$@" >> {log}\n')
    (tools / "scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    for key, value in {
        "JOB_ID": "7",
        "NTASKS": "1",
        "PROCID": "0",
        "LOCALID": "0",
        "NNODES": "1",
        "NODEID": "0",
    }.items():
        monkeypatch.setenv(f"SLURM_{key}", value)
    monkeypatch.setenv("SLURM_JOB_NAME", "x")
    monkeypatch.setenv("SIGNAL_NAME", "SIGUSR1")
    monkeypatch.setenv("SIGNAL_AT", "10")
    assert run(config, folder) == 128 + signal.SIGUSR1
    assert "the job is queued again" in capsys.readouterr().err
    assert log.read_text() == "requeue 7\n"
    monkeypatch.delenv("SIGNAL_AT")
    assert run(config, folder) == 1, "the same command by hand does not overwrite"
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert run(config, folder) == 0
    compare(last(alone), last(folder))
    assert read_rows(folder) == read_rows(alone)


def test_a_flipped_byte_is_noticed(alone, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    run = shutil.copytree(alone, tmp_path / "run")
    file = run / "checkpoints" / "last.ckpt"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"cannot be read .*best\.ckpt"):
        AtomicCheckpointIO().load_checkpoint(file)
    assert cli.main(["resume", str(run), "--trainer.max_epochs=4"]) == 1
    assert "best.ckpt" in capsys.readouterr().err


def test_losses_are_watched():
    watch = LossWatch()
    for step in range(20):
        watch.add(step, {"loss": torch.tensor(4.0)}, {"image_id": ["a"]})
    watch.check("kept")
    assert watch.diverged is None
    watch.add(20, {"loss": torch.tensor(5e3)}, {"image_id": ["a"]})
    with pytest.warns(UserWarning, match=r"5000 at step 20, the median before was 4: training has diverged"):
        watch.check("kept")
    assert watch.diverged
    watch.add(21, {"loss": torch.tensor(4.0)}, {})
    watch.check("kept")
    assert watch.diverged is None, "it came back"
    watch.add(22, {"loss": torch.tensor(float("inf"))}, {"image_id": ["x", "y"]})
    with pytest.raises(UserError, match=r"inf at step 22 \(images x, y\): kept; lower the learning rate"):
        watch.check("kept")


def test_weights_that_are_no_numbers_are_not_saved(tmp_path):
    path = tmp_path / "last.ckpt"
    weights = {"a": torch.ones(3), "b": torch.tensor([1.0, float("nan")])}
    with pytest.raises(UserError, match="weights 'b' are not finite"):
        AtomicCheckpointIO().save_checkpoint({"state_dict": weights}, path)
    assert not path.exists()
    check_finite_weights({"a": torch.ones(3), "n": torch.tensor([1]), "e": torch.zeros(0)}, "kept")


def test_weights_that_an_update_spoils_are_told_with_step_and_images(monkeypatch, capsys, config, tmp_path):
    monkeypatch.chdir(ROOT)

    def spoil(self, trainer, module, *rest):
        if trainer.global_step == 2:  # its loss is a number, and no other comes before the checkpoint
            next(parameter for parameter in module.parameters() if parameter.requires_grad).data[0] = torch.nan
        return on_batch_end(self, trainer, module, *rest)

    on_batch_end = LastCheckpoint.on_train_batch_end
    monkeypatch.setattr(LastCheckpoint, "on_train_batch_end", spoil)
    assert run(config, tmp_path / "run", "--checkpoint_steps=2") == 1
    said = capsys.readouterr().err
    assert re.search(r"not finite numbers after step 2 \(images .+, .+\): nothing was saved; lower the", said), said
    assert not (tmp_path / "run" / "checkpoints" / "last.ckpt").exists()


def test_a_run_that_diverges_does_not_end_with_code_0(monkeypatch, capsys, config, tmp_path):
    monkeypatch.chdir(ROOT)
    assert run(config, tmp_path / "run", "--model.init_args.lr=3000") == 1
    assert "lower the learning rate" in capsys.readouterr().err


def test_a_loss_that_is_huge_to_the_end_does_not_end_with_code_0(monkeypatch, capsys, config, tmp_path):
    """Every number is finite: the run trains to its end and saves, then says what it is worth."""
    monkeypatch.chdir(ROOT)
    count, loss = iter(range(14)), captioning.token_loss
    grown = lambda *args: loss(*args) + (0 if next(count, None) is not None else 1e7)  # noqa: E731  # same gradient
    monkeypatch.setattr(captioning, "token_loss", grown)
    with pytest.warns(UserWarning, match="training has diverged"):
        assert run(config, tmp_path / "run", "--trainer.limit_val_batches=0") == 1
    assert "the median before was" in capsys.readouterr().err
    assert last(tmp_path / "run")["global_step"] == 18
