"""Settings with which a run could not be resumed are refused in a line, before anything is written."""

import pytest

import cli
from tests.conftest import ROOT
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
