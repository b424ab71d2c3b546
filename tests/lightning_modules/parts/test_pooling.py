"""Covariance pooling finds its directions once, from the training pictures, and carries them in the checkpoint."""

import pytest
import torch

import cli
from core.checkpoints import read_checkpoint
from datamodules.scenes import SceneCaptions
from lightning_modules import AttentionRNN
from lightning_modules.loading import load_module
from lightning_modules.parts.pooling import fit_pooling
from tests.conftest import ROOT

SMALL = {"region_dim": 16, "hidden_dim": 24, "word_dim": 12, "attention_dim": 16}


@pytest.fixture(scope="module")
def data():
    return SceneCaptions(num_train=6, num_val=2, num_test=2, batch_size=4)


@pytest.fixture
def module(data):
    torch.manual_seed(0)
    tokens = {name: getattr(data, name) for name in ("vocab_size", "bos_id", "eos_id", "pad_id")}
    return AttentionRNN(**SMALL, **tokens, image_encoder="small-conv", start_pooling="covariance").train()


def test_directions_are_those_of_the_training_pictures(data, module):
    state = torch.get_rng_state()
    fit_pooling(module, module.pooling_forward, data, torch.device("cpu"))
    assert torch.equal(torch.get_rng_state(), state)
    assert module.training
    assert not module.captioner.encoder.training
    pictures = torch.cat([batch["image"] for batch in data.plain_train_dataloader()])
    with torch.no_grad():
        regions = module.captioner.encoder.eval().grid(pictures).flatten(0, 1).double()
    layer = module.captioner.pooling.covariance
    torch.testing.assert_close(layer.centre, regions.mean(0).float(), atol=1e-5, rtol=1e-4)
    variance = ((regions - regions.mean(0)) @ layer.directions.double().t()).var(0, unbiased=False)
    expected = torch.linalg.eigvalsh(torch.cov(regions.t(), correction=0)).flip(0)[: len(variance)]
    torch.testing.assert_close(variance, expected, atol=1e-6, rtol=1e-3)


def test_directions_are_found_once(data, module):
    fit_pooling(module, module.pooling_forward, data, torch.device("cpu"))
    before = module.captioner.pooling.covariance.directions.clone()
    with torch.no_grad():
        for parameter in module.captioner.encoder.parameters():
            parameter.mul_(2)
    fit_pooling(module, module.pooling_forward, data, torch.device("cpu"))
    assert torch.equal(module.captioner.pooling.covariance.directions, before)


def test_a_limit_takes_pictures_evenly(data):
    ids = [name for batch in data.plain_train_dataloader(3) for name in batch["image_id"]]
    every = [name for batch in data.plain_train_dataloader() for name in batch["image_id"]]
    assert ids == every[::2]


def test_a_run_carries_its_directions_and_a_resumed_one_keeps_them(monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    run = tmp_path / "run"
    small = ["--data.init_args.num_train=8", "--data.init_args.num_val=2", "--data.init_args.num_test=2"]
    widths = [f"--model.init_args.{name}={width}" for name, width in SMALL.items()]
    options = ["--model.init_args.start_pooling=covariance", "--model.init_args.beams=1", *small, *widths]
    fit = ["fit", "--config", "experiments/offline/attention_rnn.yaml", "--wandb=off", f"--run_dir={run}"]
    assert cli.main([*fit, "--trainer.max_epochs=1", *options]) == 0
    name = "captioner.pooling.covariance."
    first = read_checkpoint(str(run / "checkpoints" / "last.ckpt"))["state_dict"]
    assert first[f"{name}fitted"]
    assert cli.main(["resume", str(run), "--trainer.max_epochs=2"]) == 0
    second = read_checkpoint(str(run / "checkpoints" / "last.ckpt"))
    assert second["epoch"] == 1
    assert torch.equal(second["state_dict"][f"{name}directions"], first[f"{name}directions"])
    loaded = load_module(str(run)).captioner.pooling.covariance
    assert torch.equal(loaded.directions, first[f"{name}directions"])
