"""A tiny captioner, a tiny classifier, and a few pictures, made once."""

from dataclasses import asdict

import pytest
import torch

from datamodules.scenes import SceneCaptions
from lightning_modules import AttentionRNN, MultiLabel

SMALL = {"image_encoder": "small-conv", "region_dim": 8, "hidden_dim": 8, "word_dim": 8, "attention_dim": 8}


@pytest.fixture(scope="package")
def scenes():
    return SceneCaptions(num_train=8, num_val=2, num_test=23, max_tokens=8)


@pytest.fixture(scope="package")
def runs(scenes, tmp_path_factory):
    """Checkpoints: a captioner, the same with other weights, a classifier."""
    folder = tmp_path_factory.mktemp("runs")
    torch.manual_seed(0)
    modules = {
        "captioner": AttentionRNN.for_data(scenes, **SMALL, beams=2),
        "other": AttentionRNN.for_data(scenes, **SMALL, beams=2),
        "classifier": MultiLabel(image_encoder="small-conv", hidden_dims=[8], num_labels=24),
    }
    for name, module in modules.items():
        module.inference = {"method": module.method, **scenes.describe()}
        if name != "classifier":
            module.inference["decoding"] = asdict(module.decoding("test"))
        checkpoint = {"state_dict": module.state_dict(), "hyper_parameters": dict(module.hparams)}
        module.on_save_checkpoint(checkpoint)
        torch.save(checkpoint, folder / f"{name}.ckpt")
    return folder


@pytest.fixture(scope="package")
def pictures(scenes, tmp_path_factory):
    """23 pictures in a folder, not to be changed."""
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "sub").mkdir()
    for number, example in enumerate(scenes.examples("test")):
        scenes.open_image(example).save(folder / ("sub" if number % 2 else "") / f"{number:02d}.png")
    return folder
