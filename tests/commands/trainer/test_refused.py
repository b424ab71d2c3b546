"""Settings with which a run could not be resumed are refused in a line, before anything is written."""

import pytest
import torch
from lightning import Trainer

import cli
from commands.trainer.refused import check_checkpoint, check_sharding
from core.errors import UserError
from lightning_modules import DualTransfer
from tests.conftest import ROOT
from tests.distributed import CPUSharded
from tests.parts import write_parts
from tests.tiny import make_config

AVERAGING = "lightning.pytorch.callbacks.StochasticWeightAveraging"
DDP = "lightning.pytorch.strategies.DDPStrategy"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--trainer.strategy=ddp_spawn", "--trainer.devices=2"], "trainer.strategy is ddp_spawn, whose processes"),
        (["--trainer.strategy=ddp_fork_find_unused_parameters_true"], "such as ddp"),
        ([f"--trainer.strategy={DDP}", "--trainer.strategy.start_method=spawn"], "start_method spawn, whose processes"),
        (
            [f"--trainer.callbacks+={AVERAGING}", "--trainer.callbacks.swa_lrs=0.01"],
            "callbacks.EMAWeightAveraging",
        ),
        (
            ["--trainer.strategy=lightning.pytorch.strategies.ModelParallelStrategy"],
            "ModelParallelStrategy, which needs a plan of how each layer is divided",
        ),
    ],
)
def test_what_cannot_be_resumed_is_refused(tmp_path, capsys, monkeypatch, options, message):
    monkeypatch.chdir(ROOT)
    config = make_config(tmp_path / "x.yaml", tmp_path / "no data", epochs=1)
    assert cli.main(["fit", "--config", str(config), "--run_dir", str(tmp_path / "run"), "--wandb=off", *options]) == 1
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["x.yaml"]


def test_parts_are_trained_on_by_the_strategy_that_wrote_them(tmp_path):
    folder = write_parts({"state_dict": {"w": torch.arange(6.0)}, "inference": {}}, tmp_path / "last.ckpt")
    alone, divided = (Trainer(accelerator="cpu", logger=False, **one) for one in ({}, {"strategy": CPUSharded()}))
    check_checkpoint(folder, divided, trains=True)
    check_checkpoint(folder, alone, trains=False)
    with pytest.raises(UserError, match="is in parts, which only the strategy that wrote them can train on"):
        check_checkpoint(folder, alone, trains=True)
    (folder / "__1_0.distcp").unlink()
    with pytest.raises(UserError, match=r"its part .__1_0\.distcp. is missing"):
        check_checkpoint(folder, divided, trains=True)


def test_adapters_are_not_divided():
    model = DualTransfer.__new__(DualTransfer)
    torch.nn.Module.__init__(model)
    model.lora_rank = 8
    check_sharding(model, Trainer(accelerator="cpu", logger=False))
    with pytest.raises(UserError, match="lora_rank is 8 with weights that are divided"):
        check_sharding(model, Trainer(accelerator="cpu", logger=False, strategy=CPUSharded()))
