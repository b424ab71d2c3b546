"""What a checkpoint can be asked for without its data set."""

import pytest
import torch

from core.errors import UserError
from lightning_modules import MultiLabel
from lightning_modules.loading import load_module
from lightning_modules.serving import check_reads_images


def test_model_of_stored_regions_takes_no_pictures():
    check_reads_images({"method": "attention_rnn"})
    with pytest.raises(UserError, match=r"detector\.tsv.*predict"):
        check_reads_images({"regions": {"files": "detector.tsv", "width": 2048}})


def test_a_checkpoint_of_another_version_says_so(tmp_path):
    settings = {"image_encoder": "small-conv", "hidden_dims": [4], "num_labels": 2}
    weights = MultiLabel(**settings).state_dict()
    inference = {"method": "multilabel"}

    def load(**changes):
        whole = {"inference": inference, "hyper_parameters": settings, "state_dict": weights}
        torch.save({**whole, **changes}, tmp_path / "run.ckpt")
        return load_module(tmp_path / "run.ckpt")

    assert torch.equal(load().state_dict()["classifier.head.1.weight"], weights["classifier.head.1.weight"])
    renamed = {name.replace("classifier.head", "head"): value for name, value in weights.items()}
    with pytest.raises(
        UserError, match=r"another version of this code: .*; 8 tensors differ, first 'classifier\.head\.1\.bias'"
    ):
        load(state_dict=renamed)
    with pytest.raises(UserError, match=r"another version of this code: .*; its setting 'depth' is not known here"):
        load(hyper_parameters={**settings, "depth": 3})
