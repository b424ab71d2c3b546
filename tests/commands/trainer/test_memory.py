"""Memory that does not suffice: one line that says what to change; and the batch size that fits, found by one flag."""

import pytest
import torch
import yaml

import cli
from commands.trainer.memory import batch_size_in, is_out_of_memory, out_of_memory, save_batch_size
from lightning_modules import DualTransfer
from tests.conftest import ROOT
from tests.tiny import make_config, make_folder

CUDA = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 8 GiB")
CPU = RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried to ...")


@pytest.fixture
def line(monkeypatch, tmp_path):
    """A command that trains on 18 pictures."""
    monkeypatch.chdir(ROOT)
    config = make_config(tmp_path / "tiny.yaml", make_folder(tmp_path / "data"), epochs=1)
    return ["fit", "--config", str(config), "--wandb=off", "--run_dir", str(tmp_path / "run")]


def limited(monkeypatch, most, error=CUDA):
    """Lets every step on more images than this run out of memory; returns the sizes of all batches."""
    sizes = []
    step = DualTransfer.training_step

    def training_step(self, batch, batch_idx):
        sizes.append(len(batch["image_id"]))
        if sizes[-1] > most:
            raise error
        return step(self, batch, batch_idx)

    monkeypatch.setattr(DualTransfer, "training_step", training_step)
    return sizes


@pytest.mark.parametrize("error", [CUDA, CPU, MemoryError()], ids=["cuda", "cpu", "python"])
def test_one_line_says_what_to_change(monkeypatch, capsys, line, error):
    limited(monkeypatch, 0, error)
    assert cli.main(line) == 1
    lines = [text for text in capsys.readouterr().err.splitlines() if text.startswith("error: ")]
    assert len(lines) == 1
    assert "Traceback" not in lines[0]
    assert "batch_size (now 3)" in lines[0]
    for flag in ("--trainer.accumulate_grad_batches", "gradient_checkpointing=true", "--trainer.precision=bf16-mixed"):
        assert flag in lines[0]


def test_what_is_set_already_is_not_proposed():
    config = {"model": {"init_args": {"gradient_checkpointing": True}}, "trainer": {"precision": "16-mixed"}}
    text = str(out_of_memory(CUDA, config))
    assert "gradient_checkpointing" not in text
    assert "precision" not in text
    assert out_of_memory(ValueError("another"), config) is None
    assert not is_out_of_memory(RuntimeError("shapes do not match"))


def test_the_size_is_found_used_and_kept(monkeypatch, caplog, line, tmp_path):
    """From 3 on it is doubled: 6, and 12, which fails. The run, its configuration and its resume have 6."""
    sizes = limited(monkeypatch, 6)
    assert cli.main([*line, "--find_batch_size=true"]) == 0
    assert "batch size 6 found: 12 runs out of memory" in caplog.text
    assert sizes == [3, 3, 3, 6, 6, 6, 12, *[6, 6, 6]]  # trials of three steps, and an epoch of 18 images
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert config["data"]["init_args"]["batch_size"] == 6
    assert config["find_batch_size"] is False
    checkpoint = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 3
    assert cli.main(["resume", str(tmp_path / "run"), "--trainer.max_epochs=2"]) == 0
    assert sizes[10:] == [6, 6, 6]


def test_a_first_size_that_is_too_large_is_halved(monkeypatch, caplog, line):
    limited(monkeypatch, 1)
    assert cli.main([*line, "--find_batch_size=true"]) == 0
    assert "batch size 1 found" in caplog.text


def test_trials_change_nothing_of_the_training(monkeypatch, line, tmp_path):
    """The run with the size found ends with the weights of a run that was given this size."""
    limited(monkeypatch, 6)
    given = [*line[:-1], str(tmp_path / "given"), "--data.init_args.batch_size=6"]
    assert cli.main([*line, "--find_batch_size=true"]) == 0
    assert cli.main(given) == 0
    one, two = (
        torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for name in ("run", "given")
    )
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_no_size_fits(monkeypatch, capsys, line):
    limited(monkeypatch, 0)
    assert cli.main([*line, "--find_batch_size=true"]) == 1
    assert "out of memory with a batch of one image" in capsys.readouterr().err


def test_several_processes_are_told_to_find_it_on_one(monkeypatch, capsys, line):
    monkeypatch.setattr("lightning.Trainer.world_size", property(lambda self: 2))
    assert cli.main([*line, "--find_batch_size=true"]) == 1
    assert "--trainer.devices=1" in capsys.readouterr().err


def test_the_size_of_the_data_inside_of_other_data():
    config = {"data": {"init_args": {"source": {"init_args": {"batch_size": 4}}}}}
    assert batch_size_in(config) == 4
    save_batch_size(config, 8)
    assert batch_size_in(config) == 8
    assert batch_size_in({}) is None
