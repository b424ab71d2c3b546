"""Using a finished captioner from Python: what it takes, what it gives, what it refuses."""

import numpy as np
import pytest
import torch
from lightning import Trainer
from PIL import Image

from core.errors import DataError, UserError
from datamodules.scenes import SceneCaptions
from lightning_modules import AttentionRNN, MultiLabel, load_captioner, load_classifier
from tests.genome import write_genome

SMALL = {"image_encoder": "small-conv", "region_dim": 8, "hidden_dim": 8, "word_dim": 8, "attention_dim": 8}


@pytest.fixture(scope="module")
def data():
    return SceneCaptions(num_train=12, num_val=4, num_test=4, batch_size=6)


def train(module, data, folder, steps=2):
    """Trains with a Trainer that knows nothing of this project; returns what its own callback wrote."""
    settings = {"max_steps": steps, "accelerator": "cpu", "logger": False, "enable_progress_bar": False}
    trainer = Trainer(**settings, default_root_dir=folder, enable_model_summary=False)
    trainer.fit(module, data)
    assert trainer.global_step == steps
    return trainer.checkpoint_callback.best_model_path


@pytest.fixture(scope="module")
def captioner(data, tmp_path_factory):
    torch.manual_seed(0)
    module = AttentionRNN.for_data(data, **SMALL, unfreeze_epoch=0, beams=2, lr=2e-2)
    return load_captioner(train(module, data, tmp_path_factory.mktemp("plain"), steps=16))


@pytest.fixture
def image(data, tmp_path):
    """A scene, as a file without loss and as Pillow has it."""
    with Image.open(save(data, tmp_path / "scene.png")) as opened:
        return opened.convert("RGB")


def save(data, path):
    data.open_image(data.examples("test")[0]).save(path)
    return path


def test_a_plain_trainers_checkpoint_is_that_of_the_module(captioner, data):
    assert captioner.module.hparams["vocab_size"] == data.vocab_size
    assert captioner.module.inference["method"] == "attention_rnn"
    assert captioner.settings.beams == 2


def test_a_path_a_pillow_image_an_array_and_lists_of_them_are_the_same_image(captioner, data, image, tmp_path):
    path = save(data, tmp_path / "image.png")
    one = captioner.caption(image)
    ((caption, log_prob),) = one[0]
    assert isinstance(caption, str)
    assert log_prob < 0
    for same in (path, str(path), np.array(image), [image], [path], [np.array(image)], np.array(image)[None]):
        assert captioner.caption(same) == one
    several = captioner.caption([image, str(path), np.array(image)])
    assert [text for ((text, _),) in several] == [caption] * 3
    assert [value for ((_, value),) in several] == pytest.approx([log_prob] * 3, abs=1e-4)
    assert captioner.caption([]) == []


def test_grey_images_are_read(captioner, image):
    grey = image.convert("L")
    assert captioner.caption(np.array(grey)) == captioner.caption(grey) == captioner.caption(grey.convert("RGB"))


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.zeros((8, 8, 3), np.float32), r"array of float32, 8x8x3: expected an image \(H, W, 3\) or \(H, W\), uint8"),
        (np.zeros((3, 8, 8), np.uint8), "array of uint8, 3x8x8"),
        (np.zeros(8, np.uint8), "array of uint8, 8:"),
        (np.zeros((2, 8, 8, 3), np.int64), "array of int64, 8x8x3"),
    ],
)
def test_arrays_that_are_no_images_are_refused(captioner, array, said):
    with pytest.raises(UserError, match=said):
        captioner.caption(array)


def test_files_that_are_no_images_are_refused(captioner, tmp_path):
    with pytest.raises(DataError, match=r"nowhere\.png"):
        captioner.caption(tmp_path / "nowhere.png")
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(DataError, match=r"text\.png"):
        captioner.caption([tmp_path / "text.png"])


def test_scores_of_a_caption_are_those_of_the_search(captioner, image):
    """The log-probability of the caption that was found is the sum over its tokens."""
    ((caption, log_prob),) = captioner.caption(image)[0]
    output = captioner.score(image, caption)
    assert len(output.targets) < captioner.settings.max_tokens, "it was cut off, so that its end was not scored"
    assert output.logits.shape == (len(output.targets), captioner.tokenizer.vocab_size)
    chosen = output.logits.log_softmax(-1).gather(1, output.targets.unsqueeze(1))
    assert chosen.sum().item() == pytest.approx(log_prob, abs=1e-3)
    with pytest.raises(UserError, match="1 images and 2 texts: expected one each"):
        captioner.score(image, [caption, caption])


def test_maps_of_attention_sum_to_one(captioner, image):
    ((tokens, maps),) = captioner.attention(image, "a red square")
    assert tokens == ["a", "red", "square"]
    assert maps.shape == (3, 8, 8)
    torch.testing.assert_close(maps.sum((1, 2)), torch.ones(3))
    ((written, own),) = captioner.attention(image)
    assert len(written) == len(own)
    with pytest.raises(UserError, match="2 images and 1 texts"):
        captioner.attention([image, image], "a red square")


def test_a_classifier_of_a_plain_trainer_takes_the_same(data, image, tmp_path):
    torch.manual_seed(0)
    module = MultiLabel.for_data(data, image_encoder="small-conv", hidden_dims=[4], fine_tune_epochs=None)
    classifier = load_classifier(train(module, data, tmp_path))
    one = classifier.label(image)
    assert one.shape == (1, len(data.label_names))
    assert torch.equal(classifier.label(np.array(image)), one)
    assert torch.equal(classifier.label([save(data, tmp_path / "image.png")]), one)


def test_whole_pictures_are_prepared_as_for_the_store(tmp_path):
    write_genome(tmp_path / "weights")
    weights = str(tmp_path / "weights")
    data = SceneCaptions(
        num_train=12, num_val=4, num_test=4, batch_size=6, encoder="frcnn-vg", encoder_weights=weights, num_workers=0
    )
    module = AttentionRNN.for_data(data, **{**SMALL, "image_encoder": None})
    loaded = load_captioner(train(module, data, tmp_path / "run"))
    batch = loaded.image_batch([data.open_image(example) for example in data.examples("test")[:2]])
    assert torch.equal(batch["features"][1].half(), data.features("test").regions(1))
    assert batch["feature_mask"].all()
