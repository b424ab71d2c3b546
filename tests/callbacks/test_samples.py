"""The pictures that are shown are spread over the evaluation, not its first ones."""

from types import SimpleNamespace

import pytest

from callbacks.samples import CaptionSamples
from datamodules.scenes import SceneCaptions


@pytest.fixture(scope="module")
def data():
    return SceneCaptions(num_train=2, num_val=2, num_test=15, batch_size=5)


def shown(data, captioned):
    trainer = SimpleNamespace(datamodule=data, num_test_batches=[3])
    samples = CaptionSamples(count=4)
    samples.on_test_epoch_start(trainer, None)
    for number, batch in enumerate(data.test_dataloader()):
        ids = batch["image_id"] if captioned[number] else []
        outputs = {"image_id": ids, "captions": [f"batch {number} row {row}" for row in range(len(ids))]}
        samples.on_test_batch_end(trainer, None, outputs, batch, number)
    assert all(sample.references == data.references("test")[sample.image_id] for sample in samples.samples)
    return [sample.caption for sample in samples.samples]


def test_pictures_are_spread(data):
    rows = ["batch 0 row 0", "batch 0 row 2", "batch 1 row 0", "batch 2 row 0"]
    assert shown(data, [True, True, True]) == rows


def test_what_was_not_captioned_is_made_up_for(data):
    assert shown(data, [False, False, True]) == [f"batch 2 row {row}" for row in (0, 1, 2, 3)]
    assert shown(data, [True, False, False]) == ["batch 0 row 0", "batch 0 row 2"]


def test_captions_of_captions_show_no_picture(data):
    """A text autoencoder's ids are of captions."""
    samples = CaptionSamples(count=4)
    samples.on_test_epoch_start(None, None)
    trainer = SimpleNamespace(datamodule=data, num_test_batches=[3])
    batch = next(iter(data.test_dataloader()))
    outputs = {"image_id": [f"{batch['image_id'][0]}/0"], "captions": ["a dog"]}
    samples.on_test_batch_end(trainer, None, outputs, batch, 0)
    assert not samples.samples
