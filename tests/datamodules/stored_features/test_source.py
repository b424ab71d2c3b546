"""Features in the batches of a data module."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning import LightningModule, Trainer

from core.errors import UserError
from datamodules.base import CaptionDataModule
from datamodules.stored_features.store import EncoderSpec
from networks.encoders.build import build_encoder
from tests.datamodules.stored_features.test_store import SIZE, make_pictures


class Pictures(CaptionDataModule):
    def load_examples(self, split):
        return make_pictures(self.root, {"train": 6, "val": 3, "test": 2}[split])


def test_batches_carry_features_instead_of_pictures(tmp_path):
    options = {"root": str(tmp_path / "pictures"), "image_size": SIZE, "batch_size": 2, "num_workers": 0}
    plain, stored = Pictures(**options), Pictures(**options, encoder="small-conv")
    assert (plain.feature_dim, plain.feature_grid, plain.features("val")) == (None, None, None)
    assert (stored.feature_dim, stored.feature_grid) == (128, (2, 2))
    with torch.no_grad():
        expected = EncoderSpec(name="small-conv").build().grid(next(iter(plain.val_dataloader()))["image"])
    batch = next(iter(stored.val_dataloader()))
    assert "image" not in batch
    assert batch["features"].dtype == torch.float32
    assert (batch["features"] - expected).abs().max() < 1e-3
    assert batch["feature_mask"].shape == (2, 4)
    assert batch["feature_mask"].all()
    assert batch["image_id"] == ["0", "1"]


def test_rows_follow_the_sampler_in_workers_too(tmp_path):
    data = Pictures(root=str(tmp_path / "pictures"), image_size=SIZE, batch_size=3, num_workers=1, encoder="small-conv")
    data.prepare_data()
    data.trainer = None
    store = data.features("train")
    loader = data._loader("train", data._sampler("train", shuffle=True))
    for batch in loader:
        for image_id, row in zip(batch["image_id"], batch["features"], strict=True):
            assert torch.equal(row, store[int(image_id)].float())


class Mean(LightningModule):
    """The smallest module that learns from features."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(128, 1)

    def training_step(self, batch):
        return self.layer(batch["features"]).square().mean()

    def validation_step(self, batch):
        assert batch["feature_mask"].all()

    def test_step(self, batch):
        assert batch["features"].shape[1:] == (4, 128)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def test_a_trainer_prepares_what_it_is_going_to_read(tmp_path):
    def sizes():
        stores = (Path(os.environ["CAPTION_CACHE"]) / "features").glob("*/features.npy")
        return sorted(np.load(path, mmap_mode="r").shape[0] for path in stores)

    data = Pictures(root=str(tmp_path / "pictures"), image_size=SIZE, num_workers=0, encoder="small-conv")
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = Trainer(max_epochs=1, accelerator="cpu", enable_model_summary=False, **quiet)
    module = Mean()
    trainer.validate(module, data, verbose=False)
    assert sizes() == [3]
    trainer.fit(module, data)
    assert sizes() == [3, 6]
    trainer.test(module, data, verbose=False)
    assert sizes() == [2, 3, 6]


def test_the_encoder_travels_as_plain_values_and_is_checked_on_return(tmp_path):
    weights = tmp_path / "weights.pth"
    torch.save(build_encoder("small-conv", None).state_dict(), weights)
    data = Pictures(
        root=str(tmp_path / "pictures"), image_size=SIZE, encoder="small-conv", encoder_weights=str(weights)
    )
    described = json.loads(json.dumps(data.describe()["encoder"]))
    encoder = EncoderSpec(**described).build()
    assert torch.equal(encoder.state_dict()["project.bias"], torch.load(weights, weights_only=True)["project.bias"])
    torch.save(build_encoder("small-conv", None).state_dict(), weights)
    with pytest.raises(UserError, match="have changed since training"):
        EncoderSpec(**described).build()
    weights.unlink()
    with pytest.raises(UserError, match="do not exist any more"):
        EncoderSpec(**described).build()
    assert "encoder" not in Pictures(root=str(tmp_path / "pictures")).describe()


def test_contradicting_options_are_refused():
    with pytest.raises(UserError, match="augment is true with an encoder"):
        Pictures(encoder="small-conv", augment=True)
    with pytest.raises(UserError, match="encoder_weights is 'imagenet' without an encoder"):
        Pictures(encoder_weights="imagenet")
