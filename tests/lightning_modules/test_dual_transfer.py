"""Laws of the dual-transfer module: what the loss counts, what learns, what a checkpoint brings back."""

import pytest
import torch
from PIL import Image

from core.errors import UserError
from datamodules.loading.dataset import CaptionDataset, Collate
from datamodules.loading.tokenization import WordTokenizer
from datamodules.readers.image_refs import ImageFile
from datamodules.readers.records import Example
from datamodules.readers.transforms import ImageTransform
from lightning_modules import DualTransfer
from lightning_modules.base import rate_factor
from lightning_modules.captioning import CaptioningModule
from networks.losses.tokens import token_loss

CAPTIONS = ("a red square on a table", "two blue circles", "a dog")
TOKENIZER = WordTokenizer.build(CAPTIONS, 1, 12)


@pytest.fixture
def batch(tmp_path):
    examples = []
    for number, (colour, captions) in enumerate((("red", CAPTIONS[:2]), ("blue", CAPTIONS[2:]))):
        Image.new("RGB", (40, 40), colour).save(tmp_path / f"{colour}.png")
        examples.append(Example(image_id=number, image=ImageFile(str(tmp_path / f"{colour}.png")), captions=captions))
    data = CaptionDataset(examples=examples, transform=ImageTransform(size=32), tokenizer=TOKENIZER)
    return Collate(pad_id=TOKENIZER.pad_id)([data[0], data[1]])


def make(**changes):
    torch.manual_seed(0)
    settings = {
        "image_encoder": "small-conv",
        "image_weights": None,
        "language_weights": None,
        "language_layers": 2,
        "language_heads": 2,
        "language_dim": 16,
        "dropout": 0.0,
        "max_tokens": 12,
        "vocab_size": TOKENIZER.vocab_size,
        "bos_id": TOKENIZER.bos_id,
        "eos_id": TOKENIZER.eos_id,
        "pad_id": TOKENIZER.pad_id,
    }
    module = DualTransfer(**{**settings, **changes})
    module.log = lambda *args, **kwargs: None
    return module


def test_batch_is_flat_and_padded_to_its_longest_caption(batch):
    assert batch["image_index"].tolist() == [0, 0, 1]
    assert batch["caption_lengths"].tolist() == [8, 5, 4]
    assert batch["caption_ids"].shape == (3, 8)
    assert (batch["caption_ids"][2, 4:] == TOKENIZER.pad_id).all()


@pytest.mark.parametrize("merging", ["mlp", "layer_norm", "batch_norm", "gru", "gru_published", "two_sided"])
def test_every_parameter_learns(batch, merging):
    module = make(merging=merging)
    module.training_step(batch, 0).backward()
    assert [name for name, p in module.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


def test_image_is_encoded_once_however_many_captions(batch, monkeypatch):
    module = make()
    seen = []
    encoder, forward = module.captioner.encoder, module.captioner.encoder.feature_map
    monkeypatch.setattr(encoder, "feature_map", lambda image: seen.append(len(image)) or forward(image))
    module.training_step(batch, 0)
    assert seen == [2]


def test_gradient_checkpointing_changes_nothing(batch):
    plain, saving = make(), make(gradient_checkpointing=True)
    saving.load_state_dict(plain.state_dict())
    losses = [module.training_step(batch, 0) for module in (plain, saving)]
    for loss in losses:
        loss.backward()
    torch.testing.assert_close(*losses)
    other = dict(saving.named_parameters())
    for name, parameter in plain.named_parameters():
        torch.testing.assert_close(parameter.grad, other[name].grad, msg=name)
    for name, buffer in plain.named_buffers():
        torch.testing.assert_close(buffer, dict(saving.named_buffers())[name], msg=name)


def test_published_loss_counts_padding(batch):
    module = make(as_published=True).eval()
    correct = module.training_step(batch, 0)
    module.captioner.train()
    module.train()
    published = module.training_step(batch, 0)
    # by hand: every caption filled with token 0 up to 12, all positions counted
    memory = module.captioner.encode(batch)
    filled = torch.zeros(3, 12, dtype=torch.long)
    for row, length in enumerate(batch["caption_lengths"]):
        filled[row, :length] = batch["caption_ids"][row, :length]
    output = module.captioner(memory, filled, torch.full((3,), 12), batch["image_index"])
    assert len(output.targets) == 33
    torch.testing.assert_close(published, token_loss(output.logits, output.targets))
    assert published.item() != pytest.approx(correct.item())


def test_rates():
    assert rate_factor(0, 0, "constant", 0) == 1
    assert rate_factor(10, 2, "linear", 10) == 0
    assert rate_factor(6, 2, "cosine", 10) == pytest.approx(0.5)


def test_only_stored_features_are_pooled():
    with pytest.raises(UserError, match="pooling is covariance, but 'small-conv' makes a vector of its own"):
        make(pooling="covariance")


def test_attention_to_boxes_has_no_map():
    assert CaptioningModule.grid(None, 49) == (7, 7)
    with pytest.raises(UserError, match="the 6 regions of this run are boxes and no grid"):
        CaptioningModule.grid(None, 6)
